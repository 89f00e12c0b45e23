"""Packs: which requests share a forward pass. Planned once from the full list; the unit of commit and resume."""

from __future__ import annotations

from collections.abc import Sequence

from harness.engine.encode import Encoded


def plan_packs(encoded: Sequence[Encoded], token_budget: int, max_rows: int | None = None) -> list[list[Encoded]]:
    """Requests in packs, longest first, padded size within the budget; a request is never split.

    Args:
        encoded: All requests of a task.
        token_budget: Rows × longest row of a pack; a request above it gets a pack of its own.
        max_rows: At most so many rows in a pack.

    Returns:
        Every request once; the same list always gives the same packs.
    """
    packs: list[list[Encoded]] = []
    rows = width = 0
    for item in sorted(encoded, key=lambda e: (-_width(e), e.index)):
        count = _rows(item)
        fits = (rows + count) * max(width, _width(item)) <= token_budget
        if not packs or not fits or (max_rows is not None and rows + count > max_rows):
            packs.append([])
            rows = width = 0
        packs[-1].append(item)
        rows, width = rows + count, max(width, _width(item))
    return packs


def kept_prefix(packs: Sequence[Sequence[Encoded]], done: Sequence[int]) -> int:
    """How many packs at the front of the plan are wholly on disk, in the plan's order.

    Args:
        packs: The plan.
        done: Indices of the samples on disk, in the order of the file.
    """
    at = 0
    for number, pack in enumerate(packs):
        indices = [item.index for item in pack]
        if list(done[at : at + len(indices)]) != indices:
            return number
        at += len(indices)
    return len(packs)


def _width(item: Encoded) -> int:
    if item.request.mode == "generate":
        return len(item.prompt) + item.request.max_tokens
    return max((len(row.ids) for row in item.rows), default=0)


def _rows(item: Encoded) -> int:
    return item.request.samples if item.request.mode == "generate" else len(item.rows)
