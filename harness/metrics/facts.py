"""Consistency: whether the source supports the names, numbers and dates in a summary.

Rules find the facts, without a model. Facts are numbers (digits, words from two to twenty, Chinese numerals, `1,000` =
`1000`), months and weekdays (so `5 March 2020`, `2020-03-05` and `2020年3月5日` are the same three facts), and names.
Names are capitalised words within a sentence (at its start only if more capitalised words follow, or if the word is
capitalised within a sentence elsewhere). In Chinese and Japanese, names are text in quotes or title marks, katakana,
and Han characters before a title, a verb of speech, or the ending of a place or an organisation. A name is supported if
the source has all its words, or its initials.

Not detected: relations (who did what), invented facts without names or numbers, and names that the rules do not find.
German nouns count as names. A text without facts is not scored. `entailment_by` uses a model instead.

    >>> sorted(facts("On 5 March 2020 Dr. Ana Diaz paid $1,200."))
    ['month 3', 'name ana diaz', 'number 1200', 'number 2020', 'number 5']
"""

from __future__ import annotations

import itertools
import re
import unicodedata
from collections.abc import Iterator
from functools import lru_cache
from typing import Any

from harness.api import Generate, Metric, Output, Stats
from harness.metrics.cjk import space_out
from harness.metrics.kinds import expect, mean_of_sums, missing_meta

_MONTHS = "january february march april may june july august september october november december"
_WEEKDAYS = "monday tuesday wednesday thursday friday saturday sunday"
_COUNTED = (
    "two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen seventeen eighteen"
    " nineteen twenty"
)
_CALENDAR = {
    **{month: f"month {n}" for n, month in enumerate(_MONTHS.split(), 1)},
    **{month[:3]: f"month {n}" for n, month in enumerate(_MONTHS.split(), 1)},
    "sept": "month 9",
    **{day: f"weekday {n}" for n, day in enumerate(_WEEKDAYS.split(), 1)},
    **{day[:3]: f"weekday {n}" for n, day in enumerate(_WEEKDAYS.split(), 1)},
}
_AMBIGUOUS = {"may", "march", "mar", "sun", "sat", "wed", "mon"}
"""Calendar words with another meaning: they count only if capitalised."""
_HAN_DIGITS = {character: value for value, character in enumerate("零一二三四五六七八九")} | {"〇": 0, "两": 2}
_HAN_UNITS = {"十": 10, "百": 100, "千": 1000}
_HAN_NUMBER = r"[零〇一二两三四五六七八九十百千]{1,12}"
_TITLES = {"mr", "mrs", "ms", "miss", "dr", "prof", "sir", "the", "a", "an", "i"}
"""Capitalised words that are not a name without further words."""
_LINKS = {"of", "de", "la", "van", "von", "der", "den", "al", "bin", "du", "da", "di", "&"}
"""Words in lower case that can be inside a name."""

_STARTERS = (
    "a after all although an and as at because before both but by during every first for from he her here his how if in into"
    " it its later many most my no now on one only or our she since so some that the their then there these they this those"
    " though three to two under until we what when where which while who why will with yesterday you your"
)
"""Words that begin a sentence and are not part of the name after them."""

_ISO_DATE = re.compile(r"(?<!\d)(\d{4})-(\d{2})-(\d{2})(?!\d)")
_NUMBER = re.compile(r"(?<![\w.])\d+(?:,\d{3})+(?:\.\d+)?(?!\w)|(?<![^\W\d_])\d+(?:\.\d+)?")
_HAN_COUNTED = re.compile(
    rf"({_HAN_NUMBER})(?=[年月日号时点分岁个名人位次家万亿元块天周星倍第层米吨公])|(?<=第)({_HAN_NUMBER})|星期([一二三四五六日天])"
)
_WORDS = re.compile(r"[^\W_]+(?:[-'’.][^\W_]+)*|[.!?:;,\n“”\"()。！？，]|&")
_ENDS = set('.!?:;\n“”"()。！？')
_QUOTED = re.compile(r"《([^《》]{1,60})》|「([^「」]{1,60})」|『([^『』]{1,60})』|“([^“”]{1,60})”")
_KATAKANA = re.compile(r"[\u30a1-\u30fa\u30fc・]{3,}")
_SURNAMES = "王李张刘陈杨黄赵吴周徐孙马朱胡郭何林高罗郑梁谢宋唐许韩冯邓曹彭曾肖田董袁潘于蒋蔡余杜叶程苏魏吕丁任沈姚卢姜崔钟谭陆汪范金石廖贾夏韦付方白邹孟熊秦邱江尹薛闫段雷侯龙史陶黎贺顾毛郝龚邵万钱严武戴莫孔向汤"
_HAN_NAME = re.compile(
    rf"([{_SURNAMES}][\u4e00-\u9fff]{{1,2}}?)(?=先生|女士|小姐|教授|博士|医生|老师|同学|经理|部长|主席|总统|总理|市长|表示|指出|认为|强调|介绍|告诉|说)"
)
_HAN_PLACE = re.compile(r"([\u4e00-\u9fff]{2})(?=大学|公司|银行|医院|集团|法院|机场|省|市|县|州)")


