"""Training data as typed: one source or a mix of several, `gsm8k*3 + data.jsonl + hub:owner/name*0.5`.

A plus sign separates parts only between blanks, so that paths and `hub:owner/name:one+two` may contain it. A weight is the number
of times that the rows of a part are used: `*3` three times, `*0.5` half of them, `*2.5` all of them twice and half of them again.

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

from harness.data.files import FORMATS
from harness.data.saved import is_saved
from harness.errors import UserError, did_you_mean
from harness.registry.find import find, split_path
from harness.registry.task_spec import parse_task

AnyRow = TypeVar("AnyRow")
_WEIGHTED = re.compile(r"(?P<source>.+?)\s*\*\s*(?P<weight>[\w.+-]*)")


@dataclass(frozen=True)
class MixPart:
    """One source of a mix, with its weight."""

    source: str
    """A task, a file or folder, or a `hub:` address."""
    weight: float = 1.0
    """Number of times that its rows are used."""


def parse_mix(text: str) -> tuple[MixPart, ...]:
    """Splits training data as typed into its parts; a single source, or a file whose name contains ` + `, is one part.

    Raises:
        UserError: A part is empty, or a weight is not a number above zero.
    """
    if not text or _exists(text):
        return (MixPart(text),)
    return tuple(_part(text, part.strip()) for part in re.split(r"(?:^|(?<=\s))\+(?=\s|$)", text))


def weighted(rows: Sequence[AnyRow], weight: float) -> list[AnyRow]:
    """Repeats rows to a total of `round(weight * len(rows))`; a fraction of them is drawn with a fixed seed.

    Example:
        >>> weighted(["a", "b"], 2.0)
        ['a', 'b', 'a', 'b']
    """
    whole, over = divmod(round(weight * len(rows)), len(rows)) if rows else (0, 0)
    drawn = sorted(random.Random(0).sample(range(len(rows)), over))
    return [*(list(rows) * whole), *(rows[place] for place in drawn)]


def data_problems(kind: str, data: str) -> list[UserError]:
    """The errors of data as typed, part by part, found without reading a row.

    Args:
        kind: `training` or `validation`, for messages; validation data may also be a number, the share to hold out.
        data: A mix, a source, or such a number.
    """
    if kind == "validation" and _is_number(data):
        return []
    try:
        return [problem for part in parse_mix(data) if (problem := _source_problem(kind, part.source))]
    except UserError as error:
        return [error]


def _source_problem(kind: str, data: str) -> UserError | None:
    """The error of a source that does not exist or cannot be read, with the spelling that was probably meant."""
    if data.startswith("hub:"):
        if 1 <= len(data.split(":")) - 1 <= 3 and data.split(":")[1]:
            return None
        return UserError(f"malformed {kind} data `{data}`", hint="write hub:owner/name[:config[:split]]")
    path, _ = split_path(data)
    if (path.is_file() and path.suffix in FORMATS) or ("/" in data and path.is_dir()):
        return None
    unreadable = UserError(f"{kind} file `{data}` has an unknown extension", hint="known: " + " ".join(FORMATS))
    if path.is_file() and path.suffix not in ("", ".py"):
        return unreadable
    meant = "put blanks around the plus sign of a mix: `a + b`" if "+" in data else ""
    if re.fullmatch(r"[\w-][\w.-]*/[\w.-]+(:.*)?", data) and path.suffix not in (*FORMATS, ".py"):
        meant = f"did you mean `hub:{data}`?"
    if path.suffix and path.suffix != ".py" and not path.exists():
        near = [each.name for each in path.parent.glob("*")] if path.parent.is_dir() else []
        hint = meant or (did_you_mean(path.name, near) if near else "check the path")
        return UserError(f"no {kind} file `{data}`", hint=hint)
    try:
        find("task", parse_task(data).source)
    except UserError as error:
        if is_saved(path):
            return None
        if path.is_file() and not path.suffix:
            return unreadable
        return UserError(f"{kind} data `{data}` is neither a task, a file, nor hub:owner/name", meant or error.hint)
    return None


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _part(text: str, part: str) -> MixPart:
    if not part:
        raise UserError(f"training data `{text}` has an empty part", hint="write `NAME + NAME*2`")
    found = None if _exists(part) else _WEIGHTED.fullmatch(part)
    if found is None:
        return MixPart(part)
    try:
        weight = float(found["weight"])
    except ValueError:
        weight = math.nan
    if not 0 < weight < math.inf:
        raise UserError(
            f"training data `{text}`: `{found['weight']}` is not a weight",
            hint="write a number above zero: `*3` uses the rows three times, `*0.5` half of them",
        )
    return MixPart(found["source"], weight)


def _exists(name: str) -> bool:
    try:
        return Path(name).exists()
    except (OSError, ValueError):  # the name is too long for a file, or has a null byte
        return False
