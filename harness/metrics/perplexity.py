"""Perplexity of texts, per word, byte and token.

Each metric sums log-likelihoods (nats) and a count over all texts before the division, so a long text has more weight
than a short one. If the scored text is a cleaned one (WikiText), words and bytes are those of `meta["original"]`.

    >>> from harness.api import Output, Text
    >>> sums = word_ppl.measure(Output(loglikelihoods=(-6.0,), tokens=4), Text("one two three"))
    >>> sums, round(word_ppl.value(sums), 3)
    ((-6.0, 3.0), 7.389)
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from typing import Any

from harness.api import Metric, Output, Stats, Text
from harness.metrics.kinds import expect
from harness.stats.functions import SumRatio


def _per(name: str, count: Callable[[Output, str], int]) -> Callable[[Output, Any], Stats]:
    def stats(output: Output, sample: Any) -> Stats:
        text = expect(Text, sample, name)
        return output.loglikelihoods[0], count(output, text.meta.get("original", text.text))

    return stats


def _words(_: Output, original: str) -> int:
    return len(re.split(r"\s+", original))  # as in lm-evaluation-harness: white space at either end adds a word


def _bytes(_: Output, original: str) -> int:
    return len(original.encode())


def _tokens(output: Output, _: str) -> int:
    return output.tokens


def _perplexity_of(loglikelihood: float) -> float:
    """The perplexity of a mean log-likelihood per word, byte or token."""
    try:
        return math.exp(-loglikelihood)
    except OverflowError:  # in a script without spaces, a "word" is a whole line
        return math.inf


def _bits_of(loglikelihood: float) -> float:
    return -loglikelihood / math.log(2)


_perplexity, _bits = SumRatio(_perplexity_of), SumRatio(_bits_of)


word_ppl = Metric("word_ppl", stats=_per("word_ppl", _words), value=_perplexity, higher_is_better=False)
"""1 and above. exp(− log-likelihood / words); words are separated by white space. Independent of the tokenizer."""

byte_ppl = Metric("byte_ppl", stats=_per("byte_ppl", _bytes), value=_perplexity, higher_is_better=False)
"""1 and above. exp(− log-likelihood / bytes of UTF-8). Independent of the tokenizer and of spaces between words."""

bits_per_byte = Metric("bits_per_byte", stats=_per("bits_per_byte", _bytes), value=_bits, higher_is_better=False)
"""0 and above. − log2-likelihood / bytes of UTF-8: the bits into which the model compresses a byte."""

token_ppl = Metric("token_ppl", stats=_per("token_ppl", _tokens), value=_perplexity, higher_is_better=False)
"""1 and above. exp(− log-likelihood / tokens): the perplexity in papers. Compare only models with one tokenizer."""