def facts(text: str, *, beside: str = "") -> frozenset[str]:
    """Returns the names, numbers and dates of a text, each as `kind value`.

    Args:
        text: Any text.
        beside: Another text, which can show that a word at the start of a sentence is a name.

    Example:
        >>> sorted(facts("2020年3月5日，王小明先生说有三个人。"))
        ['month 3', 'name 王小明', 'number 2020', 'number 3', 'number 5']
    """
    return frozenset(
        [*_numbers(text), *_calendar(text), *_han_names(text), *(f"name {name}" for name in _names(text, beside))]
    )


def supported(text: str, source: str) -> tuple[int, int]:
    """Counts the facts of a text that its source supports, and all facts of the text.

    Example:
        >>> supported("Ana paid 30 euros to Bob in Rome.", "On Monday Ana met Bob. Ana had 30 euros.")
        (3, 4)
    """
    claimed = facts(text, beside=source)
    known = facts(source, beside=text)
    words, initials = _vocabulary(source)
    found = sum(_is_supported(fact, known, words, initials, source) for fact in claimed)
    return found, len(claimed)


def _is_supported(
    fact: str, known: frozenset[str], words: frozenset[str], initials: frozenset[str], source: str
) -> bool:
    kind, _, value = fact.partition(" ")
    if fact in known:
        return True
    if kind != "name":
        return False
    parts = [part for part in value.split() if part not in _LINKS]
    if all(part in words or part.replace(".", "") in words for part in parts) or value.replace(".", "") in initials:
        return True
    if len(parts) > 1 and "".join(part[0] for part in parts) in words:
        return True
    return _has_east_asian(value) and value in source.lower()


def _numbers(text: str) -> Iterator[str]:
    text = unicodedata.normalize("NFKC", text)
    for match in _ISO_DATE.finditer(text):
        yield f"month {int(match[2])}"
    text = _ISO_DATE.sub(r"\1 , \3", text)
    for match in re.finditer(r"(\d{1,2})月", text):
        yield f"month {int(match[1])}"
    text = re.sub(r"\d{1,2}月", " ", text)
    yield from (f"number {_plain(match[0])}" for match in _NUMBER.finditer(text))
    counted = _COUNTED.split()
    for word in re.findall(r"[a-z]+", text.lower()):
        if word in counted:
            yield f"number {counted.index(word) + 2}"
    for match in _HAN_COUNTED.finditer(text):
        if match[3]:
            yield f"weekday {'一二三四五六日天'.index(match[3]) + 1 - (match[3] == '天')}"
            continue
        value = _han_number(match[1] or match[2])
        following = text[match.end() : match.end() + 1]
        if match[1] == "一" and following not in "年月日号":  # 一个 means "a"
            continue
        month = match[1] and following == "月"
        yield f"month {value}" if month else f"number {value}"


def _plain(number: str) -> str:
    whole, _, fraction = number.replace(",", "").partition(".")
    fraction = fraction.rstrip("0")
    return (whole.lstrip("0") or "0") + (f".{fraction}" if fraction else "")


def _han_number(numeral: str) -> int:
    if not set(numeral) & set(_HAN_UNITS):  # digit by digit: 二〇二〇
        return int("".join(str(_HAN_DIGITS[character]) for character in numeral))
    total, digit = 0, 0
    for character in numeral:
        if character in _HAN_UNITS:
            total += (digit or 1) * _HAN_UNITS[character]
            digit = 0
        else:
            digit = _HAN_DIGITS[character]
    return total + digit


