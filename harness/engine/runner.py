"""Runs the requests of one variant in the fastest way that gives the model's own logits.

Packed trees (for scoring) and slots (for generation) are used where the self-check passes; padded packs, which every causal
model supports, where it does not. Whole rows are run one at a time with `--engine plain`, and where learned tokens shift the
positions, so that padded packs would not be exact.
"""

from __future__ import annotations

import gc
from collections.abc import Callable, Sequence
from functools import cached_property
from itertools import chain
from typing import Any

import torch

from harness.engine.attention import Unsupported
from harness.engine.finite import NotFinite, fault
from harness.engine.generation_rules import GenerationRules
from harness.engine.oracle import forward, generate_plainly, score_plainly
from harness.engine.padded_generation import generate_pack
from harness.engine.padded_scoring import score_pack
from harness.engine.prefix_cache import Prefixes, learns_a_prompt
from harness.engine.self_check import batch_fault, slots_fault, tree_fault
from harness.engine.slot_generation import SLOTS, generate_slots
from harness.engine.tree_scoring import score_tree
from harness.errors import is_out_of_memory
from harness.jobs import Raw
from harness.models.measure import free_bytes
from harness.tokens.encode import Encoded
from harness.tokens.packs import Pack, Way, plan_padded, plan_tree

_PADDED = 4
"""Token budgets in a padded pack: attention is computed within each row alone, so a wide batch costs less than a tree."""
_PADDED_GENERATION = 4
"""Further factor for generation: every decoding step reads all weights, so more rows at once cost little."""
_PACK_OF_SLOTS = 4
"""Requests in a pack for each slot, so that a pack is long enough for slots to be refilled."""
_SMALLEST_BUDGET = 64


