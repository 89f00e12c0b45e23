"""Rules of `generation_config.json` give the texts of transformers' `generate`, called as lm-evaluation-harness calls it."""

import itertools
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import tiny_models as tiny
import torch
from transformers import GenerationConfig

from harness.engine.generation_rules import GenerationRules
from harness.engine.runner import Runner
from harness.errors import UserError
from harness.models.load import load_base
from harness.tokens.encode import Encoder

PROMPTS = ["hello world, this is", "Question: what is one plus one?", "The capital of France is Paris, and", "a"]
NEW = 14


@pytest.fixture(scope="module")
def loaded(tmp_path_factory: pytest.TempPathFactory) -> Any:
    return load_base(tiny.tiny_base(tiny.save_tiny(tmp_path_factory.mktemp("m"))))


@pytest.fixture
def model(loaded: Any) -> Iterator[Any]:
    before = loaded.generation_config
    yield loaded
    loaded.generation_config = before


def their_ids(model: Any, prompt: str) -> list[int]:
    """The new tokens as lm-evaluation-harness generates them (`HFLM._model_generate`), up to one that ends a text."""
    ids = torch.tensor([tiny.tiny_tokenizer()(prompt)["input_ids"]])
    found = model.generate(
        input_ids=ids,
        attention_mask=torch.ones_like(ids),
        max_length=ids.shape[1] + NEW,
        pad_token_id=tiny.PAD,
        use_cache=True,
        do_sample=False,
    )[0, ids.shape[1] :].tolist()
    ends = {tiny.EOS, *model.generation_config.eos_token_id}
    return list(itertools.takewhile(lambda token: token not in ends, found))


def theirs(model: Any) -> list[str]:
    return [tiny.tiny_tokenizer().decode(their_ids(model, prompt), skip_special_tokens=True) for prompt in PROMPTS]


def ours(model: Any, way: str, **request: Any) -> tuple[list[str], list[str]]:
    """The texts by one way of the engine, and the runner's notes."""
    runner = Runner(
        model, tiny.tiny_tokenizer(), engine="auto", numerics="fp32", token_budget=2048, max_rows=None, seed=0
    )
    if way != "slots":
        runner.scoring = runner.generation = way  # type: ignore[assignment]
    requests = [tiny.generate(prompt, str(n), max_tokens=NEW, **request) for n, prompt in enumerate(PROMPTS)]
    items = Encoder(tiny.tiny_tokenizer(), 256).encode(tiny.task(*requests))
    raws = sorted((raw for pack in runner.plan(items) for raw in runner.run(pack)), key=lambda raw: raw.index)
    return [raw.texts[0] for raw in raws], runner.notes


RULES: dict[str, Callable[[int, int, int], dict[str, Any]]] = {
    "penalty": lambda a, b, c: {"repetition_penalty": 1.3},
    "reward": lambda a, b, c: {"repetition_penalty": 0.7},
    "ngram": lambda a, b, c: {"no_repeat_ngram_size": 2},
    "suppressed": lambda a, b, c: {"suppress_tokens": [a, b, c]},
    "suppressed at first": lambda a, b, c: {"begin_suppress_tokens": [a, b, c]},
    "bad words": lambda a, b, c: {"bad_words_ids": [[a], [b, c]]},
    "bias": lambda a, b, c: {"sequence_bias": [[[a], -3.5], [[b, c], 2.0]]},
    "new tokens": lambda a, b, c: {"min_new_tokens": 6, "eos_token_id": [a, b]},
    "length": lambda a, b, c: {"min_length": 12, "eos_token_id": [a]},
    "last token": lambda a, b, c: {"forced_eos_token_id": tiny.EOS},
    "decay": lambda a, b, c: {"exponential_decay_length_penalty": [2, 1.5]},
    "several": lambda a, b, c: {"repetition_penalty": 1.1, "no_repeat_ngram_size": 3, "min_new_tokens": 4},
}
"""Fields of a generation configuration, given three tokens that the model generates without them."""


