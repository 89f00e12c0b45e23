"""Compares both sides of a case: how many values are equal, and how large the differences are."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from cases import Case
from peer import Asked, Side

NATS = 1e-4
"""Largest difference of a log-likelihood; `RELATIVE` applies to whole pages, where float32 lacks the digits for this."""
RELATIVE = 1e-6


@dataclass(frozen=True)
class Verdict:
    """The result of a comparison."""

    case: str
    shape: str
    engine: str
    samples: int = 0
    prompts: int = 0
    """Samples with equal contexts, continuations, stop strings and limits, byte for byte."""
    loglikelihoods: int = 0
    """Number compared."""
    nats: float = 0.0
    """The largest difference."""
    relative: float = 0.0
    """The largest difference, relative to the log-likelihood."""
    greedy: int = 0
    """Choices, out of `choices`, that agree on whether greedy decoding would generate them."""
    choices: int = 0
    texts: int = 0
    """Number compared."""
    equal_texts: int = 0
    distinct: int = 0
    """Number of different answers among the samples: agreement says little if all answers are the same."""
    ours: Mapping[str, float] = field(default_factory=dict)
    theirs: Mapping[str, float] = field(default_factory=dict)
    """Empty if our side ran fewer samples."""
    difference: str = ""
    """The first difference; empty if there is none."""

    @property
    def holds(self) -> bool:
        """Whether the two sides agree."""
        return not self.difference


def compare(
    case: Case, shape: str, engine: str, ours: Side, theirs: Side, *, nats: float = NATS, relative: float = RELATIVE
) -> Verdict:
    """Compares every sample of our side with theirs, and the metrics if our side has all samples.

    A log-likelihood may differ by `nats`, or by `relative` of itself, and a metric by `relative`.
    """
    prompts = loglikelihoods = choices = greedy = texts = equal_texts = 0
    most_nats = most_relative = 0.0
    differences = []
    for where, mine in ours.samples.items():
        peer = theirs.samples[where]
        difference = _request_difference(case, mine, peer)
        prompts += not difference
        for a, b in zip(mine.loglikelihoods, peer.loglikelihoods, strict=True):
            loglikelihoods += 1
            most_nats, most_relative = max(most_nats, abs(a - b)), max(most_relative, abs(a - b) / max(abs(b), 1e-9))
            if not (abs(a - b) <= nats or abs(a - b) <= relative * abs(b)):
                difference = difference or f"log-likelihood {a} but theirs is {b}"
        for one, other in zip(mine.is_greedy, peer.is_greedy, strict=True):
            choices += 1
            greedy += one == other
            if one != other:
                difference = difference or f"greedy {one} but theirs is {other}"
        for text, their_text in zip(mine.texts, (_cut(case, text) for text in peer.texts), strict=True):
            texts += 1
            equal_texts += text == their_text
            if text != their_text:
                difference = difference or f"text {_shown(text, their_text)}"
        if difference:
            differences.append(f"sample {where}: {difference}")
    whole = len(ours.samples) == len(theirs.samples)
    for name, value in theirs.metrics.items() if whole else ():
        if not math.isclose(ours.metrics[name], value, rel_tol=relative, abs_tol=1e-12):
            differences.append(f"{name} {ours.metrics[name]} but theirs is {value}")
    return Verdict(
        case.id,
        shape,
        engine,
        len(ours.samples),
        prompts,
        loglikelihoods,
        most_nats,
        most_relative,
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
    """The verdict for a case that one of the sides could not run."""
    return Verdict(case.id, shape, "", difference=error)


def _request_difference(case: Case, ours: Asked, theirs: Asked) -> str:
    """The first difference between two requests; empty if there is none."""
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
    """Both values, from shortly before their first difference."""
    a, b = repr(ours), repr(theirs)
    first = next((place for place, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), min(len(a), len(b)))
    start = max(0, first - 60)
    return f"…{a[start : start + 160]} but theirs is …{b[start : start + 160]}"
