"""Computes the products of linear layers with oneDNN where torch would take a slower library, on CPU.

Torch gives float32 products to MKL. On processors of AMD, MKL reaches 105 GFLOP/s where oneDNN reaches 250 (one thread, AVX-512);
on those of Intel it is slow at 4 to 15 rows, the rows of a decoding step (49,152 × 576 at 12 rows: 42 ms, 17 with oneDNN).
Products of few rows are fast only with the weight in oneDNN's own order: a second copy, made when it is first needed. Shapes, the
processor and the machine's memory decide which product is used, not a measurement: the same plan gives the same bytes.
"""

from __future__ import annotations

from functools import cache
from types import TracebackType
from typing import Any, Self

import torch
from torch import Tensor, nn
from torch.nn import functional

from harness.models.load import model_bytes
from harness.sandbox.memory import total_memory

_FEW = 64
"""Rows below which the weight is needed in oneDNN's order; at more, the order of torch is as fast."""
_SMALLEST = 1 << 16
"""Fewest elements of a weight: with smaller ones, preparing a product for a new number of rows (0.2 ms) costs what it saves."""
_COPIES = 4
"""Copies of the model that must fit into the machine's memory for weights in oneDNN's order to be kept."""
_SAMPLE = (3, 48, 32)
"""Rows, outputs and inputs of the product with which oneDNN is tried."""


class Products:
    """Context manager inside which a model's large linear layers are computed with oneDNN.

    Layers whose `forward` is replaced already are left alone. The weights must not change as long as this object is used.

    Args:
        model: A model; only plain `nn.Linear` layers in float32 or bfloat16 on CPU are concerned.
    """

    def __init__(self, model: nn.Module) -> None:
        layers = [layer for layer in model.modules() if isinstance(layer, nn.Linear) and _suits(layer)]
        # all memory, not the free part: which product is used must not depend on what else runs
        self.roomy = bool(layers) and _COPIES * model_bytes(model) < total_memory()
        self._products = {layer: Product(layer.weight, layer.bias, roomy=self.roomy) for layer in layers}
        self._replaced: list[dict[str, Any]] = []

    def __enter__(self) -> Self:
        for layer, product in self._products.items():
            attributes = vars(layer)
            if "forward" not in attributes:
                attributes["forward"] = product  # not by `setattr`, which takes 40 times as long for a module
                self._replaced.append(attributes)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        while self._replaced:
            self._replaced.pop().pop("forward", None)

    def forget(self, layer: nn.Linear) -> None:
        """Frees the copy of a layer's weight; it is made again when it is needed."""
        if layer in self._products:
            self._products[layer]._ordered = None


class Product:
    """The product with one weight: `x @ weight.T + bias`.

    Args:
        weight: `[outputs, inputs]`, of a type that `works` accepts.
        bias: `[outputs]`, or None.
        roomy: Whether a copy of the weight may be kept.
    """

    def __init__(self, weight: Tensor, bias: Tensor | None, *, roomy: bool) -> None:
        self._weight, self._bias, self._roomy = weight.detach(), None if bias is None else bias.detach(), roomy
        self._ordered: Tensor | None = None

    def __call__(self, x: Tensor) -> Tensor:
        few = x.numel() < _FEW * x.shape[-1]
        if few and self._roomy:
            if self._ordered is None:
                self._ordered = torch.ops.mkldnn._reorder_linear_weight(self._weight)
            return _linear(x, self._ordered, self._bias)
        if few or self._weight.dtype != torch.float32:  # torch gives bfloat16 to oneDNN itself
            return functional.linear(x, self._weight, self._bias)
        return _linear(x, self._weight, self._bias)


def _suits(layer: nn.Linear) -> bool:
    weight = getattr(layer, "weight", None)  # layers of a quantized model may have none
    return (
        type(layer) is nn.Linear
        and type(weight) is nn.Parameter
        and weight.device.type == "cpu"
        and weight.numel() >= _SMALLEST
        and works(weight.dtype)
    )


@cache
def works(dtype: torch.dtype) -> bool:
    """Whether this build of torch and this processor have the products of oneDNN for a type of weights."""
    if dtype not in (torch.float32, torch.bfloat16) or not torch.backends.mkldnn.is_available():  # type: ignore[no-untyped-call]
        return False
    rows, outputs, inputs = _SAMPLE
    generator = torch.Generator().manual_seed(0)
    x, weight = (torch.randn(n, inputs, generator=generator).to(dtype) for n in (rows, outputs))
    try:
        if dtype == torch.bfloat16 and not torch.ops.mkldnn._is_mkldnn_bf16_supported():
            return False
        ours = [_linear(x, each, None) for each in (weight, torch.ops.mkldnn._reorder_linear_weight(weight))]
    except (AttributeError, RuntimeError, NotImplementedError):  # private operators: another torch may lack them
        return False
    expected = x.double() @ weight.double().T
    return all(torch.allclose(each.double(), expected, rtol=1e-2, atol=1e-1) for each in ours)


def _linear(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    product: Tensor = torch.ops.mkldnn._linear_pointwise(x, weight, bias, "none", [], "")
    return product
