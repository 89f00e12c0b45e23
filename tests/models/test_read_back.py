"""Every artifact is read back before anybody receives it, and must give the logits of the model that was saved."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import stages
import tiny_models as tiny
import torch
from safetensors.torch import load_file, save_file

from harness.jobs import MergeJob, Recipe, TrainJob
from harness.models import artifacts
from harness.models.load import load_base
from harness.models.read_back import NotReadBack, probe_logits, release
from harness.worker import child

METHODS = """
import torch
from harness import method

@method(lr=1e-2)
def random_part(model, *, seeded: bool = True):
    if seeded:
        torch.manual_seed(5)
    model.register_buffer("frozen", torch.randn(344))
    model.lm_head.register_forward_hook(lambda _, __, logits: logits + model.frozen)
    model.requires_grad_(False)
    model.model.norm.requires_grad_(True)
    return model
"""


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("read-back")
    tiny.save_tiny(root / "llama")
    (root / "methods.py").write_text(METHODS)
    return root


def job(root: Path, output: Path, name: str = "lora", **settings: Any) -> TrainJob:
    return stages.job_for(root, output, name, stage="sft", steps=2, **settings)


def damage(monkeypatch: pytest.MonkeyPatch, function: str, change: Any) -> None:
    """Has what is saved changed on its way to the disk."""
    save = getattr(artifacts, function)

    def broken(model: Any, *arguments: Any, **options: Any) -> None:
        save(model, *arguments, **options)
        (file,) = next(path for path in arguments if isinstance(path, Path)).glob("*.safetensors")
        save_file(change(load_file(file)), file, metadata={"format": "pt"})

    for module in (artifacts, child, __import__("harness.finetune.training.trainer", fromlist=["x"])):
        if hasattr(module, function):
            monkeypatch.setattr(module, function, broken)


def halved(weights: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    name = max(name for name in weights if "proj" in name or "norm" in name)
    return {**weights, name: weights[name] * 0.5 + 0.1}


def fewer(weights: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {name: weight for name, weight in weights.items() if name != min(weights)}


@pytest.mark.parametrize("name", ["lora", "full", "ln"])
def test_an_artifact_that_is_another_model_is_not_left(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    damage(monkeypatch, "save_artifact", halved)
    with pytest.raises(NotReadBack, match="is not the model that was trained: its logits differ by"):
        stages.train(job(root, tmp_path, name))
    assert not (tmp_path / "artifact").exists()


@pytest.mark.parametrize("name", ["lora", "full"])
def test_an_artifact_that_lacks_weights_is_not_left(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    damage(monkeypatch, "save_artifact", fewer)
    with pytest.raises(NotReadBack, match="the artifact that was saved cannot be loaded: "):
        stages.train(job(root, tmp_path, name))
    assert not (tmp_path / "artifact").exists()


def test_a_merged_checkpoint_that_is_another_model_is_not_left(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    base = tiny.tiny_base(root / "llama")
    adapter = tiny.save_random_lora(tmp_path / "adapter", base)
    damage(monkeypatch, "save_checkpoint", halved)
    with pytest.raises(NotReadBack, match="logits differ"):
        child.merge(MergeJob(Recipe(base, adapter, merged=True), tmp_path / "merged"))
    assert not (tmp_path / "merged").exists()


def test_a_method_with_another_random_part_at_each_call_is_refused(root: Path, tmp_path: Path) -> None:
    made = {
        seeded: replace(
            job(root, tmp_path / str(seeded)),
            method=tiny.from_file(root / "methods.py", "random_part", seeded=seeded),
        )
        for seeded in (True, False)
    }
    stages.train(made[True])
    with pytest.raises(NotReadBack, match="must make the same model whenever it is called on the same base"):
        stages.train(made[False])


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("name", ["lora", "full", "ln", "prefix", "qlora"])
def test_sound_artifacts_pass_in_every_precision(root: Path, tmp_path: Path, name: str, dtype: str) -> None:
    base = tiny.tiny_base(root / "llama", bits=4 if name == "qlora" else None, dtype=dtype)
    stages.train(job(root, tmp_path, name, base=base, precision="fp32" if dtype == "float32" else "bf16"))
    assert (tmp_path / "artifact").is_dir()


def test_a_released_model_holds_no_weights(root: Path) -> None:
    model = load_base(tiny.tiny_base(root / "llama"))
    assert probe_logits(model).shape == (16, 344)
    release(model)
    assert sum(parameter.numel() for parameter in model.parameters()) == 0