class Runner:
    """Plans and runs the requests of one variant.

    Args:
        model: The variant's model.
        tokenizer: Its tokenizer.
        engine: `auto`, or `plain`: whole rows, one at a time.
        numerics: `fp32`, or `lm-eval`: padded packs in the model's own precision, as in lm-evaluation-harness.
        token_budget: Most tokens fed at a time.
        max_rows: Most rows in a pack; None for no limit.
        seed: For sampling.
        faults: Findings of earlier self-checks of the same weights, by check; those made here are added.
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
        faults: dict[str, str | None] | None = None,
    ) -> None:
        self.model, self.tokenizer = model, tokenizer
        self.numerics, self.max_rows, self.seed = numerics, max_rows, seed
        self.token_budget = self._fed = token_budget
        self.notes: list[str] = []
        """Notes for the user about how requests were run; the caller removes those it has reported."""
        self._faults = {} if faults is None else faults
        self._slots = min(SLOTS[model.device.type], max_rows or SLOTS[model.device.type])
        self._exact: Way = "plain" if learns_a_prompt(model) or engine == "plain" else "padded"
        self._fast = engine == "auto" and numerics == "fp32"

    @cached_property
    def scoring(self) -> Way:
        """The way in which requests are scored; the self-check runs at the first access."""
        if not self._fast:
            return self._exact
        try:
            self._prefixes = Prefixes(self.model)
            fault = self._checked("tree", lambda: tree_fault(self.model, self._prefixes))
        except Unsupported as error:
            fault = str(error)
        if fault is None:
            return "tree"
        self.notes.append(f"runs in {_NAMES[self._exact]}, since packed trees failed the self-check: {fault}")
        return self._exact

    @cached_property
    def generation(self) -> Way:
        """The way in which texts are generated; the self-check runs at the first access."""
        if self.scoring == "tree":
            fault = self._checked("slots", lambda: slots_fault(self.model, self._prefixes))
            if fault is None:
                return "slots"
            self.notes.append(
                f"generates in {_NAMES[self._exact_generation]}, since slots failed the self-check: {fault}"
            )
        return self._exact_generation

    @cached_property
    def _exact_generation(self) -> Way:
        """The way in which texts are generated where slots do not apply."""
        if self._exact == "plain":
            return "plain"
        fault = self._checked("batch", lambda: batch_fault(self.model))
        if fault is None:
            return "padded"
        self.notes.append(f"generates in {_NAMES['plain']}, since padded packs failed the self-check: {fault}")
        return "plain"

    def _checked(self, name: str, check: Callable[[], str | None]) -> str | None:
        if name not in self._faults:
            self._faults[name] = check()
        return self._faults[name]

    def way(self, encoded: Sequence[Encoded]) -> Way:
        """The way in which a task's requests are run; all of them are scored, or all generate text."""
        if not any(item.request.mode == "generate" for item in encoded):
            return self.scoring
        exceeds = self.generation == "slots" and self._exceeds_window(encoded)
        return self._exact_generation if exceeds else self.generation

    def plan(self, encoded: Sequence[Encoded]) -> list[Pack]:
        """Plans the packs of a task's requests; the same requests always give the same packs."""
        asked = [item.request for item in encoded if item.request.mode == "generate"]
        if asked:
            self.notes += [note for note in GenerationRules(self.model).notes(asked) if note not in self.notes]
        way = self.way(encoded)
        if way == "slots":
            return plan_tree(encoded, None, _PACK_OF_SLOTS * self._slots, way)
        if way == "tree":
            return plan_tree(encoded, self.token_budget, self.max_rows, way)
        generates = any(item.request.mode == "generate" for item in encoded)
        budget = self.token_budget * _PADDED * (_PADDED_GENERATION if generates else 1)
        return plan_padded(encoded, budget, self.max_rows, way)

    def _exceeds_window(self, encoded: Sequence[Encoded]) -> bool:
        """Whether a row may grow longer than the sliding window of some layers: slots do not apply windows."""
        window = self._prefixes.window
        longest = max(len(item.prompt) + item.request.limit for item in encoded)
        return window is not None and self._prefixes.learned_tokens + longest > window

    def run(self, pack: Pack) -> list[Raw]:
        """Runs a pack and returns the results of its requests; when memory runs out, retries with half the budget.

        Raises:
            NotFinite: The model's outputs are NaN or infinite; the message names the first layer of these outputs.
        """
        while True:
            try:
                return self._run(pack)
            except NotFinite as error:
                raise NotFinite(error.ids, self._fault(pack, error)) from error
            except (RuntimeError, MemoryError) as error:
                if not is_out_of_memory(error) or not self._halve():
                    raise
            self._release()

    def _fault(self, pack: Pack, error: NotFinite) -> str:
        """Describes where the model's outputs for a pack stop being numbers."""
        rows = (ids for item in pack.items for ids in (item.prompt, *(row.ids for row in item.rows)))
        return fault(self.model, chain([error.ids], rows), forward)

    def _run(self, pack: Pack) -> list[Raw]:
        items = pack.items
        generates = items[0].request.mode == "generate"
        if pack.way == "tree":
            return score_tree(self._prefixes, pack, token_budget=self._fed)
        if pack.way == "slots":
            slots = self._slots_that_fit(pack)
            return generate_slots(
                self._prefixes, self.tokenizer, pack, seed=self.seed, token_budget=self._fed, slots=slots
            )
        if pack.way == "padded":
            if not generates:
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
        run_one: Callable[[Encoded], Raw] = self._generate_plainly if generates else self._score_plainly
        return [run_one(item) for item in items]

    def _generate_plainly(self, item: Encoded) -> Raw:
        return generate_plainly(self.model, self.tokenizer, item, seed=self.seed, numerics=self.numerics)

    def _score_plainly(self, item: Encoded) -> Raw:
        return score_plainly(self.model, item, numerics=self.numerics)

    def _slots_that_fit(self, pack: Pack) -> int:
        """Number of slots whose keys and values take at most half of the free memory."""
        longest = max(len(item.prompt) + item.request.limit for item in pack.items)
        if not self._prefixes.token_bytes:  # the self-check, which would tell, was made by an earlier runner
            self._prefixes.enter((pack.items[0].prompt[:1],))
        fitting = free_bytes(self.model.device) // 2 // max(1, self._prefixes.token_bytes * longest)
        return max(1, min(self._slots, fitting))

    def _halve(self) -> bool:
        """Halves the token budget and the slots; False if both are at their minimum already."""
        if self._fed <= _SMALLEST_BUDGET and self._slots == 1:
            return False
        self._fed, self._slots = max(_SMALLEST_BUDGET, self._fed // 2), max(1, self._slots // 2)
        note = "out of memory: from then on, fewer tokens were fed at a time"
        if note not in self.notes:
            self.notes.append(note)
        return True

    def _release(self) -> None:
        if self.scoring == "tree":
            self._prefixes.enter(())
        gc.collect()
        if self.model.device.type == "cuda":
            torch.cuda.empty_cache()


_NAMES = {"padded": "padded packs", "plain": "whole rows, one at a time"}
