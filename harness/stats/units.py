"""Independent units: samples, or whole clusters of samples, in strata.

>>> import numpy as np
>>> passages = Layout.of(3, clusters=("a", "a", "b"))
>>> passages.sums(np.array([1.0, 2.0, 6.0])).tolist()
[3.0, 6.0]
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
Labels = Sequence[str] | None


@dataclass(frozen=True, eq=False)
class Layout:
    """The units of n samples, and their strata."""

    codes: NDArray[np.intp]
    """`[n]` unit of each sample."""
    strata: list[NDArray[np.intp]]
    """Indices of the units in each stratum; every stratum has at least two units, if there are two in total."""
    clustered: bool

    @classmethod
    def of(cls, count: int, groups: Labels = None, clusters: Labels = None) -> Layout:
        """Makes the layout of samples.

        Strata with a single unit have no spread of their own, so they are joined; a lone one joins the smallest other
        stratum. If a cluster spans several groups, groups are ignored.

        Args:
            count: Number of samples n.
            groups: Stratum of each sample.
            clusters: Cluster of each sample.
        """
        strata_labels = list(groups) if groups is not None else [""] * count
        codes = np.arange(count)
        if clusters is not None:
            codes, names = codes_of(clusters)
            home = dict(zip(codes.tolist(), strata_labels, strict=True))
            nested = all(home[code] == label for code, label in zip(codes.tolist(), strata_labels, strict=True))
            strata_labels = [home[code] if nested else "" for code in range(len(names))]
        return cls(codes, _strata(strata_labels), clusters is not None)

    def __len__(self) -> int:
        return sum(map(len, self.strata))

    def sums(self, table: Array) -> Array:
        """Sums `[n]` or `[n, k]` numbers of samples over each unit."""
        if not self.clustered:
            return table
        sums = np.zeros((len(self), *table.shape[1:]))
        np.add.at(sums, self.codes, table)
        return sums

    def deal(self, most: int) -> NDArray[np.intp]:
        """Assigns samples to groups of the delete-a-group jackknife; equal layouts always give equal groups.

        Units are dealt like cards, stratum by stratum and in random order within each, so every group has its share of
        every stratum. A cluster is in one group.

        Args:
            most: The largest number of groups; there are fewer if there are fewer units.

        Returns:
            `[n]` group numbers from 0.

        Example:
            >>> np.bincount(Layout.of(100).deal(40)).tolist() == [3] * 20 + [2] * 20
            True
        """
        generator = np.random.default_rng(0)
        order = np.concatenate([generator.permutation(members) for members in self.strata])
        parts = np.empty(len(order), dtype=np.intp)
        parts[order] = np.arange(len(order)) % most
        return parts[self.codes]


def codes_of(labels: Sequence[str]) -> tuple[NDArray[np.intp], list[str]]:
    """Numbers the labels in order of first appearance; returns the number of each, and the distinct labels.

    Example:
        >>> codes_of(["law", "art", "law"])[0].tolist()
        [0, 1, 0]
    """
    names: dict[str, int] = {}
    codes = np.array([names.setdefault(label, len(names)) for label in labels], dtype=np.intp)
    return codes, list(names)


def _strata(labels: Sequence[str]) -> list[NDArray[np.intp]]:
    codes, names = codes_of(labels)
    order = np.argsort(codes, kind="stable")
    strata = np.split(order, np.cumsum(np.bincount(codes, minlength=len(names)))[:-1])
    large = [stratum for stratum in strata if len(stratum) > 1]
    single = np.concatenate([stratum for stratum in strata if len(stratum) == 1] or [order[:0]])
    if len(single) == 1 and large:
        smallest = min(range(len(large)), key=lambda index: len(large[index]))
        large[smallest] = np.concatenate([large[smallest], single])
    elif len(single):
        large.append(single)
    return large
