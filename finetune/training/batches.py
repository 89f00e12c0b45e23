"""Rows to micro-batches: padded on the right, or packed end to end with each row blind to the others.

Both hold the same rows and labels, so the loss is the same to rounding; packing feeds fewer places of padding. A batch has
`input_ids`, `labels`, `attention_mask`, `tokens` (the real ones, a plain number) and, where it is packed, `position_ids`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from harness.engine.attention import Unsupported
from harness.engine.oracle import forward
from harness.engine.prefix_cache import Prefixes, learns_a_prompt
from harness.engine.self_check import FAILURES, within_rounding
from harness.errors import UserError
from harness.tokens.training_labels import IGNORED


class Padding:
    """Right padding, which every method takes without a change of score."""

    def __init__(self, pad_id: int) -> None:
        self._pad_id = pad_id

    def __call__(self, rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
        width = max(len(row["input_ids"]) for row in rows)

        def padded(key: str, filler: int) -> Tensor:
            return torch.tensor([row[key] + [filler] * (width - len(row[key])) for row in rows])

        mask = torch.tensor([[1] * len(row["input_ids"]) + [0] * (width - len(row["input_ids"])) for row in rows])
        return {
            "input_ids": padded("input_ids", self._pad_id),
            "labels": padded("labels", IGNORED),
            "attention_mask": mask,
            "tokens": sum(len(row["input_ids"]) for row in rows),
        }


class Packing:
    """Rows end to end in as few lines as the longest of them allows; a token sees its own row alone.

    Positions begin anew with each row, and an explicit mask `[lines, 1, length, length]` keeps rows apart: transformers
    alone lets them see each other. No label stands on the first token of a row, which nothing comes before.

    Args:
        model: The model as it is trained: its layers decide the form of the mask.
        pad_id: Fills the ends of lines.

    Raises:
        UserError: The model cannot be told what each token sees.
    """

    def __init__(self, model: Any, pad_id: int) -> None:
        fault = packing_fault(model)
        if fault is not None:
            raise UserError(f"rows cannot be packed for this model: {fault}", hint="leave out `packing`")
        self._prefixes = _masks_of(model)
        self._pad_id = pad_id

    def __call__(self, rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
        return packed(rows, self._prefixes, self._pad_id)


def packed(rows: Sequence[dict[str, Any]], prefixes: Prefixes, pad_id: int) -> dict[str, Any]:
    """A packed micro-batch."""
    lines = pack([len(row["input_ids"]) for row in rows])
    width = max(sum(len(rows[place]["input_ids"]) for place in line) for line in lines)
    ids = torch.full((len(lines), width), pad_id)
    labels = torch.full((len(lines), width), IGNORED)
    positions = torch.zeros(len(lines), width, dtype=torch.long)
    masks = []
    for number, line in enumerate(lines):
        owners = torch.full((width,), -1)
        at = 0
        for place in line:
            length = len(rows[place]["input_ids"])
            own = slice(at, at + length)
            ids[number, own] = torch.tensor(rows[place]["input_ids"])
            labels[number, own] = torch.tensor(rows[place]["labels"])
            labels[number, at] = IGNORED
            positions[number, own] = torch.arange(length)
            owners[own] = place
            at += length
        positions[number, at:] = torch.arange(width - at)
        seen = (owners[:, None] == owners[None]).tril()
        masks.append(prefixes.mask(seen, positions[number]))
    return {
        "input_ids": ids,
        "labels": labels,
        "attention_mask": _stacked(masks),
        "position_ids": positions,
        "tokens": sum(len(row["input_ids"]) for row in rows),
    }


def pack(lengths: Sequence[int]) -> list[list[int]]:
    """Rows into lines no longer than the longest row: each, from the longest on, into the fullest line that takes it.

    Args:
        lengths: Of the rows, in tokens.

    Returns:
        The rows of each line, by their places.

    Example:
        >>> pack([3, 9, 6])
        [[1], [2, 0]]
    """
    room = max(lengths)
    lines: list[list[int]] = []
    left: list[int] = []
    for place in sorted(range(len(lengths)), key=lambda place: -lengths[place]):
        fits = [number for number, space in enumerate(left) if space >= lengths[place]]
        if not fits:
            lines.append([])
            left.append(room)
        number = min(fits, key=lambda number: left[number]) if fits else len(lines) - 1
        lines[number].append(place)
        left[number] -= lengths[place]
    return lines


def packing_fault(model: Any) -> str | None:
    """Why rows cannot be packed for a model, tried on a few random tokens; None where packed rows give their own logits.

    A mask that a layer does not heed (a recurrent state, biases by distance) shows as other logits.
    """
    if learns_a_prompt(model):
        return "its learned tokens come before every row"
    training = model.training
    model.eval()
    try:
        distance = _distance(model)
    except Unsupported as fault:
        return str(fault)
    except FAILURES as error:
        if isinstance(error, torch.OutOfMemoryError):
            raise
        return f"it takes no mask of its own ({type(error).__name__})"
    finally:
        model.train(training)
    return None if within_rounding(model, distance) else "its layers heed no mask"


@torch.no_grad()
def _distance(model: Any) -> float:
    """Largest distance between the logits of packed rows and of single ones, relative to their spread."""
    prefixes, device = _masks_of(model), model.device
    generator = torch.Generator().manual_seed(0)
    texts = [torch.randint(0, prefixes.config.vocab_size, (n,), generator=generator).tolist() for n in (12, 5, 7)]
    batch = packed([{"input_ids": ids, "labels": ids} for ids in texts], prefixes, 0)
    masks = batch["attention_mask"]
    on_device = {kind: mask.to(device) for kind, mask in masks.items()} if isinstance(masks, dict) else masks.to(device)
    logits = model(
        input_ids=batch["input_ids"].to(device),
        attention_mask=on_device,
        position_ids=batch["position_ids"].to(device),
        use_cache=False,
    ).logits.float()
    worst = 0.0
    for line, members in enumerate(pack([len(ids) for ids in texts])):
        at = 0
        for place in members:
            own = forward(model, texts[place]).float()
            ours = logits[line, at : at + len(own)]
            spread = (own - own.mean(-1, keepdim=True)).norm(dim=-1).max()
            distance = float((ours - own).norm(dim=-1).max() / spread)
            worst = max(worst, distance if distance == distance else float("inf"))
            at += len(own)
    return worst


def _masks_of(model: Any) -> Prefixes:
    """What makes masks in the form that a model's layers take, on the CPU: whoever loads batches moves them."""
    prefixes = Prefixes(model)
    prefixes.device = torch.device("cpu")
    return prefixes


def _stacked(masks: Sequence[Any]) -> Any:
    """The masks of single lines as one, each kind of layer's for itself."""
    if isinstance(masks[0], dict):
        return {kind: torch.cat([mask[kind] for mask in masks]) for kind in masks[0]}
    return torch.cat(list(masks))
