"""What a training needs in memory, before any weight is loaded.

`trace` builds the model without weights, applies the method, and runs a step of the training's own loss on tensors that
have a shape and no content, while every storage that is made and freed is counted: exact to the allocator's rounding, for any
architecture and any method that can be built without weights. `estimate` is the closed form for Llama shapes: no model at all.

Both count what the tensors take. A GPU adds its context (about half a GiB) and what the allocator reserves without using it (a
fifth to a third without expandable segments); a CPU adds its libraries' scratch.

Example:
    >>> llama = LlamaConfig(hidden_size=64, intermediate_size=176, num_hidden_layers=2, num_attention_heads=4, vocab_size=512)
    >>> trace(llama, lambda model: model.requires_grad_(True), rows=2, length=32).parameters_trainable
    164160
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, fields
from typing import Any, Literal
from unittest.mock import patch

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode
from transformers import AutoModelForCausalLM, PretrainedConfig, masking_utils

from harness.errors import UserError
from harness.finetune.training import loss as losses
from harness.finetune.training.weightless import BITS_PER_WEIGHT, STATE_BYTES, States, Watch, materialise, quantize
from harness.jobs import PlanJob, Planned, Quant
from harness.models.load import count_parameters
from harness.models.soft_prompts import learned_tokens

Loss = Callable[[Any, dict[str, Tensor], int], Tensor]
"""`(model, batch, items)` to the sum over the batch, divided by `items`: a stage's."""

_UNLIMITED = 1 << 20
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
"""Kept for the backward pass by a layer for every token: times width, inner width, and width of the keys. Fitted to traces."""


