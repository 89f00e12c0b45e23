"""Keys and values of prefixes that many rows share: computed once, at batch size 1, and attended to by all those rows.

This needs only the model's own cache and a mask of ours, so it works for every architecture whose attention takes a mask:
rotary and learned positions, grouped heads, sliding windows. Learned prompts (prompt, prefix and P-tuning) come before
every prefix. A self-check (`harness.engine.self_check`) shows whether a model supports this before it is used.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import nullcontext
from functools import cached_property, partial
from typing import Any

import torch
from torch import Tensor, nn
from transformers import DynamicCache
from transformers.cache_utils import DynamicLayer

from harness.engine.attention import Unsupported, use_attention
from harness.engine.block_attention import Blocks, blockwise, sees
from harness.engine.branch_attention import Branches, runs_branches
from harness.engine.greedy_head import GreedyHead
from harness.engine.output_head import capture_hidden, final_head
from harness.engine.padded_scoring import takes_logits_to_keep
from harness.engine.products import Products
from harness.models.reward_head import inner_model
from harness.models.soft_prompts import learned_tokens
from harness.tokens.trie import Ids, Trie

_READ_AT_ONCE = 2048
"""Most tokens of a segment that are fed at a time."""

_KINDS = {"full_attention", "sliding_attention", "global"}
"""Kinds of layers that cache keys and values for each token and whose windows are known. The self-check is too short to
reach the windows of other kinds."""

KeysAndValues = list[tuple[Tensor, Tensor]]
"""For each layer its keys and its values, `[1, heads, tokens, dimension]` each."""


class Prefixes:
    """A model and a stack of cached prefix segments, each continuing the one before.

    Args:
        model: A causal language model, or a PEFT model around one.

    Raises:
        Unsupported: The model does not cache keys and values for each token, or has layers of an unknown kind.
    """

    def __init__(self, model: Any) -> None:
        self.outer = model
        learned = learns_a_prompt(model)
        self.model = model.get_base_model() if learned else model
        inner = inner_model(model)
        self.config = inner.config.get_text_config()
        named = getattr(self.config, "layer_types", None) or getattr(self.config, "attention_layers", None)
        self._kinds = frozenset(named or ())
        """Kinds of layers, if the model names them."""
        if unknown := self._kinds - _KINDS:
            raise Unsupported(f"some of its layers are of the kind `{min(unknown)}`")
        self.takes_positions = takes_logits_to_keep(model)
        self.device = inner.get_input_embeddings().weight.device
        self.products = Products(self.model)
        self.by_block = blockwise(self.config, self.device) or runs_branches(self.config, self.device, self.model.dtype)
        """Whether trees are run with attention of our own, by block or by branch, instead of one mask."""
        on_cpu = self.device.type == "cpu"
        self._cut: Callable[[Trie, int, int, int], Blocks | Branches] = (
            partial(Blocks.of, dtype=self.model.dtype) if on_cpu else partial(Branches.of, device=self.device)
        )
        self._stack: list[tuple[Ids, KeysAndValues]] = []
        self.token_bytes = 0
        """Bytes of one token's keys and values; known after the first segment was run."""
        self._learned = self._learned_prompt() if learned else []
        self.learned_tokens = self._learned[0][0].shape[-2] if self._learned else 0

    @cached_property
    @torch.inference_mode()
    def head(self) -> nn.Linear | None:
        """The output head, if logits are its output and it can run on wanted positions alone; else None."""
        return final_head(self.model, self.device) if self.takes_positions else None

    @cached_property
    @torch.inference_mode()
    def greedy_head(self) -> GreedyHead | None:
        """The head where only the most likely token is asked for, if it is faster than the `head` and there is memory."""
        if self.head is None or not self.products.roomy or not GreedyHead.suits(self.head):
            return None
        self.products.forget(self.head)  # the self-check has used it
        return GreedyHead(self.head)

    @property
    def window(self) -> int | None:
        """Size in tokens of some layers' sliding window; None if all layers see everything."""
        if not getattr(self.config, "use_sliding_window", True) or self._kinds == {"full_attention"}:
            return None
        window: int | None = getattr(self.config, "sliding_window", None)
        return window

    @property
    def length(self) -> int:
        """Tokens of the current prefix, learned ones included."""
        return self.learned_tokens + sum(len(ids) for ids, _ in self._stack)

    @torch.inference_mode()
    def enter(self, path: Sequence[Ids]) -> None:
        """Makes the segments of `path` the current prefix; those it shares with the prefix before are not run again."""
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
        """Makes a cache that holds the current prefix; feeding more tokens into it does not change the prefix."""
        cache = DynamicCache()
        for keys, values in self.contents:
            layer = DynamicLayer()
            layer.keys, layer.values = keys, values
            layer.dtype, layer.device, layer.is_initialized = keys.dtype, keys.device, True
            cache.layers.append(layer)
        return cache

    @property
    def contents(self) -> KeysAndValues:
        """Keys and values of the current prefix; empty if there is none."""
        return self._stack[-1][1] if self._stack else self._learned

    def past(self, cache: DynamicCache) -> KeysAndValues:
        """Keys and values in a cache, the prefix first.

        Raises:
            Unsupported: The cache does not keep keys and values for each token.
        """
        return _contents(cache)

    def unmasked(self) -> Any:
        """A mask of one element for attention functions that need none, in a form that the model passes on unchanged."""
        nothing = torch.ones(1, 1, 1, 1, dtype=torch.bool, device=self.device)
        return dict.fromkeys(self._kinds, nothing) if self._takes_two_masks else nothing

    @property
    def _takes_two_masks(self) -> bool:
        """Whether some layers see a sliding window and others everything."""
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
        """Runs one forward pass over one row.

        Args:
            ids: Token ids.
            positions: `[ids]` positions.
            visible: The result of `visible`; None: every token sees all before it, which the model does fastest itself.
            cache: Tokens before these; receives their keys and values too. None: nothing comes before or is cached.
            wanted: Indices of the ids whose logits are returned.
            hidden: Return the head's input instead of logits, if there is a `head`.

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
        ours = visible.attention if isinstance(visible, Blocks | Branches) else None
        options["attention_mask"] = self.unmasked() if ours else visible
        head = self.head if hidden else None  # the first access runs a forward pass, so not inside `use_attention`
        with self.products, use_attention(self.config, ours, visible) if ours else nullcontext():
            if head is not None:
                with capture_hidden(head) as given:
                    self.model(**options)
                return given[0][0]
            logits: Tensor = self.model(**options).logits[0]
        return logits if len(logits) == len(wanted) and self.takes_positions else logits[wanted]

    def visible(self, tree: Trie, start: int, stop: int) -> Any:
        """Computes which tokens a piece of a tree sees, in the form that `feed` takes.

        Args:
            tree: The tree, fed up to `start`.
            start: The first token of the piece to feed.
            stop: The end of the piece, excluded.

        Returns:
            None if every token sees all before it; else `Blocks`, `Branches` or the result of `mask`.
        """
        window = self.window
        exceeds_window = window is not None and self.length + max(tree.depths[:stop]) >= window
        # after a prefix, the model itself would need a mask where one block is causal
        one_block = self.by_block and self.device.type == "cpu" and start == 0 < self.length and not exceeds_window
        if tree.is_chain and not one_block:
            return None
        if self.by_block and not exceeds_window:
            return self._cut(tree, start, stop, self.length)
        depths = torch.tensor(tree.depths[:stop], device=self.device) + self.length
        places = torch.arange(stop, device=self.device)
        seen = sees(torch.tensor(tree.ends, device=self.device), places[start:], places)
        return self.mask(seen, depths[start:], depths[:start])

    def mask(self, seen: Tensor, positions: Tensor, fed_before: Tensor | None = None) -> Any:
        """Makes the attention mask over the current prefix and the tokens fed, in the form that the model takes.

        Args:
            seen: `[new, fed]`, bool: which fed tokens each new token sees; all of them see the prefix.
            positions: `[new]` positions.
            fed_before: `[fed - new]` positions of the tokens fed after the prefix and before these.

        Returns:
            A mask; or a mask for each kind of layer, if only some layers have a sliding window.
        """
        before = torch.ones(len(seen), self.length, dtype=torch.bool, device=seen.device)
        whole = torch.cat([before, seen], 1)
        window = self.window
        if window is None:
            return self._shaped(whole)
        prefix = torch.arange(self.length, device=seen.device)
        places = torch.cat([prefix, *([] if fed_before is None else [fed_before]), positions])
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
        """Computes keys and values of the learned tokens."""
        prompt = self.outer.get_prompt(batch_size=1)
        if isinstance(prompt, Tensor):  # embeddings: the model computes keys and values from them
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
    """Whether learned tokens precede every text; they shift its positions, and padding would come after them."""
    return learned_tokens(model) > 0
