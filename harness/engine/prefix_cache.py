"""Keys and values of what many rows begin with: run once, at batch 1, and attended to by all of them.

A model's own cache and a mask of our own are all that this needs, so every architecture whose attention takes a mask is
served: rotary and learned positions, grouped heads, sliding windows. Learned prompts (prompt, prefix and P-tuning) are the
beginning of every beginning. Whether it holds for a model is tried before it is relied on (`harness.engine.self_check`).
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn
from transformers import DynamicCache
from transformers.cache_utils import DynamicLayer

from harness.engine.attention import Unsupported, attending
from harness.engine.block_attention import NAME, Blocks, blockwise, sees
from harness.engine.output_head import hidden_instead, last_head
from harness.engine.padded_scoring import takes_logits_to_keep
from harness.models.load import learned_tokens
from harness.tokens.trie import Ids, Trie

_READ_AT_ONCE = 2048
"""Tokens of a segment fed at a time."""

_KINDS = {"full_attention", "sliding_attention", "global"}
"""Layers whose past is keys and values for each token, and whose bounds, where they have any, are known: a trial is too
short to meet those of others."""

KeysAndValues = list[tuple[Tensor, Tensor]]
"""`[1, heads, tokens, dimension]` twice for each layer."""


class Prefixes:
    """A model, and the beginnings it has run.

    Args:
        model: A causal language model, or a PEFT model around one.

    Raises:
        Unsupported: The model's past is no list of keys and values, or some layers attend in a way of their own.
    """

    def __init__(self, model: Any) -> None:
        self.outer = model
        learned = learns_a_prompt(model)
        self.model = model.get_base_model() if learned else model
        inner = model.get_base_model() if hasattr(model, "get_base_model") else model
        self.config = inner.config.get_text_config()
        named = getattr(self.config, "layer_types", None) or getattr(self.config, "attention_layers", None)
        self._kinds = frozenset(named or ())
        """Kinds of layers, where the model names them."""
        if strange := self._kinds - _KINDS:
            raise Unsupported(f"some of its layers are of the kind `{min(strange)}`")
        self.takes_positions = takes_logits_to_keep(model)
        self.device = inner.get_input_embeddings().weight.device
        self.by_block = blockwise(self.config, self.device)
        """Whether trees are attended to block by block, rather than under one mask."""
        self._stack: list[tuple[Ids, KeysAndValues]] = []
        self.token_bytes = 0
        """Memory that the past of a token takes; known once something was run."""
        self._learned = self._learned_prompt() if learned else []
        self.learned_tokens = self._learned[0][0].shape[-2] if self._learned else 0

    @cached_property
    @torch.inference_mode()
    def head(self) -> nn.Linear | None:
        """The output head, where logits are what it gives and wanted ones alone come out of it; else None."""
        return last_head(self.model, self.device) if self.takes_positions else None

    @property
    def window(self) -> int | None:
        """Tokens that some layers see at most; None where all see everything."""
        if not getattr(self.config, "use_sliding_window", True) or self._kinds == {"full_attention"}:
            return None
        window: int | None = getattr(self.config, "sliding_window", None)
        return window

    @property
    def length(self) -> int:
        """Tokens before what is fed next, learned ones included."""
        return self.learned_tokens + sum(len(ids) for ids, _ in self._stack)

    @torch.inference_mode()
    def enter(self, path: Sequence[Ids]) -> None:
        """Makes `path` what comes before; segments that it shares with the last one are not run again."""
        kept = 0
        while kept < min(len(path), len(self._stack)) and self._stack[kept][0] == path[kept]:
            kept += 1
        del self._stack[kept:]
        for ids in path[kept:]:
            cache = self.cache()
            positions = torch.arange(self.length, self.length + len(ids))
            for start in range(0, len(ids), _READ_AT_ONCE):
                piece = slice(start, start + _READ_AT_ONCE)
                last = torch.tensor([len(ids[piece]) - 1])
                self.feed(ids[piece], positions[piece], None, cache, last, hidden=True)
            self._stack.append((ids, _contents(cache)))
            self.token_bytes = sum(k[0, :, 0].nbytes + v[0, :, 0].nbytes for k, v in self.contents)

    def cache(self) -> DynamicCache:
        """A cache that holds the current beginning; what is fed into it leaves the beginning as it is."""
        cache = DynamicCache()
        for keys, values in self.contents:
            layer = DynamicLayer()
            layer.keys, layer.values = keys, values
            layer.dtype, layer.device, layer.is_initialized = keys.dtype, keys.device, True
            cache.layers.append(layer)
        return cache

    @property
    def contents(self) -> KeysAndValues:
        """Keys and values of the current beginning; empty where there is none."""
        return self._stack[-1][1] if self._stack else self._learned

    def past(self, cache: DynamicCache) -> KeysAndValues:
        """Keys and values that a cache has taken, those of the beginning first.

        Raises:
            Unsupported: They are not kept for each token.
        """
        return _contents(cache)

    def unmasked(self) -> Any:
        """A mask for attention that knows what is seen without one, in the form that the model passes on as it is."""
        nothing = torch.ones(1, 1, 1, 1, dtype=torch.bool, device=self.device)
        return dict.fromkeys(self._kinds, nothing) if self._takes_two_masks else nothing

    @property
    def _takes_two_masks(self) -> bool:
        """Whether some layers attend to a window and others to everything."""
        return "sliding_attention" in self._kinds and len(self._kinds) > 1

    def feed(
        self,
        ids: Sequence[int],
        positions: Tensor,
        visible: Any,
        cache: DynamicCache | None,
        wanted: Tensor,
        *,
        hidden: bool = False,
    ) -> Tensor:
        """One forward pass of one row.

        Args:
            ids: Tokens.
            positions: `[ids]`.
            visible: As `visible` gives it; None: every token sees all before it, which models know how to do best.
            cache: What comes before; takes the keys and values of these tokens. None: nothing does, and nothing is kept.
            wanted: Places among the ids whose logits are returned.
            hidden: Returns what the head would be given instead, where there is a `head`.

        Returns:
            `[wanted, vocabulary]` logits, or `[wanted, width]` hidden states.
        """
        options: dict[str, Any] = {"use_cache": False}
        if cache is not None:
            options = {"use_cache": True, "past_key_values": cache}
        wanted = wanted.to(self.device)
        if self.takes_positions:
            options["logits_to_keep"] = wanted
        options["input_ids"] = torch.tensor([ids], device=self.device)
        options["position_ids"] = positions[None].to(self.device)
        by_block = isinstance(visible, Blocks)
        options["attention_mask"] = self.unmasked() if by_block else visible
        head = self.head if hidden else None  # which may have to be found by a pass of its own
        with attending(self.config, NAME, visible) if by_block else nullcontext():
            if head is not None:
                with hidden_instead(head) as given:
                    self.model(**options)
                return given[0][0]
            logits: Tensor = self.model(**options).logits[0]
        return logits if len(logits) == len(wanted) and self.takes_positions else logits[wanted]

    def visible(self, tree: Trie, start: int, stop: int) -> Any:
        """What tokens of a tree see of the current beginning and of one another, as `feed` takes it.

        Args:
            tree: The tree, fed up to `start`.
            start: The first token of the piece to feed.
            stop: The one after its last.

        Returns:
            None where every token sees all before it; blocks; or what `mask` gives.
        """
        if tree.is_chain:
            return None
        window = self.window
        outgrown = window is not None and self.length + max(tree.depths[:stop]) >= window
        if self.by_block and not outgrown:
            return Blocks.of(tree, start, stop, self.length, self.model.dtype)
        depths = torch.tensor(tree.depths[:stop]) + self.length
        seen = sees(torch.tensor(tree.ends), torch.arange(start, stop), torch.arange(stop))
        return self.mask(seen, depths[start:], depths[:start])

    def mask(self, seen: Tensor, positions: Tensor, fed_before: Tensor | None = None) -> Any:
        """The mask as the model takes it: whether a token is seen, over the current beginning and what is fed.

        Args:
            seen: `[new, fed]`, bool: for each new token, which fed ones it sees; the beginning is seen by all.
            positions: `[new]`.
            fed_before: `[fed - new]` positions of what was fed before these tokens, after the beginning.

        Returns:
            A mask, or a mask for each kind of layer where some attend to a sliding window alone.
        """
        before = torch.ones(len(seen), self.length, dtype=torch.bool)
        whole = torch.cat([before, seen], 1)
        window = self.window
        if window is None:
            return self._shaped(whole)
        places = torch.cat([torch.arange(self.length), *([] if fed_before is None else [fed_before]), positions])
        near = whole & (positions[:, None] - places[None] < window)
        if self._takes_two_masks:
            return {"full_attention": self._shaped(whole), "sliding_attention": self._shaped(near)}
        return self._shaped(near)

    def _shaped(self, mask: Tensor) -> Tensor:
        mask = mask[None, None].to(self.device)
        if self.config._attn_implementation != "eager":
            return mask
        dtype = self.model.dtype
        return torch.zeros(mask.shape, dtype=dtype, device=self.device).masked_fill_(~mask, torch.finfo(dtype).min)

    @torch.inference_mode()
    def _learned_prompt(self) -> KeysAndValues:
        """Keys and values of the tokens that a method has learned."""
        prompt = self.outer.get_prompt(batch_size=1)
        if isinstance(prompt, Tensor):  # embeddings, which the model has yet to read
            cache = DynamicCache()
            self.model(inputs_embeds=prompt.to(self.model.dtype), past_key_values=cache, use_cache=True)
            return _contents(cache)
        return _contents(prompt)


def _contents(cache: Any) -> KeysAndValues:
    layers = getattr(cache, "layers", None)
    if not layers or not all(type(layer) is DynamicLayer for layer in layers):
        raise Unsupported(f"its past is a {type(cache).__name__}")
    return [(layer.keys, layer.values) for layer in layers]


def learns_a_prompt(model: Any) -> bool:
    """Learned tokens shift every position: padding would stand between them and the text."""
    return learned_tokens(model) > 0
