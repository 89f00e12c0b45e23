r"""IFEval: instructions whose following a program can check (Zhou et al., 2023, arXiv 2311.07911).

There are 25 kinds of instruction. Each is a function from the response and the instruction's parameters to a verdict,
with the rules of lm-evaluation-harness's `ifeval`. A sample's `meta` has the dataset's `instruction_id_list` and
`kwargs`.

    >>> followed("No commas here.", "punctuation:no_comma", {})
    True
    >>> followed_loosely("Sure, here it is:\nNo commas here.", "punctuation:no_comma", {})
    True

nltk's Punkt counts sentences (see `harness.metrics.sentences`); langdetect with a fixed seed detects languages. If the
dataset's parameter is 0 or a letter outside a–z, lm-evaluation-harness uses a random one; here the dataset's is used.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final

from harness.api import Generate, Metric, Output, Stats
from harness.errors import UserError, did_you_mean
from harness.metrics.kinds import expect, mean_of_sums, missing_meta
from harness.metrics.language import language_of
from harness.metrics.sentences import sentences, words

Check = Callable[[str, Mapping[str, Any]], bool]
Judge = Callable[[str, str, Mapping[str, Any]], bool]


def followed(response: str, instruction: str, parameters: Mapping[str, Any]) -> bool:
    """Whether a response follows one instruction; an empty response follows none.

    Args:
        response: The model's text.
        instruction: For example `length_constraints:number_words`.
        parameters: For example `{"num_words": 100, "relation": "at least"}`; entries that are None count as missing.

    Raises:
        UserError: The instruction is unknown, or lacks a parameter that its check needs.
    """
    if instruction not in CHECKS:
        raise UserError(f"unknown IFEval instruction `{instruction}`", hint=did_you_mean(instruction, CHECKS))
    given = _Parameters(instruction, parameters)
    return bool(response.strip()) and CHECKS[instruction](response, given)


def followed_loosely(response: str, instruction: str, parameters: Mapping[str, Any]) -> bool:
    """Whether the response, or a version without asterisks, first line or last line, follows the instruction.

    Raises:
        UserError: As `followed`.
    """
    return any(followed(version, instruction, parameters) for version in _versions(response))


def _versions(response: str) -> Iterator[str]:
    lines = response.split("\n")
    parts = (response, *("\n".join(part).strip() for part in (lines[1:], lines[:-1], lines[1:-1])))
    return iter(dict.fromkeys((*parts, *(part.replace("*", "") for part in parts))))


class _Parameters(dict[str, Any]):
    """An instruction's parameters; a missing one raises an error with its name."""

    def __init__(self, instruction: str, given: Mapping[str, Any]) -> None:
        super().__init__((key, value) for key, value in given.items() if value is not None)
        self.instruction = instruction

    def __missing__(self, key: str) -> Any:
        raise UserError(f"IFEval instruction `{self.instruction}` needs `{key}`", hint="give it in the row's `kwargs`")


def _in_relation(count: int, relation: str, threshold: int) -> bool:
    if relation not in ("less than", "at least"):
        raise UserError(f"unknown relation `{relation}` of an IFEval instruction", hint="`less than` or `at least`")
    return count < threshold if relation == "less than" else count >= threshold


def _regex(pattern: str) -> str:
    """Returns a keyword as a regular expression, as in the reference; an invalid expression is taken literally."""
    try:
        re.compile(pattern)
    except re.error:
        return re.escape(pattern)
    return pattern


# Keywords and letters


def _keywords(text: str, given: Mapping[str, Any]) -> bool:
    return all(re.search(_regex(keyword), text, re.IGNORECASE) for keyword in given["keywords"])


def _keyword_frequency(text: str, given: Mapping[str, Any]) -> bool:
    count = len(re.findall(_regex(given["keyword"].strip()), text, re.IGNORECASE))
    return _in_relation(count, given["relation"], given["frequency"])


def _forbidden_words(text: str, given: Mapping[str, Any]) -> bool:
    return not any(re.search(rf"\b{_regex(word)}\b", text, re.IGNORECASE) for word in given["forbidden_words"])


def _letter_frequency(text: str, given: Mapping[str, Any]) -> bool:
    count = text.lower().count(given["letter"].strip().lower())
    return _in_relation(count, given["let_relation"], given["let_frequency"])


