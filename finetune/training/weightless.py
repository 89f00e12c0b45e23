"""Building blocks of the memory trace: models without weights, and a counter of the bytes that they would need."""

from __future__ import annotations

import math
import weakref
from collections.abc import Mapping
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from transformers import AutoModelForCausalLM, PretrainedConfig

from harness.finetune.training.cuda_allocator import ROUNDED_TO, CachingAllocator
from harness.jobs import Quant
from harness.models.layers import bypassed_layers

BITS_PER_WEIGHT: Mapping[Quant, float] = {"nf4": 4.127, "nf4_single": 4.5, "fp4": 4.127, "fp4_single": 4.5, "int8": 8.0}
"""Bits of a quantized weight and its scales: 64 weights of 4 bits share a 32-bit scale (`_single`), or an 8-bit scale, of which 256
share a 32-bit one."""
STATE_BYTES = {
    "adamw": 8,
    "adamw_8bit": 2,
    "paged_adamw": 8,
    "paged_adamw_8bit": 2,
    "adafactor": 0,
    "sgd": 0,
    "adagrad": 4,
    "rmsprop": 4,
    "lion": 4,
    "lion_8bit": 1,
    "paged_lion": 4,
    "paged_lion_8bit": 1,
    "ademamix": 12,
    "ademamix_8bit": 3,
}
"""Bytes of optimizer state per parameter trained in float32; the row and column statistics of adafactor are negligible."""
_STATE_IN_TYPE = ("adamw", "adagrad", "rmsprop", "sgd")
"""torch's optimizers, whose state has the type of the parameter; bitsandbytes keeps 32 or 8 bits."""


