"""Refuses outputs that are not numbers, and names the first layer of a model that gives them.

A broken weight or an overflow in 16 bits makes every later logit NaN. Its argmax is then token 0 and its log-likelihood NaN,
which metrics would score like any other output.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from itertools import islice
from typing import Any

import torch
from torch import Tensor, nn

from harness.models.reward_head import inner_model

_TRIED = 64
"""Most rows that are run again to find the layer."""


_SOMEWHERE = "NaN or infinite logits"


class NotFinite(ArithmeticError):
    """A model's outputs are NaN or infinite.

    Args:
        ids: Token ids that were fed.
        where: Where the outputs stop being numbers.
    """

    def __init__(self, ids: Sequence[int], where: str = _SOMEWHERE) -> None:
        super().__init__(where)
        self.ids = tuple(ids)


@torch.inference_mode()
def fault(model: Any, rows: Iterable[Sequence[int]], forward: Callable[[Any, Sequence[int]], object]) -> str:
    """Describes where the outputs of a model stop being numbers.

    Args:
        model: The model.
        rows: Token ids to run it on, the most suspicious first: in a packed tree, NaN spreads to rows that alone are finite.
        forward: Runs the model on one row.

    Returns:
        A clause without a full stop, such as "`model.norm` is the first layer whose output is not finite".
    """
    for ids in islice(filter(None, rows), _TRIED):
        with _first_not_finite(inner_model(model)) as found:
            forward(model, ids)
        if found:
            name, layer = found[0]
            where = f"`{name}` is the first layer whose output is not finite"
            broken = [weight for weight, tensor in layer.named_parameters() if not _is_finite(tensor)]
            return where + (f", and its `{broken[0]}` holds NaN or infinity" if broken else "")
    return _SOMEWHERE


@contextmanager
def _first_not_finite(model: nn.Module) -> Iterator[list[tuple[str, nn.Module]]]:
    """Context manager that notes the first module, in the order in which they finish, with an output that is not finite."""
    found: list[tuple[str, nn.Module]] = []

    def hook(name: str) -> Callable[[nn.Module, Any, Any], None]:
        def note(module: nn.Module, _: Any, output: Any) -> None:
            first = output[0] if isinstance(output, tuple) and output else output
            if not found and isinstance(first, Tensor) and not _is_finite(first):
                found.append((name, module))

        return note

    with ExitStack() as stack:
        for name, module in model.named_modules():
            if name:
                stack.callback(module.register_forward_hook(hook(name)).remove)
        yield found


def _is_finite(tensor: Tensor) -> bool:
    return not tensor.is_floating_point() or bool(tensor.isfinite().all())