def _calendar(text: str) -> Iterator[str]:
    for word in re.findall(r"[^\W\d_]+", text):
        lower = word.lower()
        if lower in _CALENDAR and (lower not in _AMBIGUOUS or word[0].isupper()):
            yield _CALENDAR[lower]


def _names(text: str, beside: str) -> set[str]:
    """Returns the names of a text, in lower case."""
    proper = _capitalised_within(text) | _capitalised_within(beside)
    return {" ".join(word.lower() for word in span) for span in _spans(text, proper)}


def _spans(text: str, proper: frozenset[str]) -> Iterator[list[str]]:
    """Yields the names of a text as lists of words; a word in `proper` is a name at the start of a sentence too."""
    span: list[str] = []
    starts, is_name = True, False
    for word in [*_tokens(text), "."]:
        if _is_capitalised(word):
            is_name = is_name if span else not starts or word.lower() in proper
            span.append(word)
            starts = False
        elif span and word in _LINKS:
            span.append(word)
        else:
            yield from _name_of(span, is_name)
            span, starts = [], word in _ENDS


def _name_of(span: list[str], is_name: bool) -> Iterator[list[str]]:
    """Yields the name in a span of capitalised words, without links after it, a title, or a sentence's first word."""
    while span and span[-1] in _LINKS:
        span.pop()
    if not is_name and (len(span) == 1 or (span[:1] and span[0].lower() in _STARTERS.split())):
        span = span[1:]
    span = list(itertools.dropwhile(lambda word: word.lower() in _TITLES, span))
    if span:
        yield span


@lru_cache(maxsize=4096)
def _capitalised_within(text: str) -> frozenset[str]:
    """Returns the capitalised words that are not at the start of a sentence, in lower case."""
    found, starts = set(), True
    for word in _tokens(text):
        if not starts and _is_capitalised(word):
            found.add(word.lower())
        starts = word in _ENDS
    return frozenset(found)


@lru_cache(maxsize=4096)
def _vocabulary(source: str) -> tuple[frozenset[str], frozenset[str]]:
    """Returns all words of a source in lower case, and the initials of its names."""
    spans = _spans(source, _capitalised_within(source))
    initials = {"".join(word[0].lower() for word in span if word not in _LINKS) for span in spans if len(span) > 1}
    lower = [word.lower() for word in _tokens(source)]
    words = {part for word in lower for part in (word, word.replace(".", ""), *re.split(r"[-'’.]", word))}
    return frozenset(words), frozenset(initials)


def _tokens(text: str) -> list[str]:
    text = re.sub(r"\b([A-Z][a-z]{0,3})\.(?=\s)", r"\1", text)  # Mr. and St. do not end a sentence
    return [re.sub(r"['’]s?$", "", word) or word for word in _WORDS.findall(space_out(text))]


def _is_capitalised(word: str) -> bool:
    return word[0].isupper() and word.lower() not in _CALENDAR


def _han_names(text: str) -> Iterator[str]:
    for pattern in (_QUOTED, _KATAKANA, _HAN_NAME, _HAN_PLACE):
        for match in pattern.finditer(text):
            found = next(part for part in (*match.groups(), match[0]) if part)
            if _has_east_asian(found):
                yield f"name {found.lower()}"


def _has_east_asian(text: str) -> bool:
    """Whether a character is above U+2E7F, where the scripts of East Asia begin."""
    return any(ord(character) > 0x2E7F for character in text)


def _stats(output: Output, sample: Any) -> Stats:
    return supported(output.texts[0], source_of(expect(Generate, sample, "consistency"), "consistency"))


def source_of(sample: Generate, metric: str) -> str:
    """Returns the text that a summary is about, `meta["source"]`.

    Raises:
        UserError: The sample has no such text.
    """
    source = sample.meta.get("source")
    if not isinstance(source, str):
        example = 'for example `Generate(…, meta={"source": row["document"]})`'
        raise missing_meta(metric, "the summarized text as `source`", hint=example)
    return source


consistency = Metric("consistency", stats=_stats, value=mean_of_sums, bounds=(0, 1))
"""0–1. Share of the names, numbers and dates in all texts that the sources (`meta["source"]`) also contain. It does not
measure omissions or relations (who did what): use it together with ROUGE."""
