"""Texts that do not fit their model are refused before its weights are loaded."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import stages
import tiny_models as tiny
from tokenizers import AddedToken

from harness.errors import UserError
from harness.jobs import Base, Example, Noted, Packed, Request, ScoreJob, ScoreVariant, VariantLoading
from harness.tokens.tokenizer import load_tokenizer
from harness.worker import child


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
    child.score(replace(ScoreJob(variants, "auto", "fp32", 500, None, 0), **job), events.append)
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
