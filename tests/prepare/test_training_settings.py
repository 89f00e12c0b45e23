"""Settings of a training run: resolved once, from what was given, for training and for planning alike."""

from pathlib import Path
from typing import Any

import pytest

from harness.comparison.memory_plan import _job
from harness.config.parse import configure
from harness.prepare.prepare import prepare
from harness.prepare.training_settings import given_settings, on_machine, resolve
from harness.settings import TrainingSettings

MACHINE = {"device": "cpu", "dtype": "float32", "mixed_precision": True}


def resolved(variant: str, *, embedded: bool = False, **shared: Any) -> TrainingSettings:
    config = configure([variant], tasks=["mini_gsm8k"], train=shared)
    [spec] = config.variants
    assert spec.entry is not None
    return resolve(given_settings(config, spec), spec.entry, seed=3, embedded=embedded)


def test_what_is_left_out_is_filled_in() -> None:
    found = resolved("lora")
    assert (found.lr, found.steps, found.epochs, found.seed) == (2e-4, None, 1.0, 3)
    assert (found.batch_size, found.micro_batch_size, found.max_length, found.precision) == (16, 16, 1024, "auto")
    tiny = resolved("lora", embedded=True)
    assert (tiny.lr, tiny.steps, tiny.epochs) == (2e-3, 150, None)


def test_what_is_given_stays() -> None:
    found = resolved("lora:lr=1e-3,epochs=2", embedded=True, steps=9, batch_size=4, schedule="linear")
    assert (found.lr, found.steps, found.epochs, found.batch_size, found.schedule) == (1e-3, None, 2.0, 4, "linear")


@pytest.mark.parametrize(("given", "micro"), [("", 4), (",micro_batch_size=2", 2), (",micro_batch_size=9", 4)])
def test_a_micro_batch_is_at_most_a_batch(given: str, micro: int) -> None:
    assert resolved(f"lora:batch_size=4{given}").micro_batch_size == micro


@pytest.mark.parametrize(
    ("given", "dtype", "mixed", "precision"),
    [
        ("auto", "float32", False, "fp32"),
        ("auto", "float32", True, "bf16"),
        ("auto", "bfloat16", True, "bf16"),
        ("auto", "float16", True, "fp16"),
        ("fp32", "float16", True, "fp32"),
        ("bf16", "float32", False, "bf16"),
    ],
)
def test_the_precision_is_the_given_one_else_what_fits_the_machine(
    given: str, dtype: str, mixed: bool, precision: str
) -> None:
    machine = {"dtype": dtype, "mixed_precision": mixed}
    assert on_machine(resolved("lora", precision=given), machine).precision == precision


def test_a_train_key_has_the_settings_of_the_loop_under_the_same_names() -> None:
    """Another name would give every artifact another key: none would be found again."""
    assert " ".join(sorted(resolved("lora").of_the_loop())) == (
        "batch_size beta checkpointing clip desirable_weight epochs evaluate_every generations label_smoothing layer_decay lr"
        " max_length max_tokens micro_batch_size neftune optimizer packing patience precision rates schedule seed stage steps"
        " temperature undesirable_weight warmup weight_decay"
    )


def test_a_plan_is_made_with_the_settings_that_are_trained_with(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("pairs.jsonl").write_text('{"prompt": "Q", "chosen": "a", "rejected": "b"}\n' * 4)
    config = configure(
        ["lora:clip=0,max_length=64", "full", "p=lora:stage=dpo,data=pairs.jsonl,batch_size=4"], tasks=["mini_gsm8k"]
    )
    trainings = [variant.training for variant in prepare(config).variants]
    trained = [on_machine(training.settings, MACHINE) for training in trainings if training]
    planned = [_job(config, spec, tmp_path, MACHINE, 1).training for spec in config.variants]
    assert planned[:2] == trained[:2]
    assert planned[2] == trained[2].model_copy(update={"micro_batch_size": 8})  # a better and a worse answer each
