"""Numbers of a step beside its loss, averaged over its micro-batches."""

from __future__ import annotations

from torch import Tensor


class Figures:
    """Sums since they were last taken.

    Example:
        >>> import torch
        >>> figures = Figures()
        >>> figures.add(accuracy=torch.tensor([1.0, 0.0]))
        >>> figures.take()
        {'accuracy': 0.5}
    """

    def __init__(self) -> None:
        self._sums: dict[str, tuple[float, int]] = {}

    def add(self, **values: Tensor) -> None:
        """Counts in the numbers of a micro-batch, one an item."""
        for name, value in values.items():
            total, count = self._sums.get(name, (0.0, 0))
            self._sums[name] = total + float(value.detach().float().sum()), count + value.numel()

    def so_far(self) -> dict[str, tuple[float, int]]:
        """What `go_back` takes."""
        return dict(self._sums)

    def go_back(self, sums: dict[str, tuple[float, int]]) -> None:
        """Forgets what was added since, as of an attempt that failed."""
        self._sums = dict(sums)

    def take(self) -> dict[str, float]:
        """Means of everything added since the last call."""
        means = {name: total / count for name, (total, count) in self._sums.items() if count}
        self._sums.clear()
        return means
