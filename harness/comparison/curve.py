"""Reads the curves of a training in a line."""

from __future__ import annotations

import math
from collections.abc import Sequence


def read_curve(losses: Sequence[float], held_out: Sequence[float] = ()) -> str:
    """A few words that read a loss curve, and what to do about it.

    Diverged when a loss is no finite number, or when the last quarter is higher than the first step by more than 20 %:
    training has undone what the model knew. Overfitting when the loss of held-out rows ends more than 5 % above its lowest.
    Else the last quarter against the one before it, of the held-out losses where there are enough of them: still falling
    when it is lower by more than 5 %; oscillating when the training loss is higher by more than 5 % or its steps scatter
    by more than half of their mean; else converged.

    Args:
        losses: Of the steps.
        held_out: Of the looks at held-out rows, in order.

    Example:
        >>> read_curve([4.0, 2.0, 1.0, 0.5])
        'still falling: more steps may help'
        >>> read_curve([4.0] + [1.0] * 40)
        'converged'
        >>> read_curve([4.0, 2.0, 1.0, 0.5], [2.0, 1.5, 1.8])
        'overfitting: stop earlier'
        >>> read_curve([4.0] + [7.15] * 40)
        'diverged: lower the rate'
    """
    if not all(map(math.isfinite, (*losses, *held_out))):
        return "diverged: lower the rate"
    if len(losses) < 4:
        return "too short to tell"
    last, mean, earlier = _quarters(losses)
    if mean > 1.2 * losses[0] > 0:
        return "diverged: lower the rate"
    spread = (sum((x - mean) ** 2 for x in last) / len(last)) ** 0.5
    if held_out and held_out[-1] > 1.05 * min(held_out):
        return "overfitting: stop earlier"
    if mean > 1.05 * earlier or spread > 0.5 * mean:
        return "oscillating: lower the rate"
    if len(held_out) >= 4:
        _, mean, earlier = _quarters(held_out)
    return "still falling: more steps may help" if mean < 0.95 * earlier else "converged"


def read_rewards(rewards: Sequence[float]) -> str:
    """What the rewards of a policy's answers did, where its loss says nothing.

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
    """The last quarter, its mean, and the mean of the one before it."""
    quarter = max(1, len(values) // 4)
    last, before = values[-quarter:], values[-2 * quarter : -quarter]
    return last, sum(last) / len(last), sum(before) / len(before)
