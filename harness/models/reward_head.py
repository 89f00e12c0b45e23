"""A head that gives a number instead of the next word: what a reward model judges a text with, and PPO foresees rewards by.

A reward model is a language model whose output head was swapped for one with a single row, read at the last token of a text.
Every architecture and every method thus has one, at no vocabulary's cost. The head is saved beside the adapter or checkpoint,
and with it the base that it belongs to, so that the folder alone is enough to load it again.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn import functional

from harness.errors import UserError
from harness.jobs import HEAD_FILE, Base


class NumberHead(nn.Module):
    """Hidden states to one number each, in float32 whatever the model's precision; it starts at zero.

    Args:
        width: Size of the hidden states.
        device: Where the model is.

    Example:
        >>> NumberHead(4)(torch.ones(2, 3, 4)).shape
        torch.Size([2, 3, 1])
    """

    def __init__(self, width: int, device: torch.device | str = "cpu") -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(1, width, device=device))

    def forward(self, hidden: Tensor) -> Tensor:
        with torch.autocast(hidden.device.type, enabled=False):
            return functional.linear(hidden.float(), self.weight.float())


def inner_model(model: Any) -> Any:
    """The language model within what a method put around it."""
    return model.get_base_model() if hasattr(model, "get_base_model") else model


def head_for(model: Any) -> NumberHead:
    """A new head that fits a model's hidden states."""
    weight = inner_model(model).get_output_embeddings().weight
    return NumberHead(weight.shape[1], weight.device)


def put_head(model: Any, head: nn.Module) -> nn.Module:
    """Swaps a model's output head for another, and gives the one it had."""
    inner = inner_model(model)
    old: nn.Module = inner.get_output_embeddings()
    inner.set_output_embeddings(head)
    return old


def has_reward_head(model: Any) -> bool:
    """Whether a model judges texts and writes none."""
    return isinstance(inner_model(model).get_output_embeddings(), NumberHead)


def save_head(head: NumberHead, folder: Path, base: Base) -> None:
    """Leaves a reward head in the folder of its adapter or checkpoint."""
    kept = {"base": str(base.folder), "quant": base.quant, "trust_remote_code": base.trust_remote_code}
    weight = head.weight.detach().cpu().contiguous()
    save_file({"weight": weight}, folder / HEAD_FILE, metadata={"made_on": json.dumps(kept)})


def load_head(folder: Path, model: Any) -> NumberHead:
    """The reward head in a folder, for a model.

    Raises:
        UserError: There is none, or it is another model's.
    """
    head = head_for(model)
    try:
        weight = load_file(folder / HEAD_FILE)["weight"]
    except (OSError, SafetensorError, KeyError) as error:
        raise UserError(
            f"`{folder}` is no reward model: {HEAD_FILE} cannot be read ({error})", hint="train one with `stage=reward`"
        ) from error
    if weight.shape != head.weight.shape:
        raise UserError(
            f"the reward model `{folder}` does not fit this base: its head is {weight.shape[1]} wide, not"
            f" {head.weight.shape[1]}",
            hint="a reward model runs on the base it was trained on",
        )
    head.weight.data = weight.to(head.weight)
    return head


def made_on(folder: Path) -> dict[str, Any]:
    """What the head in a folder was trained on: `base`, `quant`, `trust_remote_code`.

    Raises:
        UserError: The folder holds no reward model.
    """
    try:
        with safe_open(folder / HEAD_FILE, "pt") as file:
            kept: dict[str, Any] = json.loads((file.metadata() or {})["made_on"])
            return kept
    except (OSError, SafetensorError, KeyError, ValueError) as error:
        raise UserError(
            f"`{folder}` holds no reward model ({HEAD_FILE})", hint="train one with `stage=reward`"
        ) from error


def last_token_values(model: Any, ids: Tensor, mask: Tensor) -> Tensor:
    """`[rows]` numbers that a model with a reward head gives for right-padded texts.

    Args:
        model: With a reward head.
        ids: `[rows, width]` tokens.
        mask: `[rows, width]`, 1 where there is a token.
    """
    learned = bool(getattr(getattr(model, "active_peft_config", None), "is_prompt_learning", False))
    # a learned prefix comes in as a cache, which a forward without one refuses
    values = model(input_ids=ids, attention_mask=mask, use_cache=learned).logits[:, -ids.shape[1] :, 0]
    last = mask.sum(1) - 1
    chosen: Tensor = values.gather(1, last[:, None].to(values.device))[:, 0]
    return chosen.float()
