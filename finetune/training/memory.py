"""Predicts the memory that a training run needs, before any weight is loaded.

`trace` builds the model without weights, applies the method, and runs a step with the run's own loss on tensors that have a
shape but no content, while every storage that is allocated and freed is counted: exact up to the allocator's rounding, for any
architecture and any method that can be built without weights. `estimate` is a closed formula for Llama-like models.

Both count the bytes of tensors. A GPU needs further memory for its context (about half a GiB) and for what the allocator reserves
without using it, which the trace counts, too; a CPU needs scratch memory for its libraries.

Example:
    >>> from transformers import LlamaConfig
    >>> llama = LlamaConfig(hidden_size=64, intermediate_size=176, num_hidden_layers=2, num_attention_heads=4, vocab_size=512)
    >>> trace(llama, lambda model: model.requires_grad_(True), rows=2, length=32).parameters_trainable
    166208
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal
from unittest.mock import patch

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode
from transformers import PretrainedConfig, masking_utils
from transformers.integrations import moe

from harness.errors import UserError, brief
from harness.finetune.training import loss as losses
from harness.finetune.training.cuda_allocator import CachingAllocator
from harness.finetune.training.flops import Passed, passed_weights
from harness.finetune.training.recomputation import recompute_activations
from harness.finetune.training.trained_weights import hold_trained
from harness.finetune.training.weightless import (
    BITS_PER_WEIGHT,
    STATE_BYTES,
    AllocationCounter,
    OptimizerStates,
    materialise,
    without_weights,
)
from harness.jobs import Quant
from harness.models.load import count_parameters
from harness.models.reach import layer_weights, reach_note, trained_share, unquantized_notes
from harness.models.soft_prompts import learned_tokens

LossFunction = Callable[[Any, dict[str, Tensor], int], Tensor]
"""Maps `(model, batch, items)` to the sum over the batch divided by `items`, as a stage's loss does."""

_KEPT_BYTES: Mapping[str, Mapping[str, tuple[int, int, int]]] = {
    "bf16": {
        "full": (30, 8, 4),
        "lora": (24, 8, 4),
        "dora": (36, 16, 12),
        "ia3": (12, 10, 8),
        "norms": (16, 6, 4),
        "embeddings": (12, 6, 4),
    },
    "fp32": {
        "full": (32, 16, 8),
        "lora": (24, 16, 8),
        "dora": (48, 32, 24),
        "ia3": (16, 16, 16),
        "norms": (24, 12, 8),
        "embeddings": (16, 12, 8),
    },
}
"""Bytes that a layer keeps per token for the backward pass, as factors of width, inner width, and width of the keys. Fitted to
traces."""


@dataclass(frozen=True)
class Footprint:
    """Bytes that one training run needs, by use; the peak is the largest of the three phases."""

    parameters_total: int
    parameters_trainable: int
    weights_bytes: int
    """Of base and method in their formats, including the scales of quantized weights."""
    gradient_bytes: int
    optimizer_bytes: int
    activation_bytes: int
    """Stored by the forward pass for the backward pass."""
    forward_bytes: int
    """Peak of the forward pass, everything in memory included."""
    backward_bytes: int
    step_bytes: int
    artifact_bytes: int
    """Of the trained parameters in their type; methods that learn a prompt save less."""
    passed: Passed
    """Weights that a token passes."""
    reserved_bytes: int | None = None
    """Reserved by the allocator of a GPU for these tensors; None on a CPU."""
    notes: tuple[str, ...] = ()
    """Notes for the user: what the method does not reach, what is not quantized."""

    @property
    def by_phase(self) -> tuple[int, int, int]:
        """Peaks of the forward pass, the backward pass and the optimizer step."""
        return self.forward_bytes, self.backward_bytes, self.step_bytes

    @property
    def peak_bytes(self) -> int:
        """The largest of the three peaks."""
        return max(self.by_phase)


