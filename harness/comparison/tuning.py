"""A learning rate for each method, found on held-out rows, with as many trials for one method as for another.

optuna proposes: first the method's own rate, a third and three times it, then rates that its tree-structured Parzen
estimator (Bergstra et al., "Algorithms for Hyper-Parameter Optimization", NeurIPS 2011) expects most of.

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
"""Rates further from the method's own than this are not tried."""


@dataclass(frozen=True)
class Trial:
    """A rate that was tried."""

    lr: float
    validation_loss: float | None
    """None: the training failed or diverged."""


@dataclass(frozen=True)
class Tuned:
    """The rate whose training left the lowest loss of the held-out rows, and all that were tried."""

    lr: float
    trials: tuple[Trial, ...]


def tune(default: float, trials: int, loss_of: Callable[[float], float | None]) -> Tuned | None:
    """Tries so many rates.

    Args:
        default: The method's own rate.
        trials: How many.
        loss_of: Trains with a rate and gives the loss of the held-out rows; None where that failed.

    Returns:
        None where every training failed.

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
