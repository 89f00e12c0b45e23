"""Splits the rows of an optimizer step into micro-batches of similar length, which need little padding.

The gradient of a step is a sum over its rows, so the split changes only rounding. Batches themselves stay random: a batch of
rows of one length would hold one kind of row.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from harness.errors import is_out_of_memory

_CUTS = 32
"""Maximum number of positions at which a batch may be split: the search time grows with its square."""

_TOKENS_AT_ONCE = {"cpu": 2048, "cuda": 16384}
"""Enough to keep the device busy; more would only need more memory."""

_OVERHEAD = {"cpu": 1e6, "cpu16": 3e7, "cuda": 8e9}
"""Fixed cost of running a layer, in tokens times the square of its width. In 16 bits, CPU kernels are compiled for every new
shape."""


def overhead(device: str, precision: str, width: int) -> int:
    """Returns the fixed cost of a micro-batch, as a number of tokens.

    Args:
        device: Type of the device: `cpu`, `cuda` …
        precision: Of matrix products: `fp32`, `bf16` or `fp16`.
        width: Size of the model's hidden states.
    """
    kind = "cuda" if device == "cuda" else "cpu" if precision == "fp32" else "cpu16"
    return int(_OVERHEAD[kind] / width**2)


def tokens_at_once(device: str, longest: int) -> int:
    """Returns the maximum number of tokens in a micro-batch, padding included.

    Args:
        device: Type of the device: `cpu`, `cuda` …
        longest: Maximum tokens of a row; a single row always fits.
    """
    return max(_TOKENS_AT_ONCE.get(device, _TOKENS_AT_ONCE["cpu"]), longest)


def rows_at_once(rows: int, length: int, device: str, longest: int, *, packing: bool) -> int:
    """Returns how many rows of one length pass through the model at once.

    Args:
        rows: Rows of a micro-batch, as set.
        length: Tokens of each row.
        device: Type of the device: `cpu`, `cuda` …
        longest: Maximum tokens of a row, as set.
        packing: Whether rows are packed: then only their number counts.

    Example:
        >>> rows_at_once(16, 1024, "cpu", 1024, packing=False)
        2
    """
    if packing:
        return rows
    return max(1, min(rows, tokens_at_once(device.partition(":")[0], longest) // length))


def length(row: Any) -> int:
    """Returns the number of tokens in a row."""
    return row["length"] if "length" in row else len(row["input_ids"])


def fewer_rows(error: Exception, rows: int) -> int:
    """Returns how many rows to try next after an error with `rows` rows at once: half as many.

    Raises:
        Exception: `error` itself, if it is not an out-of-memory error, or if there was a single row.

    Example:
        >>> fewer_rows(MemoryError(), 7)
        3
    """
    if not is_out_of_memory(error) or rows == 1:
        raise error
    return rows // 2


def split(rows: Sequence[Any], most: int, overhead: int, tokens: int) -> list[list[Any]]:
    """Splits rows into the micro-batches that cost least, the longest rows first.

    Args:
        rows: Tokenised rows.
        most: Maximum rows of a micro-batch.
        overhead: Fixed cost of a micro-batch, in tokens.
        tokens: Maximum tokens of a micro-batch of several rows, padding included.

    Example:
        >>> rows = [{"length": n} for n in (3, 100, 4, 90)]
        >>> [[row["length"] for row in group] for group in split(rows, 4, overhead=20, tokens=999)]
        [[100, 90], [4, 3]]
        >>> [len(group) for group in split(rows, 4, overhead=1000, tokens=999)]
        [4]
    """
    ordered = sorted(rows, key=length, reverse=True)
    fitting = max(1, tokens // max(1, length(ordered[0])))
    stride = min(most, fitting, -(-len(rows) // _CUTS))
    cuts = [*range(0, len(rows), stride), len(rows)]
    costs: list[float] = [0.0]
    starts = [0]
    for end in range(1, len(cuts)):
        best, start = min(
            (costs[start] + padded + overhead, start)
            for start in range(end)
            if (count := cuts[end] - cuts[start]) <= most
            and ((padded := count * length(ordered[cuts[start]])) <= tokens or count == 1)
        )
        costs.append(best)
        starts.append(start)
    groups: list[list[Any]] = []
    end = len(cuts) - 1
    while end:
        groups.append(ordered[cuts[starts[end]] : cuts[end]])
        end = starts[end]
    return groups[::-1]
