"""Both engines against references written here: a forward pass over one row at a time, and an argmax loop."""

import functools
import itertools
import random
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import tiny_models as tiny
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from small_tokenizers import EOS, IM_END, small_tokenizer

from harness.engine import padded_generation, padded_scoring
from harness.engine.merging import merge_for_scoring
from harness.engine.oracle import generate_plainly, score_plainly
from harness.engine.padded_generation import Completion, eos_ids, finished_raw, generate_pack, next_tokens
from harness.engine.padded_scoring import score_pack
from harness.engine.runner import Runner
from harness.jobs import Advanced, Packed, Raw, Recipe, Request, Resumed, ScoreJob, ScoreVariant, VariantStarted
from harness.models.load import Resident, method_function
from harness.tokens.encode import Encoded, Encoder
from harness.tokens.packs import packs_done, plan_padded
from harness.worker import scoring

CONTEXT = 96
VARIANTS = ("base", "lora", "nf4", "nf4+lora")

CHOICES = [
    tiny.choose("Question: what is one plus one? Answer:", [" one", " two", " three", " four"], "short"),
    tiny.choose(tiny.words(30, 1) + ".", [" " + tiny.words(n, 5 + n) for n in (1, 9, 4)], "uneven"),
    tiny.choose("", ["hello world", "Paris"], "no context"),
    tiny.choose(["The answer is 42 ", "The capital of France is "], ["and it is small", "and it is small"], "two"),
    tiny.choose(tiny.words(60, 3), [" one", " two plus two"], "too long"),
]
TEXTS = [tiny.text(tiny.words(n, n), str(n)) for n in (3, 70)]
PROMPTS = [
    tiny.generate(prompt, str(number), max_tokens=limit)
    for number, (prompt, limit) in enumerate(
        [("Question: what is one", 9), ("hello", 14), (tiny.words(40, 2), 6), ("The capital of", 1), ("", 5)]
    )
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("engine")
    for shape in tiny.SHAPES:
        tiny.save_tiny(root / shape, shape, context=CONTEXT)
        for bits in (None, 4):
            tiny.save_random_lora(root / f"{shape}-lora-{bits}", tiny.tiny_base(root / shape, bits=bits))
    return root


@pytest.fixture(scope="module")
def model_of(folder: Path) -> Any:
    @functools.cache
    def load(shape: str, variant: str) -> Any:
        bits = 4 if variant.startswith("nf4") else None
        base = tiny.tiny_base(folder / shape, bits=bits)
        adapter = folder / f"{shape}-lora-{bits}" if variant.endswith("lora") else None
        return Resident(base, method_function).attach(Recipe(base, adapter))

    return load


@pytest.fixture(scope="module")
def llama(model_of: Any) -> Any:
    return model_of("llama", "base")


def encoder(context: int = CONTEXT, **options: bool) -> Encoder:
    return Encoder(tiny.tiny_tokenizer(**options), context)


def encoded(requests: Sequence[Request], context: int = CONTEXT) -> list[Encoded]:
    return encoder(context).encode(tiny.task(*requests))


def fast(model: Any, budget: int = 2048, max_rows: int | None = None) -> Runner:
    runner = Runner(
        model, tiny.tiny_tokenizer(), engine="auto", numerics="fp32", token_budget=budget, max_rows=max_rows, seed=0
    )
    assert (runner.scoring, runner.generation) == ("tree", "slots"), runner.notes
    return runner


def run(
    model: Any, items: Sequence[Encoded], budget: int = 2048, max_rows: int | None = None, padded: bool = False
) -> list[Raw]:
    """Runs all items by the fast path, or in padded packs; results in the order of the items."""
    runner = fast(model, budget, max_rows)
    if padded:
        runner.scoring = runner.generation = "padded"
    return sorted((raw for pack in runner.plan(items) for raw in runner.run(pack)), key=lambda raw: raw.index)


score = generate = run


def by_hand(model: Any, ids: Sequence[int], targets: Sequence[int]) -> tuple[float, bool]:
    """Log-likelihood and greediness of the last `targets` of `ids + last target`."""
    with torch.inference_mode():
        logits = model(torch.tensor([ids])).logits[0].double()[len(ids) - len(targets) :]
    picked = logits.log_softmax(-1)[range(len(targets)), list(targets)]
    return float(picked.sum()), logits.argmax(-1).tolist() == list(targets)


def greedy(model: Any, ids: Sequence[int], count: int) -> list[int]:
    """The next `count` tokens, each from a forward pass over the whole row."""
    generated: list[int] = []
    with torch.inference_mode():
        for _ in range(count):
            generated.append(int(model(torch.tensor([[*ids, *generated]])).logits[0, -1].argmax()))
    return generated


def close(ours: Sequence[float], theirs: Sequence[float]) -> bool:
    return all(abs(a - b) <= 1e-5 * abs(b) for a, b in zip(ours, theirs, strict=True))


# Encoding


@pytest.mark.parametrize("adds_bos", [False, True])
@pytest.mark.parametrize("context", ["The answer is", "The answer is ", "The answer is  \n", "x"])
def test_a_pair_is_tokenised_together_and_the_contexts_last_spaces_move(context: str, adds_bos: bool) -> None:
    tokenizer = tiny.tiny_tokenizer(adds_bos=adds_bos)
    (item,) = encoder(adds_bos=adds_bos).encode(tiny.task(tiny.choose(context, [" 42 and"])))
    kept = context.rstrip()
    head = tokenizer(kept)["input_ids"]
    tail = tokenizer(context + " 42 and")["input_ids"][len(head) :]
    (row,) = item.rows
    assert list(row.ids) == (head + tail)[:-1]
    assert list(row.spans[0].targets) == tail
    assert row.spans[0].start == len(head) - 1
    assert (row.ids[0] == tiny.BOS) is adds_bos
    assert tokenizer.decode(tail) == context[len(kept) :] + " 42 and"


def test_an_empty_context_becomes_one_prefix_token() -> None:
    for options, prefix in (({"adds_bos": True}, tiny.BOS), ({}, tiny.BOS), ({"bos": False}, tiny.EOS)):
        (item,) = encoder(**options).encode(tiny.task(tiny.choose("", ["hello"])))
        hello = tiny.tiny_tokenizer(**options)("hello", add_special_tokens=False)["input_ids"]
        assert list(item.rows[0].ids) == [prefix, *hello[:-1]]
        assert list(item.rows[0].spans[0].targets) == hello


def test_a_text_that_begins_with_bos_gets_no_second_one() -> None:
    with_bos, plain = "<s>hello world", "hello world"
    for content in (tiny.choose(with_bos, [" two"]), tiny.generate(with_bos)):
        (item,) = encoder(adds_bos=True).encode(tiny.task(content))
        ids = item.prompt or item.rows[0].ids
        assert list(ids).count(tiny.BOS) == 1
        (item,) = encoder(adds_bos=True).encode(tiny.task(replace(content, contexts=(plain,))))
        assert (item.prompt or item.rows[0].ids) == ids


def test_a_pair_that_is_too_long_is_cut_on_the_left_and_marked() -> None:
    tokenizer = tiny.tiny_tokenizer()
    head, tail = tokenizer(tiny.words(60))["input_ids"], tokenizer(" Paris hello")["input_ids"]
    (item,) = encoded([tiny.choose(tiny.words(60), [" Paris hello"])], context=20)
    assert list(item.rows[0].ids) == (head + tail)[-21:-1]
    assert item.truncated
    whole = encoded([tiny.choose(tiny.words(60), [" Paris hello"])], context=len(head + tail) - 1)[0]
    assert not whole.truncated
    assert list(whole.rows[0].ids) == (head + tail)[:-1]


def test_a_continuation_longer_than_the_context_is_scored_to_its_last_tokens(llama: Any) -> None:
    (item,) = encoded([tiny.choose("hello", [" " + tiny.words(60)])], context=20)
    (row,) = item.rows
    tail = tiny.tiny_tokenizer()(" " + tiny.words(60))["input_ids"]
    assert len(row.ids) == 20
    assert list(row.spans[0].targets) == tail[-20:]
    assert score(llama, [item])[0].tokens == 20


def test_choices_of_one_token_share_a_row_and_longer_ones_do_not() -> None:
    (item,) = encoded([tiny.choose("Answer:", [" one", " two", " one two"])])
    assert [[span.choice for span in row.spans] for row in item.rows] == [[0, 1], [2]]


def test_a_choice_that_merges_with_its_contexts_last_token_is_tokenised_alone(llama: Any) -> None:
    joint = tiny.tiny_tokenizer()
    context, choice = "wor", "ld"
    assert len(joint(context + choice)["input_ids"]) < len(joint(context)["input_ids"]) + 1
    (item,) = encoded([tiny.choose(context, [choice, "x", ""])])
    raw = score(llama, [item])[0]
    assert raw.loglikelihoods[0] < 0, "a choice without tokens would win every question"
    assert raw.loglikelihoods == pytest.approx(score_plainly(llama, item, numerics="fp32").loglikelihoods, rel=1e-5)
    assert raw.loglikelihoods[2] == 0.0, "an empty choice has probability 1"


@pytest.mark.parametrize("length", [1, 2, 7, 16, 33, 500])
@pytest.mark.parametrize("adds_bos", [False, True])
def test_rolling_windows_give_every_token_the_context_of_lm_evals_rule(length: int, adds_bos: bool) -> None:
    content = tiny.words(20, 4)
    tokens = tiny.tiny_tokenizer(adds_bos=adds_bos)(content)["input_ids"]
    (item,) = encoder(length, adds_bos=adds_bos).encode(tiny.task(tiny.text(content)))
    scored = [
        (row.ids[: span.start + offset + 1], target)
        for row in item.rows
        for span in row.spans
        for offset, target in enumerate(span.targets)
    ]
    expected = []
    for at, token in enumerate(tokens):
        window = at // length
        end = min((window + 1) * length, len(tokens))
        before = [tiny.BOS, *tokens[:at]] if window == 0 else tokens[end - length - 1 : at]
        expected.append((tuple(before), token))
    assert scored == expected
    assert max(len(row.ids) for row in item.rows) <= length


@pytest.mark.parametrize(("window", "stride"), [(8, 3), (8, 8), (40, 1), (2, 2), (None, 5), (500, 16)])
def test_strided_windows_score_what_the_recipe_of_transformers_scores(window: int | None, stride: int) -> None:
    content = tiny.words(40, 4)
    tokens = tiny.tiny_tokenizer()(content)["input_ids"]
    (item,) = encoder(30).encode(tiny.task(replace(tiny.text(content), window=window, stride=stride)))
    scored = [
        (row.ids[: span.start + offset + 1], target)
        for row in item.rows
        for span in row.spans
        for offset, target in enumerate(span.targets)
    ]
    length, expected, done = min(window or 30, 30), [], 0
    for start in range(0, len(tokens), min(stride, length)):
        end = min(start + length, len(tokens))
        fresh = end - done  # the labels that are not masked; the window's first token has nothing before it
        expected += [(tuple(tokens[start:at]), tokens[at]) for at in range(max(end - fresh, start + 1), end)]
        done = end
        if end == len(tokens):
            break
    assert scored == expected
    assert max(len(row.ids) for row in item.rows) < length, "the last token is predicted, not fed"


def test_a_strided_text_of_one_token_has_nothing_to_score(llama: Any) -> None:
    content = tiny.tiny_tokenizer().decode(tiny.tiny_tokenizer()("hello")["input_ids"][:1])
    (item,) = encoder(30).encode(tiny.task(replace(tiny.text(content), stride=5)))
    (raw,) = score_pack(llama, [item, *encoded(TEXTS)][:1], numerics="fp32", token_budget=99)
    assert (raw.loglikelihoods, raw.tokens) == ((0.0,), 0)


@pytest.mark.parametrize("way", ["as the model takes them", "by columns", "of all positions"])
def test_logits_at_the_wanted_positions_alone(llama: Any, way: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if (
        way != "as the model takes them"
    ):  # models before transformers 5.21 take columns; some with code of their own, neither
        monkeypatch.setattr(padded_scoring, "_takes_mask_of_logits", lambda model: False)
    if way == "of all positions":
        monkeypatch.setattr(padded_scoring, "takes_logits_to_keep", lambda model: False)
    ids = torch.randint(3, 90, (3, 7), generator=torch.Generator().manual_seed(0))
    wanted = torch.zeros(3, 7, dtype=torch.bool)
    wanted[0, 6], wanted[1, 2:5] = True, True  # and nothing of the last row
    with torch.inference_mode():
        found = padded_scoring.needed_logits(llama, ids, wanted, "fp32")
        assert torch.allclose(found, llama(ids).logits[wanted], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("asked", [1, 12, 30, 400])
def test_a_prompt_is_cut_on_the_left_only_where_it_leaves_no_token_for_the_answer(asked: int) -> None:
    ids = tiny.tiny_tokenizer()(tiny.words(60))["input_ids"]
    (item,) = encoded([tiny.generate(tiny.words(60), max_tokens=asked)], context=30)
    assert list(item.prompt) == ids[-29:]
    assert item.truncated
    assert item.prompt_tokens == len(ids)
    assert item.request.max_tokens == 1


@pytest.mark.parametrize(
    ("asked", "room", "limited"), [(9, 9, False), (10, 10, False), (11, 10, True), (100, 10, True), (2048, 10, True)]
)
def test_the_prompt_has_the_right_of_way_over_max_tokens(asked: int, room: int, limited: bool) -> None:
    ids = tiny.tiny_tokenizer()(tiny.words(30))["input_ids"]
    (item,) = encoded([tiny.generate(tiny.words(30), max_tokens=asked)], context=len(ids) + 10)
    assert (list(item.prompt), item.request.max_tokens) == (ids, room)
    assert (item.truncated, item.limited) == (False, limited)


# The fast path equals the plain one


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("shape", tiny.SHAPES)
def test_auto_and_plain_score_like_one_row_by_hand(model_of: Any, shape: str, variant: str) -> None:
    model = model_of(shape, variant)
    items = encoded([*CHOICES, *TEXTS])
    for item, auto in zip(items, score(model, items), strict=True):
        plain = score_plainly(model, item, numerics="fp32")
        totals = [0.0] * len(plain.loglikelihoods)
        greedy_all = [True] * len(totals)
        for row in item.rows:
            for span in row.spans:
                value, is_greedy = by_hand(model, row.ids[: span.start + len(span.targets)], span.targets)
                totals[span.choice] += value
                greedy_all[span.choice] &= is_greedy
        assert close(plain.loglikelihoods, totals)
        assert close(auto.loglikelihoods, totals)
        assert auto.is_greedy == plain.is_greedy == (tuple(greedy_all) if item.request.mode == "choose" else ())
        assert (auto.tokens, auto.prompt_tokens, auto.truncated) == (plain.tokens, plain.prompt_tokens, plain.truncated)


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("shape", tiny.SHAPES)
def test_auto_and_plain_generate_what_an_argmax_loop_generates(model_of: Any, shape: str, variant: str) -> None:
    model, tokenizer = model_of(shape, variant), tiny.tiny_tokenizer()
    items = encoded(PROMPTS)
    for item, auto in zip(items, generate(model, items), strict=True):
        ids = greedy(model, item.prompt, item.request.max_tokens)
        ids = ids[: ids.index(tiny.EOS)] if tiny.EOS in ids else ids
        assert auto == generate_plainly(model, tokenizer, item, seed=0, numerics="fp32")
        assert auto.tokens == len(ids)
        prompt = tokenizer.decode(item.prompt, skip_special_tokens=True)
        if "\N{REPLACEMENT CHARACTER}" not in prompt + auto.texts[0]:
            assert prompt + auto.texts[0] == tokenizer.decode([*item.prompt, *ids], skip_special_tokens=True)


def test_adapters_change_the_scores_of_models(model_of: Any) -> None:
    for shape in tiny.SHAPES:
        values = {v: score(model_of(shape, v), encoded(CHOICES[:1]))[0].loglikelihoods for v in VARIANTS}
        assert len(set(values.values())) == len(VARIANTS)


@settings(max_examples=12, deadline=None, suppress_health_check=list(HealthCheck))
@given(budget=st.integers(1, 900), max_rows=st.none() | st.integers(1, 7), order=st.randoms(use_true_random=False))
def test_no_budget_batch_size_or_order_changes_a_score_or_a_text(
    llama: Any, budget: int, max_rows: int | None, order: random.Random
) -> None:
    for run, requests in ((score, [*CHOICES, *TEXTS]), (generate, PROMPTS)):
        items = encoded(requests)
        expected = run(llama, items)
        shuffled = list(items)
        order.shuffle(shuffled)
        for ours, theirs in zip(run(llama, shuffled, budget, max_rows), expected, strict=True):
            assert replace(ours, loglikelihoods=()) == replace(theirs, loglikelihoods=())
            assert close(ours.loglikelihoods, theirs.loglikelihoods)


@pytest.mark.parametrize("budget", [3, 200, 2048])
def test_padded_packs_give_the_same_results(llama: Any, budget: int) -> None:
    for requests in ([*CHOICES, *TEXTS], PROMPTS):
        items = encoded(requests)
        for ours, theirs in zip(run(llama, items, budget, padded=True), run(llama, items), strict=True):
            assert replace(ours, loglikelihoods=()) == replace(theirs, loglikelihoods=())
            assert close(ours.loglikelihoods, theirs.loglikelihoods)


@pytest.mark.parametrize("kind", ["PREFIX_TUNING", "PROMPT_TUNING", "P_TUNING"])
def test_prompt_learning_methods_give_the_same_results_in_every_batch(folder: Path, tmp_path: Path, kind: str) -> None:
    from peft import PEFT_TYPE_TO_CONFIG_MAPPING, PeftType, get_peft_model

    base = tiny.tiny_base(folder / "llama")
    resident = Resident(base, method_function)
    options = {"num_virtual_tokens": 5, "task_type": "CAUSAL_LM"}
    torch.manual_seed(3)
    learner = get_peft_model(resident.bare, PEFT_TYPE_TO_CONFIG_MAPPING[PeftType(kind)](**options))
    learner.save_pretrained(tmp_path)
    untouched = score(Resident(base, method_function).bare, encoded(CHOICES))
    requests = (tiny.task(*CHOICES), replace(tiny.task(*PROMPTS), task="generate"))
    variants = [ScoreVariant("base", tiny.bare(base), requests), ScoreVariant(kind, Recipe(base, tmp_path), requests)]
    job = ScoreJob([variants[1], variants[0]], "auto", "fp32", 300, None, 0)
    auto = scored(job)
    plain = scored(replace(job, engine="plain"))
    for name, task in itertools.product((kind, "base"), ("toy", "generate")):
        for ours, theirs in zip(by_index(auto[name, task]), by_index(plain[name, task]), strict=True):
            assert replace(ours, loglikelihoods=()) == replace(theirs, loglikelihoods=())
            assert close(ours.loglikelihoods, theirs.loglikelihoods)
    assert close(by_index(auto["base", "toy"])[0].loglikelihoods, untouched[0].loglikelihoods)
    model = Resident(base, method_function).attach(Recipe(base, tmp_path))
    for item, raw in zip(encoded(CHOICES), by_index(auto[kind, "toy"]), strict=True):
        for row in item.rows:
            if len(row.spans) == 1 and len([r for r in item.rows for s in r.spans]) == len(item.rows):
                span = row.spans[0]
                with torch.inference_mode():
                    logits = model(input_ids=torch.tensor([row.ids]), use_cache=True).logits[0].double()
                logits = logits[-len(span.targets) :].log_softmax(-1)
                value = float(logits[range(len(span.targets)), list(span.targets)].sum())
                assert close([raw.loglikelihoods[span.choice]], [value])


def scored(job: ScoreJob) -> dict[tuple[str, str], list[Raw]]:
    events: list[Any] = []
    scoring.score(job, events.append)
    found: dict[tuple[str, str], list[Raw]] = {}
    for event in events:
        if isinstance(event, Packed):
            found.setdefault((event.variant, event.task), []).extend(event.raws)
    return found


def by_index(raws: Sequence[Raw]) -> list[Raw]:
    return sorted(raws, key=lambda raw: raw.index)


# Work done


def head_rows(model: Any) -> list[int]:
    """A list that receives the number of positions of every call of the output head."""
    seen: list[int] = []
    head = model.get_output_embeddings()
    head.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0].shape[:-1].numel()))
    return seen


