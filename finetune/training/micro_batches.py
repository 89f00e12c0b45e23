"""The rows of an optimizer step as parts of like length, so that little is padded.

The gradient of a step is a sum over its rows: how they are grouped changes rounding and nothing else. Batches themselves stay
random, as batches of rows of one length would each be of one kind of row.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

_CUTS = 32
"""Places at which a batch may be cut, at most: the best cut is found in their square."""

_TOKENS_AT_ONCE = {"cpu": 2048, "cuda": 16384}
"""Enough to keep a processor busy; more would only take more memory."""

_OVERHEAD = {"cpu": 1e6, "cpu16": 3e7, "cuda": 8e9}
"""Cost of running a layer besides its tokens, in tokens times the square of its width; in 16 bits, the CPU's kernels are built
and cached for every shape."""


def overhead(device: str, precision: str, width: int) -> int:
    """Cost of a part besides its tokens, in tokens.

    Args:
        device: Its type: `cpu`, `cuda` …
        precision: Of the matrix products: `fp32`, `bf16` or `fp16`.
        width: Size of the model's hidden states.
    """
    kind = "cuda" if device == "cuda" else "cpu" if precision == "fp32" else "cpu16"
    return int(_OVERHEAD[kind] / width**2)


def tokens_at_once(device: str, longest: int) -> int:
    """Tokens of a part, its pads among them.

    Args:
        device: Its type: `cpu`, `cuda` …
        longest: Tokens of a row at most, which are never too many.
    """
    return max(_TOKENS_AT_ONCE.get(device, _TOKENS_AT_ONCE["cpu"]), longest)


def length(row: Any) -> int:
    """Tokens of a row."""
    return row["length"] if "length" in row else len(row["input_ids"])


def split(rows: Sequence[Any], most: int, overhead: int, tokens: int) -> list[list[Any]]:
    """Rows in parts that are cheapest to run, the longest first.

    Args:
        rows: Tokenised rows.
        most: Rows of a part, at most.
        overhead: What a part costs besides its tokens and pads, in tokens.
        tokens: Of a part with its pads, at most, unless it is a single row.

    Example:
        >>> rows = [{"length": n} for n in (3, 100, 4, 90)]
        >>> [[row["length"] for row in part] for part in split(rows, 4, overhead=20, tokens=999)]
        [[100, 90], [4, 3]]
        >>> [len(part) for part in split(rows, 4, overhead=1000, tokens=999)]
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
    parts: list[list[Any]] = []
    end = len(cuts) - 1
    while end:
        parts.append(ordered[cuts[starts[end]] : cuts[end]])
        end = starts[end]
    return parts[::-1]
