"""The parts of the fast path: tries, packs with shared prefixes, the self-check of a model, memory that runs out, slots."""

import itertools
import math
from collections.abc import Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import tiny_models as tiny
import torch
from architectures import SHAPES, random_model
from hypothesis import given, settings
from hypothesis import strategies as st

from harness.engine import block_attention
from harness.engine.attention import Unsupported, refuse_unknown
from harness.engine.oracle import forward, score_plainly
from harness.engine.output_head import _BLOCK, score_hidden, score_logits
from harness.engine.prefix_cache import Prefixes
from harness.engine.runner import Runner
from harness.engine.self_check import slots_fault, tree_fault
from harness.engine.slot_cache import SlotCache
from harness.engine.slot_generation import generate_slots
from harness.engine.tree_scoring import feed_tree
from harness.jobs import Raw
from harness.models.load import Resident
from harness.tokens.encode import Encoded, Encoder, ScoreRow, Span
from harness.tokens.packs import SHORTEST_SEGMENT, Pack, plan_tree, tokens_fed, tokens_needed
from harness.tokens.trie import shared, size, trie

Ids = tuple[int, ...]
rows_of_ids = st.lists(st.lists(st.integers(0, 2), min_size=1, max_size=8).map(tuple), min_size=1, max_size=12)

# Tries


@given(rows_of_ids)
def test_a_token_of_a_trie_sees_its_own_row_up_to_itself(rows: list[Ids]) -> None:
    tree = trie(rows)
    for row, path in zip(rows, tree.paths, strict=True):
        assert tuple(tree.tokens[place] for place in path) == row
        for depth, place in enumerate(path):
            assert tree.depths[place] == depth
            assert [j for j in range(len(tree.tokens)) if j <= place < tree.ends[j]] == path[: depth + 1]
    distinct = {row[:end] for row in rows for end in range(1, len(row) + 1)}
    assert len(tree.tokens) == size(rows) == len(distinct), "every shared token once"


@given(st.lists(st.integers(0, 1), max_size=20).map(tuple), st.lists(st.integers(0, 1), max_size=20).map(tuple))
def test_the_common_prefix_of_two_rows_is_found_by_halving(a: Ids, b: Ids) -> None:
    assert shared(a, b) == next((n for n, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), min(len(a), len(b)))


# Plans


def item(index: int, context: Ids, continuations: Sequence[Ids]) -> Encoded:
    request = tiny.choose("x", ["y"] * len(continuations))
    rows: dict[Ids, list[Span]] = {}
    for choice, ids in enumerate(continuations):
        rows.setdefault(context + ids[:-1], []).append(Span(choice, len(context) - 1, ids))
    found = tuple(ScoreRow(ids, tuple(spans)) for ids, spans in rows.items())
    return Encoded(index, request, found, (), len(context), False)


def repeated(*parts: tuple[int, int]) -> Ids:
    """A row of repeated tokens, given as (token, count)."""
    return tuple(token for token, count in parts for _ in range(count))


contexts = st.lists(st.tuples(st.integers(0, 2), st.sampled_from([1, 2, 20])), min_size=1, max_size=5)
endings = st.lists(st.lists(st.integers(0, 2), min_size=1, max_size=4).map(tuple), min_size=1, max_size=4)


@given(
    st.lists(st.tuples(contexts, endings), min_size=1, max_size=25), st.integers(1, 150), st.none() | st.integers(1, 9)
)
def test_a_plan_holds_every_request_once_after_a_prefix_of_all_its_rows(
    shape: list[tuple[list[tuple[int, int]], list[Ids]]], budget: int, max_rows: int | None
) -> None:
    items = [item(n, repeated(*parts), choices) for n, (parts, choices) in enumerate(shape)]
    packs = plan_tree(items, budget, max_rows)
    assert packs == plan_tree(items, budget, max_rows)
    assert sorted(each.index for pack in packs for each in pack.items) == list(range(len(items)))
    for pack in packs:
        path = tuple(itertools.chain.from_iterable(pack.path))
        rows = [row for each in pack.items for row in each.rows]
        assert all(row.ids[: len(path)] == path for row in rows)
        assert all(span.start >= len(path) for row in rows for span in row.spans), "scored tokens are fed"
        assert all(len(segment) >= SHORTEST_SEGMENT for segment in pack.path)
        fed = len(trie([row.ids[len(path) :] for row in rows]).tokens)
        assert fed <= pack.tokens, "a plan may overestimate the tokens of a pack, never underestimate them"
        assert len(pack.items) == 1 or (pack.tokens <= budget and (max_rows is None or len(rows) <= max_rows))
    runs = [path for path, _ in itertools.groupby(pack.path for pack in packs)]
    assert len(runs) == len(set(runs)), "packs of one path are next to each other"