def test_the_head_is_computed_only_where_something_is_scored(folder: Path) -> None:
    model = Resident(tiny.tiny_base(folder / "llama"), method_function).bare
    runner = fast(model)
    seen = head_rows(model)
    items = encoded([CHOICES[0], CHOICES[1]])
    for pack in runner.plan(items):
        runner.run(pack)
    wanted = {
        row.ids[: span.start + offset + 1]
        for item in items
        for row in item.rows
        for span in row.spans
        for offset in range(len(span.targets))
    }
    assert sum(seen) == len(wanted), "what choices share is scored once for all of them"
    seen.clear()
    for pack in runner.plan(encoded(PROMPTS[:2])):
        runner.run(pack)
    limits = [request.max_tokens for request in PROMPTS[:2]]
    assert sum(seen) <= sum(limits), "one position for each token and row; finished rows leave"
    assert len(seen) <= max(limits)


# Stopping


def test_a_text_ends_before_a_stop_string_that_spans_tokens(llama: Any) -> None:
    tokenizer = tiny.tiny_tokenizer()
    for request in PROMPTS:
        (item,) = encoded([replace(request, max_tokens=14)])
        ids = greedy(llama, item.prompt, 14)
        for cut in range(2, 13):
            left, right = tokenizer.decode(ids[:cut]), tokenizer.decode(ids[cut : cut + 1])
            stop = left[-1:] + right[:1]
            if tiny.EOS not in ids and stop.isascii() and len(stop) == 2 and stop not in left:
                stopped = replace(item, request=replace(item.request, stop=("never", stop)))
                ours = generate(llama, [stopped, *encoded(PROMPTS)])[0]
                assert ours.texts == (left[:-1],)
                assert ours.tokens == cut + 1, "nothing is generated after a complete stop string"
                assert generate_plainly(llama, tokenizer, stopped, seed=0, numerics="fp32") == ours
                return
    pytest.fail("no prompt generated two ASCII tokens in a row")


