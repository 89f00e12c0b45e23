"""A function of ours in the place of a model's attention, for one forward pass.

Transformers asks a register for the function that a model's layers call, by the name in its configuration. A model that does
not ask keeps its own; that shows in the trial (`harness.engine.self_check`).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from torch import Tensor

_KNOWN = frozenset(
    {"dropout", "sliding_window", "is_causal", "position_ids", "use_cache", "output_attentions", "output_router_logits"}
)
"""What a model may hand to its attention without changing what is computed, all being seen that is to be seen."""
_current: list[Any] = []
"""What the pass attends to; models offer no other way to hand it to every layer."""


class Unsupported(Exception):
    """The model keeps its past, or attends to it, in another way than the fast path knows."""


@contextmanager
def attending(config: Any, name: str, what: Any) -> Iterator[None]:
    """While entered, a model's layers call another attention function.

    Args:
        config: Of the model.
        name: Under which the function is registered.
        what: It finds this by `attended`.
    """
    usual = config._attn_implementation
    _current.append(what)
    config._attn_implementation = name
    try:
        yield
    finally:
        config._attn_implementation = usual
        _current.pop()


def attended() -> Any:
    """What the pass that runs attends to."""
    return _current[-1]


def refuse_unknown(mask: Tensor | None, options: Mapping[str, Any], *heeded: str) -> None:
    """Makes sure that a model asks its attention for nothing but what is known.

    Args:
        mask: As the attention gets it: one number for all, unless a layer has made another of it.
        options: What the model hands over beside queries, keys, values, mask and scaling.
        heeded: What the function does take account of.

    Raises:
        Unsupported: It asks for something else.
    """
    strange = [name for name, option in options.items() if option is not None and name not in _KNOWN.union(heeded)]
    if mask is not None and mask.numel() > 1:
        strange.append("a mask of its own")
    if strange:
        raise Unsupported(f"its attention takes {', '.join(sorted(strange))}")
