"""Replaces a model's attention by a function of ours for one forward pass.

Transformers looks up the attention function of a model by a name in its configuration. A model that does not look it up
keeps its own attention; the self-check (`harness.engine.self_check`) detects that.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

_KNOWN = frozenset(
    {"dropout", "sliding_window", "is_causal", "position_ids", "use_cache", "output_attentions", "output_router_logits"}
)
"""Options that a model may pass to its attention and that change nothing in what our functions compute."""
_states: list[Any] = []
"""State of the running pass, last: models offer no other way to pass it to every layer."""


class Unsupported(Exception):
    """The model caches keys and values, or computes attention, in a way that the fast path does not support."""


@contextmanager
def use_attention(config: Any, name: str, state: Any) -> Iterator[None]:
    """Context manager inside which a model's layers call another attention function.

    Args:
        config: The model's configuration.
        name: The name under which the function is registered.
        state: Data for the function, which gets it from `attention_state`.
    """
    usual = config._attn_implementation
    _states.append(state)
    config._attn_implementation = name
    try:
        yield
    finally:
        config._attn_implementation = usual
        _states.pop()


def attention_state() -> Any:
    """The state of the pass that is running."""
    return _states[-1]


def refuse_unknown(mask: Tensor | None, options: Mapping[str, Any], *supported: str) -> None:
    """Checks that a model passes nothing to its attention that our function would ignore.

    Args:
        mask: The mask that the function receives: a single element, unless a layer has made its own.
        options: Everything else that the model passes besides queries, keys, values and scaling.
        supported: Options that the function uses.

    Raises:
        Unsupported: The model passes something else.
    """
    unknown = [name for name, option in options.items() if option is not None and name not in _KNOWN.union(supported)]
    if mask is not None and mask.numel() > 1:
        unknown.append("a mask of its own")
    if unknown:
        raise Unsupported(f"its attention takes {', '.join(sorted(unknown))}")


def join_prefix(
    out: Tensor,
    sums: Tensor,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attend: Callable[[Tensor, Tensor, Tensor], tuple[Tensor, Tensor]],
) -> Tensor:
    """Joins the attention of new tokens to each other with their attention to a prefix that all of them see.

    Args:
        out: `[1, new, heads, dimension]`, the attention to each other.
        sums: `[1, heads, new]`, the logarithms of its softmax's sums.
        query: `[1, heads, new, dimension]`.
        key: `[1, key heads, prefix, dimension]`.
        value: Shaped like `key`.
        attend: Computes attention without a mask, and the logarithms of its sums, of equally many heads.

    Returns:
        `[1, new, heads, dimension]`.
    """
    _, heads, count, dimension = query.shape
    groups = key.shape[1]  # the heads of a group are joined, so that its keys need not be repeated
    found, logsumexp = attend(query.reshape(1, groups, heads // groups * count, dimension), key, value)
    share = torch.sigmoid(logsumexp.reshape(1, heads, count) - sums).transpose(1, 2)[..., None]
    found = found.reshape(1, heads, count, -1).transpose(1, 2)
    return torch.lerp(out.float(), found.float(), share).to(query.dtype)
