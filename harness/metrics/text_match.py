r"""Text matching: whether a generated text equals or contains the answer.

>>> from harness.api import Generate, Output
>>> sample = Generate("Question: 6 * 7?\nAnswer:", "6 * 7 = <<6*7=42>>42\n#### 42")
>>> strict.measure(Output(texts=("It is 42.\n#### 42",)), sample)
1.0
"""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from string import ascii_uppercase
from string import punctuation as _ASCII_PUNCTUATION
from typing import Any, Literal

import regex

from harness.api import Generate, Metric, Output
from harness.errors import UserError, did_you_mean
from harness.metrics.cjk import has_cjk, space_out
from harness.metrics.kinds import Extracting, expect, missing_meta, targets_of
from harness.metrics.unicode_words import has_other_letters

_GSM8K_IGNORED = (",", r"\$", r"(?s).*#### ", r"\.$")
_PUNCTUATION = str.maketrans("", "", _ASCII_PUNCTUATION)
_ALL_PUNCTUATION = regex.compile(r"[\p{P}\p{Cf}]+")
_NO_WORDS = regex.compile(r"[^\p{L}\p{M}\p{N}]+")
_ARTICLES = re.compile(r"\b(a|an|the)\b")
_FULL_WIDTH = str.maketrans("（）：", "():")
_BRACKETED = re.compile(r"\([A-Z]\)")


def matching(
    pattern: str | None = None,
    *,
    take: Literal["first", "last"] = "first",
    ignore: Sequence[str] = (),
    case: bool = False,
    punctuation: bool = True,
) -> Callable[[str, str], float]:
    r"""Makes a score for a `Metric`: 1 if the match of a pattern in the text equals the target, else 0.

    Equivalent to lm-evaluation-harness's `regex` filter with `exact_match`, with the same order of normalisation: first
    `ignore`, then case, then punctuation, in both the match and the target. A text without a match scores 0.

    Args:
        pattern: A regular expression. Its first group that is not empty counts, or the whole match if it has no group.
            Without a pattern, the whole text counts, stripped of white space.
        take: The match that counts.
        ignore: Regular expressions whose matches are removed, one after the other.
        case: Whether case matters.
        punctuation: Whether ASCII punctuation matters.

    Raises:
        UserError: A pattern is not a regular expression, or `take` has another value.

    Example:
        >>> sure = Metric("sure", score=matching(r"surely (\w+)", take="last"))
        >>> sure.measure(Output(texts=("Surely not; surely YES",)), Generate("…", "yes"))
        1.0
    """
    if take not in ("first", "last"):
        raise UserError(f"`matching` takes no `{take}` match", hint=did_you_mean(take, ("first", "last")))
    finder = None if pattern is None else _compiled(pattern)
    ignored = [_compiled(each) for each in ignore]

    return _Matching(finder, take, ignored, case, punctuation)


@dataclass(frozen=True)
class _Matching:
    """The score that `matching` makes."""

    finder: re.Pattern[str] | None
    take: str
    ignored: Sequence[re.Pattern[str]]
    case: bool
    punctuation: bool

    def __call__(self, prediction: str, target: str) -> float:
        found = prediction.strip() if self.finder is None else _found(self.finder, prediction, self.take)
        return float(found is not None and self._normal(found) == self._normal(target))

    def found(self, output: Output, sample: Any) -> bool | None:
        """Whether the text has a match; None without a pattern, as the whole text is the answer."""
        return None if self.finder is None else bool(_found(self.finder, output.texts[0], self.take))

    def _normal(self, text: str) -> str:
        for each in self.ignored:
            text = each.sub("", text)
        text = text if self.case else text.lower()
        return text if self.punctuation else text.translate(_PUNCTUATION)


def _compiled(pattern: str) -> re.Pattern[str]:
    try:
        return re.compile(pattern)
    except re.error as error:
        raise UserError(f"`{pattern}` is not a regular expression: {error}", hint="write it as r'…'") from error


def _found(finder: re.Pattern[str], text: str, take: str) -> str | None:
    matches = list(finder.finditer(text))
    if not matches:
        return None
    match = matches[0 if take == "first" else -1]
    if finder.groups == 0:
        return match[0].strip()
    if finder.groups == 1:
        return (match[1] or "").strip()
    return next((group.strip() for group in match.groups() if group), None)


def _exact_match(prediction: str, target: str) -> float:
    return float(prediction.strip() == target.strip())


def _choice_letter(output: Output, sample: Any) -> float:
    return float(_bare(_letter(output.texts[0], lettered_choices(sample))) in map(_bare, targets_of(sample)))


def _has_letter(output: Output, sample: Any) -> bool:
    return bool(_letter(output.texts[0], lettered_choices(sample)))


