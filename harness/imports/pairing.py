"""Finds the samples that two runs share, or says why they cannot be compared."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from harness.imports.record import ImportedTask, Keys, Measured
from harness.report.numbers import counted
from harness.stats.observations import Observations
from harness.stats.paired import Difference, PairedDifference, paired
from harness.stats.unpaired import mean_difference, share_difference

_SAME = frozenset(["acc", "acc_norm", "word_perplexity", "byte_perplexity"])
"""Metrics of lm-eval that our own of the same name reproduce; the tests of `tests/tasks` and `tests/parity` show it."""
_RENAMED = {
    ("gsm8k", "exact_match,strict-match"): "strict",
    ("gsm8k", "exact_match,flexible-extract"): "flexible",
}
"""By lm-eval's task and metric: our own name of the same metric."""
_LONGEST = 60


class Compared(NamedTuple):
    """A difference of two runs on one metric, and what it does not cover."""

    difference: Difference
    test: str
    a: Observations | None
    b: Observations | None
    left_out: str = ""


@dataclass(frozen=True)
class Incomparable:
    """Why two runs are not compared on a metric."""

    reason: str


def own_name(task: ImportedTask, metric: str) -> str:
    """The name of a metric in our own words, if another tool's metric is proven to be the same.

    Args:
        task: The task, of any tool.
        metric: Its metric, as the tool names it.
    """
    return _RENAMED.get((task.name, metric), metric) if task.definition == "lm-eval" else metric


def definition(task: ImportedTask, metric: str) -> tuple[str, str]:
    """The identity of a metric: equal for two runs only if both compute the same."""
    name = own_name(task, metric)
    shared = task.definition == "lm-eval" and (name in _SAME or name != metric)
    return ("harness" if shared else task.definition), name


def compare(
    a: ImportedTask, b: ImportedTask, first: Measured, second: Measured, seed: int = 0
) -> Compared | Incomparable:
    """Compares two runs on a metric: paired by samples if both have them, else by their numbers and errors.

    Args:
        a: The task of the run in question.
        b: The same task of the run that it is compared with.
        first: The metric of the first.
        second: The metric of the second.
        seed: Seed of sign-flip tests.
    """
    for name in a.settings:
        if name in b.settings and a.settings[name] != b.settings[name]:
            values = [a.settings[name], b.settings[name]]
            shown = f": {values[0]} and {values[1]}" if all(len(each) <= _LONGEST for each in values) else ""
            return Incomparable(f"another {name}{shown}")
    if first.value is None or second.value is None:
        return Incomparable("no number")
    if first.samples is None or second.samples is None:
        if a.definition != b.definition:
            return Incomparable("without samples, nothing shows that the two tools asked the same")
        return _unpaired(first, second)
    found = shared_rows(a, b, first, second)
    if isinstance(found, Incomparable):
        return found
    mine, theirs, left_out = found
    groups = _chosen(first.samples.groups, mine) or _chosen(second.samples.groups, theirs)
    clusters = _chosen(first.samples.clusters, mine) or _chosen(second.samples.clusters, theirs)
    observed = [
        Observations(each.samples.values[rows], groups=groups, clusters=clusters, bounds=each.bounds)
        for each, rows in ((first, mine), (second, theirs))
        if each.samples is not None
    ]
    tested = paired(observed[0], observed[1], seed=seed)
    if tested is None:
        return Incomparable("a single shared sample that is not 0 or 1")
    return Compared(tested, tested.test, observed[0], observed[1], left_out)


def observations(measured: Measured) -> Observations | None:
    """The samples of a metric as the statistics take them."""
    samples = measured.samples
    if samples is None:
        return None
    return Observations(samples.values, groups=samples.groups, clusters=samples.clusters, bounds=measured.bounds)


def _unpaired(first: Measured, second: Measured) -> Compared | Incomparable:
    assert first.value is not None and second.value is not None
    if first.share and second.share and first.n and second.n:
        return Compared(share_difference(first.value, first.n, second.value, second.n), "unpaired z", None, None)
    errors = [_error(each) for each in (first, second)]
    if errors[0] is None or errors[1] is None:
        return Incomparable("no samples and no standard error")
    found = mean_difference(first.value, errors[0], second.value, errors[1])
    return (
        Incomparable("no samples, and no error above zero")
        if found is None
        else Compared(found, "unpaired z", None, None)
    )


def _error(measured: Measured) -> float | None:
    if measured.error is not None or measured.samples is None or len(measured.samples.values) < 2:
        return measured.error
    values = measured.samples.values
    return float(values.std(ddof=1) / np.sqrt(len(values)))


Rows = NDArray[np.intp]


def _chosen(labels: tuple[str, ...] | None, rows: Rows) -> tuple[str, ...] | None:
    return None if labels is None else tuple(labels[index] for index in rows.tolist())


def shared_rows(
    a: ImportedTask, b: ImportedTask, first: Measured, second: Measured
) -> tuple[Rows, Rows, str] | Incomparable:
    """The indices of the shared samples in both, in the order of the first, and what is left out; or why there are none."""
    assert first.samples is not None and second.samples is not None
    if a.definition == b.definition and a.definition != "harness":
        keys, others = first.samples.documents, second.samples.documents
        kind = "document"
    else:
        keys, others, kind = first.samples.requests, second.samples.requests, "prompt"
    if keys is None or others is None:
        return Incomparable("the two tools identify samples differently")
    mine, theirs = _meet(keys, others)
    if not len(mine):
        return Incomparable(f"no shared {kind}")
    total = max(len(keys), len(others))
    if kind == "document" and first.samples.prompts is not None and second.samples.prompts is not None:
        same = first.samples.prompts[mine] == second.samples.prompts[theirs]
        if not same.any():
            return Incomparable(f"other prompts for the same {counted(len(mine), 'document')}")
        mine, theirs = mine[same], theirs[same]
    if len(mine) == total:
        return mine, theirs, ""
    return (
        mine,
        theirs,
        f"compared on {len(mine):,} of {total:,} samples: only these have the same document and prompt in both",
    )


def _meet(keys: Keys, others: Keys) -> tuple[Rows, Rows]:
    if len(keys) == len(others) and bool((keys == others).all()):  # the usual case
        rows = np.arange(len(keys))
        return rows, rows
    _, mine, theirs = np.intersect1d(keys, others, assume_unique=True, return_indices=True)
    order = np.argsort(mine)
    return mine[order], theirs[order]


def is_paired(found: Compared) -> bool:
    """Whether a difference was computed sample by sample."""
    return isinstance(found.difference, PairedDifference)