@pytest.mark.parametrize("rule", RULES)
def test_texts_equal_those_of_generate(model: Any, rule: str) -> None:
    model.generation_config = GenerationConfig(eos_token_id=[tiny.EOS], pad_token_id=tiny.PAD)
    without = theirs(model)
    fields = RULES[rule](*their_ids(model, PROMPTS[0])[:3])
    eos = fields.pop("eos_token_id", [tiny.EOS])
    model.generation_config = GenerationConfig(eos_token_id=eos, pad_token_id=tiny.PAD, **fields)
    wanted = theirs(model)
    for way in ("slots", "padded", "plain"):
        texts, notes = ours(model, way)
        assert texts == wanted
        assert len(notes) == 1 and all(name in notes[0] for name in fields) and "as lm-eval does" in notes[0]
    assert wanted != without


@pytest.mark.parametrize(
    ("fields", "request_fields", "note"),
    [
        ({"temperature": 0.6, "top_k": 20, "top_p": 0.8, "do_sample": True}, {}, None),
        (
            {"temperature": 0.6, "top_k": 20, "top_p": 0.8, "do_sample": True},
            {"temperature": 1.0},
            "top_k=20, top_p=0.8 of the model's generation_config.json is not applied; lm-eval would apply it",
        ),
        ({"num_beams": 4}, {}, "num_beams=4 of the model's generation_config.json is not applied"),
        (
            {"encoder_repetition_penalty": 1.5},
            {},
            "encoder_repetition_penalty=1.5 of the model's generation_config.json is not applied",
        ),
        ({"repetition_penalty": 1.0, "num_beams": 1, "top_k": 50}, {}, None),
        ({"min_new_tokens": 4, "eos_token_id": None}, {}, None),
        ({"max_new_tokens": 20}, {}, "max_new_tokens=20 of the model's generation_config.json is not applied"),
    ],
)
def test_what_is_not_applied_is_named(model: Any, fields: Any, request_fields: Any, note: str | None) -> None:
    model.generation_config = GenerationConfig(**{"eos_token_id": tiny.EOS} | fields)
    request = tiny.generate("hello", **request_fields)
    rules = GenerationRules(model)
    assert rules.of(request, 3) is None
    notes = rules.notes([request])
    assert notes == [] if note is None else notes[0].startswith(note)


def test_a_sampled_text_follows_the_rules(model: Any) -> None:
    model.generation_config = GenerationConfig(
        eos_token_id=tiny.EOS, suppress_tokens=[*range(3, len(tiny.tiny_tokenizer()) - 1)]
    )
    last = tiny.tiny_tokenizer().decode([len(tiny.tiny_tokenizer()) - 1])
    texts, _ = ours(model, "slots", temperature=0.5)
    assert all(set(text.split(last)) <= {""} for text in texts)


def test_the_file_beside_a_model_is_read(tmp_path: Path) -> None:
    folder = tiny.save_tiny(tmp_path)
    GenerationConfig(eos_token_id=tiny.EOS, repetition_penalty=1.05).save_pretrained(folder)
    (note,) = GenerationRules(load_base(tiny.tiny_base(folder))).notes([tiny.generate("hello")])
    assert (
        note
        == "texts are generated with repetition_penalty=1.05 of the model's generation_config.json, as lm-eval does"
    )


@pytest.mark.parametrize(
    "fields",
    [
        {"repetition_penalty": 0.0},
        {"no_repeat_ngram_size": -1},
        {"suppress_tokens": "a"},
        {"exponential_decay_length_penalty": [1]},
    ],
)
def test_an_impossible_value_names_its_field(model: Any, fields: dict[str, Any]) -> None:
    model.generation_config = GenerationConfig(eos_token_id=tiny.EOS)
    vars(model.generation_config).update(fields)
    with pytest.raises(UserError, match=rf"generation_config.json of the model: `{min(fields)}`"):
        GenerationRules(model).of(tiny.generate("hello"), 3)