def lettered_choices(sample: Any) -> Sequence[str]:
    """Returns the choices of a sample that `choice_letter` scores, `meta["choices"]`.

    Raises:
        UserError: The sample has no choices, or more than there are letters.
    """
    choices: Sequence[str] = expect(Generate, sample, "choice_letter").meta.get("choices", ())
    if not choices:
        example = 'for example `Generate(prompt, "(B)", meta={"choices": ["Rome", "Paris"]})`'
        raise missing_meta("choice_letter", "`choices`", hint=example)
    if len(choices) > len(ascii_uppercase):
        raise UserError(
            f"metric `choice_letter` has letters for {len(ascii_uppercase)} choices, and a sample has {len(choices)}",
            hint="leave out choices, or score them by log-likelihood: `Choose(prompt, choices, answer)` with `acc`",
        )
    return choices


def _letter(text: str, choices: Sequence[str]) -> str:
    """Finds the last `(B)` in a text; else the letter of the last choice in it; else the last letter after a colon."""
    text = text.translate(_FULL_WIDTH)
    if bracketed := _BRACKETED.findall(text):
        return str(bracketed[-1])
    letters = ascii_uppercase[: len(choices)]
    letter_of = {_plain(choice.strip()): f"({letter})" for choice, letter in zip(choices, letters, strict=True)}
    longest_first = sorted(letter_of, key=len, reverse=True)  # otherwise `Guilty` would match in `Guilty of both`
    spelled = re.findall("|".join(map(re.escape, longest_first)), _plain(text))
    if spelled and (last := spelled[-1].strip()):
        return str(letter_of.get(last, last))
    after_colon = re.findall(rf":\s*([{letters}])", text)
    return str(after_colon[-1]) if after_colon else ""


def _plain(text: str) -> str:
    """Converts a text to lower case and removes the punctuation of all scripts."""
    return "".join(char for char in text.lower() if not unicodedata.category(char).startswith("P"))


def _bare(text: str) -> str:
    return text.lower().translate(_PUNCTUATION)


def _em(prediction: str, target: str) -> float:
    return float(_words(prediction) == _words(target))


def _f1(prediction: str, target: str) -> float:
    predicted, wanted = _words(prediction), _words(target)
    if not predicted or not wanted:
        return float(predicted == wanted)
    shared = (Counter(predicted) & Counter(wanted)).total()
    return 2 * shared / (len(predicted) + len(wanted))


def _words(text: str) -> list[str]:
    """Splits a text with SQuAD's normalisation.

    A text with letters of other scripts than Latin loses the punctuation of all scripts, as in MLQA (Lewis et al.,
    ACL 2020); in scripts without spaces, a character is a word.
    """
    text = text.lower().translate(_PUNCTUATION)
    if has_other_letters(text):
        pattern, by = (_NO_WORDS, " ") if has_cjk(text) else (_ALL_PUNCTUATION, "")
        text = pattern.sub(by, space_out(unicodedata.normalize("NFC", text)))
    return _ARTICLES.sub(" ", text).split()


exact_match = Metric("exact_match", score=_exact_match, bounds=(0, 1))
"""0–1. The text equals the target, or any of several targets; both are stripped of white space."""

strict = Metric("strict", score=matching(r"#### (\-?[0-9\.\,]+)", ignore=_GSM8K_IGNORED), bounds=(0, 1))
"""0–1. GSM8K, `strict-match` of lm-evaluation-harness: the first `#### number` of the text is the target's number."""

flexible = Metric(
    "flexible", score=matching(r"(-?[$0-9.,]{2,})|(-?[0-9]+)", take="last", ignore=_GSM8K_IGNORED), bounds=(0, 1)
)
"""0–1. GSM8K, `flexible-extract` of lm-evaluation-harness: the last number of the text is the target's number. As
there, a run of two dots or dollar signs counts as a number."""

choice_letter = Metric("choice_letter", score=Extracting(_choice_letter, _has_letter), bounds=(0, 1))
"""0–1. The last choice in a free answer to a question with lettered choices is the right one: GPQA's `flexible-extract`
of lm-evaluation-harness. Needs `meta["choices"]`, and a target such as `(B)`."""

em = Metric("em", score=_em, bounds=(0, 1))
"""0–1. Text and target have the same words in the same order, after SQuAD's normalisation: lower case, without ASCII
punctuation and articles; without any punctuation where letters are not Latin. With several targets, any counts."""

f1 = Metric("f1", score=_f1, bounds=(0, 1))
"""0–1. F1 of the words of text and target, after SQuAD's normalisation (Rajpurkar et al., EMNLP 2016): lower case,
without ASCII punctuation and articles; without any punctuation where letters are not Latin. In scripts without spaces,
a character is a word. With several targets, the best counts."""
