"""Texts that do not fit their model are refused before its weights are loaded."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import stages
import tiny_models as tiny
from tokenizers import AddedToken

from harness.errors import UserError
from harness.jobs import (
    Base,
    Example,
    Noted,
    Packed,
    Recipe,
    Request,
    ScoreJob,
    ScoreVariant,
    TaskRequests,
    VariantLoading,
)
from harness.tokens.tokenizer import load_tokenizer
from harness.worker import scoring


@pytest.fixture(scope="module")
def extended(tmp_path_factory: pytest.TempPathFactory) -> Base:
    """A model whose tokenizer was given two tokens after training."""
    folder = tiny.save_tiny(tmp_path_factory.mktemp("extended"))
    tokenizer = load_tokenizer(folder)
    tokenizer.add_tokens(["<extra1>", AddedToken("<extra2>", special=True)])
    tokenizer.save_pretrained(folder)
    return tiny.tiny_base(folder)


def score(base: Base, *requests: Request, **job: Any) -> list[Any]:
    events: list[Any] = []
    variants = [ScoreVariant("base", tiny.bare(base), (tiny.task(*requests),))]
    scoring.score(replace(ScoreJob(variants, "auto", "fp32", 500, None, 0, allow_cut=False), **job), events.append)
    return events


def refuse_weights(monkeypatch: pytest.MonkeyPatch) -> None:
    def load(base: Base) -> None:
        raise AssertionError("weights were loaded")

    monkeypatch.setattr("harness.models.load.load_base", load)


@pytest.mark.parametrize(
    "request_",
    [
        tiny.generate("Question: <extra1> is what?", "7"),
        tiny.choose("Question: <extra1> is what?", ["two", "42"], "7"),
        tiny.choose("Question: what?", ["two", "<extra1>"], "7"),
        tiny.text("hello <extra1>", "7"),
    ],
)
def test_a_sample_with_a_token_that_has_no_row_is_refused_before_weights_are_loaded(
    extended: Base, monkeypatch: pytest.MonkeyPatch, request_: Request
) -> None:
    refuse_weights(monkeypatch)
    with pytest.raises(UserError, match="sample `7` of `toy` holds `<extra1>`") as caught:
        score(extended, tiny.choose("hello", ["two"]), request_)
    assert "has 2 tokens more than the model has rows (344): `<extra1>`, `<extra2>`" in caught.value.message
    assert str(extended.folder) in caught.value.message
    assert "resize_token_embeddings" in str(caught.value.hint)


def test_added_tokens_that_no_sample_holds_are_noted(extended: Base) -> None:
    events = score(extended, tiny.choose("hello", ["two", "42"]))
    (note,) = [event.note for event in events if isinstance(event, Noted)]
    assert note.endswith("(344): `<extra1>`, `<extra2>`; no sample holds one")
    assert any(isinstance(event, Packed) for event in events)


def test_a_tokenizer_that_fits_gives_no_note(tmp_path: Path) -> None:
    events = score(tiny.tiny_base(tiny.save_tiny(tmp_path)), tiny.choose("hello", ["two", "42"]))
    assert not any(isinstance(event, Noted) for event in events)
    assert any(isinstance(event, VariantLoading) for event in events)


@pytest.mark.parametrize(
    ("examples", "validation", "where"),
    [
        ([Example("hello", " world"), Example("hello", " <extra2>")], [], "training row 2"),
        ([Example("<extra2>", " world")], [], "training row 1"),
        ([Example("hello", " world")], [Example("hello", " <extra2>")], "held-out row 1"),
    ],
)
def test_a_training_row_with_such_a_token_is_refused(
    extended: Base, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, examples: Any, validation: Any, where: str
) -> None:
    refuse_weights(monkeypatch)
    job = stages.job_for(tmp_path, tmp_path, base=extended, examples=examples, validation=validation, stage="sft")
    with pytest.raises(UserError, match=f"{where} holds `<extra2>`, but the tokenizer in"):
        stages.train(job)


def test_a_training_run_notes_added_tokens_that_no_row_holds(extended: Base, tmp_path: Path) -> None:
    job = stages.job_for(tmp_path, tmp_path, base=extended, examples=[Example("hello", " world")], steps=1, stage="sft")
    assert [note for note in stages.train(job).notes if "no training row holds one" in note]


# The context


CONTEXT = 64
SHORT, LONG = tiny.words(10), tiny.words(60)


@pytest.fixture(scope="module")
def narrow(tmp_path_factory: pytest.TempPathFactory) -> Base:
    """A model with a small context."""
    return tiny.tiny_base(tiny.save_tiny(tmp_path_factory.mktemp("narrow"), context=CONTEXT))


def requests(kind: str, count: int, long: int) -> list[Request]:
    prompts = [LONG if number < long else SHORT for number in range(count)]
    if kind == "generate":
        return [tiny.generate(prompt, str(number), max_tokens=2) for number, prompt in enumerate(prompts)]
    return [tiny.choose(prompt, [" one", " two"], str(number)) for number, prompt in enumerate(prompts)]


@pytest.mark.parametrize("kind", ["generate", "choose"])
def test_more_than_a_twentieth_of_the_prompts_cut_is_refused_before_weights_are_loaded(
    narrow: Base, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    refuse_weights(monkeypatch)
    with pytest.raises(UserError, match="`base` on `toy`: 2 of 20 prompts do not fit into the context of 64") as caught:
        score(narrow, *requests(kind, 20, 2))
    assert "sample `0`" in caught.value.message and "--allow-cut" in str(caught.value.hint)


@pytest.mark.parametrize("kind", ["generate", "choose"])
@pytest.mark.parametrize(("long", "allow"), [(1, False), (2, True)])
def test_a_twentieth_or_what_is_allowed_is_cut_and_counted(narrow: Base, kind: str, long: int, allow: bool) -> None:
    events = score(narrow, *requests(kind, 20, long), allow_cut=allow)
    raws = [raw for event in events if isinstance(event, Packed) for raw in event.raws]
    assert sorted(raw.index for raw in raws if raw.truncated) == list(range(long))


def test_an_answer_with_less_room_than_max_tokens_is_not_refused(narrow: Base) -> None:
    events = score(narrow, *[tiny.generate(SHORT, str(n), max_tokens=2048) for n in range(3)])
    assert not any(raw.truncated for event in events if isinstance(event, Packed) for raw in event.raws)


def test_a_learned_prompt_takes_its_room_from_the_context(narrow: Base, tmp_path: Path) -> None:
    from peft import PromptTuningConfig, get_peft_model

    from harness.models.load import load_base

    config = PromptTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=40)
    get_peft_model(load_base(narrow), config).save_pretrained(tmp_path)
    prompt = tiny.generate(tiny.words(20), max_tokens=2)
    score(narrow, prompt)
    variants = [ScoreVariant("prompt", Recipe(narrow, tmp_path), (tiny.task(prompt),))]
    with pytest.raises(UserError, match="`prompt` on `toy`: 1 of 1 prompts do not fit into the context of 24 tokens"):
        scoring.score(ScoreJob(variants, "auto", "fp32", 500, None, 0, allow_cut=False), lambda event: None)


@pytest.mark.parametrize("max_rows", [1, 3, None])
def test_answers_in_the_room_that_is_left_do_not_depend_on_the_batch(narrow: Base, max_rows: int | None) -> None:
    asked = [tiny.generate(tiny.words(n, n), str(n), max_tokens=100) for n in range(2, 12)]

    def answers(rows: int | None) -> list[Any]:
        events = score(narrow, *asked, max_rows=rows)
        found = [raw for event in events if isinstance(event, Packed) for raw in event.raws]
        return sorted(found, key=lambda raw: raw.index)

    assert answers(max_rows) == answers(5)
    assert any(raw.shortened for raw in answers(5))


def test_a_run_that_is_resumed_judges_all_of_its_prompts(narrow: Base) -> None:
    asked = tuple(requests("generate", 20, 2))
    variants = [ScoreVariant("base", tiny.bare(narrow), (TaskRequests("toy", asked, done=range(20)),))]
    with pytest.raises(UserError, match="2 of 20 prompts"):
        scoring.score(ScoreJob(variants, "auto", "fp32", 500, None, 0, allow_cut=False), lambda event: None)
