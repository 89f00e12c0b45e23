"""Training rows that repeat other rows: with equal texts, or nearly.

Texts are equal after Unicode normalisation (NFC) and with each run of white space replaced by one blank. Rows are nearly
equal if `harness.prepare.near_copies` finds both the whole texts and the answers similar.

Example:
    >>> len(without_copies([Example("a", " b"), Example("a ", "b")], set()))
    1
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable, Sequence
from itertools import takewhile

from harness.jobs import Example
from harness.prepare.near_copies import NearCopy, near_copies


def identity(example: Example) -> tuple[str, ...]:
    """The text of a row, normalised: rows with equal identities are copies."""
    texts = (example.prompt, example.completion, example.rejected or "")
    return tuple(" ".join(unicodedata.normalize("NFC", text).split()) for text in texts)


def without_copies(examples: Iterable[Example], seen: set[tuple[str, ...]]) -> list[int]:
    """Indices of the first of each group of equal examples, unless it is in `seen`; adds them to `seen`.

    Equal answers that are marked differently, one good and one bad, are both kept.
    """
    kept = []
    for index, example in enumerate(examples):
        own = (*identity(example), str(example.desirable))
        if own not in seen:
            seen.add(own)
            kept.append(index)
    return kept


def near_copies_of(examples: Sequence[Example]) -> list[NearCopy]:
    """The examples that nearly repeat an earlier one.

    The text with which all prompts begin, such as a system prompt, is not compared: in few rows, it would make all rows
    similar.

    Example:
        >>> rows = [Example(f"You are a calculator. What is {n} and {n}?", f" {2 * n}") for n in (1, 2, 2)]
        >>> near_copies_of(rows)
        [NearCopy(text=2, of=1, similarity=1.0)]
    """
    prompts = sorted(example.prompt for example in examples) or [""]
    ends = zip(prompts[0], prompts[-1], strict=False)
    start = len([*takewhile(lambda pair: pair[0] == pair[1], ends)]) if len(examples) > 1 else 0
    found: list[NearCopy] = []
    for mark in dict.fromkeys(example.desirable for example in examples):  # equal answers, one good, one bad: no copies
        rows = [row for row, example in enumerate(examples) if example.desirable == mark]
        answers = [f"{examples[row].completion}\n{examples[row].rejected or ''}" for row in rows]
        texts = [f"{examples[row].prompt[start:]}\n{answer}" for row, answer in zip(rows, answers, strict=True)]
        found += [NearCopy(rows[each.text], rows[each.of], each.similarity) for each in near_copies(texts, answers)]
    return sorted(found, key=lambda each: each.text)
