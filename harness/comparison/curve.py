"""Describes the curves of a training run in one line."""

from __future__ import annotations

import math
from collections.abc import Sequence


def read_curve(losses: Sequence[float], held_out: Sequence[float] = ()) -> str:
    """Describes a loss curve and suggests what to change.

    - Diverged: a loss is not finite, or the mean of the last quarter is more than 20 % above the first step.
    - Overfitting: the last held-out loss is more than 5 % above the lowest.
    - Oscillating: the mean training loss of the last quarter is more than 5 % above that of the quarter before, or its
      standard deviation is more than half of its mean.
    - Still falling: the mean of the last quarter is more than 5 % below that of the quarter before; held-out losses are
      used if there are at least four.
    - Converged: none of these.

    Args:
        losses: Training loss of each step.
        held_out: Held-out loss of each evaluation, in order.

    Example:
        >>> read_curve([4.0, 2.0, 1.0, 0.5])
        'still falling: more steps may help'
        >>> read_curve([4.0] + [1.0] * 40)
        'converged'
        >>> read_curve([4.0, 2.0, 1.0, 0.5], [2.0, 1.5, 1.8])
        'overfitting: stop earlier'
        >>> read_curve([4.0] + [7.15] * 40)
        'diverged: lower the learning rate'
    """
    if not all(map(math.isfinite, (*losses, *held_out))):
        return "diverged: lower the learning rate"
    if len(losses) < 4:
        return "too short to tell"
    last, mean, earlier = _quarters(losses)
    if mean > 1.2 * losses[0] > 0:
        return "diverged: lower the learning rate"
    spread = (sum((x - mean) ** 2 for x in last) / len(last)) ** 0.5
    if held_out and held_out[-1] > 1.05 * min(held_out):
        return "overfitting: stop earlier"
    if mean > 1.05 * earlier or spread > 0.5 * mean:
        return "oscillating: lower the learning rate"
    if len(held_out) >= 4:
        _, mean, earlier = _quarters(held_out)
    return "still falling: more steps may help" if mean < 0.95 * earlier else "converged"


def read_rewards(rewards: Sequence[float]) -> str:
    """Describes how the reward changed, for stages whose loss is not informative.

    Example:
        >>> read_rewards([0.1, 0.1, 0.2, 0.5, 0.8, 0.9, 0.9, 0.9])
        'reward from 0.1 to 0.9'
    """
    if len(rewards) < 4:
        return "too short to tell"
    quarter = len(rewards) // 4
    first, last = sum(rewards[:quarter]) / quarter, sum(rewards[-quarter:]) / quarter
    return f"reward from {first:.3g} to {last:.3g}"


def _quarters(values: Sequence[float]) -> tuple[Sequence[float], float, float]:
    """Returns the last quarter, its mean, and the mean of the quarter before."""
    quarter = max(1, len(values) // 4)
    last, before = values[-quarter:], values[-2 * quarter : -quarter]
    return last, sum(last) / len(last), sum(before) / len(before)
