"""Helpers that several metrics share: checks of a sample, its targets, a mean computed from sums."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

from harness.api import Generate, Output
from harness.errors import UserError
from harness.stats.functions import SumRatio

SampleType = TypeVar("SampleType")


@dataclass(frozen=True)
class Extracting:
    """A function of a metric that first extracts an answer from the text.

    Args:
        measure: The function.
        found: Whether a text has an answer.
    """

    measure: Callable[[Output, Any], Any]
    found: Callable[[Output, Any], bool]

    def __call__(self, output: Output, sample: Any) -> Any:
        return self.measure(output, sample)


def expect(kind: type[SampleType], sample: Any, metric: str) -> SampleType:
    """Returns the sample if it has the type that the metric scores.

    Raises:
        UserError: The sample has another type; the message names the metric.
    """
    if not isinstance(sample, kind):
        raise UserError(
            f"metric `{metric}` scores {kind.__name__} samples, and this task makes {type(sample).__name__} samples",
            hint="change the task's `metrics`, or the type that its `sample` function returns",
        )
    return sample


def missing_meta(metric: str, needed: str, hint: str) -> UserError:
    """Makes the error for a sample whose `meta` lacks an entry that the metric needs.

    Args:
        metric: Name of the metric.
        needed: The missing entry, as the end of "needs `meta` with".
        hint: An example.
    """
    return UserError(f"metric `{metric}` needs `meta` with {needed}, which a sample does not have", hint=hint)


def targets_of(sample: Generate) -> list[str]:
    """Returns the targets of a sample, one or several, as a list."""
    return [sample.target] if isinstance(sample.target, str) else list(sample.target)


mean_of_sums = SumRatio()
"""Divides a sum by a count; NaN for a count of 0."""
