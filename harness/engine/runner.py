"""One variant's model, run in the fastest way that gives its own logits.

Packed trees and slots where a trial shows that they hold; padded packs, which any causal model takes, where they do not;
whole rows one at a time where positions are shifted by learned tokens and nothing else is exact, or where it is asked for.
"""

from __future__ import annotations

import gc
from collections.abc import Callable, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import torch

from harness.engine.attention import Unsupported
from harness.engine.oracle import generate_plainly, score_plainly
from harness.engine.padded_generation import generate_pack
from harness.engine.padded_scoring import score_pack
from harness.engine.prefix_cache import Prefixes, learns_a_prompt
from harness.engine.self_check import slots_fault, tree_fault
from harness.engine.slot_generation import SLOTS, generate_slots
from harness.engine.tree_scoring import score_tree
from harness.jobs import Raw
from harness.tokens.encode import Encoded
from harness.tokens.packs import Pack, Way, plan_padded, plan_tree

_PADDED = 4
"""Padded packs hold so many times the budget: they read prompts in wide batches, where trees are as long as they are wide."""
_PADDED_WRITING = 4
"""Decoding reads all weights for every token it writes, so it wants more rows at once than scoring."""
_PACK_OF_SLOTS = 4
"""Requests of a pack for each slot: the unit of commit is long enough for slots to be refilled."""
_SMALLEST_BUDGET = 64