def test_questions_with_one_long_prefix_run_it_once() -> None:
    subject = tuple(range(1000, 1300))
    items = [item(n, (*subject, *range(50 * n, 50 * n + 40)), [(1,), (2,), (3,), (4,)]) for n in range(40)]
    packs = plan_tree(items, 400)
    assert {pack.path for pack in packs} == {(subject,)}
    assert tokens_fed(packs) == 300 + 40 * 40
    assert tokens_needed(items) == 40 * 340
    assert len(packs) == math.ceil(40 * 40 / 400)


def test_nested_prefixes_are_run_once_each() -> None:
    all_of_it = tuple(range(5000, 5040))
    items = []
    for subject in range(3):
        own = tuple(range(1000 + 100 * subject, 1060 + 100 * subject))
        items += [
            item(len(items) + n, (*all_of_it, *own, *range(30 * n, 30 * n + 30)), [(7,), (8,)]) for n in range(10)
        ]
    packs = plan_tree(items, 120)
    assert tokens_fed(packs) == 40 + 3 * 60 + 30 * 30
    assert {len(pack.path) for pack in packs} == {2}


def test_a_chain_of_ever_longer_contexts_is_planned_without_deep_recursion() -> None:
    items = [item(n, (5,) * (n + 1) + (6,) * 3, [(1,)]) for n in range(3000)]
    packs = plan_tree(items, 64)
    assert sum(len(pack.items) for pack in packs) == 3000


# The model's own logits


@pytest.mark.parametrize("shape", SHAPES)
def test_the_self_check_finds_which_models_support_the_fast_path(shape: str) -> None:
    model = random_model(shape)
    try:
        prefixes = Prefixes(model)
    except Unsupported:
        assert SHAPES[shape][2:] == (False, False)
        return
    faults = tree_fault(model, prefixes), slots_fault(model, prefixes)
    assert tuple(fault is None for fault in faults) == SHAPES[shape][2:], faults


def runner(model: Any, budget: int = 64, max_rows: int | None = None) -> Runner:
    return Runner(
        model, tiny.tiny_tokenizer(), engine="auto", numerics="fp32", token_budget=budget, max_rows=max_rows, seed=0
    )


def encoded(*requests: Any) -> list[Encoded]:
    return Encoder(tiny.tiny_tokenizer(), 256).encode(tiny.task(*requests))


QUESTIONS = [
    tiny.choose(f"{tiny.words(40)}. And {tiny.words(6, n)}", [" " + tiny.words(k, n + k) for k in (1, 3, 5)], str(n))
    for n in range(6)
]


@pytest.mark.parametrize("shape", [shape for shape in SHAPES if shape not in ("jamba",)])
def test_every_model_scores_like_row_by_row(shape: str) -> None:
    model = random_model(shape)
    ours = runner(model)
    ways = (ours.scoring, ours.generation)
    assert (ways[0] == "tree") == SHAPES[shape][2]
    assert bool(ours.notes) == (ways != ("tree", "slots"))
    items = encoded(*QUESTIONS)
    for raw in (raw for pack in ours.plan(items) for raw in ours.run(pack)):
        theirs = score_plainly(model, items[raw.index], numerics="fp32")
        assert raw.loglikelihoods == pytest.approx(theirs.loglikelihoods, rel=1e-5)
        assert raw.is_greedy == theirs.is_greedy


def test_rows_longer_than_a_sliding_window_are_not_generated_in_slots() -> None:
    ours = runner(random_model("gemma2"))
    assert (ours.scoring, ours.generation) == ("tree", "slots")
    short, long = tiny.generate("hello", max_tokens=5), tiny.generate(tiny.words(60), max_tokens=30)
    assert [pack.way for pack in ours.plan(encoded(short))] == ["slots"]
    assert [pack.way for pack in ours.plan(encoded(long))] == ["padded"]
    assert ours.way(encoded(long)) == "padded", "the key of cached plans"


def test_the_self_check_detects_a_mask_that_is_ignored(monkeypatch: pytest.MonkeyPatch) -> None:
    model = random_model("llama")
    prefixes = Prefixes(model)
    prefixes.by_block = False
    honest = prefixes.mask
    monkeypatch.setattr(prefixes, "mask", lambda seen, *rest: honest(torch.ones_like(seen).tril(), *rest))
    assert "would differ by" in str(tree_fault(model, prefixes))


