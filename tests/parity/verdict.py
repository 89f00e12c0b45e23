"""Both sides of a case, compared: what is equal, what is not, and by how much."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from cases import Case
from peer import Asked, Side

NATS = 1e-4
"""Largest difference of a log-likelihood; of a whole page, where float32 has no digits for that, `RELATIVE` of its size."""
RELATIVE = 1e-6


@dataclass(frozen=True)
class Verdict:
    """What a comparison found."""

    case: str
    shape: str
    engine: str
    samples: int = 0
    prompts: int = 0
    """Samples of equal contexts, continuations, stop strings and limits, byte for byte."""
    loglikelihoods: int = 0
    """How many were compared."""
    nats: float = 0.0
    """The largest difference."""
    relative: float = 0.0
    """The largest difference in parts of the log-likelihood."""
    greedy: int = 0
    """Choices that agree on whether greedy decoding would write them, of `choices`."""
    choices: int = 0
    texts: int = 0
    """How many were compared."""
    equal_texts: int = 0
    distinct: int = 0
    """Different answers among the samples: what a comparison is worth that finds no difference."""
    ours: Mapping[str, float] = field(default_factory=dict)
    theirs: Mapping[str, float] = field(default_factory=dict)
    """Empty where ours are of fewer samples."""
    difference: str = ""
    """The first one."""

    @property
    def holds(self) -> bool:
        """Whether the two sides agree."""
        return not self.difference


def compare(case: Case, shape: str, engine: str, ours: Side, theirs: Side) -> Verdict:
    """Compares every sample of ours with theirs; the metrics where ours has all samples."""
    prompts = loglikelihoods = choices = greedy = texts = equal_texts = 0
    nats = relative = 0.0
    differences = []
    for where, mine in ours.samples.items():
        peer = theirs.samples[where]
        difference = _asked_otherwise(case, mine, peer)
        prompts += not difference
        for a, b in zip(mine.loglikelihoods, peer.loglikelihoods, strict=True):
            loglikelihoods += 1
            nats, relative = max(nats, abs(a - b)), max(relative, abs(a - b) / max(abs(b), 1e-9))
            if not (abs(a - b) <= NATS or abs(a - b) <= RELATIVE * abs(b)):
                difference = difference or f"log-likelihood {a} beside {b}"
        for one, other in zip(mine.is_greedy, peer.is_greedy, strict=True):
            choices += 1
            greedy += one == other
            if one != other:
                difference = difference or f"greedy {one} beside {other}"
        for text, their_text in zip(mine.texts, (_cut(case, text) for text in peer.texts), strict=True):
            texts += 1
            equal_texts += text == their_text
            if text != their_text:
                difference = difference or f"text {_shown(text, their_text)}"
        if difference:
            differences.append(f"sample {where}: {difference}")
    whole = len(ours.samples) == len(theirs.samples)
    for name, value in theirs.metrics.items() if whole else ():
        if not math.isclose(ours.metrics[name], value, rel_tol=RELATIVE, abs_tol=1e-12):
            differences.append(f"{name} {ours.metrics[name]} beside {value}")
    return Verdict(
        case.id,
        shape,
        engine,
        len(ours.samples),
        prompts,
        loglikelihoods,
        nats,
        relative,
        greedy,
        choices,
        texts,
        equal_texts,
        len({_answer(sample) for sample in ours.samples.values()}),
        {name: float(value) for name, value in ours.metrics.items()},
        {name: float(value) for name, value in theirs.metrics.items()} if whole else {},
        differences[0] if differences else "",
    )


def failed(case: Case, shape: str, error: str) -> Verdict:
    """A case that one of the sides could not run."""
    return Verdict(case.id, shape, "", difference=error)


def _asked_otherwise(case: Case, ours: Asked, theirs: Asked) -> str:
    """The first difference between two requests; empty when there is none."""
    pairs = {name: (getattr(ours, name), getattr(theirs, name)) for name in ("contexts", "continuations", "max_tokens")}
    pairs["stop"] = ours.stop, case.own_stops + theirs.stop
    return next((f"{name} {_shown(a, b)}" for name, (a, b) in pairs.items() if a != b), "")


def _cut(case: Case, text: str) -> str:
    for stop in case.own_stops:
        text = text.split(stop)[0]
    return text


def _answer(sample: Asked) -> Any:
    if sample.texts:
        return sample.texts
    return max(range(len(sample.loglikelihoods)), key=lambda choice: sample.loglikelihoods[choice])


def _shown(ours: Any, theirs: Any) -> str:
    """Both values from shortly before they part."""
    a, b = repr(ours), repr(theirs)
    parted = next((place for place, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), min(len(a), len(b)))
    start = max(0, parted - 60)
    return f"…{a[start : start + 160]} beside …{b[start : start + 160]}"
