"""A finished run of any tool, in the words that the tables use: tasks, scores, and the samples behind them."""

from __future__ import annotations

import hashlib
from array import array
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from harness.results import Comparison, Protocol, Variant

Keys = NDArray[np.uint64]


@dataclass(frozen=True, eq=False)
class Samples:
    """The scores of single samples by one metric; 32 bytes a sample, so a million of them fit anywhere."""

    values: NDArray[np.float64]
    documents: Keys | None = None
    """Digest of each document, as the tool identifies it: comparable within one tool only."""
    prompts: Keys | None = None
    """Digest of each prompt."""
    requests: Keys | None = None
    """Digest of each request as our own samples files have it (`prompt_sha256`), where the file has all parts of it."""
    groups: tuple[str, ...] | None = None
    """Stratum of each sample (a subject of MMLU)."""
    clusters: tuple[str, ...] | None = None
    """Cluster of each sample (a passage): samples of one cluster are not independent."""


@dataclass(frozen=True)
class SampleText:
    """The texts of one sample, for `harness diff`."""

    id: str
    prompt: str | None
    target: str | None
    answer: str


Texts = Callable[[str, Collection[int]], Mapping[int, SampleText]]
"""Reads the texts of the samples of a metric at some indices."""


@dataclass(frozen=True, eq=False)
class Measured:
    """One metric of a task: the number as the tool has it, and what its uncertainty can be computed from."""

    metric: str
    value: float | None
    higher_is_better: bool
    n: int
    """Number of samples; 0 if it is not known."""
    error: float | None = None
    """Standard error as the tool gives it."""
    low: float | None = None
    """Ends of the 95 % interval as the tool gives it."""
    high: float | None = None
    share: bool = False
    """Whether the value is a share of n samples that are each right or wrong."""
    bounds: tuple[float, float] | None = None
    """Ends of the scale, if they are known."""
    samples: Samples | None = None


@dataclass(frozen=True, eq=False)
class ImportedTask:
    """A task as one run scored it; its first metric is the headline."""

    name: str
    measured: tuple[Measured, ...]
    protocol: Protocol
    settings: Mapping[str, str]
    """Everything known that decides a score, by name. Runs are compared only if all names that both have agree."""
    definition: str
    """Who defines the metrics: metrics of two tools are the same only if it is proven (`same_metric`)."""
    texts: Texts | None = None
    data: str | None = None
    trained_on: bool = False
    """Whether the runs were trained for this task."""


@dataclass(frozen=True, eq=False)
class ImportedRun:
    """One model's results from one tool: a row of the table."""

    name: str
    tool: str
    """Name and version of the tool."""
    file: Path
    spec: str
    """Model and arguments as the tool recorded them."""
    model: str
    """Name of the base."""
    created: str
    tasks: tuple[ImportedTask, ...]
    lacks: tuple[str, ...]
    """Facts that the files lack, in the words of the note."""
    variant: Variant | None = None
    """Training run, costs and parameters, where they are known."""
    device: str | None = None
    """Machine of the costs; costs of two machines are never in one table."""
    notes: tuple[str, ...] = ()
    comparisons: tuple[Comparison, ...] = ()
    """Differences between variants of one run of our own, which keep their tests."""


def digest(*parts: str) -> int:
    """A 64-bit digest of texts: two of a million samples are equal by chance once in 37 million files.

    Example:
        >>> digest("a", "b") == digest("a", "b") != digest("ab", "")
        True
    """
    found = hashlib.blake2b(digest_size=8)
    for part in parts:
        text = part.encode("utf-8", "surrogatepass")
        found.update(len(text).to_bytes(8, "little"))
        found.update(text)
    return int.from_bytes(found.digest(), "little")


@dataclass
class SampleColumns:
    """Collects samples one at a time in compact arrays."""

    values: dict[str, array[float]] = field(default_factory=dict)
    documents: array[int] = field(default_factory=lambda: array("Q"))
    prompts: array[int] = field(default_factory=lambda: array("Q"))
    requests: array[int] = field(default_factory=lambda: array("Q"))

    def add(self, document: int, prompt: int, values: Mapping[str, float], request: int | None = None) -> None:
        """Adds a sample. A metric that only some samples have is no mean over all, so its values stay shorter."""
        self.documents.append(document)
        self.prompts.append(prompt)
        if request is not None:
            self.requests.append(request)
        for name, value in values.items():
            self.values.setdefault(name, array("d")).append(value)

    def __len__(self) -> int:
        return len(self.documents)

    def of(
        self, metric: str, groups: tuple[str, ...] | None = None, clusters: tuple[str, ...] | None = None
    ) -> Samples | None:
        """The samples of a metric; None if not all of them have a value."""
        values = self.values.get(metric)
        if values is None or len(values) != len(self) or not len(self):
            return None
        whole = len(self.requests) == len(self)
        return Samples(
            values=np.array(values, dtype=np.float64),
            documents=distinct(np.array(self.documents, dtype=np.uint64)),
            prompts=np.array(self.prompts, dtype=np.uint64),
            requests=distinct(np.array(self.requests, dtype=np.uint64)) if whole else None,
            groups=groups,
            clusters=clusters,
        )


def distinct(keys: Keys, step: int = 0x9E3779B97F4A7C15) -> Keys:
    """Tells equal documents apart by their place: the second copy of a document is paired with the second copy.

    Example:
        >>> len(set(distinct(np.array([7, 7, 8], dtype=np.uint64)).tolist()))
        3
    """
    order = np.argsort(keys, kind="stable")
    ordered = keys[order]
    first = np.ones(len(keys), dtype=bool)
    first[1:] = ordered[1:] != ordered[:-1]
    place = np.arange(len(keys))
    copy = place - np.maximum.accumulate(np.where(first, place, 0))
    found = np.empty_like(keys)
    found[order] = ordered + copy.astype(np.uint64) * np.uint64(step)
    return found


def joined(parts: Sequence[tuple[str, Samples]]) -> Samples:
    """Joins the samples of the subtasks of a group; each subtask is a stratum."""

    def keys(attribute: str) -> Keys | None:
        found = [getattr(samples, attribute) for _, samples in parts]
        return None if any(each is None for each in found) else np.concatenate(found)

    documents = keys("documents")
    if documents is not None:  # two subtasks may have the same document
        salts = np.repeat(
            np.array([digest(name) for name, _ in parts], dtype=np.uint64), [len(each.values) for _, each in parts]
        )
        documents = documents ^ salts
    requests = keys("requests")  # two subtasks may ask the same, too
    return Samples(
        values=np.concatenate([samples.values for _, samples in parts]),
        documents=documents,
        prompts=keys("prompts"),
        requests=None if requests is None else distinct(requests, step=0xD1B54A32D192ED03),
        groups=tuple(name for name, samples in parts for _ in range(len(samples.values))),
    )