def completion_of(prompt: str, *, max_tokens: int = 100, stop: tuple[str, ...] = ()) -> Completion:
    (item,) = encoded([tiny.generate(prompt, max_tokens=max_tokens, stop=stop)], context=500)
    return Completion(item, 0, tiny.tiny_tokenizer(), frozenset({tiny.EOS}), None)


def test_a_stop_string_of_many_bytes_ends_a_text_at_its_last_token() -> None:
    ids = tiny.tiny_tokenizer()("答案是四。问题：下一个")["input_ids"]
    end = len(tiny.tiny_tokenizer()("答案是四。问题：")["input_ids"])
    one = completion_of("问题：二加二？", stop=("问题：",))
    for token in ids[: end - 1]:
        one.add(token)
        assert not one.finished
    one.add(ids[end - 1])
    assert one.finished
    assert one.text() == "答案是四。"


def test_stop_strings_are_looked_for_where_one_may_end_and_found_as_if_always(monkeypatch: pytest.MonkeyPatch) -> None:
    texts = ["答案是四。问题：下一个", "one\n\nQuestion: two.\n", " a b, c. Né 🙂!", "<think>a.</think>\nb. c"]
    stops = [("问题：",), ("\n\n",), ("Question:", "é"), (" b",), ("b ",), ("🙂",), (".",), (",", "Né "), ("</think>",)]
    tokenizer, decoded = tiny.tiny_tokenizer(), 0
    decode = Completion._decode

    def counted(*given: Any, **options: Any) -> str:
        nonlocal decoded
        decoded += 1
        return decode(*given, **options)

    monkeypatch.setattr(Completion, "_decode", counted)
    counts = []
    for ends in (padded_generation._ends, lambda *_: lambda token: True):
        monkeypatch.setattr(padded_generation, "_ends", ends)
        found = []
        decoded = 0
        for text, stop in itertools.product(texts, stops):
            one = completion_of("hello", stop=stop)
            for token in tokenizer(text)["input_ids"]:
                if not one.finished:
                    one.add(token)
            found.append((one.finished, one.ids, one.text()))
        counts.append((decoded, found))
    (ours, found), (always, expected) = counts
    assert found == expected and any(finished for finished, *_ in found)
    assert ours < 0.8 * always