# Blocks


BLOCKWISE = ["llama", "qwen3", "gpt2", "gemma3"]


def test_block_attention_is_used_where_the_models_is_torchs_and_the_check_reaches_it() -> None:
    found = set()
    for shape in SHAPES:
        if SHAPES[shape][2]:
            prefixes = Prefixes(random_model(shape))
            assert tree_fault(prefixes.model, prefixes) is None
            found |= {shape} if prefixes.by_block else set()
    by_mask = {"gemma2", "falcon", "gemma3", "mistral"}  # eager, its own attention, windows shorter than the check
    assert found == {shape for shape in SHAPES if SHAPES[shape][2]} - by_mask


def test_unknown_options_of_attention_are_refused() -> None:
    refuse_unknown(torch.ones(1, 1, 1, 1), {"dropout": 0.0, "softcap": 2.0, "s_aux": None}, "softcap")
    with pytest.raises(Unsupported, match="a mask of its own"):
        refuse_unknown(torch.ones(1, 1, 2, 2), {})
    with pytest.raises(Unsupported, match="s_aux"):
        refuse_unknown(None, {"s_aux": torch.ones(1)})


@pytest.mark.parametrize("shape", BLOCKWISE)
@settings(max_examples=15, deadline=None)
@given(rows_of_ids, st.integers(0, 9), st.integers(2, 40), st.sampled_from([0, 30, 1 << 20]))
def test_blocks_give_each_row_its_own_logits(shape: str, rows: list[Ids], before: int, budget: int, call: int) -> None:
    model = _made(shape)
    prefixes = Prefixes(model)
    prefix = tuple(range(5, 5 + before))
    prefixes.enter((prefix,) if prefix else ())
    tree = trie(rows)
    with pytest.MonkeyPatch.context() as patch, torch.inference_mode():
        patch.setattr(block_attention, "_CALL", call)
        fed = feed_tree(prefixes, tree, prefixes.cache(), torch.arange(len(tree.tokens)), budget)
        logits = torch.cat([piece for _, piece in fed])
        for row, path in zip(rows, tree.paths, strict=True):
            whole = forward(model, [*prefix, *row])[before:]
            torch.testing.assert_close(logits[path], whole, rtol=1e-4, atol=1e-5)


@cache
def _made(shape: str) -> Any:
    return random_model(shape)


@given(rows_of_ids, st.sampled_from([0, 5, 40]))
def test_cuts_have_the_least_cost(rows: list[Ids], call: int) -> None:
    depths = trie(rows[:9]).depths
    branches = [at for at in range(1, len(depths)) if depths[at] <= depths[at - 1]]

    def cost(cuts: Sequence[int]) -> int:
        return sum((b - a) * (depths[a] + b - a) + call for a, b in itertools.pairwise(cuts))

    every = [
        [0, *inner, len(depths)]
        for count in range(len(branches) + 1)
        for inner in itertools.combinations(branches, count)
    ]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(block_attention, "_CALL", call)
        found = block_attention.cheapest_cuts(depths)
    assert cost(found) == min(map(cost, every))


def test_a_model_that_does_not_support_blocks_gets_masks(monkeypatch: pytest.MonkeyPatch) -> None:
    model = random_model("llama")
    prefixes = Prefixes(model)
    asked: list[str] = []

    def refuse(mask: Any, options: Any) -> None:
        asked.append("once")
        raise Unsupported("its attention takes a bias")

    monkeypatch.setattr(block_attention, "refuse_unknown", refuse)
    assert tree_fault(model, prefixes) is None
    assert asked == ["once"] and not prefixes.by_block


# Memory


class Small:
    """Makes a model fail when it is fed more than `most` tokens at a time."""

    def __init__(self, model: Any, most: int, error: Exception) -> None:
        self.model, self.most, self.error, self.refused = model, most, error, 0
        model.register_forward_pre_hook(self.check, with_kwargs=True)

    def check(self, _: Any, __: Any, options: dict[str, Any]) -> None:
        if options["input_ids"].numel() > self.most:
            self.refused += 1
            raise self.error


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory"),
        RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
        RuntimeError("[enforce fail at alloc_cpu.cpp:117] DefaultCPUAllocator: can't allocate memory"),
        MemoryError(),
    ],
    ids=lambda error: type(error).__name__,
)
def test_out_of_memory_halves_the_budget_and_notes_it_once(error: Exception) -> None:
    model = random_model("llama")
    items = encoded(*QUESTIONS, tiny.text(tiny.words(90, 3)))
    expected = gather(runner(model, 2048), items)
    small = Small(model, 120, error)
    ours = runner(model, 2048)
    found = gather(ours, items)
    assert small.refused > 1
    assert ours._fed == 2048 // 2**small.refused
    assert ours.notes == ["out of memory: from then on, fewer tokens were fed at a time"]
    for raw, other in zip(found, expected, strict=True):
        assert raw.loglikelihoods == pytest.approx(other.loglikelihoods, rel=1e-5)