class Runner:
    """Plans and runs the requests of one variant.

    Args:
        model: The variant's model.
        tokenizer: Its tokenizer.
        engine: `auto`, or `plain`: whole rows alone.
        numerics: `fp32`, or `lm-eval`: padded packs in the model's own precision, as lm-evaluation-harness has them.
        token_budget: Tokens fed at a time.
        max_rows: Rows of a pack, at most.
        seed: Of draws.
    """

    def __init__(
        self,
        model: Any,
        tokenizer: Any,
        *,
        engine: str,
        numerics: str,
        token_budget: int,
        max_rows: int | None,
        seed: int,
    ) -> None:
        self.model, self.tokenizer = model, tokenizer
        self.numerics, self.max_rows, self.seed = numerics, max_rows, seed
        self.token_budget = self._fed = token_budget
        self.notes: list[str] = []
        """What the user should know of how it was run, since they were last taken."""
        self._slots = min(SLOTS[model.device.type], max_rows or SLOTS[model.device.type])
        self._exact: Way = "plain" if learns_a_prompt(model) or engine == "plain" else "padded"
        self._fast = engine == "auto" and numerics == "fp32"

    @cached_property
    def scores(self) -> Way:
        """How it scores; tried when it is first asked."""
        if not self._fast:
            return self._exact
        try:
            self._prefixes = Prefixes(self.model)
            fault = tree_fault(self.model, self._prefixes)
        except Unsupported as error:
            fault = str(error)
        if fault is None:
            return "tree"
        self.notes.append(f"run in {_NAMES[self._exact]}: as packed trees, {fault}")
        return self._exact

    @cached_property
    def writes(self) -> Way:
        """How it writes; tried when it is first asked."""
        if self.scores != "tree":
            return self._exact
        fault = slots_fault(self.model, self._prefixes)
        if fault is None:
            return "slots"
        self.notes.append(f"writes in {_NAMES[self._exact]}: in slots, {fault}")
        return self._exact

    def way(self, encoded: Sequence[Encoded]) -> Way:
        """How a task's requests are run, all being scored or all written."""
        if not any(item.request.mode == "generate" for item in encoded):
            return self.scores
        return self._exact if self.writes == "slots" and self._outgrow_the_window(encoded) else self.writes

    def plan(self, encoded: Sequence[Encoded]) -> list[Pack]:
        """The packs of a task's requests; the same requests always give the same packs."""
        way = self.way(encoded)
        if way == "slots":
            return plan_tree(encoded, None, _PACK_OF_SLOTS * self._slots, way)
        if way == "tree":
            return plan_tree(encoded, self.token_budget, self.max_rows, way)
        writes = any(item.request.mode == "generate" for item in encoded)
        budget = self.token_budget * _PADDED * (_PADDED_WRITING if writes else 1)
        return plan_padded(encoded, budget, self.max_rows, way)

    def _outgrow_the_window(self, encoded: Sequence[Encoded]) -> bool:
        """Whether a row may get longer than what some layers see: slots leave nothing out."""
        window = self._prefixes.window
        longest = max(len(item.prompt) + item.request.max_tokens for item in encoded)
        return window is not None and self._prefixes.learned_tokens + longest > window

    def run(self, pack: Pack) -> list[Raw]:
        """What the model gives for the requests of a pack; out of memory, it is fed less at a time."""
        while True:
            try:
                return self._run(pack)
            except (torch.OutOfMemoryError, RuntimeError, MemoryError) as error:
                if not _is_out_of_memory(error) or not self._halve():
                    raise
            self._release()

    def _run(self, pack: Pack) -> list[Raw]:
        items = pack.items
        writes = items[0].request.mode == "generate"
        if pack.way == "tree":
            return score_tree(self._prefixes, pack, token_budget=self._fed)
        if pack.way == "slots":
            slots = self._slots_that_fit(pack)
            return generate_slots(
                self._prefixes, self.tokenizer, pack, seed=self.seed, token_budget=self._fed, slots=slots
            )
        if pack.way == "padded":
            if not writes:
                return score_pack(self.model, items, token_budget=self._fed * _PADDED, numerics=self.numerics)
            at_once = max(1, len(items) * self._fed // self.token_budget)
            return [
                raw
                for start in range(0, len(items), at_once)
                for raw in generate_pack(
                    self.model,
                    self.tokenizer,
                    items[start : start + at_once],
                    seed=self.seed,
                    numerics=self.numerics,
                )
            ]
        one: Callable[[Encoded], Raw] = self._write_plainly if writes else self._score_plainly
        return [one(item) for item in items]

    def _write_plainly(self, item: Encoded) -> Raw:
        return generate_plainly(self.model, self.tokenizer, item, seed=self.seed, numerics=self.numerics)

    def _score_plainly(self, item: Encoded) -> Raw:
        return score_plainly(self.model, item, numerics=self.numerics)

    def _slots_that_fit(self, pack: Pack) -> int:
        """Slots whose past takes half of the free memory at most."""
        longest = max(len(item.prompt) + item.request.max_tokens for item in pack.items)
        fitting = free_bytes(self.model.device) // 2 // max(1, self._prefixes.token_bytes * longest)
        return max(1, min(self._slots, fitting))

    def _halve(self) -> bool:
        """Whether there is something left to halve."""
        if self._fed <= _SMALLEST_BUDGET and self._slots == 1:
            return False
        self._fed, self._slots = max(_SMALLEST_BUDGET, self._fed // 2), max(1, self._slots // 2)
        note = "memory ran out: it was fed fewer tokens at a time from there on"
        if note not in self.notes:
            self.notes.append(note)
        return True

    def _release(self) -> None:
        if self.scores == "tree":
            self._prefixes.enter(())
        gc.collect()
        if self.model.device.type == "cuda":
            torch.cuda.empty_cache()


_NAMES = {"padded": "padded packs", "plain": "whole rows, one at a time"}


def free_bytes(device: torch.device) -> int:
    """Memory that is free on a device; of the host, what Linux calls available."""
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    try:
        lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
        fields = dict(line.split(":", 1) for line in lines)
        return int(fields["MemAvailable"].split()[0]) * 1024
    except (OSError, KeyError, ValueError):
        return 1 << 32


def _is_out_of_memory(error: Exception) -> bool:
    """The CPU's allocator raises a plain RuntimeError."""
    return isinstance(error, torch.OutOfMemoryError | MemoryError) or "DefaultCPUAllocator" in str(error)