def test_sampled_tokens_stay_within_the_nucleus_and_keep_its_proportions() -> None:
    probabilities = torch.tensor([0.05, 0.5, 0.3, 0.15])
    (item,) = encoded([tiny.generate("hello", temperature=1.0, top_p=0.75)])
    completion = Completion(item, 0, tiny.tiny_tokenizer(), frozenset(), torch.Generator().manual_seed(0))
    drawn = [next_tokens([completion], probabilities.log()[None])[0] for _ in range(2000)]
    assert set(drawn) == {1, 2}, "the smallest set that holds 0.75: 0.5 and 0.3"
    assert drawn.count(1) / 2000 == pytest.approx(0.5 / 0.8, abs=0.04)


def test_eos_ends_a_text_and_is_not_part_of_it() -> None:
    one = completion_of("hello")
    for token in [*tiny.tiny_tokenizer()(" world")["input_ids"], tiny.EOS]:
        assert not one.finished
        one.add(token)
    assert one.finished
    assert one.text() == " world"


def ended(tokenizer: Any, written: str, *stop: str) -> tuple[bool, str]:
    """Whether a text that the model writes has ended with its last token, and the text that is returned."""
    (item,) = Encoder(tokenizer, 100).encode(tiny.task(tiny.generate("<s>6*7", max_tokens=90, stop=stop)))
    one = Completion(item, 0, tokenizer, frozenset(), None)
    ids = tokenizer(written, add_special_tokens=False)["input_ids"]
    for id in ids:
        assert not one.finished
        one.add(id)
    return one.finished, one.text()


