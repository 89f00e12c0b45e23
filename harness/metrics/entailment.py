"""Whether a source entails a summary, as a classifier trained on natural language inference judges it.

>>> entailment_by("cross-encoder/nli-deberta-v3-base").name
'entailment'
"""

from __future__ import annotations

import math
import re
from typing import Any

from harness.api import Generate, Metric, Output, Stats
from harness.metrics.entailment_model import judge
from harness.metrics.facts import source_of
from harness.metrics.kinds import expect
from harness.metrics.sentences import sentences

PASSAGE_CHARACTERS = 1000
"""A premise holds whole sentences up to this length, or one longer sentence: some 250 tokens, which any classifier takes."""


def entailment_by(model: str) -> Metric:
    """A metric: 0–1, the mean over all summaries' sentences of how likely the source entails them.

    A sentence counts with the passage of the source that entails it most (SummaC-ZS, Laban et al., TACL 2022, with passages for
    sentences). The model runs on the CPU, in a process of its own, and is loaded when the first summary is scored.

    Args:
        model: A sequence classifier with a class named `entailment…`, or with one class: a folder, or its name on the Hub.
    """

    def stats(output: Output, sample: Any) -> Stats:
        source = source_of(expect(Generate, sample, "entailment"), "entailment")
        said, premises = split(output.texts[0]), passages(source)
        if not said or not premises:
            return 0.0, float(len(said))
        scores = judge(model).entailment([(premise, sentence) for sentence in said for premise in premises])
        best = [max(scores[at : at + len(premises)]) for at in range(0, len(scores), len(premises))]
        return math.fsum(best), float(len(said))

    return Metric("entailment", stats=stats, value=_mean)


def _mean(stats: Stats) -> float:
    total, count = stats
    return total / count if count else math.nan


def split(text: str) -> list[str]:
    """Sentences, of Chinese and Japanese too; a line's end ends one.

    Example:
        >>> split("It rained. 他走了。她没走。")
        ['It rained.', '他走了。', '她没走。']
    """
    lines = re.sub(r"(?<=[。！？])", "\n", text).splitlines()
    return [sentence for line in lines if line.strip() for sentence in sentences(line.strip())]


def passages(text: str) -> list[str]:
    """Neighbouring sentences, together as long as a premise may be."""
    found: list[str] = []
    for sentence in split(text):
        if found and len(found[-1]) + len(sentence) < PASSAGE_CHARACTERS:
            found[-1] += " " + sentence
        else:
            found.append(sentence)
    return found