def _capital_words(text: str, given: Mapping[str, Any]) -> bool:
    count = sum(word.isupper() for word in words(text))
    return _in_relation(count, given["capital_relation"], given["capital_frequency"])


# Language and case: a text of unknown language passes


def _language(text: str, given: Mapping[str, Any]) -> bool:
    return language_of(text) in (given["language"], None)


def _english_capital(text: str, given: Mapping[str, Any]) -> bool:
    return text.isupper() and language_of(text) in ("en", None)


def _english_lowercase(text: str, given: Mapping[str, Any]) -> bool:
    return text.islower() and language_of(text) in ("en", None)


# Length


def _number_words(text: str, given: Mapping[str, Any]) -> bool:
    return _in_relation(len(re.findall(r"\w+", text)), given["relation"], given["num_words"])


def _number_sentences(text: str, given: Mapping[str, Any]) -> bool:
    return _in_relation(len(sentences(text)), given["relation"], given["num_sentences"])


def _number_paragraphs(text: str, given: Mapping[str, Any]) -> bool:
    """Checks the number of paragraphs between `***`; only the first and last may be empty, and then do not count."""
    paragraphs = [part.strip() for part in re.split(r"\s?\*\*\*\s?", text)]
    return all(paragraphs[1:-1]) and sum(map(bool, paragraphs)) == given["num_paragraphs"]


def _nth_paragraph_first_word(text: str, given: Mapping[str, Any]) -> bool:
    """Checks a paragraph's first word and the number of paragraphs; blank ones are not counted, but have a position."""
    paragraphs = [part.strip() for part in text.split("\n\n")]
    count, nth = sum(map(bool, paragraphs)), given["nth_paragraph"]
    if not 1 <= nth <= count or not paragraphs[nth - 1]:
        return False
    word = paragraphs[nth - 1].split()[0].lstrip("'").lstrip('"')
    first = "".join(letter.lower() for letter in re.split(r"""[.,?!'"]""", word)[0])
    return bool(count == given["num_paragraphs"] and first == given["first_word"].lower())


# Contents and format


def _placeholders(text: str, given: Mapping[str, Any]) -> bool:
    return len(re.findall(r"\[.*?\]", text)) >= int(given["num_placeholders"])


def _postscript(text: str, given: Mapping[str, Any]) -> bool:
    marker = given["postscript_marker"].strip()
    pattern = {"P.S.": r"p\.\s?s\.", "P.P.S": r"p\.\s?p\.\s?s"}.get(marker, _regex(marker.lower()))
    return re.search(pattern, text.lower()) is not None


def _bullets(text: str, given: Mapping[str, Any]) -> bool:
    stars = re.findall(r"^[^\S\n]*\*[^*].*$", text, re.MULTILINE)
    dashes = [line for line in text.split("\n") if line.lstrip().startswith("-")]
    return bool(len(stars) + len(dashes) == given["num_bullets"])


def _highlights(text: str, given: Mapping[str, Any]) -> bool:
    """Counts `*this*` and `**this**`; the latter can count twice, as in the reference."""
    single = [found for found in re.findall(r"\*[^\n\*]*\*", text) if found.strip("*").strip()]
    double = [found for found in re.findall(r"\*\*([^\n\*]*)\*\*", text) if found.strip()]
    return len(single) + len(double) >= int(given["num_highlights"])


def _sections(text: str, given: Mapping[str, Any]) -> bool:
    splitter = _regex(given["section_spliter"].strip())  # the dataset's spelling
    return len(re.findall(rf"{splitter}\s?\d+", text)) >= int(given["num_sections"])


def _constrained(text: str, given: Mapping[str, Any]) -> bool:
    return any(f"My answer is {answer}." in text for answer in ("yes", "no", "maybe"))


def _json(text: str, given: Mapping[str, Any]) -> bool:
    text = text.strip()
    for fence in ("```json", "```Json", "```JSON", "```"):
        text = text.removeprefix(fence)
    try:
        json.loads(text.removesuffix("```").strip())
    except (ValueError, RecursionError):
        return False
    return True


def _title(text: str, given: Mapping[str, Any]) -> bool:
    return any(title.lstrip("<").rstrip(">").strip() for title in re.findall(r"<<[^\n]+>>", text))


def _two_responses(text: str, given: Mapping[str, Any]) -> bool:
    """Checks for two different responses separated by `******`; only the first and last part may be empty."""
    parts = [part.strip() for part in text.split("******")]
    responses = [part for part in parts if part]
    return all(parts[1:-1]) and len(responses) == 2 and responses[0] != responses[1]