@pytest.mark.parametrize(
    ("written", "stop", "expected"),
    [
        (" = 42<|im_end|>", ("Question:", "</s>", "<|im_end|>"), (True, " = 42")),
        (" = 42</s>", ("Question:", "</s>", "<|im_end|>"), (True, " = 42")),
        (" = <|im_start|>42<|im_end|>", ("<|im_end|>",), (True, " = 42")),
        (" = <|im_start|>42<|im_end|>", ("42<|im_end|>",), (True, " = ")),
        (" = <|im_start|>42\n", ("\n",), (True, " = 42")),
        (" = 42<|im_end|>", ("42 ", "</s>"), (False, " = 42")),
        (" = 42<|im_end|>", (), (False, " = 42")),
    ],
)
def test_a_stop_string_can_be_a_special_token(written: str, stop: tuple[str, ...], expected: tuple[bool, str]) -> None:
    assert ended(small_tokenizer("bos"), written, *stop) == expected


@pytest.mark.parametrize(
    ("written", "stop", "expected"),
    [
        ("<think>\n6*7. So:\n\n41?</think>\n\n42\n\n", ("\n\n",), (True, "<think>\n6*7. So:\n\n41?</think>\n\n42")),
        ("<think>a</think>42<|im_end|>", ("<|im_end|>",), (True, "<think>a</think>42")),
        ("<think>a<|im_end|></think>4<|im_start|>2<|im_end|>", ("<|im_end|>",), (True, "<think>a<|im_end|></think>42")),
        (" \n<think>a</think> 4.", (".",), (True, " \n<think>a</think> 4")),
        ("<think>a</think>b<think>.</think>c.", ("c.",), (True, "<think>a</think>b<think>.</think>")),
        ("<think>.", (".",), (False, "<think>.")),
        ("<thin.", (".",), (True, "<thin")),
        ("a<think>.", (".",), (True, "a<think>")),
    ],
)
def test_stop_strings_sleep_inside_a_thought(written: str, stop: tuple[str, ...], expected: tuple[bool, str]) -> None:
    for tokenizer in (small_tokenizer(), tiny.tiny_tokenizer()):
        if tokenizer.convert_tokens_to_ids("<think>") is not None or "<|im" not in written:
            assert ended(tokenizer, written, *stop) == expected


def grown(text: str, **options: Any) -> str:
    """The text that is generated where the model writes `text` without an end."""
    tokenizer = small_tokenizer()
    (item,) = Encoder(tokenizer, 100).encode(tiny.task(tiny.generate("6*7", **options)))
    one = Completion(item, 0, tokenizer, frozenset(), None)
    for id in tokenizer(text, add_special_tokens=False)["input_ids"]:
        if not one.finished:
            one.add(id)
    assert one.finished
    return one.text()


