"""Random scores whose true mean is known, for simulations of intervals and tests.

The shapes are not those on which the constants in `harness/stats/bounded.py` were chosen.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from harness.stats.observations import Observations

Array = NDArray[np.float64]
Draw = Callable[[np.random.Generator, int], Array]


def _power(mean: float) -> Draw:
    return lambda rng, n: rng.random(n) ** (1 / mean - 1)


def _flipped(draw: Draw) -> Draw:
    return lambda rng, n: 1 - draw(rng, n)


def _steps(rng: np.random.Generator, n: int) -> Array:
    """A judge's five marks, mostly the best."""
    return rng.choice([0.0, 0.25, 0.5, 0.75, 1.0], size=n, p=[0.02, 0.03, 0.05, 0.2, 0.7])


def _overlap(rng: np.random.Generator, n: int) -> Array:
    """Like the overlap of words: a quarter are zero, the rest have a hump at 0.3."""
    return np.where(rng.random(n) < 0.25, 0.0, rng.beta(3, 7, n))


def _triangle(rng: np.random.Generator, n: int) -> Array:
    return rng.triangular(0, 0.05, 0.1, n)


GRADED: dict[str, tuple[Draw, float]] = {
    "power, mean .02": (_power(0.02), 0.02),
    "power, mean .98": (_flipped(_power(0.02)), 0.98),
    "power, mean .1": (_power(0.1), 0.1),
    "five marks, mean .88": (_steps, 0.8825),
    "word overlap, mean .22": (_overlap, 0.225),
    "triangle within .1": (_triangle, 0.05),
}
"""Graded scores from 0 to 1 with their true means."""


def _rare(share: float, loss: float, noise: float) -> Draw:
    def draw(rng: np.random.Generator, n: int) -> Array:
        gain = share * loss / (1 - share)
        return np.where(rng.random(n) < share, -loss, gain + noise * rng.uniform(-1, 1, n))

    return draw


def _overlaps(rng: np.random.Generator, n: int) -> Array:
    base = _overlap(rng, n)
    return np.clip(base + rng.laplace(0, 0.1, n), 0, 1) - np.clip(base + rng.laplace(0, 0.1, n), 0, 1)


def _marks(rng: np.random.Generator, n: int) -> Array:
    return _steps(rng, n) - _steps(rng, n)


NULLS: dict[str, Draw] = {
    "word overlap": _overlaps,
    "five marks": _marks,
    "2.5 % lose .9": _rare(0.025, 0.9, 0.0),
    "6 % lose .7, noise": _rare(0.06, 0.7, 0.03),
    "1 % lose .6, noise": _rare(0.01, 0.6, 0.01),
}
"""Differences of graded scores, from −1 to 1, with a mean of 0."""


def corpus(rng: np.random.Generator, n: int) -> tuple[Array, Array]:
    """Draws total losses and sizes of documents; sizes are lognormal (4, 1). The true loss per word is 2.8."""
    words = rng.lognormal(4, 1, n).astype(int) + 5.0
    return words * rng.gamma(4, 0.7, n), words


def clustered(rng: np.random.Generator, clusters: int, effect: float = 1.0) -> tuple[Array, tuple[str, ...]]:
    """Draws differences with a mean of 0 in clusters of geometric sizes (mean 10), with an effect of each cluster."""
    sizes = rng.geometric(0.1, clusters)
    labels = tuple(np.repeat(np.arange(clusters).astype(str), sizes).tolist())
    return effect * np.repeat(rng.normal(0, 1, clusters), sizes) + rng.normal(0, 1, int(sizes.sum())), labels


def differs(values: Array, **labels: Any) -> tuple[Observations, Observations]:
    """Makes two variants whose scores differ by these values; with bounds, their scores are within ± 1/2 of each other."""
    bounds = labels.pop("bounds", None)
    first, second = (values / 2 + 0.5, 0.5 - values / 2) if bounds else (values, np.zeros(len(values)))
    return Observations(first, bounds=bounds, **labels), Observations(second, bounds=bounds, **labels)
