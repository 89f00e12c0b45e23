"""Training data of several parts: `gsm8k*3 + data.jsonl + hub:owner/name*0.5`.

A plus sign between blanks stands between parts, so that it clashes with no path and no `hub:owner/name:one+two`. A weight says
how often the rows of a part are taken: `*3` three times, `*0.5` half of them, `*2.5` all of them twice and half of them again.

Example:
    >>> [(part.source, part.weight) for part in parse_mix("gsm8k*3 + data.jsonl")]
    [('gsm8k', 3.0), ('data.jsonl', 1.0)]
"""

from __future__ import annotations

import math
import random
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from harness.errors import UserError

Row = TypeVar("Row")
_WEIGHTED = re.compile(r"(?P<source>.+?)\s*\*\s*(?P<weight>[\w.+-]*)")


@dataclass(frozen=True)
class Part:
    """One source of a mix."""

    source: str
    """A task, a file or folder, or a `hub:` address."""
    weight: float = 1.0
    """How often its rows are taken."""


def parse_mix(text: str) -> tuple[Part, ...]:
    """The parts of training data as typed; one part where it is no mix. A file of that very name is taken as it is.

    Raises:
        UserError: A part is empty, or a weight is no number above zero.
    """
    if not text or _exists(text):
        return (Part(text),)
    return tuple(_part(text, part.strip()) for part in re.split(r"(?:^|(?<=\s))\+(?=\s|$)", text))


def weighted(rows: Sequence[Row], weight: float) -> list[Row]:
    """The rows as often as `weight` says: `round(weight * len(rows))` of them, the last share drawn with a fixed seed.

    Example:
        >>> weighted(["a", "b"], 2.0)
        ['a', 'b', 'a', 'b']
    """
    whole, over = divmod(round(weight * len(rows)), len(rows)) if rows else (0, 0)
    drawn = sorted(random.Random(0).sample(range(len(rows)), over))
    return [*(list(rows) * whole), *(rows[place] for place in drawn)]


def _part(text: str, part: str) -> Part:
    if not part:
        raise UserError(f"training data `{text}` has an empty part", hint="write `NAME + NAME*2`")
    found = None if _exists(part) else _WEIGHTED.fullmatch(part)
    if found is None:
        return Part(part)
    try:
        weight = float(found["weight"])
    except ValueError:
        weight = math.nan
    if not 0 < weight < math.inf:
        raise UserError(
            f"training data `{text}`: `{found['weight']}` is no weight",
            hint="a number above zero: `*3` takes the rows three times, `*0.5` half of them",
        )
    return Part(found["source"], weight)


def _exists(name: str) -> bool:
    try:
        return Path(name).exists()
    except (OSError, ValueError):  # a name too long, or with a null byte, for any file
        return False
