"""A model whose outputs are not numbers is refused in every way of running it, and the layer at fault is named."""

from pathlib import Path
from typing import Any

import pytest
import tiny_models as tiny
import torch

from harness.engine.finite import NotFinite
from harness.engine.reward_choices import RewardRunner
from harness.engine.runner import Runner
from harness.jobs import Packed, Recipe, ScoreJob, ScoreVariant, VariantFailed
from harness.models.load import load_base
from harness.models.reward_head import head_for, put_head
from harness.tokens.encode import Encoder
from harness.worker import scoring

CHOICES = tiny.choose("Question: what is one plus one? Answer:", [" two", " 42"])
DOWN = "model.layers.1.mlp.down_proj"


@pytest.fixture
def model(tmp_path: Path) -> Any:
    """A sound Llama, for a test to break."""
    return load_base(tiny.tiny_base(tiny.save_tiny(tmp_path / "llama")))


def run(model: Any, request: Any, way: str | None = None, *, numerics: str = "fp32", kind: type = Runner) -> list[Any]:
    runner = kind(
        model, tiny.tiny_tokenizer(), engine="auto", numerics=numerics, token_budget=500, max_rows=None, seed=0
    )
    if way is not None:
        runner.scoring = runner.generation = way
    encoded = Encoder(tiny.tiny_tokenizer(), 100).encode(tiny.task(request))
    return [raw for pack in runner.plan(encoded) for raw in runner.run(pack)]


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
@pytest.mark.parametrize("numerics", ["fp32", "lm-eval"])
@pytest.mark.parametrize("way", [None, "padded", "plain"])
@pytest.mark.parametrize("request_", [CHOICES, tiny.text("hello world"), tiny.generate("hello")])
def test_outputs_that_are_not_numbers_are_refused_with_the_layer(
    model: Any, request_: Any, way: str | None, numerics: str, value: float
) -> None:
    model.get_submodule(DOWN).weight.data[3] = value
    with pytest.raises(NotFinite, match=f"`{DOWN}` is the first layer .* and its `weight` holds NaN or infinity"):
        run(model, request_, way, numerics=numerics)


@pytest.mark.parametrize("request_", [CHOICES, tiny.generate("hello")])
def test_the_packed_paths_refuse_what_only_the_variants_text_brings_out(model: Any, request_: Any) -> None:
    """The self-check passes before the weight breaks, so packed trees and slots are used."""
    runner = Runner(
        model, tiny.tiny_tokenizer(), engine="auto", numerics="fp32", token_budget=500, max_rows=None, seed=0
    )
    assert (runner.scoring, runner.generation) == ("tree", "slots")
    encoded = Encoder(tiny.tiny_tokenizer(), 100).encode(tiny.task(request_))
    ids = encoded[0].prompt or encoded[0].rows[0].ids
    model.model.embed_tokens.weight.data[ids[0]] = float("nan")
    with pytest.raises(NotFinite, match=r"`model\.embed_tokens` is the first layer"):
        for pack in runner.plan(encoded):
            runner.run(pack)


def test_an_overflow_in_16_bits_is_named_without_blaming_a_weight(tmp_path: Path) -> None:
    model = load_base(tiny.tiny_base(tiny.save_tiny(tmp_path), dtype="float16"))
    model.get_submodule(DOWN).weight.data.fill_(60000.0)
    with pytest.raises(NotFinite, match=f"`{DOWN}` is the first layer whose output is not finite$"):
        run(model, CHOICES)


def test_a_token_of_probability_zero_is_no_fault(model: Any) -> None:
    """Some models mask a part of their vocabulary with logits of minus infinity."""
    model.lm_head.register_forward_hook(lambda _, __, logits: logits.index_fill(-1, torch.tensor([340]), -torch.inf))
    assert all(value > -torch.inf for value in run(model, CHOICES)[0].loglikelihoods)
    assert run(model, tiny.generate("hello"))[0].texts


def test_rewards_that_are_not_numbers_are_refused(model: Any) -> None:
    put_head(model, head_for(model))
    model.get_submodule(DOWN).weight.data[3] = float("nan")
    with pytest.raises(NotFinite, match=f"`{DOWN}`"):
        run(model, CHOICES, kind=RewardRunner)


@pytest.mark.parametrize("request_", [CHOICES, tiny.generate("hello"), tiny.text("hello world")])
def test_outputs_that_are_not_numbers_fail_their_variant_and_no_other(tmp_path: Path, request_: Any) -> None:
    base = tiny.tiny_base(tiny.save_tiny(tmp_path / "llama"))
    tiny.save_random_lora(tmp_path / "sound", base)
    tiny.save_random_lora(tmp_path / "broken", base, scale=1e25)
    recipes = {
        "lora": Recipe(base, tmp_path / "broken"),
        "sound": Recipe(base, tmp_path / "sound"),
        "base": Recipe(base),
    }
    variants = [ScoreVariant(name, recipe, (tiny.task(request_),)) for name, recipe in recipes.items()]
    events: list[Any] = []
    scoring.score(ScoreJob(variants, "auto", "fp32", 500, None, 0), events.append)
    (failed,) = [event for event in events if isinstance(event, VariantFailed)]
    assert failed.variant == "lora"
    assert failed.error.startswith("the outputs of `lora` are not numbers: `model.layers.0.self_attn.q_proj")
    assert [event.variant for event in events if isinstance(event, Packed)] == ["sound", "base"]
