"""Finds empty cells (null, NaN) that a task writes into a prompt or an answer, where they become the words None or nan.

The task's function is called again with the empty cell replaced by one that is written differently. If its texts change
only there, the cell was written. A function that handles an empty cell (`row["hint"] or ""`, `if row["hint"] is None`)
gives other texts, or the same ones.

Example:
    >>> row = {"text": None, "label": 1}
    >>> written_null(["Text: None"], lambda row: [f"Text: {row['text']}"], row)
    ('text', 'None')
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

_MARK = "𒀂𒁃𒄈𒅋"
"""Letters without upper and lower case that no dataset has (cuneiform); as many as the longest word of an empty cell."""
_WORDS = ("none", "nan", "nat", "<na>")
"""How Python, NumPy and pandas write an empty cell, in lower case."""
Path = tuple[Any, ...]
"""The keys and indices that lead from a row to a cell."""


def written_null(
    texts: Sequence[str], write: Callable[[Mapping[str, Any]], list[str]], row: Mapping[str, Any]
) -> tuple[str, str] | None:
    """Finds an empty cell of a row that a function writes into its texts.

    Args:
        texts: The texts that the function made from the row.
        write: The function, without side effects.
        row: The row.

    Returns:
        The cell, such as `text` or `answers.text[0]`, and the word that it became; None if no cell did.
    """
    texts = [text.lower() for text in texts]
    if not any(word in text for text in texts for word in _WORDS):
        return None
    for path, value in _nulls(row, ()):
        word = str(value)
        if any(word.lower() in text for text in texts):
            mark = _MARK[: len(word)]
            try:
                marked = [text.lower() for text in write(_replaced(row, path, _stand_in(value, mark)))]
            except Exception:  # the function depends on what the cell is, so it does not just write it
                continue
            if marked != texts and [text.replace(mark, word.lower()) for text in marked] == texts:
                return _shown(path), word
    return None


def is_null(value: Any) -> bool:
    """Whether a cell is empty: None, a NaN, or a missing value of pandas.

    Example:
        >>> is_null(float("nan")), is_null("nan"), is_null(0)
        (True, False, False)
    """
    if isinstance(value, float) or type(value).__name__ == "float32":
        return bool(value != value)
    return value is None or type(value).__name__ in ("NaTType", "NAType")


def _nulls(value: Any, path: Path) -> Iterator[tuple[Path, Any]]:
    if isinstance(value, Mapping):
        for key, cell in value.items():
            yield from _nulls(cell, (*path, key))
    elif isinstance(value, list | tuple):
        for index, cell in enumerate(value):
            yield from _nulls(cell, (*path, index))
    elif is_null(value):
        yield path, value


def _replaced(value: Any, path: Path, cell: Any) -> Any:
    """Returns a copy of nested mappings and lists with another value in one place."""
    if not path:
        return cell
    first, *rest = path
    changed = _replaced(value[first], tuple(rest), cell)
    if isinstance(value, Mapping):
        return {**value, first: changed}
    return type(value)(changed if index == first else each for index, each in enumerate(value))


def _shown(path: Path) -> str:
    first, *rest = path
    return str(first) + "".join(f"[{key}]" if isinstance(key, int) else f".{key}" for key in rest)


class _Null:
    """An empty cell that is written as a mark, and otherwise behaves like None as far as an object can."""

    def __init__(self, mark: str) -> None:
        self.mark = mark

    def __bool__(self) -> bool:
        return False

    def __eq__(self, other: object) -> bool:
        return other is None

    def __hash__(self) -> int:
        return hash(None)

    def __repr__(self) -> str:
        return self.mark


class _Nan(float):
    """A NaN that is written as a mark."""

    mark: str

    def __repr__(self) -> str:
        return self.mark

    def __format__(self, form: str) -> str:
        return super().__format__(form).replace("nan", self.mark)


def _stand_in(value: Any, mark: str) -> Any:
    if not isinstance(value, float):
        return _Null(mark)
    cell = _Nan("nan")
    cell.mark = mark
    return cell
