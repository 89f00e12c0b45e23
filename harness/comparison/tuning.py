"""Searches a learning rate for each method on held-out rows, with the same number of trials for every method.

optuna proposes the learning rates: first the method's own, a third of it and three times it, then those that its tree-structured
Parzen estimator (Bergstra et al., "Algorithms for Hyper-Parameter Optimization", NeurIPS 2011) expects to be best.

Example:
    >>> from math import log10
    >>> found = tune(1e-4, 5, lambda lr: abs(log10(lr) + 3.5))
    >>> len(found.trials), found.lr
    (5, 0.0003)
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from harness.prepare.checks import require_optuna

_FACTORS = (1.0, 1 / 3, 3.0)
_WIDEST = 30.0
"""Largest factor between the method's own learning rate and one that is tried."""


@dataclass(frozen=True)
class Trial:
    """A learning rate that was tried."""

    lr: float
    validation_loss: float | None
    """None: the training run failed or diverged."""


@dataclass(frozen=True)
class Tuned:
    """The learning rate with the lowest loss on the held-out rows, and all trials."""

    lr: float
    trials: tuple[Trial, ...]


def tune(default: float, trials: int, loss_of: Callable[[float], float | None]) -> Tuned | None:
    """Tries learning rates and returns the best.

    Args:
        default: The method's own learning rate.
        trials: Number of learning rates to try.
        loss_of: Trains with a learning rate and returns the loss on the held-out rows; None if that failed.

    Returns:
        None if every training run failed.

    Raises:
        UserError: optuna is not installed.
    """
    require_optuna()
    import optuna

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    sampler = optuna.samplers.TPESampler(seed=0, n_startup_trials=len(_FACTORS))
    study = optuna.create_study(direction="minimize", sampler=sampler)
    for factor in _FACTORS[:trials]:
        study.enqueue_trial({"lr": default * factor})
    tried: list[Trial] = []
    for _ in range(trials):
        asked = study.ask()
        lr = float(f"{asked.suggest_float('lr', default / _WIDEST, default * _WIDEST, log=True):.2g}")
        loss = loss_of(lr)
        tried.append(Trial(lr, loss))
        study.tell(asked, loss, state=None if loss is not None else optuna.trial.TrialState.FAIL)
    known = [(trial.validation_loss, trial.lr) for trial in tried if trial.validation_loss is not None]
    return Tuned(min(known)[1], tuple(tried)) if known else None