def _repeat_prompt(text: str, given: Mapping[str, Any]) -> bool:
    return text.strip().lower().startswith(given["prompt_to_repeat"].strip().lower())


def _end(text: str, given: Mapping[str, Any]) -> bool:
    return text.strip().strip('"').lower().endswith(given["end_phrase"].strip().lower())


def _quotation(text: str, given: Mapping[str, Any]) -> bool:
    text = text.strip()
    return len(text) > 1 and text[0] == text[-1] == '"'


def _no_comma(text: str, given: Mapping[str, Any]) -> bool:
    return "," not in text


CHECKS: Final[Mapping[str, Check]] = {
    "change_case:capital_word_frequency": _capital_words,
    "change_case:english_capital": _english_capital,
    "change_case:english_lowercase": _english_lowercase,
    "combination:repeat_prompt": _repeat_prompt,
    "combination:two_responses": _two_responses,
    "detectable_content:number_placeholders": _placeholders,
    "detectable_content:postscript": _postscript,
    "detectable_format:constrained_response": _constrained,
    "detectable_format:json_format": _json,
    "detectable_format:multiple_sections": _sections,
    "detectable_format:number_bullet_lists": _bullets,
    "detectable_format:number_highlighted_sections": _highlights,
    "detectable_format:title": _title,
    "keywords:existence": _keywords,
    "keywords:forbidden_words": _forbidden_words,
    "keywords:frequency": _keyword_frequency,
    "keywords:letter_frequency": _letter_frequency,
    "language:response_language": _language,
    "length_constraints:nth_paragraph_first_word": _nth_paragraph_first_word,
    "length_constraints:number_paragraphs": _number_paragraphs,
    "length_constraints:number_sentences": _number_sentences,
    "length_constraints:number_words": _number_words,
    "punctuation:no_comma": _no_comma,
    "startend:end_checker": _end,
    "startend:quotation": _quotation,
}
"""The 25 kinds of instruction, by the dataset's names."""


def _verdicts(metric: str, judge: Judge, output: Output, sample: Any) -> list[bool]:
    meta = expect(Generate, sample, metric).meta
    if not meta.get("instruction_id_list") or len(meta["instruction_id_list"]) != len(meta.get("kwargs") or ()):
        example = 'for example `meta={"instruction_id_list": ["punctuation:no_comma"], "kwargs": [{}]}`'
        raise missing_meta(metric, "`instruction_id_list` and as many `kwargs`", hint=example)
    pairs = zip(meta["instruction_id_list"], meta["kwargs"], strict=True)
    return [judge(output.texts[0], instruction, parameters) for instruction, parameters in pairs]


def _prompt(metric: str, judge: Judge) -> Callable[[Output, Any], float]:
    return lambda output, sample: float(all(_verdicts(metric, judge, output, sample)))


def _instructions(metric: str, judge: Judge) -> Callable[[Output, Any], Stats]:
    def stats(output: Output, sample: Any) -> Stats:
        verdicts = _verdicts(metric, judge, output, sample)
        return (sum(verdicts), len(verdicts))

    return stats


prompt_strict = Metric("prompt_strict", score=_prompt("prompt_strict", followed), bounds=(0, 1))
"""0–1. IFEval: share of prompts with all instructions followed; `prompt_level_strict_acc` of lm-evaluation-harness."""

inst_strict = Metric("inst_strict", stats=_instructions("inst_strict", followed), value=mean_of_sums, bounds=(0, 1))
"""0–1. IFEval: share of instructions followed, over all prompts; `inst_level_strict_acc` of lm-evaluation-harness."""

prompt_loose = Metric("prompt_loose", score=_prompt("prompt_loose", followed_loosely), bounds=(0, 1))
"""0–1. IFEval: as `prompt_strict`, with the best verdict over eight versions of the response: with and without its
first line, its last line and its asterisks; `prompt_level_loose_acc` of lm-evaluation-harness."""

inst_loose = Metric(
    "inst_loose", stats=_instructions("inst_loose", followed_loosely), value=mean_of_sums, bounds=(0, 1)
)
"""0–1. IFEval: as `inst_strict`, on the versions of `prompt_loose`; `inst_level_loose_acc` in lm-evaluation-harness."""