def test_a_thought_has_a_budget_of_its_own_and_leaves_the_answers_alone() -> None:
    thought = "<think>" + "x" * 9 + "</think>\n"
    assert grown(thought + "y" * 50, max_tokens=4) == "<think>xxx"
    assert grown(thought + "y" * 50, max_tokens=4, thought_tokens=20) == thought + "yyyy"
    assert grown("y" * 50, max_tokens=4, thought_tokens=20) == "yyyy"
    assert grown("x" * 50, max_tokens=4, thought_tokens=20, in_thought=True) == "x" * 24
    assert grown("xx</think>" + "y" * 50, max_tokens=4, thought_tokens=20, in_thought=True) == "xx</think>yyyy"


FINAL = "<|channel|>final<|message|>"
THOUGHT = "<|channel|>analysis<|message|>xxx<|im_start|>assistant"


@pytest.mark.parametrize(
    ("written", "before", "answer"),
    [
        (THOUGHT + FINAL + "42.", THOUGHT + FINAL, "42"),
        (FINAL + "42.", FINAL, "42"),
        ("42.", "", "42"),
        (THOUGHT, "", THOUGHT),
    ],
)
def test_a_header_before_the_answer_ends_a_thought(written: str, before: str, answer: str) -> None:
    tokenizer = small_tokenizer()
    marks = ("<|channel|>", FINAL)
    (item,) = Encoder(tokenizer, 200).encode(tiny.task(tiny.generate("6*7", max_tokens=90, stop=(".",), thought=marks)))
    one = Completion(item, 0, tokenizer, frozenset(), None)
    for id in tokenizer(written)["input_ids"]:
        one.add(id)
    raw = finished_raw([one])
    assert (raw.texts, raw.thought_tokens) == ((before + answer,), len(tokenizer(before)["input_ids"]))
    assert one.finished == written.endswith(".")


def test_a_thought_has_the_room_that_prompt_and_answer_leave() -> None:
    for limit, left, answer in ((600, 500, 4), (100, 93, 4), (12, 5, 4), (6, 0, 3)):
        (item,) = Encoder(small_tokenizer(), limit).encode(
            tiny.task(tiny.generate("6*7", max_tokens=4, thought_tokens=500))
        )
        assert (len(item.prompt), item.request.thought_tokens, item.request.max_tokens) == (3, left, answer)
        assert item.limited == (limit < 507)


CHATML = "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"


def test_the_end_of_a_turn_in_the_chat_template_ends_a_text() -> None:
    model = SimpleNamespace(generation_config=SimpleNamespace(eos_token_id=None))
    assert eos_ids(model, small_tokenizer()) == {EOS}
    assert eos_ids(model, small_tokenizer(template=CHATML)) == {EOS, IM_END}
    model.generation_config.eos_token_id = 5
    assert eos_ids(model, small_tokenizer(template=CHATML)) == {EOS, IM_END, 5}


def test_any_end_token_of_the_generation_config_ends_a_text(folder: Path) -> None:
    model = Resident(tiny.tiny_base(folder / "llama"), method_function).bare
    (item,) = encoded([tiny.generate("hello world", max_tokens=14)])
    ids = greedy(model, item.prompt, 14)
    last = next(n for n, token in enumerate(ids) if n >= 2 and token not in ids[:n])
    model.generation_config.eos_token_id = [tiny.EOS, ids[last]]
    (raw,) = generate(model, [item])
    assert raw.tokens == last
    assert raw == generate_plainly(model, tiny.tiny_tokenizer(), item, seed=0, numerics="fp32")


def test_each_row_stops_at_its_own_limit(llama: Any) -> None:
    items = encoded([tiny.generate("hello world", str(n), max_tokens=n) for n in (1, 7, 3)])
    raws = generate(llama, items)
    assert [raw.tokens for raw in raws] == [1, 7, 3]
    assert raws[1].texts[0].startswith(raws[2].texts[0])


@pytest.mark.parametrize("shape", ["llama", "gpt2"])
def test_a_limit_above_the_context_length_generates_to_the_end_of_the_context(model_of: Any, shape: str) -> None:
    items = encoded([tiny.generate(tiny.words(60), max_tokens=CONTEXT + 40)])
    (raw,) = generate(model_of(shape, "base"), items)
    assert not raw.truncated
    assert items[0].limited and raw.shortened == (len(items[0].prompt) + raw.tokens == CONTEXT)


@pytest.mark.parametrize("way", ["auto", "padded", "plain"])
def test_only_an_answer_that_the_context_ended_counts_as_shortened(llama: Any, way: str) -> None:
    prompt = tiny.words(20)
    start = len(tiny.tiny_tokenizer()(prompt)["input_ids"])
    whole = greedy(llama, tiny.tiny_tokenizer()(prompt)["input_ids"], 8)
    assert tiny.EOS not in whole
    stop = tiny.tiny_tokenizer().decode(whole[2:4])
    asked = [
        tiny.generate(prompt, "shortened", max_tokens=9),
        tiny.generate(prompt, "its own limit", max_tokens=8),
        tiny.generate(prompt, "stopped", max_tokens=9, stop=(stop,)),
        tiny.generate(prompt, "several", max_tokens=9, samples=2, temperature=1.0),
    ]
    items = encoded(asked, context=start + 8)
    if way == "plain":
        raws = [generate_plainly(llama, tiny.tiny_tokenizer(), item, seed=0, numerics="fp32") for item in items]
    else:
        raws = generate(llama, items, padded=way == "padded")
    assert [raw.shortened for raw in raws] == [True, False, False, True]
    assert raws[0].tokens == raws[1].tokens == 8
    assert raws[2].tokens < 8


# Sampling