def trace(
    config: PretrainedConfig,
    method: Callable[[Any], Any],
    *,
    rows: int,
    length: int,
    labels: float = 1.0,
    dtype: torch.dtype = torch.float32,
    quant: Quant | None = None,
    autocast: torch.dtype | None = None,
    checkpointing: bool = False,
    optimizer: str = "adamw",
    loss: LossFunction | None = None,
    trained_dtype: torch.dtype = torch.float32,
    device: str = "cpu",
    trust_remote_code: bool = False,
    context: int | None = None,
    masked: bool = False,
) -> Footprint:
    """Counts a training step of a model that has no weights.

    Args:
        config: Of the base.
        method: Turns the base into the trainable model, as a method's function does.
        rows: Rows of a micro-batch.
        length: Tokens of each row.
        labels: Share of tokens that have a label.
        dtype: Of the base's weights.
        quant: Format of the base's linear layers.
        autocast: Type of matrix products under mixed precision.
        checkpointing: Whether activations are recomputed instead of stored.
        optimizer: Name in `OPTIMIZERS`; unknown ones count as AdamW.
        loss: The stage's; None: that of supervised fine-tuning.
        trained_dtype: Of the trained parameters, as the setting `weights` has it.
        device: Device of the run: the loss is computed in larger pieces on a GPU.
        trust_remote_code: Whether the architecture may be code from the model's repository.
        context: Maximum tokens of the model, including those that the method learned; None: no limit.
        masked: Whether attention needs a mask: rows are packed, or a mixture's router loss leaves out the padding.
            Layers then keep the mask, and keys and values that are repeated for every query head.

    Raises:
        UserError: The method or the architecture needs the weights themselves.
    """
    try:
        with torch.device("meta"):
            base = without_weights(config, dtype=dtype, quant=quant, trust_remote_code=trust_remote_code)
            reachable = layer_weights(base)
            notes: list[str | None] = [*unquantized_notes(base)] if quant is not None else []
            model = method(base)
            notes.append(reach_note(reachable, model, getattr(method, "keywords", {})))
        hold_trained(model, trained_dtype)
        total, trainable = count_parameters(model)
        passed = passed_weights(model, config)
        base.config.use_cache = False
        if checkpointing:
            recompute_activations(base)
            base.enable_input_require_grads()
        model.train()
        if context is not None:
            length = min(length, context - learned_tokens(model))
        allocator = CachingAllocator() if device.startswith("cuda") else None
        counter = AllocationCounter(labels, allocator)
        with FakeTensorMode(allow_non_fake_inputs=True), counter, _as_on(device, masked):
            materialise(model)
            weights = counter.now
            batch = _batch(rows, length, masked)
            phases = _step(model, counter, batch, optimizer, _mixed(loss, autocast))
    except (NotImplementedError, RuntimeError, TypeError, AttributeError, ValueError) as error:
        raise UserError(
            f"this training run cannot be planned without weights: {str(error).splitlines()[0][:200]}",
            hint="methods that read the weights (pissa, olora …) need as much memory as `lora`",
        ) from error
    artifact = trainable * trained_dtype.itemsize
    found = tuple(filter(None, notes))
    reserved = allocator.reserved_bytes if allocator else None
    return Footprint(
        total,
        trainable,
        weights,
        artifact_bytes=artifact,
        passed=passed,
        reserved_bytes=reserved,
        notes=found,
        **phases,
    )


def shares(
    config: PretrainedConfig,
    methods: Sequence[tuple[Callable[[Any], Any], Quant | None]],
    *,
    dtype: torch.dtype = torch.float32,
    trust_remote_code: bool = False,
) -> list[float | str | None]:
    """Shares of the weights between embeddings and output head that methods reach, on a model that has no weights.

    Args:
        config: Of the base.
        methods: Methods, each with the format of the base's linear layers that it needs.
        dtype: Of the base's weights.
        trust_remote_code: Whether the architecture may be code from the model's repository.

    Returns:
        A share for each method; None for a method that leaves the weights as they are and adds its own; the reason why a method
        has no share.
    """
    found: list[float | str | None] = []
    for method, quant in methods:
        try:
            with torch.device("meta"):
                base = without_weights(config, dtype=dtype, quant=quant, trust_remote_code=trust_remote_code)
                weights = layer_weights(base)
                found.append(trained_share(weights, method(base)))
        except (UserError, ValueError) as error:
            found.append(brief(error))
        except (NotImplementedError, RuntimeError, TypeError, AttributeError):
            found.append("it reads the weights themselves")
    return found


