"""The output head of reward models and of PPO's value model: one number for each token instead of logits.

A reward model is a language model whose output head was replaced by one with a single output, read at the last token of a
text. This works for every architecture and every method, and computes no logits over the vocabulary. The head is saved
beside the adapter or checkpoint, together with the folder of its base and how that was quantized.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, NamedTuple, get_args

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn import functional

from harness.errors import UserError
from harness.jobs import HEAD_FILE, Base, Quant
from harness.models.soft_prompts import learned_tokens


class ScalarHead(nn.Module):
    """Maps each hidden state to one number, in float32 whatever the model's precision; its weight starts at zero.

    Args:
        width: Size of the hidden states.
        device: The model's device.

    Example:
        >>> ScalarHead(4)(torch.ones(2, 3, 4)).shape
        torch.Size([2, 3, 1])
    """

    def __init__(self, width: int, device: torch.device | str = "cpu") -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(1, width, device=device))

    def forward(self, hidden: Tensor) -> Tensor:
        with torch.autocast(hidden.device.type, enabled=False):
            return functional.linear(hidden.float(), self.weight.float())


def inner_model(model: Any) -> Any:
    """The language model itself, without the PEFT model that may wrap it."""
    return model.get_base_model() if hasattr(model, "get_base_model") else model


def head_for(model: Any) -> ScalarHead:
    """Makes a head of the width of a model's hidden states."""
    weight = inner_model(model).get_output_embeddings().weight
    return ScalarHead(weight.shape[1], weight.device)


def put_head(model: Any, head: nn.Module) -> nn.Module:
    """Replaces a model's output head and returns the old one."""
    inner = inner_model(model)
    old: nn.Module = inner.get_output_embeddings()
    inner.set_output_embeddings(head)
    return old


def has_reward_head(model: Any) -> bool:
    """Whether a model is a reward model, which scores texts and generates none."""
    return isinstance(inner_model(model).get_output_embeddings(), ScalarHead)


def save_head(head: ScalarHead, folder: Path, base: Base) -> None:
    """Saves a reward head in the folder of its adapter or checkpoint."""
    kept = {"base": str(base.folder), "quant": base.quant}
    weight = head.weight.detach().cpu().contiguous()
    save_file({"weight": weight}, folder / HEAD_FILE, metadata={"made_on": json.dumps(kept)})


def load_head(folder: Path, model: Any) -> ScalarHead:
    """Loads the reward head in a folder, for a model.

    Raises:
        UserError: The folder has no reward head, or the head is of another width than the model.
    """
    head = head_for(model)
    try:
        weight = load_file(folder / HEAD_FILE)["weight"]
    except (OSError, SafetensorError, KeyError) as error:
        raise UserError(
            f"`{folder}` is not a reward model: {HEAD_FILE} cannot be read ({error})",
            hint="train one with `stage=reward`",
        ) from error
    if weight.shape != head.weight.shape:
        raise UserError(
            f"the reward model `{folder}` does not fit this base: its head is {weight.shape[1]} wide, not"
            f" {head.weight.shape[1]}",
            hint="load a reward model on the base it was trained on",
        )
    head.weight.data = weight.to(head.weight)
    return head


class MadeOn(NamedTuple):
    """The base that a reward head was trained on, as its file says; anybody can write such a file."""

    base: str
    """Folder of the base on the machine that trained the head."""
    quant: Quant | None


def made_on(folder: Path) -> MadeOn:
    """Reads which base the reward head in a folder was trained on.

    Raises:
        UserError: The folder holds no reward model, or its file asks to run code that comes with a model.
    """
    try:
        with safe_open(folder / HEAD_FILE, "pt") as file:
            kept = json.loads((file.metadata() or {})["made_on"])
        made = MadeOn(str(kept["base"]), kept["quant"])
        if made.quant not in (None, *get_args(Quant)):
            raise ValueError(f"unknown quantization {made.quant!r}")
    except (OSError, SafetensorError, LookupError, TypeError, ValueError, RecursionError) as error:
        raise UserError(
            f"`{folder}` holds no reward model ({HEAD_FILE})", hint="train one with `stage=reward`"
        ) from error
    if kept.get("trust_remote_code"):
        raise UserError(
            f"`{folder / HEAD_FILE}` asks to run the code that comes with its model, which only you can allow",
            hint=f"score it as a variant: `harness eval {folder} --tasks preference --trust-remote-code`",
        )
    return made


def last_token_values(model: Any, ids: Tensor, mask: Tensor) -> Tensor:
    """Computes a reward model's number for each of some right-padded texts.

    Args:
        model: The model, with a reward head.
        ids: `[rows, width]` tokens.
        mask: `[rows, width]`, 1 where there is a token.

    Returns:
        `[rows]` float32.
    """
    learned = learned_tokens(model) > 0  # a learned prefix is passed as a cache, which needs `use_cache`
    values = model(input_ids=ids, attention_mask=mask, use_cache=learned).logits[:, -ids.shape[1] :, 0]
    last = mask.sum(1) - 1
    chosen: Tensor = values.gather(1, last[:, None].to(values.device))[:, 0]
    return chosen.float()
