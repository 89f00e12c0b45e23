"""The check that a metric is given the kind of sample that it can score."""

from __future__ import annotations

from typing import Any, TypeVar

from harness.errors import UserError

Kind = TypeVar("Kind")


def expect(kind: type[Kind], sample: Any, metric: str) -> Kind:
    """The sample, if it is of this kind.

    Raises:
        UserError: It is another kind; says which metric asked.
    """
    if not isinstance(sample, kind):
        raise UserError(
            f"metric `{metric}` scores {kind.__name__} samples, and this task makes {type(sample).__name__} samples",
            hint="change the task's `metrics`, or what its `sample` function returns",
        )
    return sample
