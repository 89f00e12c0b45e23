"""Collates rows into micro-batches: padded on the right, or packed into sequences in which rows do not attend to each other.

Both hold the same rows and labels, so the loss is the same up to rounding; packing needs less padding. A batch has `input_ids`,
`labels`, `attention_mask`, `tokens` (their number without padding) and, if it is packed, `position_ids`.
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
from harness.errors import UserError, is_out_of_memory
from harness.tokens.training_labels import IGNORED


class Padding:
    """Pads rows on the right, which works for every method without changing results."""

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
    """Concatenates rows into few sequences, none longer than the longest row; tokens attend to their own row only.

    Positions start at 0 in each row, and an explicit mask `[sequences, 1, length, length]` separates the rows: transformers
    alone lets them attend to each other. The first token of a row has no label, as no token of its row precedes it.

    Args:
        model: The model in training, whose layers decide the form of the mask.
        pad_id: Fills the ends of sequences.

    Raises:
        UserError: The model's layers do not follow such a mask.
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
    """Makes a packed micro-batch."""
    sequences = pack([len(row["input_ids"]) for row in rows])
    width = max(sum(len(rows[index]["input_ids"]) for index in sequence) for sequence in sequences)
    ids = torch.full((len(sequences), width), pad_id)
    labels = torch.full((len(sequences), width), IGNORED)
    positions = torch.zeros(len(sequences), width, dtype=torch.long)
    masks = []
    for number, sequence in enumerate(sequences):
        owners = torch.full((width,), -1)
        at = 0
        for index in sequence:
            length = len(rows[index]["input_ids"])
            own = slice(at, at + length)
            ids[number, own] = torch.tensor(rows[index]["input_ids"])
            labels[number, own] = torch.tensor(rows[index]["labels"])
            labels[number, at] = IGNORED
            positions[number, own] = torch.arange(length)
            owners[own] = index
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
    """Packs rows into sequences no longer than the longest row, by best-fit decreasing: each into the fullest one with room.

    Args:
        lengths: Of the rows, in tokens.

    Returns:
        The indices of the rows in each sequence.

    Example:
        >>> pack([3, 9, 6])
        [[1], [2, 0]]
    """
    room = max(lengths)
    sequences: list[list[int]] = []
    left: list[int] = []
    for index in sorted(range(len(lengths)), key=lambda index: -lengths[index]):
        fits = [number for number, space in enumerate(left) if space >= lengths[index]]
        if not fits:
            sequences.append([])
            left.append(room)
        number = min(fits, key=lambda number: left[number]) if fits else len(sequences) - 1
        sequences[number].append(index)
        left[number] -= lengths[index]
    return sequences


def packing_fault(model: Any) -> str | None:
    """Returns why rows cannot be packed for a model; None if packed rows have the logits of single ones.

    It compares the logits of a few random tokens: they differ if a layer ignores the mask (recurrent states, distance biases).
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
        if is_out_of_memory(error):
            raise
        return f"it does not accept an explicit attention mask ({type(error).__name__})"
    finally:
        model.train(training)
    return None if within_rounding(model, distance) else "its layers ignore the attention mask"


@torch.no_grad()
def _distance(model: Any) -> float:
    """Returns the largest distance between the logits of packed rows and of single ones, relative to their spread."""
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
    for sequence, members in enumerate(pack([len(ids) for ids in texts])):
        at = 0
        for index in members:
            own = forward(model, texts[index]).float()
            ours = logits[sequence, at : at + len(own)]
            spread = (own - own.mean(-1, keepdim=True)).norm(dim=-1).max()
            distance = float((ours - own).norm(dim=-1).max() / spread)
            worst = max(worst, distance if distance == distance else float("inf"))
            at += len(own)
    return worst


def _masks_of(model: Any) -> Prefixes:
    """Makes a builder of masks in the form that the model's layers accept, on the CPU; the loop moves batches to the device."""
    prefixes = Prefixes(model)
    prefixes.device = torch.device("cpu")
    return prefixes


def _stacked(masks: Sequence[Any]) -> Any:
    """Concatenates the masks of single sequences, separately for each kind of layer."""
    if isinstance(masks[0], dict):
        return {kind: torch.cat([mask[kind] for mask in masks]) for kind in masks[0]}
    return torch.cat(list(masks))