def test_sampling_depends_on_request_sample_and_seed_alone(llama: Any) -> None:
    tokenizer = tiny.tiny_tokenizer()
    items = encoded([replace(r, samples=3, temperature=0.9, max_tokens=8) for r in PROMPTS[:3]])
    together = generate(llama, items, budget=2048)
    alone = generate(llama, list(reversed(items)), budget=1)
    plain = [generate_plainly(llama, tokenizer, item, seed=0, numerics="fp32") for item in items]
    assert together == alone == plain
    assert all(len(set(raw.texts)) == 3 for raw in together)
    other = generate_pack(llama, tokenizer, items, seed=1, numerics="fp32")
    assert {raw.texts for raw in other}.isdisjoint({raw.texts for raw in together})


def test_sampling_follows_the_softmax_at_the_temperature() -> None:
    item = encoded([tiny.generate("hello", temperature=0.5)])[0]
    logits = torch.tensor([0.0, 0.5, -1.0, -torch.inf])
    one = Completion(item, 0, tiny.tiny_tokenizer(), frozenset(), torch.Generator().manual_seed(0))
    drawn = torch.tensor([next_tokens([one], logits[None])[0] for _ in range(4000)])
    shares = torch.bincount(drawn, minlength=4) / 4000
    assert torch.allclose(shares, (logits / 0.5).softmax(-1), atol=0.03)
    assert shares[3] == 0


# Numerics


def test_a_bf16_model_keeps_head_and_softmax_in_float32(folder: Path) -> None:
    model = Resident(tiny.tiny_base(folder / "llama", dtype="bfloat16"), method_function).bare
    head = model.get_output_embeddings()
    (item,) = encoded([CHOICES[1]])
    ours = score_pack(model, [item], token_budget=1, numerics="fp32")[0]
    rough = score_pack(model, [item], token_budget=1, numerics="lm-eval")[0]
    for row in item.rows:
        (span,) = row.spans
        with torch.inference_mode():
            hidden = model.model(torch.tensor([row.ids])).last_hidden_state[0, span.start :]
            exact = (hidden.double() @ head.weight.double().T).log_softmax(-1)
            coarse = (hidden @ head.weight.T).log_softmax(-1)
        at = range(len(span.targets)), list(span.targets)
        assert coarse.dtype == torch.bfloat16
        assert close([ours.loglikelihoods[span.choice]], [float(exact[at].sum())])
        assert rough.loglikelihoods[span.choice] == float(coarse[at].sum())
    assert score_plainly(model, item, numerics="fp32").loglikelihoods != rough.loglikelihoods
    assert "forward" not in vars(head), "the head is restored"
    assert head.weight.dtype == torch.bfloat16


# Plans


def planned(widths: Sequence[int], rows: Sequence[int]) -> list[Encoded]:
    request = tiny.choose("x", ["y"])
    return [
        Encoded(n, replace(request, mode="generate", max_tokens=0, samples=count), (), (0,) * width, width, False)
        for n, (width, count) in enumerate(zip(widths, rows, strict=True))
    ]


@given(
    shape=st.lists(st.tuples(st.integers(1, 60), st.integers(1, 4)), min_size=1, max_size=30),
    budget=st.integers(1, 200),
    max_rows=st.none() | st.integers(1, 8),
    torn=st.integers(0, 100),
)
def test_a_plan_holds_every_request_once_within_the_budget_and_resumes_at_whole_packs(
    shape: list[tuple[int, int]], budget: int, max_rows: int | None, torn: int
) -> None:
    items = planned(*zip(*shape, strict=True))
    packs = plan_padded(items, budget, max_rows)
    assert packs == plan_padded(items, budget, max_rows)
    order = [item for pack in packs for item in pack.items]
    assert sorted(order, key=lambda item: item.index) == items
    widths = [len(item.prompt) for item in order]
    assert widths == sorted(widths, reverse=True)
    for pack in packs:
        count = sum(item.request.samples for item in pack.items)
        assert len(pack.items) == 1 or count * max(len(item.prompt) for item in pack.items) <= budget
        assert len(pack.items) == 1 or max_rows is None or count <= max_rows
    done = [item.index for item in order][: torn % (len(order) + 1)]
    ends = list(itertools.accumulate((len(pack.items) for pack in packs), initial=0))
    kept = packs_done(packs, done)
    assert ends[kept] <= len(done)
    assert kept == len(packs) or ends[kept + 1] > len(done)


def test_samples_on_disk_in_another_order_are_not_kept() -> None:
    packs = plan_padded(planned([9, 8, 7, 6], [1, 1, 1, 1]), 18)
    assert [[item.index for item in pack.items] for pack in packs] == [[0, 1], [2, 3]]
    assert packs_done(packs, [0, 1, 3, 2]) == 1
    assert packs_done(packs, [2, 3, 0, 1]) == 0


def test_a_resumed_job_sends_the_missing_packs_with_the_same_numbers(folder: Path) -> None:
    base = tiny.tiny_base(folder / "llama")
    whole = tiny.task(*CHOICES)
    job = ScoreJob([ScoreVariant("base", tiny.bare(base), [whole])], "auto", "fp32", 40, None, 0)
    events: list[Any] = []
    scoring.score(job, events.append)
    packs = [event.raws for event in events if isinstance(event, Packed)]
    assert len(packs) > 2
    assert isinstance(events[1], VariantStarted)
    assert events[2] == Resumed("base", "toy", 0)
    assert [e.done for e in events if isinstance(e, Advanced)][-1] == len(CHOICES)
    done = [raw.index for raw in (*packs[0], *packs[1][:1])]
    again: list[Any] = []
    rest = replace(whole, done=done)
    scoring.score(replace(job, variants=[replace(job.variants[0], tasks=[rest])]), again.append)
    kept = 2 if len(packs[1]) == 1 else 1
    assert again[2] == Resumed("base", "toy", sum(map(len, packs[:kept])))
    assert [event.raws for event in again if isinstance(event, Packed)] == packs[kept:]


# Adapters, merged while they are scored