def estimate(
    config: PretrainedConfig,
    kind: str,
    trainable: int,
    *,
    rows: int,
    length: int,
    precision: Literal["bf16", "fp32"] = "fp32",
    quant: Quant | None = None,
    checkpointing: bool = False,
    optimizer: str = "adamw",
    device: str = "cpu",
) -> int:
    """Returns the peak bytes of a training run by a closed formula, for Llama-like models.

    Args:
        config: Of a Llama-like model: width, inner width, layers, heads, vocabulary.
        kind: Kind of method: `full`, `lora`, `dora`, `ia3`, `norms` or `embeddings`.
        trainable: Number of trained parameters.
        rows: Rows of a micro-batch.
        length: Tokens of each row.
        precision: `bf16`: a base in bfloat16 under mixed precision; `fp32`: all in float32.
        quant: Format of the base's linear layers.
        checkpointing: Whether activations are recomputed instead of stored.
        optimizer: Name in `OPTIMIZERS`.
        device: Device of the run: the loss is computed in larger pieces on a GPU.

    Raises:
        KeyError: There is no formula for `kind`.

    Example:
        >>> from transformers import LlamaConfig
        >>> llama = LlamaConfig()  # 7B
        >>> 4.3e9 < estimate(llama, "lora", 20_000_000, rows=1, length=512, precision="bf16", quant="nf4") < 8e9
        True
    """
    hidden, inner, layers = config.hidden_size, config.intermediate_size, config.num_hidden_layers
    head = getattr(config, "head_dim", None) or hidden // config.num_attention_heads
    keys = config.num_key_value_heads * head
    queries = config.num_attention_heads * head
    size = 2 if precision == "bf16" else 4
    linear = layers * (2 * hidden * (queries + keys) + 3 * hidden * inner)
    outside = config.vocab_size * hidden * (1 if config.tie_word_embeddings else 2) + (2 * layers + 1) * hidden
    frozen = 0 if kind == "full" else linear + outside - (0 if kind in ("lora", "dora", "ia3") else trainable)
    quantized = linear if quant else 0
    weights = (frozen - quantized) * size + quantized * BITS_PER_WEIGHT[quant or "int8"] / 8 + 4 * trainable
    state = trainable * STATE_BYTES.get(optimizer, STATE_BYTES["adamw"])
    tokens = rows * length
    kept = tokens * sum(map(math.prod, zip(_KEPT_BYTES[precision][kind], (hidden, inner, keys), strict=True)))
    copies = (
        size * linear if kind == "full" and precision == "bf16" else 0
    )  # 16-bit copies of float32 weights, for matrix products
    unpacked = size * hidden * inner if quant else 0
    pieces = losses.LOGITS_AT_ONCE.get(device.partition(":")[0], losses.LOGITS_AT_ONCE["cpu"])
    table = 4 * config.vocab_size * hidden
    loss = 12 * min(pieces, tokens * config.vocab_size) + 3 * size * hidden * tokens
    if kind == "full":  # the head's gradients (their sum, and those of a piece) are computed in the forward pass
        loss += 2 * table + (table if precision == "bf16" else 0)
    held = kept * layers + copies + loss
    if checkpointing:
        held = layers * size * hidden * tokens + max(kept + 6 * inner * tokens + copies / layers, loss)
        held += 0 if kind == "full" else 4 * trainable  # gradients of upper layers while a lower one is recomputed
    peak: int = round(weights + state + max(held + unpacked, 4 * trainable))
    return peak


def _mixed(loss: LossFunction | None, autocast: torch.dtype | None) -> LossFunction:
    """Returns the loss under the trainer's mixed precision."""
    plain = loss or (lambda model, batch, items: losses.label_loss(model, batch) / items)

    def mixed(model: Any, batch: dict[str, Tensor], items: int) -> Tensor:
        with torch.autocast("cpu", autocast) if autocast else contextlib.nullcontext():
            return plain(model, batch, items)

    return mixed


def _batch(rows: int, length: int, masked: bool) -> dict[str, Tensor]:
    ids = torch.zeros((rows, length), dtype=torch.long)
    mask = {"attention_mask": torch.ones((rows, 1, length, length), dtype=torch.bool)} if masked else {}
    return {"input_ids": ids, "labels": ids} | mask


def _step(
    model: Any, counter: AllocationCounter, batch: dict[str, Tensor], optimizer: str, loss: LossFunction
) -> dict[str, int]:
    """Returns the bytes of each phase of a later step, when the optimizer already has its state."""
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    states = OptimizerStates(trained, optimizer)
    before = counter.restart()
    for parameter in trained:
        parameter.grad = torch.empty_like(parameter)
    gradients = counter.now - before
    states.step()
    states.zero_grad()
    start = counter.restart()
    found = loss(model, batch, 1)
    phases = {"forward_bytes": counter.peak, "activation_bytes": counter.now - start}
    counter.restart()
    found.backward()  # type: ignore[no-untyped-call]
    del found
    phases["backward_bytes"] = counter.peak
    counter.restart()
    states.step()
    return phases | {"step_bytes": counter.peak, "gradient_bytes": gradients, "optimizer_bytes": start - before}


@contextlib.contextmanager
def _as_on(device: str, masked: bool) -> Iterator[None]:
    """Makes the trace take the same paths as real tensors.

    A mask without content counts as one of ones, which transformers leaves out. GPUs use larger loss pieces. The experts of a
    mixture are multiplied by the operation of transformers, which is defined for tensors without content; torch's `grouped_mm` is
    so in bfloat16 alone.
    """
    pieces = losses.LOGITS_AT_ONCE.get(device.partition(":")[0], losses.LOGITS_AT_ONCE["cpu"])
    with (
        patch.object(masking_utils, "is_tracing", lambda *_: False),
        patch.object(
            masking_utils, "_ignore_causal_mask_sdpa", _never if masked else masking_utils._ignore_causal_mask_sdpa
        ),
        patch.object(moe, "_can_use_grouped_mm", lambda *_: False),
        patch.dict(losses.LOGITS_AT_ONCE, cpu=pieces),
    ):
        yield


def _never(*_: Any, **__: Any) -> bool:
    return False
