"""Counts the floating-point operations of training, for the time that `harness plan` predicts.

A token costs two operations for each weight that it passes in the forward pass, two more for the gradients that go on to the layer
below, and two for each trained weight (Kaplan et al. 2020, arXiv 2001.08361, appendix). Of the experts of a mixture, a token passes
only the chosen ones. Attention costs operations in proportion to the length.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from copy import deepcopy
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from transformers import PretrainedConfig

from harness.finetune.training import loss as losses
from harness.finetune.training.trained_weights import hold_trained
from harness.finetune.training.weightless import without_weights
from harness.jobs import Quant

_CHOSEN = ("num_experts_per_tok", "moe_topk", "top_k_experts", "num_selected_experts")
_EXPERTS = ("num_local_experts", "num_experts", "n_routed_experts", "moe_num_experts")
_MEASURED_TOKENS = {"cpu": (128, 512), "cuda": (2048, 2048)}
"""Fewest and most tokens of a measured step. On a CPU, wide matrix products reach their speed at 64 rows; with the embedded model, a
step of 128 tokens has half of the speed of one with 400."""
_STEP_OPERATIONS = 3e9
"""Operations of a measured step, if that many tokens are within the limits: 30 ms of a CPU core."""
_MEASURED_STEPS = 3


@dataclass(frozen=True)
class Passed:
    """Weights that a token passes in matrix products."""

    active: int
    trained: int


def passed_weights(model: Any, config: PretrainedConfig) -> Passed:
    """Counts the weights that a token passes; an embedding is looked up, which costs nothing.

    Args:
        model: With the method applied; a quantized weight counts with its unpacked size.
        config: Of the base.
    """
    share = expert_share(config)
    embedded = {id(module.weight) for module in model.modules() if isinstance(module, nn.Embedding)}
    head = model.get_output_embeddings() if hasattr(model, "get_output_embeddings") else None
    embedded.discard(id(getattr(head, "weight", None)))  # a tied head is a matrix product
    active = trained = 0.0
    for name, weight in model.named_parameters():
        state = getattr(weight, "quant_state", None)
        shape = weight.shape if state is None else state.shape
        if len(shape) < 2 or id(weight) in embedded:
            continue
        passed = shape.numel() * (share if ".experts." in name else 1.0)
        active += passed
        trained += passed if weight.requires_grad else 0.0
    return Passed(round(active), round(trained))


def expert_share(config: PretrainedConfig) -> float:
    """Returns the share of a mixture's experts that a token passes; 1 for a dense model."""
    text = config.get_text_config()
    chosen, experts = (
        next((getattr(text, n) for n in names if getattr(text, n, None)), None) for names in (_CHOSEN, _EXPERTS)
    )
    return min(1.0, chosen / experts) if chosen and experts else 1.0


def flops_per_token(passed: Passed, config: PretrainedConfig, length: int, *, checkpointing: bool) -> float:
    """Counts the operations of training on one token, forward and backward.

    Args:
        passed: Weights that a token passes.
        config: Of the base.
        length: Tokens of a row; a token attends to half of them on average.
        checkpointing: Whether the forward pass is computed twice.

    Example:
        >>> from transformers import LlamaConfig
        >>> round(flops_per_token(Passed(1_000_000, 1_000_000), LlamaConfig(), 0, checkpointing=False))
        6000000
    """
    text = config.get_text_config()
    heads = getattr(text, "num_attention_heads", None) or 0
    width = heads * (getattr(text, "head_dim", None) or (text.hidden_size // heads if heads else 0))
    attention = 2 * 2 * width * (length / 2) * text.num_hidden_layers  # two products, two operations each
    again = 1 if checkpointing else 0
    total: float = 2 * passed.active * (2 + again) + 2 * passed.trained + attention * (3 + again)
    return total


def measured_flops(
    config: PretrainedConfig,
    method: Callable[[Any], Any],
    *,
    device: str,
    dtype: torch.dtype,
    quant: Quant | None,
    autocast: torch.dtype | None,
    rows: int,
    length: int,
    trained_dtype: torch.dtype = torch.float32,
    trust_remote_code: bool = False,
    clock: Callable[[], float] = time.perf_counter,
) -> float:
    """Measures operations per second in steps of a copy of the model that has one layer and random weights.

    The fastest step counts: other processes can only slow it down.

    Args:
        config: Of the base.
        method: Turns the base into the trainable model.
        device: Device that is measured.
        dtype: Of the base's weights.
        quant: Format of the base's linear layers; unpacking it is not measured.
        autocast: Type of matrix products under mixed precision.
        rows: Rows that pass through the model at once.
        length: Tokens of a row.
        trained_dtype: Of the trained parameters.
        trust_remote_code: Whether the architecture may be code from the model's repository.
        clock: Seconds.
    """
    small = deepcopy(config)
    text = small.get_text_config()
    text.num_hidden_layers = 1
    if getattr(text, "layer_types", None):
        text.layer_types = text.layer_types[:1]
    kind = device.partition(":")[0]
    torch.backends.cuda.enable_cudnn_sdp(False)  # as in training
    with torch.device(device):
        model = method(without_weights(small, dtype=dtype, quant=quant, trust_remote_code=trust_remote_code))
        hold_trained(model, trained_dtype)
    passed = passed_weights(model, small)
    fewest, most = _MEASURED_TOKENS.get(kind, _MEASURED_TOKENS["cpu"])
    wanted = _STEP_OPERATIONS / flops_per_token(passed, small, length, checkpointing=False)
    tokens = min(rows * length, max(fewest, min(most, round(wanted))))
    length = min(length, tokens)
    rows = tokens // length
    ids = torch.zeros((rows, length), dtype=torch.long, device=device)
    model.train()

    def step() -> float:
        began = clock()
        with torch.autocast(kind, autocast) if autocast else torch.enable_grad():
            found = losses.label_loss(model, {"input_ids": ids, "labels": ids})
        found.backward()  # type: ignore[no-untyped-call]
        if kind == "cuda":
            torch.cuda.synchronize(device)
        return clock() - began

    step()
    seconds = min(step() for _ in range(_MEASURED_STEPS))
    return flops_per_token(passed, small, length, checkpointing=False) * rows * length / seconds
