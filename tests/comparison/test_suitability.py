"""Methods that do not fit the model fail their own row, and are known before anything is trained."""

import json
import shutil
from pathlib import Path

import pytest

from harness.cli import main
from harness.comparison import dry_run
from harness.comparison import run as comparison
from harness.config.parse import configure
from harness.registry.find import list_entries
from harness.results import Run

SHORT = {"tasks": ["mini_mmlu"], "limit": 4, "train": {"steps": 1, "batch_size": 2}}
MISFITS = {
    "bitfit": "has no biases to train; `bitfit:add=true`",
    "big=lora:rank=5000": "rank 5000 is larger than layer",
    "typo=peft:type=FOO": "peft has no type `FOO`",
    "other=lora:rank=2,start=sft": "does not have the same shape in both",
    "experts=lora:target_modules=experts": "this model has no experts",
    "given=lora:rank=4,start=./kept": "does not have the same shape in both",
}


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, in_process: None) -> Path:
    monkeypatch.chdir(tmp_path)
    run = comparison.run(configure(["lora:rank=8"], **SHORT))
    artifact = run.variants[0].artifact
    assert artifact is not None
    next(tmp_path.glob(f"runs/*/{artifact.path}")).rename(tmp_path / "kept")
    return tmp_path


def test_unsuitable_methods_fail_their_rows_before_training_and_the_others_finish(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    variants = ["base", "sft=lora:rank=4", *MISFITS]
    asked = ["compare", *variants, "--tasks", "mini_mmlu", "--limit", "4", "--steps", "1", "--train-batch-size", "2"]
    assert main([*asked, "--format", "json"]) == 1
    said = capsys.readouterr()
    run = Run.model_validate(json.loads(said.out))
    assert [variant.status for variant in run.variants] == ["done", "done", *["failed"] * len(MISFITS)]
    for variant, expected in zip(run.variants[2:], MISFITS.values(), strict=True):
        assert expected in str(variant.error)
    assert all(variant.scores and variant.inference for variant in run.variants[:2])
    assert said.err.index("Fail   given") < said.err.index("Train")
    assert main([*asked, "--dry-run"]) == 1
    planned = capsys.readouterr().out
    assert planned.count("# fails  ") == len(MISFITS) and all(text in planned for text in MISFITS.values())


def test_every_method_that_can_train_the_model_is_found_suitable(in_process: None) -> None:
    """Some of them read weights, which the check does not have."""
    variants = [f"{entry.name}{':add=true' if entry.name == 'bitfit' else ''}" for entry in list_entries("method")]
    named = [f"m{number}={variant}" for number, variant in enumerate(variants)]
    assert dry_run.plan(configure(["base", *named], **SHORT)).fails == {}


METHODS = '''
from harness import UserError, method

@method
def refuses(model):
    """Refuses this model."""
    raise UserError("no such layer", hint="use another model")

@method
def reads(model):
    """Reads the weights."""
    next(model.parameters()).sum().item()
    model.lm_head.requires_grad_(True)
    return model

@method
def dies(model):
    """Ends its process."""
    raise SystemExit(0)
'''


def test_methods_of_a_users_file_are_checked_as_far_as_they_need_no_weights(folder: Path) -> None:
    (folder / "own.py").write_text(METHODS)
    found = dry_run.plan(configure([f"./own.py@{name}" for name in ("refuses", "reads")], **SHORT))
    assert found.fails == {"./own.py@refuses": "no such layer; use another model"}


def test_adapters_that_do_not_fit_fail_alone(folder: Path) -> None:
    settings = json.loads((folder / "kept" / "adapter_config.json").read_text())
    wrong = {"r": 3}, {"num_virtual_tokens": "many"}, {"rank_pattern": 5}, {"lora_alpha": "x"}
    for number, changes in enumerate(wrong):
        shutil.copytree(folder / "kept", folder / f"wrong{number}")
        (folder / f"wrong{number}" / "adapter_config.json").write_text(json.dumps(settings | changes))
    run = comparison.run(configure(["base", *(f"./wrong{number}" for number in range(len(wrong)))], **SHORT))
    assert [variant.status for variant in run.variants[:2]] == ["done", "failed"]
    assert "does not fit this base" in str(run.variants[1].error)
    assert [variant.status for variant in run.variants[3:]] == ["failed", "failed"]
    assert "`rank_pattern` is not an object" in str(run.variants[3].error)
    assert "does not fit this base: TypeError: " in str(run.variants[4].error)
