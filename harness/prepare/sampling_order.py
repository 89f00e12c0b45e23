"""The order in which `--until-decided` scores samples, and the tasks that it scores whole.

Every prefix of a random order is a random sample of the task; an order by subject or by difficulty has no such prefix.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np

from harness.jobs import Item
from harness.prepare.tasks import ScoredTask


def why_whole(task: ScoredTask, items: Sequence[Item]) -> str | None:
    """Says why no decision about a task is possible before all of its samples are scored; None if one is."""
    metric = task.metrics[0]
    if metric.value is not None or metric.whole is not None:
        return f"its headline `{metric.name}` is a number of the whole set of samples"
    if all(item.cluster is not None for item in items):
        return "its samples are clustered"
    if metric.bounds is None or not all(map(math.isfinite, metric.bounds)):
        return f"the range of its headline `{metric.name}` is not known (`Metric(bounds=…)`)"
    return None


def in_random_order(
    tasks: Sequence[ScoredTask], items: Mapping[str, Sequence[Item]], seed: int
) -> dict[str, list[Item]]:
    """Puts the samples of each task that may be decided early in a random order; the same for all variants."""
    found = {}
    for task in tasks:
        mine = list(items[task.name])
        if why_whole(task, mine) is None:
            mine = [mine[index] for index in np.random.default_rng([seed, len(mine)]).permutation(len(mine))]
        found[task.name] = mine
    return found