def test_other_errors_of_a_model_are_not_taken_for_out_of_memory() -> None:
    model = random_model("llama")
    ours = runner(model, 2048)
    packs = ours.plan(encoded(*QUESTIONS))
    small = Small(model, 20, RuntimeError("mat1 and mat2 shapes cannot be multiplied"))
    with pytest.raises(RuntimeError, match="mat1 and mat2"):
        ours.run(packs[0])
    assert (small.refused, ours._fed) == (1, 2048)


def test_out_of_memory_at_the_smallest_budget_fails_the_variant() -> None:
    model = random_model("llama")
    ours = runner(model, 2048, 2)
    Small(model, 20, torch.OutOfMemoryError("CUDA out of memory"))
    with pytest.raises(torch.OutOfMemoryError):
        gather(ours, encoded(*QUESTIONS))


def gather(ours: Runner, items: list[Encoded]) -> list[Raw]:
    return sorted((raw for pack in ours.plan(items) for raw in ours.run(pack)), key=lambda raw: raw.index)


# Slots


@settings(max_examples=15, deadline=None)
@given(
    st.lists(st.tuples(st.integers(1, 9), st.integers(1, 7), st.integers(1, 3)), min_size=1, max_size=7),
    st.integers(1, 8),
    st.integers(3, 60),
)
def test_neither_slots_nor_budget_change_a_text(shape: list[tuple[int, int, int]], slots: int, budget: int) -> None:
    model = _LLAMA
    items = encoded(
        *(
            tiny.generate(
                f"{tiny.words(12)} {tiny.words(words, n)}",
                str(n),
                max_tokens=limit,
                samples=samples,
                temperature=0.8 * (samples > 1),
            )
            for n, (words, limit, samples) in enumerate(shape)
        )
    )
    options = {"seed": 0, "token_budget": budget, "slots": slots}
    tokenizer = tiny.tiny_tokenizer()
    together = generate_slots(Prefixes(model), tokenizer, Pack(tuple(items), "slots"), **options)
    for each, ours in zip(items, together, strict=True):
        (alone,) = generate_slots(Prefixes(model), tokenizer, Pack((each,), "slots"), **{**options, "slots": 1})
        assert ours == alone
        assert len(ours.texts) == each.request.samples


_LLAMA = random_model("llama")


def test_the_last_row_moves_into_a_freed_slot_with_its_keys_and_values() -> None:
    past = [(torch.arange(24.0).view(1, 2, 4, 3), torch.arange(24.0, 48.0).view(1, 2, 4, 3))]
    slot_cache = SlotCache([], slots=3, length=5)
    slot_cache.lay_out(past)
    slot_cache.add(past, [torch.tensor([0])])
    slot_cache.add(past, [torch.tensor(places) for places in ([1, 2], [3, 0, 1])])
    slot_cache.drop(0)
    assert (slot_cache.rows, slot_cache.lengths[:2].tolist()) == (2, [3, 2])
    assert torch.equal(slot_cache.keys[0][0, :, :3], past[0][0][0, :, [3, 0, 1]])
    assert torch.equal(slot_cache.values[0][1, :, :2], past[0][1][0, :, [1, 2]])


def test_a_row_of_all_layers_is_moved_at_once_and_layers_of_another_shape_apart() -> None:
    def layer(number: int, heads: int) -> tuple[torch.Tensor, torch.Tensor]:
        first = torch.arange(12.0 * heads).view(1, heads, 4, 3) + 1000 * number
        return first, first + 500

    past = [layer(number, heads) for number, heads in enumerate((2, 1, 2))]
    slot_cache = SlotCache([], slots=2, length=5)
    slot_cache.lay_out(past)
    assert [tuple(block.shape) for block in slot_cache.blocks] == 2 * [(2, 2, 2, 5, 3), (1, 2, 1, 5, 3)]
    slot_cache.add(past, [torch.tensor([0]), torch.tensor([3, 1])])
    slot_cache.drop(0)
    for number, (keys, values) in enumerate(past):
        assert torch.equal(slot_cache.keys[number][0, :, :2], keys[0, :, [3, 1]])
        assert torch.equal(slot_cache.values[number][0, :, :2], values[0, :, [3, 1]])


