"""Figures of a step besides its loss, such as the accuracy on pairs, averaged over its micro-batches."""

from __future__ import annotations

from torch import Tensor


class Figures:
    """Adds up figures by name until their means are taken.

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
        """Adds the figures of a micro-batch: a tensor with one number per row or answer for each name."""
        for name, value in values.items():
            total, count = self._sums.get(name, (0.0, 0))
            self._sums[name] = total + float(value.detach().float().sum()), count + value.numel()

    def snapshot(self) -> dict[str, tuple[float, int]]:
        """Returns the current sums, for `restore`."""
        return dict(self._sums)

    def restore(self, snapshot: dict[str, tuple[float, int]]) -> None:
        """Removes what was added since the snapshot, such as the figures of a failed attempt."""
        self._sums = dict(snapshot)

    def take(self) -> dict[str, float]:
        """Returns the means of everything added since the last call."""
        means = {name: total / count for name, (total, count) in self._sums.items() if count}
        self._sums.clear()
        return means
