"""Learning-rate search: as many trials for every method, the best trial kept, the weights of the others deleted."""

import json
import math
import sys
from collections import defaultdict
from pathlib import Path
from typing import Any

import pytest

from harness.comparison.run import RunInProgress
from harness.comparison.state import Session
from harness.comparison.training import train_only
from harness.comparison.tuning import tune
from harness.config.parse import configure
from harness.errors import UserError
from harness.prepare.prepare import prepare
from harness.report.progress import Progress
from harness.runs.folder import RunFolder, load_run
from harness.worker.server import JobFailed

pytest.importorskip("optuna")


@pytest.mark.parametrize("trials", [2, 3, 5, 8])
def test_the_budget_is_kept_and_the_methods_own_learning_rate_is_tried_first(trials: int) -> None:
    tried: list[float] = []

    def loss_of(lr: float) -> float:
        tried.append(lr)
        return abs(math.log10(lr / 5e-4))

    found = tune(1e-4, trials, loss_of)
    assert found is not None
    assert len(tried) == trials == len(found.trials) and tried[0] == 1e-4
    assert found.lr == min(tried, key=lambda lr: abs(math.log10(lr / 5e-4)))
    assert all(1e-4 / 31 <= lr <= 1e-4 * 31 for lr in tried)


def test_the_same_losses_lead_to_the_same_learning_rates() -> None:
    first, second = (tune(2e-5, 6, lambda lr: abs(math.log10(lr) + 4)) for _ in range(2))
    assert first == second


def test_a_failed_trial_is_never_chosen() -> None:
    found = tune(1e-3, 3, lambda lr: None if lr > 5e-4 else lr)
    assert found is not None and found.lr == 3.3e-4
    assert [trial.validation_loss is None for trial in found.trials] == [True, False, True]
    assert tune(1e-3, 3, lambda lr: None) is None


def test_without_optuna_the_user_is_told_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "optuna", None)
    with pytest.raises(UserError, match="needs optuna") as error:
        tune(1e-3, 3, lambda lr: lr)
    assert "finetune-harness[tune]" in str(error.value.hint)


def failing(tmp_path: Path, *variants: str, **settings: Any) -> tuple[RunInProgress, list[Any]]:
    """A comparison in which every training run fails, and its jobs."""
    jobs: list[Any] = []

    class Broken:
        def run(self, job: Any, on_event: Any) -> None:
            jobs.append(job)
            raise JobFailed("out of memory")

    config = configure(variants, tasks=["mini_gsm8k"], output_dir=tmp_path, **settings)
    session = Session(prepare(config), RunFolder(tmp_path / "run", 0), "")
    session.environment = {"device": "cpu", "dtype": "float32", "mixed_precision": False, "packages": defaultdict(str)}
    return RunInProgress(session, Broken(), Progress(), 0.0), jobs  # type: ignore[arg-type]


def test_learning_rates_that_all_fail_are_tried_once_for_all_seeds(tmp_path: Path) -> None:
    comparison, jobs = failing(tmp_path, "lora", tune_lr=2, seeds=3)
    comparison.train_all()
    assert len(jobs) == 2
    errors = [state.error for state in comparison.session.states.values()]
    assert errors == ["training failed with every learning rate that was tried"] * 3


def test_a_start_whose_training_failed_is_not_taken_from_an_earlier_attempt(tmp_path: Path) -> None:
    comparison, jobs = failing(tmp_path, "first=lora", "then=lora:rank=4,start=first")
    session = comparison.session
    first, then = session.prepared.trainings
    session.folder.artifact(first.id, first.saves).mkdir(parents=True)
    comparison.train_all()
    assert [job.output.name for job in jobs] == [session.folder.artifact(first.id, first.saves).name]
    assert [state.status for state in session.states.values()] == ["failed", "failed"]
    assert "which was not trained" in str(session.states["then"].error)
    session.states["first"].artifact = tmp_path
    assert session.missing(then) is None


def test_a_method_is_trained_with_the_best_learning_rate_and_the_trials_are_recorded(
    tmp_path: Path, in_process: None
) -> None:
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
    assert train.reused  # the trial with that learning rate is the training run
    figures = sorted(artifact.parent.glob("*/trained.json"))
    assert len(figures) == 3  # two trials and the training run
    hollow = [path.parent for path in figures if not (path.parent / "adapter_model.safetensors").exists()]
    assert len(hollow) == 1 and json.loads((hollow[0] / "trained.json").read_text())["trained"]["validation_loss"]