@dataclass(frozen=True)
class Footprint:
    """Bytes of one training, by what holds them; the peak is the largest of the three phases."""

    parameters_total: int
    parameters_trainable: int
    weights_bytes: int
    """Of base and method as held, quantized ones with their scales."""
    gradient_bytes: int
    optimizer_bytes: int
    activation_bytes: int
    """Kept by the forward pass for the backward pass."""
    forward_bytes: int
    """Highest in the forward pass, all that is held included."""
    backward_bytes: int
    step_bytes: int
    artifact_bytes: int
    """Of the trained parameters as they are held; learned prompts save less."""

    @property
    def by_phase(self) -> tuple[int, int, int]:
        """The highest of each phase."""
        return self.forward_bytes, self.backward_bytes, self.step_bytes

    @property
    def peak_bytes(self) -> int:
        """The most that is held at once."""
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
    loss: Loss | None = None,
    trained_dtype: torch.dtype = torch.float32,
    device: str = "cpu",
    trust_remote_code: bool = False,
    context: int | None = None,
) -> Footprint:
    """Counts a training step of a model that has no weights.

    Args:
        config: Of the base.
        method: From the base to what is trained, as a method's function does it.
        rows: In a micro-batch.
        length: Tokens of each.
        labels: Share of the tokens that the loss is on.
        dtype: Of the base's weights.
        quant: Of the base's linear layers.
        autocast: Of matrix products under mixed precision.
        checkpointing: Whether activations are computed again.
        optimizer: By our name; those that are not known count as AdamW.
        loss: The stage's; None: supervised fine-tuning's.
        trained_dtype: Of the trained parameters; the trainer holds them in float32.
        device: What it is to run on: a GPU takes larger pieces of the loss.
        trust_remote_code: Whether the architecture may be code that comes with the model.
        context: Tokens that the model takes, those that the method learned among them; None: any number.

    Raises:
        UserError: The method or the architecture does something that needs the weights themselves.
    """
    try:
        with torch.device("meta"):
            base = AutoModelForCausalLM.from_config(config, dtype=dtype, trust_remote_code=trust_remote_code)
            base.requires_grad_(False)
            if quant is not None:
                quantize(base, quant, dtype)
            model = method(base)
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.data = parameter.data.to(trained_dtype)
        total, trainable = count_parameters(model)
        base.config.use_cache = False
        if checkpointing:
            base.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
            base.enable_input_require_grads()
        model.train()
        if context is not None:
            length = min(length, context - learned_tokens(model))
        watch = Watch(labels)
        with FakeTensorMode(allow_non_fake_inputs=True), watch, _as_on(device):
            materialise(model)
            weights = watch.now
            phases = _step(model, watch, (rows, length), optimizer, _mixed(loss, autocast))
    except (NotImplementedError, RuntimeError, TypeError, AttributeError, ValueError) as error:
        raise UserError(
            f"this training cannot be followed without weights: {str(error).splitlines()[0][:200]}",
            hint="methods that look at the weights (pissa, olora …) need as much as `lora`",
        ) from error
    artifact = trainable * trained_dtype.itemsize
    return Footprint(total, trainable, weights, artifact_bytes=artifact, **phases)


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
    """Peak bytes of a training in closed form, for models of Llama's shape.

    Args:
        config: Of a Llama-like model: width, inner width, layers, heads, vocabulary.
        kind: What is trained: `full`, `lora`, `dora`, `ia3`, `norms` or `embeddings`.
        trainable: Parameters that are trained.
        rows: In a micro-batch.
        length: Tokens of each.
        precision: `bf16`: a base in bfloat16 under mixed precision; `fp32`: all in float32.
        quant: Of the base's linear layers.
        checkpointing: Whether activations are computed again.
        optimizer: By our name.
        device: A GPU takes larger pieces of the loss.

    Raises:
        KeyError: There is no formula for `kind`.

    Example:
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
    copies = size * linear if kind == "full" and precision == "bf16" else 0  # of float32 weights, for the products
    unpacked = size * hidden * inner if quant else 0
    pieces = losses.LOGITS_AT_ONCE.get(device.partition(":")[0], losses.LOGITS_AT_ONCE["cpu"])
    table = 4 * config.vocab_size * hidden
    loss = 12 * min(pieces, tokens * config.vocab_size) + 3 * size * hidden * tokens
    if kind == "full":  # gradients of the head, so far and of a piece, are made in the forward pass
        loss += 2 * table + (table if precision == "bf16" else 0)
    held = kept * layers + copies + loss
    if checkpointing:
        held = layers * size * hidden * tokens + max(kept + 6 * inner * tokens + copies / layers, loss)
        held += 0 if kind == "full" else 4 * trainable  # gradients of upper layers while a lower one is computed again
    peak: int = round(weights + state + max(held + unpacked, 4 * trainable))
    return peak


def plan_training(config: PretrainedConfig, method: Callable[[Any], Any], job: PlanJob) -> Planned:
    """Counts a training as a job asks for it, and how many rows at once would fit.

    Pairs are counted with the loss of answers, row by row: a little too much for a reward model, which makes no words.

    Raises:
        UserError: See `trace`.
    """
    settings = job.training
    rows = settings.micro_batch_size

    def traced(rows: int) -> Footprint:
        return trace(
            config,
            method,
            rows=rows,
            length=settings.max_length,
            context=_context(config),
            dtype=getattr(torch, job.base.dtype),
            quant=job.base.quant,
            autocast={"fp32": None, "bf16": torch.bfloat16, "fp16": torch.float16}[settings.precision],
            checkpointing=settings.checkpointing,
            optimizer=settings.optimizer,
            device=job.base.device,
            trust_remote_code=job.base.trust_remote_code,
        )

    found, other = traced(rows), traced(rows + 1)
    largest = 0 if found.step_bytes > job.memory_bytes else _UNLIMITED
    for here, there in zip(found.by_phase, other.by_phase, strict=True):
        if there > here:  # bytes grow with the rows by equal steps
            largest = min(largest, math.floor(rows + (job.memory_bytes - here) / (there - here)))
    names = {field.name for field in fields(Planned)} & {*vars(found), "peak_bytes"}
    return Planned(**{name: getattr(found, name) for name in names}, largest_micro_batch=max(0, largest))


def _context(config: PretrainedConfig) -> int | None:
    return getattr(config.get_text_config(), "max_position_embeddings", None)


def _mixed(loss: Loss | None, autocast: torch.dtype | None) -> Loss:
    """The loss as the trainer takes it."""
    plain = loss or (lambda model, batch, items: losses.label_loss(model, batch) / items)

    def mixed(model: Any, batch: dict[str, Tensor], items: int) -> Tensor:
        with torch.autocast("cpu", autocast) if autocast else contextlib.nullcontext():
            return plain(model, batch, items)

    return mixed


def _step(model: Any, watch: Watch, batch: tuple[int, int], optimizer: str, loss: Loss) -> dict[str, int]:
    """Bytes by phase of a step that is not the first: the optimizer has its state already."""
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    rule = States(trained, optimizer)
    before = watch.restart()
    for parameter in trained:
        parameter.grad = torch.empty_like(parameter)
    gradients = watch.now - before
    rule.step()
    rule.zero_grad()
    start = watch.restart()
    ids = torch.zeros(batch, dtype=torch.long)
    found = loss(model, {"input_ids": ids, "labels": ids}, 1)
    phases = {"forward_bytes": watch.peak, "activation_bytes": watch.now - start}
    watch.restart()
    found.backward()  # type: ignore[no-untyped-call]
    del found
    phases["backward_bytes"] = watch.peak
    watch.restart()
    rule.step()
    return phases | {"step_bytes": watch.peak, "gradient_bytes": gradients, "optimizer_bytes": start - before}


@contextlib.contextmanager
def _as_on(device: str) -> Iterator[None]:
    """Goes the ways of tensors that have content: rows of one length need no mask, and a GPU takes larger pieces of the loss."""
    pieces = losses.LOGITS_AT_ONCE.get(device.partition(":")[0], losses.LOGITS_AT_ONCE["cpu"])
    with patch.object(masking_utils, "is_tracing", lambda *_: False), patch.dict(losses.LOGITS_AT_ONCE, cpu=pieces):
        yield