def test_a_model_loaded_from_a_folder_runs_on_the_fast_path(tmp_path: Path) -> None:
    tiny.save_tiny(tmp_path, "llama", context=256)
    ours = runner(Resident(tiny.tiny_base(tmp_path), lambda _: lambda model: model).bare)
    assert (ours.scoring, ours.generation, ours.notes) == ("tree", "slots", [])
    assert replace(ours.plan(encoded(*QUESTIONS))[0], items=()).way == "tree"


def generating(index: int, prompt: Ids) -> Encoded:
    return Encoded(index, tiny.generate("x", str(index)), (), prompt, len(prompt), False)


def test_texts_with_one_long_prefix_are_generated_together_whatever_else_is_asked() -> None:
    shots = tuple(range(1000, 2200))
    items = [generating(n, (*shots, *range(n, n + 30))) for n in range(60)]
    items.insert(7, generating(60, tuple(range(5000, 5400))))  # for example a prompt that was cut on the left
    packs = plan_tree(items, None, 256, "slots")
    assert sorted((len(pack.items), pack.path) for pack in packs) == [(1, ()), (60, (shots,))]


def test_texts_that_share_little_are_generated_in_one_pack() -> None:
    items = [generating(n, (*range(100 * (n % 5), 100 * (n % 5) + 40), *range(n, n + 30))) for n in range(50)]
    (pack,) = plan_tree(items, None, 256, "slots")
    assert (len(pack.items), pack.path) == (50, ())
    subjects = [generating(n, (*range(1000 * (n % 5), 1000 * (n % 5) + 900), n)) for n in range(50)]
    assert sorted(len(pack.items) for pack in plan_tree(subjects, None, 256, "slots")) == [10] * 5


# The head, one block of the vocabulary at a time


def scored_blocks(monkeypatch: pytest.MonkeyPatch, block: int, head: torch.nn.Linear, *given: Any) -> list[Any]:
    """Scores from hidden states and from logits, in blocks of `block` logits."""
    hidden, which, targets = given
    monkeypatch.setattr("harness.engine.output_head._NARROWEST", 1)
    monkeypatch.setitem(_BLOCK, "cpu", block)
    with torch.inference_mode():
        logits = torch.nn.functional.linear(hidden, head.weight, head.bias)
        return [
            score_hidden(head, hidden, which, targets, greedy=True),
            score_logits(logits, which, targets, greedy=True),
        ]


@pytest.mark.parametrize("block", [1, 7, 40, 10_000])
@pytest.mark.parametrize("bias", [False, True])
def test_blocks_of_the_vocabulary_add_up_to_the_whole_softmax(
    monkeypatch: pytest.MonkeyPatch, block: int, bias: bool
) -> None:
    torch.manual_seed(block)
    head = torch.nn.Linear(8, 23, bias=bias)
    hidden, which = torch.randn(5, 8) * 6, torch.randint(0, 5, (40,))
    with torch.inference_mode():
        logits = head(hidden)
        best = logits.argmax(-1)
        targets = torch.where(torch.rand(40) < 0.5, best[which], torch.randint(0, 23, (40,)))
        truth = logits.double().log_softmax(-1)[which, targets]
    for found in scored_blocks(monkeypatch, block, head, hidden, which, targets):
        assert torch.allclose(found.loglikelihoods, truth, rtol=1e-5)
        assert torch.equal(found.greedy, best[which] == targets)


@pytest.mark.parametrize("block", [1, 12, 10_000])
def test_the_first_of_equally_likely_tokens_is_greedy(monkeypatch: pytest.MonkeyPatch, block: int) -> None:
    head = torch.nn.Linear(4, 12, bias=False)
    with torch.no_grad():
        head.weight[:] = head.weight[torch.arange(12) % 3]  # four equal tokens of each kind
    hidden = torch.randn(6, 4)
    which, targets = torch.arange(6).repeat_interleave(12), torch.arange(12).repeat(6)
    for found in scored_blocks(monkeypatch, block, head, hidden, which, targets):
        marked = found.greedy.view(6, 12).long()
        assert marked.sum(-1).tolist() == [1] * 6
        assert (marked.argmax(-1) < 3).all()


def test_a_head_followed_by_another_step_is_not_used_alone() -> None:
    ends = {
        shape: Prefixes(random_model(shape)).head is not None for shape in ("llama", "gpt2", "phi", "gemma2", "cohere")
    }
    assert ends == {"llama": True, "gpt2": True, "phi": True, "gemma2": False, "cohere": False}
