"""Entailment: whether a source entails a summary, according to a natural language inference classifier.

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
from harness.metrics.kinds import expect, mean_of_sums
from harness.metrics.sentences import sentences

PASSAGE_CHARACTERS = 1000
"""Maximum length of a premise, unless it is one sentence: about 250 tokens, which every classifier accepts."""


def entailment_by(model: str) -> Metric:
    """Makes a metric, 0–1: the mean probability that the source entails a sentence of a summary.

    The score of a sentence is the highest one of any passage of the source (SummaC-ZS, Laban et al., TACL 2022, with
    passages instead of sentences). The model runs on the CPU in its own process, and is loaded when the first summary
    is scored.

    Args:
        model: A folder or Hub name of a sequence classifier with a class named `entailment…`, or with a single class.
    """

    def stats(output: Output, sample: Any) -> Stats:
        source = source_of(expect(Generate, sample, "entailment"), "entailment")
        claims, premises = split(output.texts[0]), passages(source)
        if not claims or not premises:
            return 0.0, float(len(claims))
        scores = judge(model).entailment([(premise, claim) for claim in claims for premise in premises])
        best = [max(scores[at : at + len(premises)]) for at in range(0, len(scores), len(premises))]
        return math.fsum(best), float(len(claims))

    return Metric("entailment", stats=stats, value=mean_of_sums, bounds=(0, 1))


def split(text: str) -> list[str]:
    """Splits a text into sentences, also in Chinese and Japanese; a line end also ends a sentence.

    Example:
        >>> split("It rained. 他走了。她没走。")
        ['It rained.', '他走了。', '她没走。']
    """
    lines = re.sub(r"(?<=[。！？])", "\n", text).splitlines()
    return [sentence for line in lines if line.strip() for sentence in sentences(line.strip())]


def passages(text: str) -> list[str]:
    """Joins neighbouring sentences up to the maximum length of a premise."""
    found: list[str] = []
    for sentence in split(text):
        if found and len(found[-1]) + len(sentence) < PASSAGE_CHARACTERS:
            found[-1] += " " + sentence
        else:
            found.append(sentence)
    return found
