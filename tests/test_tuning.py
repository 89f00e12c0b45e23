"""Learning rates that are tried: as many for every method, the best one kept, the others' weights thrown away."""

import json
import math
import sys
from pathlib import Path

import pytest

from harness.comparison import train_only
from harness.errors import UserError
from harness.runs import load_run
from harness.spec import configure
from harness.tuning import tune

pytest.importorskip("optuna")


@pytest.mark.parametrize("trials", [2, 3, 5, 8])
def test_the_budget_is_kept_and_the_methods_own_rate_is_tried_first(trials: int) -> None:
    tried: list[float] = []

    def loss_of(lr: float) -> float:
        tried.append(lr)
        return abs(math.log10(lr / 5e-4))

    found = tune(1e-4, trials, loss_of)
    assert found is not None
    assert len(tried) == trials == len(found.trials) and tried[0] == 1e-4
    assert found.lr == min(tried, key=lambda lr: abs(math.log10(lr / 5e-4)))
    assert all(1e-4 / 31 <= lr <= 1e-4 * 31 for lr in tried)


def test_the_same_losses_lead_to_the_same_rates() -> None:
    first, second = (tune(2e-5, 6, lambda lr: abs(math.log10(lr) + 4)) for _ in range(2))
    assert first == second


def test_a_training_that_fails_is_no_choice() -> None:
    found = tune(1e-3, 3, lambda lr: None if lr > 5e-4 else lr)
    assert found is not None and found.lr == 3.3e-4
    assert [trial.validation_loss is None for trial in found.trials] == [True, False, True]
    assert tune(1e-3, 3, lambda lr: None) is None


def test_without_optuna_the_user_is_told_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "optuna", None)
    with pytest.raises(UserError, match="needs optuna") as error:
        tune(1e-3, 3, lambda lr: lr)
    assert "finetune-harness[tune]" in str(error.value.hint)


def test_a_method_is_trained_with_the_rate_that_did_best_and_the_trials_are_on_record(tmp_path: Path) -> None:
    config = configure(
        ["lora"],
        tasks=["mini_gsm8k"],
        tune_lr=2,
        train={"steps": 3, "samples": 40, "batch_size": 4},
        output_dir=tmp_path,
    )
    artifact = train_only(config).artifact
    assert (artifact / "adapter_model.safetensors").is_file()
    [run] = [load_run(path.parent) for path in tmp_path.glob("*/run.json")]
    train = run.variants[0].train
    assert train is not None and len(train.tuning) == 2
    best = min(train.tuning, key=lambda trial: trial.validation_loss or math.inf)
    assert train.lr == best.lr and train.validation_loss == best.validation_loss
    assert train.reused  # the trial with that rate is the training
    figures = sorted(artifact.parent.glob("*/trained.json"))
    assert len(figures) == 3  # two trials and the training
    hollow = [path.parent for path in figures if not (path.parent / "adapter_model.safetensors").exists()]
    assert len(hollow) == 1 and json.loads((hollow[0] / "trained.json").read_text())["trained"]["validation_loss"]
