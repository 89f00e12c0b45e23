r"""Whether a generated text is, or holds, the answer.

>>> from harness.api import Generate, Output
>>> sample = Generate("Question: 6 * 7?\nAnswer:", "6 * 7 = <<6*7=42>>42\n#### 42")
>>> strict.measure(Output(texts=("It is 42.\n#### 42",)), sample)
1.0
"""

from __future__ import annotations

import re
import string
from collections import Counter

from harness.api import Metric
from harness.metrics.cjk import has_cjk, space_out

_STRICT = re.compile(r"#### (\-?[0-9\.\,]+)")
_FLEXIBLE = re.compile(r"(-?[$0-9.,]{2,})|(-?[0-9]+)")
_IGNORED = tuple(re.compile(pattern) for pattern in (",", r"\$", r"(?s).*#### ", r"\.$"))  # in this order
_PUNCTUATION = str.maketrans("", "", string.punctuation)
_ARTICLES = re.compile(r"\b(a|an|the)\b")


def _exact_match(prediction: str, target: str) -> float:
    return float(prediction.strip() == target.strip())


def _strict(prediction: str, target: str) -> float:
    found = _STRICT.search(prediction)
    return float(found is not None and _number(found[1].strip()) == _number(target))


def _flexible(prediction: str, target: str) -> float:
    found = [first or second for first, second in _FLEXIBLE.findall(prediction)]
    return float(bool(found) and _number(found[-1].strip()) == _number(target))


def _number(text: str) -> str:
    """GSM8K's normalisation: what follows `#### `, without thousands commas, dollar signs and a last full stop."""
    for pattern in _IGNORED:
        text = pattern.sub("", text)
    return text.lower()


def _f1(prediction: str, target: str) -> float:
    predicted, wanted = _words(prediction), _words(target)
    if not predicted or not wanted:
        return float(predicted == wanted)
    shared = (Counter(predicted) & Counter(wanted)).total()
    return 2 * shared / (len(predicted) + len(wanted))


def _words(text: str) -> list[str]:
    """SQuAD's normalisation; a CJK character is a word, and beside such text any script's punctuation is dropped."""
    text = text.lower().translate(_PUNCTUATION)
    if has_cjk(text):
        text = "".join(" " if not (char.isalnum() or char.isspace()) else char for char in space_out(text))
    return _ARTICLES.sub(" ", text).split()


exact_match = Metric("exact_match", score=_exact_match)
"""0–1. The text equals the target, white space at both ends apart; of several targets, any."""

strict = Metric("strict", score=_strict)
"""0–1. GSM8K, `strict-match` of lm-evaluation-harness: the first `#### number` of the text is the target's number."""

flexible = Metric("flexible", score=_flexible)
"""0–1. GSM8K, `flexible-extract` of lm-evaluation-harness: the last number of the text is the target's number. A lone run of
two dots or dollar signs counts as a number there, and so it does here."""

f1 = Metric("f1", score=_f1)
"""0–1. Overlap of the words of text and target, as SQuAD counts it (Rajpurkar et al., EMNLP 2016): lower case, without
ASCII punctuation and articles. A CJK character is a word. Of several targets, the best."""