class AllocationCounter(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Counts the bytes of storages as they are allocated and freed.

    Tensors without content cannot say how many labels a batch has; the counter answers for them.

    Args:
        labels: Share of tokens that have a label.
        allocator: Allocates every storage, to count what a GPU would reserve.
    """

    def __init__(self, labels: float, allocator: CachingAllocator | None = None) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.now = self.peak = 0
        self._allocator = allocator
        self._labels = labels
        self._live: dict[int, Any] = {}

    def restart(self) -> int:
        """Starts a new phase, whose peak starts at the bytes held now; returns them."""
        self.peak = self.now
        return self.now

    def __torch_dispatch__(self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None) -> Any:
        if func is torch.ops.aten.index.Tensor:
            args = (args[0], [each for index in args[1] for each in self._indices(index)])
        elif func is torch.ops.aten.nonzero.default:
            return torch.stack(self._indices(args[0]), dim=1)
        elif func is torch.ops.aten._local_scalar_dense.default:
            return 1.0 if args[0].dtype.is_floating_point else 1  # so `bool()` of the tensor is True
        made = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(made):
            if isinstance(tensor, Tensor):
                self._count(tensor)
        return made

    def _indices(self, index: Tensor | None) -> list[Any]:
        """Returns the indices of a mask's true elements, whose number follows from the share of labels."""
        if index is None or index.dtype != torch.bool:
            return [index]
        count = max(1, round(self._labels * index.numel()))
        return [torch.empty(count, dtype=torch.long) for _ in range(index.dim())]

    def _count(self, tensor: Tensor) -> None:
        storage = tensor.untyped_storage()
        address = storage._cdata
        if address in self._live:
            return
        size = math.ceil(storage.nbytes() / ROUNDED_TO) * ROUNDED_TO
        self.now += size
        self.peak = max(self.peak, self.now)
        block = self._allocator.allocate(size) if self._allocator and size else None

        def freed(_: Any) -> None:
            self._live.pop(address, None)
            self.now -= size
            if block is not None and self._allocator is not None:
                self._allocator.free(block)

        self._live[address] = weakref.ref(storage, freed)


class _Dequantized(torch.autograd.Function):
    """Multiplies by weights that are dequantized temporarily, in both passes."""

    @staticmethod
    def forward(context: Any, x: Tensor, packed: Tensor, shape: torch.Size) -> Tensor:
        context.shape = shape
        return x @ torch.zeros(shape, dtype=x.dtype, device=x.device).t()

    @staticmethod
    def backward(context: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        return gradient @ torch.zeros(context.shape, dtype=gradient.dtype, device=gradient.device), None, None


class _Packed(nn.Linear):
    """A quantized linear layer that is dequantized for each use; the layers of bitsandbytes need tensors with content."""

    def __init__(self, linear: nn.Linear, quant: Quant, dtype: torch.dtype) -> None:
        nn.Module.__init__(self)
        self.in_features, self.out_features, self.dtype = linear.in_features, linear.out_features, dtype
        shape = linear.weight.shape
        size = math.ceil(shape.numel() * BITS_PER_WEIGHT[quant] / 8)
        self.weight = nn.Parameter(torch.empty(size, dtype=torch.uint8), requires_grad=False)
        self.weight.quant_state = SimpleNamespace(shape=shape)  # type: ignore[attr-defined]
        self.bias = linear.bias

    def forward(self, input: Tensor) -> Tensor:
        shape = torch.Size((self.out_features, self.in_features))
        result: Tensor = _Dequantized.apply(input.to(self.dtype), self.weight, shape)  # type: ignore[no-untyped-call]
        return (result if self.bias is None else result + self.bias).to(input.dtype)


class OptimizerStates:
    """Stands in for an optimizer: it allocates the bytes of the state, and its step needs no further memory."""

    def __init__(self, trained: list[nn.Parameter], name: str) -> None:
        self._trained = trained
        self._each = STATE_BYTES.get(name, STATE_BYTES["adamw"])
        self._in_type = name in _STATE_IN_TYPE
        self._small = self._each * (4 if name.endswith("8bit") else 1)  # tensors below 4,096 stay in 32 bits
        self._held: list[Tensor] = []

    def step(self) -> None:
        """Allocates the state in the first step."""
        for parameter in [] if self._held else self._trained:
            each = self._each if parameter.numel() >= 4096 else self._small
            size = each * parameter.numel() * (parameter.element_size() if self._in_type else 4) // 4
            self._held.append(torch.empty(size, dtype=torch.uint8))

    def zero_grad(self) -> None:
        """Frees the gradients."""
        for parameter in self._trained:
            parameter.grad = None


def without_weights(
    config: PretrainedConfig, *, dtype: torch.dtype, quant: Quant | None = None, trust_remote_code: bool = False
) -> Any:
    """Builds a model on the current device, such as `meta`, frozen and quantized as a loaded base is."""
    base = AutoModelForCausalLM.from_config(config, dtype=dtype, trust_remote_code=trust_remote_code)
    base.requires_grad_(False)
    if quant is not None:
        quantize(base, quant, dtype)
    return base


def quantize(model: Any, quant: Quant, dtype: torch.dtype) -> None:
    """Replaces every linear layer except the output head by a quantized one, as loading in 4 or 8 bits does."""
    head = model.get_output_embeddings() if hasattr(model, "get_output_embeddings") else None
    named = dict(model.named_modules())
    whole = {head, *(named[name] for name in bypassed_layers(model))}
    for module in list(model.modules()):
        for name, child in list(module.named_children()):
            if type(child) is nn.Linear and child not in whole:
                setattr(module, name, _Packed(child, quant, dtype))
    model.is_quantized = True


def materialise(model: nn.Module) -> None:
    """Allocates a storage for every parameter and buffer, so that it is counted; shared ones once."""
    made: dict[int, Tensor] = {}
    for module in model.modules():
        for held in (module._parameters, module._buffers):
            for name, tensor in list(held.items()):
                if tensor is None:
                    continue
                if id(tensor) not in made:
                    empty = torch.empty(tensor.shape, dtype=tensor.dtype)
                    is_parameter = isinstance(tensor, nn.Parameter)
                    made[id(tensor)] = nn.Parameter(empty, tensor.requires_grad) if is_parameter else empty
                held[name] = made[id(tensor)]  # type: ignore[assignment]