MERGED: dict[str, tuple[str, dict[str, Any]]] = {
    "lora": ("LORA", {"r": 4}),
    "dora": ("LORA", {"r": 4, "use_dora": True}),
    "loha": ("LOHA", {"r": 4}),
    "lokr": ("LOKR", {"r": 4}),
    "ia3": ("IA3", {"feedforward_modules": ["down_proj"]}),
    "oft": ("OFT", {"oft_block_size": 8, "r": 0}),
    "hra": ("HRA", {"r": 4}),
    "vera": ("VERA", {"r": 4}),
    "fourierft": ("FOURIERFT", {"n_frequency": 20}),
}
UNMERGED: dict[str, tuple[str, dict[str, Any]]] = {
    "bias": ("LORA", {"r": 4, "bias": "all"}),
    "saved": ("LORA", {"r": 4, "modules_to_save": ["lm_head"]}),
    "prompt": ("PROMPT_TUNING", {"num_virtual_tokens": 4, "targets": None}),
}


def save_adapter(folder: Path, target: Path, kind: str, options: dict[str, Any]) -> None:
    """Saves a random adapter that changes the model's outputs."""
    from peft import PEFT_TYPE_TO_CONFIG_MAPPING, PeftType, get_peft_model

    chosen = {"target_modules": ["q_proj", "down_proj"], **options, "task_type": "CAUSAL_LM"}
    chosen = {key: value for key, value in chosen.items() if key != "targets"}
    if "targets" in options:
        del chosen["target_modules"]
    torch.manual_seed(1)
    config = PEFT_TYPE_TO_CONFIG_MAPPING[PeftType(kind)](**chosen)
    model = get_peft_model(Resident(tiny.tiny_base(folder), method_function).bare, config)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.add_(torch.randn_like(parameter) * 0.05)
    model.save_pretrained(target)


def bits(model: Any) -> dict[str, torch.Tensor]:
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}


def same_bits(model: Any, before: dict[str, torch.Tensor]) -> bool:
    now = model.state_dict()
    return now.keys() == before.keys() and all(torch.equal(now[name], before[name]) for name in before)


@pytest.mark.parametrize("name", [*MERGED, *UNMERGED])
def test_a_merged_adapter_scores_like_an_unmerged_one_and_is_removed_bit_equal(
    folder: Path, tmp_path: Path, name: str
) -> None:
    save_adapter(folder / "llama", tmp_path, *(MERGED | UNMERGED)[name])
    base = tiny.tiny_base(folder / "llama")
    model = Resident(base, method_function).attach(Recipe(base, tmp_path))
    before, items = bits(model), encoded(CHOICES)
    apart = [score_plainly(model, item, numerics="fp32") for item in items]
    unmerge = merge_for_scoring(model)
    assert (unmerge is None) == same_bits(model, before) == (name in UNMERGED)
    for item, raw in zip(items, apart, strict=True):
        assert close(score_plainly(model, item, numerics="fp32").loglikelihoods, raw.loglikelihoods)
    if unmerge is not None:
        unmerge()
    assert same_bits(model, before)
    assert [score_plainly(model, item, numerics="fp32") for item in items] == apart


def test_an_adapter_whose_merging_fails_runs_unmerged(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from peft.tuners.lora import Linear

    save_adapter(folder / "llama", tmp_path, *MERGED["lora"])
    base = tiny.tiny_base(folder / "llama")
    model = Resident(base, method_function).attach(Recipe(base, tmp_path))
    before, item = bits(model), encoded(CHOICES)[0]
    apart = score_plainly(model, item, numerics="fp32")
    merge, calls = Linear.merge, []

    def second_fails(layer: Any, **options: Any) -> None:
        calls.append(layer)
        if len(calls) == 2:
            raise NotImplementedError
        merge(layer, **options)

    monkeypatch.setattr(Linear, "merge", second_fails)
    assert merge_for_scoring(model) is None
    assert len(calls) == 2
    assert same_bits(model, before)
    assert score_plainly(model, item, numerics="fp32") == apart


def test_adapters_of_half_precision_quantized_and_tied_weights_are_not_merged(folder: Path, tmp_path: Path) -> None:
    from peft import LoraConfig, get_peft_model

    for options in ({"dtype": "bfloat16"}, {"bits": 4}):
        base = tiny.tiny_base(folder / "llama", **options)
        model = Resident(base, method_function).attach(Recipe(base, folder / "llama-lora-None"))
        assert merge_for_scoring(model) is None
    tied = Resident(tiny.tiny_base(folder / "llama"), method_function).bare
    tied.set_output_embeddings(torch.nn.Linear(1, 1))
    tied.lm_head.weight = tied.get_input_embeddings().weight
    assert (
        merge_for_scoring(get_peft_model(tied, LoraConfig(target_modules=["lm_head"], task_type="CAUSAL_LM"))) is None
    )


def test_a_scoring_job_merges_only_for_the_fast_path(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    base = tiny.tiny_base(folder / "llama")
    variants = [
        ScoreVariant(name, recipe, [tiny.task(*CHOICES)])
        for name, recipe in (("a", Recipe(base, folder / "llama-lora-None")), ("b", tiny.bare(base)))
    ]
    merges: list[bool] = []

    def counted(model: Any) -> Any:
        unmerge = merge_for_scoring(model)
        merges.append(unmerge is not None)
        return unmerge

    monkeypatch.setattr(scoring, "merge_for_scoring", counted)
    job = ScoreJob(variants, "auto", "fp32", 300, None, 0)
    auto = scored(job)
    assert merges == [True, False]
    alone = scored(replace(job, variants=variants[1:]))
    assert by_index(auto["b", "toy"]) == by_index(alone["b", "toy"]), "the base is restored"
    merges.clear()
    plain = scored(replace(job, engine="plain"))
    assert not merges
    for key in auto:
        for ours, theirs in zip(by_index(auto[key]), by_index(plain[key]), strict=True):
            assert close(ours.loglikelihoods, theirs.loglikelihoods)
