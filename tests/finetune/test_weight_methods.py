"""Methods of our own, without peft: which weights they train, what they refuse, and how they are removed from a shared base."""

import json
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import architectures
import pytest
import tiny_models as tiny
import torch
from torch import Tensor, nn

from harness.errors import UserError
from harness.jobs import Base, Recipe
from harness.models import load
from harness.models.artifacts import DELTA_FILE, save_artifact, trained_tensors
from harness.models.load import Resident, load_base, method_function
from harness.models.restore import OriginalState
from harness.registry.find import find

IDS = torch.randint(3, 340, (3, 20), generator=torch.Generator().manual_seed(0))

WRITES_INTO_THE_BASE = """
from harness import method

@method
def doubled(model):
    model.requires_grad_(False)
    model.model.embed_tokens.weight.data *= 2
    model.model.norm.requires_grad_(True)
    return model
"""


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("weights")
    tiny.save_tiny(root / "llama")
    tiny.save_tiny(root / "gpt2", "gpt2")
    (root / "doubled.py").write_text(WRITES_INTO_THE_BASE)
    return root


def apply(name: str, model: Any, **hyperparameters: Any) -> Any:
    return method_function(tiny.built_in(name))(model, **hyperparameters)


def trained(model: Any) -> set[str]:
    return set(trained_tensors(model))


def logits(model: Any) -> Tensor:
    with torch.inference_mode():
        result: Tensor = model(input_ids=IDS, use_cache=False).logits
    return result


def saved(folder: Path, base: Base, name: str, **hyperparameters: Any) -> Recipe:
    """Makes an untrained delta that changes the model's outputs."""
    method = tiny.built_in(name, **hyperparameters)
    torch.manual_seed(1)
    model = apply(name, load_base(base), **hyperparameters)
    for parameter in model.parameters():
        if parameter.requires_grad:
            parameter.data += 0.05 * torch.randn_like(parameter)
    folder.mkdir()
    save_artifact(model, None, folder, saves="delta", method=method)
    return Recipe(base, folder, method=method)


def resident(base: Base) -> Resident:
    return Resident(base, method_function)


# freeze


def test_the_top_layers_and_the_final_norm_are_trained_whatever_they_are_called() -> None:
    stacks = {
        "llama": "model.layers",
        "gpt2": "transformer.h",
        "gpt_neox": "gpt_neox.layers",
        "opt": "model.decoder.layers",
    }
    finals = {"llama": "model.norm", "gpt2": "transformer.ln_f", "opt": "model.decoder.final_layer_norm"}
    for shape, stack in {
        **stacks,
        "falcon": "transformer.h",
        "jamba": "model.layers",
        "mamba": "backbone.layers",
    }.items():
        names = trained(apply("freeze", architectures.random_model(shape), layers=1))
        inside = {name for name in names if name.startswith(f"{stack}.1.")}
        assert inside == {
            name for name, _ in architectures.random_model(shape).named_parameters() if f"{stack}.1." in name
        }
        outside = {name.rpartition(".")[0] for name in names - inside}
        assert len(outside) == 1 and outside == {finals.get(shape, *outside)}
    bloom = trained(apply("freeze", architectures.random_model("bloom"), layers=0))
    assert bloom == {"transformer.ln_f.weight", "transformer.ln_f.bias"}, "and not the norm of the embeddings"


def test_head_and_embeddings_are_trained_when_told(root: Path) -> None:
    def names(shape: str, **options: bool) -> set[str]:
        return trained(apply("freeze", architectures.random_model(shape), layers=0, norm=False, **options))

    assert names("llama", head=True) == {"lm_head.weight"}
    assert names("llama", embeddings=True) == {"model.embed_tokens.weight"}
    assert names("gpt2", head=True) == names("gpt2", embeddings=True) == {"transformer.wte.weight"}, "they are one"


def test_a_pattern_chooses_parameters_by_name() -> None:
    names = trained(apply("freeze", architectures.random_model("llama"), pattern=r"layers\.1\..*down_proj|lm_head"))
    assert names == {"model.layers.1.mlp.down_proj.weight", "lm_head.weight"}


@pytest.mark.parametrize(
    ("options", "message", "hint"),
    [
        (
            {"pattern": "no_such"},
            "no parameter name matches `no_such`",
            r"of the 21 names: model\.embed_tokens\.weight, .*",
        ),
        ({"pattern": "("}, "is not a regular expression", "for example"),
        ({"layers": 3}, "cannot train 3 layers", "has 2"),
        ({"layers": -1}, "cannot train -1 layers", "has 2"),
    ],
)
def test_what_cannot_be_frozen_is_refused(options: dict[str, Any], message: str, hint: str) -> None:
    with pytest.raises(UserError, match=re.escape(message)) as caught:
        apply("freeze", architectures.random_model("llama"), **options)
    assert re.search(hint, str(caught.value.hint))


def test_weights_in_4_bits_cannot_be_trained_themselves(root: Path) -> None:
    with pytest.raises(UserError, match="quantized base cannot be trained"):
        apply("freeze", load_base(tiny.tiny_base(root / "llama", bits=4)))


# bitfit and ln


def test_a_model_without_biases_is_refused_unless_it_may_have_some() -> None:
    with pytest.raises(UserError, match="`LlamaForCausalLM` has no biases to train") as caught:
        apply("bitfit", architectures.random_model("llama"))
    assert "add=true" in str(caught.value.hint)
    names = trained(apply("bitfit", architectures.random_model("llama"), add=True))
    assert len(names) == 2 * 7 and all(name.endswith("_proj.bias") for name in names)


def test_the_biases_of_norms_and_of_the_head_are_biases_too() -> None:
    for shape in ("gpt2", "phi", "opt", "falcon"):
        model = architectures.random_model(shape)
        wanted = {name for name, _ in model.named_parameters() if name.endswith(".bias")}
        assert trained(apply("bitfit", model)) == wanted


def test_ln_trains_every_norm_and_nothing_else() -> None:
    names = trained(apply("ln", architectures.random_model("qwen3")))
    assert len(names) == 2 * 4 + 1 and all("norm" in name for name in names)
    assert len(trained(apply("ln", architectures.random_model("gpt2")))) == 2 * (2 * 2 + 1)


# adapter


@pytest.mark.parametrize(
    ("shape", "attention", "feedforward"),
    [
        ("llama", "self_attn.o_proj", "mlp.down_proj"),
        ("gpt2", "attn.c_proj", "mlp.c_proj"),
        ("gpt_neox", "attention.dense", "mlp.dense_4h_to_h"),
        ("opt", "self_attn.out_proj", "fc2"),
        ("bloom", "self_attention.dense", "mlp.dense_4h_to_h"),
        ("phi", "self_attn.dense", "mlp.fc2"),
        ("mixtral", "self_attn.o_proj", "mlp"),
    ],
)
def test_bottlenecks_follow_attention_and_feed_forward(shape: str, attention: str, feedforward: str) -> None:
    def places(kind: str) -> set[str]:
        names = trained(apply("adapter", architectures.random_model(shape), kind=kind, size=4))
        return {re.sub(r"^.*?\.\d+\.|\.bottleneck.*$", "", name) for name in names}

    assert places("houlsby") == {attention, feedforward}
    assert places("pfeiffer") == {feedforward}


def test_a_bottleneck_is_what_the_paper_draws() -> None:
    model = architectures.random_model("llama")
    layer = model.model.layers[0].mlp.down_proj
    hidden = torch.randn(2, 3, 48)
    plain = layer(hidden)
    apply("adapter", model, kind="pfeiffer", size=4, activation="relu")
    assert torch.equal(layer(hidden), plain), "the identity at first"
    for parameter in layer.bottleneck.parameters():
        parameter.data.normal_()
    down, up = layer.bottleneck.down, layer.bottleneck.up
    by_hand = plain + (plain @ down.weight.T + down.bias).relu() @ up.weight.T + up.bias
    assert torch.allclose(layer(hidden), by_hand, atol=1e-5)


@pytest.mark.parametrize(
    ("shape", "options", "message"),
    [
        ("llama", {"size": 0}, "a bottleneck of 0 units in a model of width 32"),
        ("llama", {"size": 32}, "a bottleneck of 32 units in a model of width 32"),
        ("llama", {"reduction": 64}, "a bottleneck of 0 units"),
        ("llama", {"activation": "no_such"}, "unknown activation `no_such`"),
        ("mamba", {"size": 4}, "has no attention to put an adapter after"),
    ],
)
def test_impossible_adapters_are_refused(shape: str, options: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        apply("adapter", architectures.random_model(shape), **options)


@pytest.mark.parametrize(("bits", "dtype"), [(4, "float32"), (8, "float32"), (None, "bfloat16"), (4, "bfloat16")])
def test_adapters_learn_on_small_bases_and_come_back_exactly(root: Path, tmp_path: Path, bits: Any, dtype: str) -> None:
    base = tiny.tiny_base(root / "llama", bits=bits, dtype=dtype)
    untouched = logits(load_base(base))
    model = apply("adapter", load_base(base), size=8)
    assert torch.equal(logits(model), untouched)
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    assert {parameter.dtype for parameter in parameters} == {torch.float32}
    optimizer = torch.optim.AdamW(parameters, 2e-2)
    losses = []
    for _ in range(6):
        loss = model(input_ids=IDS, labels=IDS, use_cache=False).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        losses.append(float(loss.detach()))
    assert losses[-1] < 0.9 * losses[0]
    method = tiny.built_in("adapter", size=8)
    save_artifact(model, None, tmp_path, saves="delta", method=method)
    one = resident(base)
    assert torch.equal(logits(one.attach(Recipe(base, tmp_path, method=method))), logits(model))
    assert torch.equal(logits(one.attach(tiny.bare(base))), untouched)


# Attaching and detaching


WAYS: dict[str, dict[str, Any]] = {
    "freeze": {"layers": 1, "head": True},
    "bitfit": {"add": True},
    "ln": {},
    "adapter": {"size": 4},
    "adapter-pfeiffer": {"size": 4, "kind": "pfeiffer"},
}


@pytest.mark.parametrize("shape", ["llama", "gpt2"])
def test_five_deltas_in_turn_take_one_load_of_the_base(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, shape: str
) -> None:
    base = tiny.tiny_base(root / shape)
    recipes = [saved(tmp_path / way, base, way.partition("-")[0], **options) for way, options in WAYS.items()]
    fresh = [logits(resident(base).attach(recipe)) for recipe in recipes]
    loads: list[Base] = []

    def counting(base: Base, *rest: Any) -> Any:
        loads.append(base)
        return load_base(base, *rest)

    monkeypatch.setattr(load, "load_base", counting)
    one = resident(base)
    untouched = logits(one.bare)
    for recipe, said in [*zip(recipes, fresh, strict=True), *zip(recipes[::-1], fresh[::-1], strict=True)]:
        assert torch.equal(logits(one.attach(recipe)), said)
        assert not torch.equal(said, untouched)
        assert torch.equal(logits(one.attach(tiny.bare(base))), untouched)
    assert len(loads) == 1
    assert not any(parameter.requires_grad for parameter in one.bare.parameters())


def test_a_method_that_writes_into_the_base_costs_a_load_and_no_score(root: Path, tmp_path: Path) -> None:
    base = tiny.tiny_base(root / "llama")
    method = tiny.from_file(root / "doubled.py", "doubled")
    model = method_function(method)(load_base(base))
    save_artifact(model, None, tmp_path, saves="delta", method=method)
    one = resident(base)
    bare, untouched = one.bare, logits(one.bare)
    assert torch.equal(logits(one.attach(Recipe(base, tmp_path, method=method))), logits(model))
    assert torch.equal(logits(one.attach(tiny.bare(base))), untouched)
    assert one.bare is not bare


def test_any_flipped_bit_of_the_base_is_detected(root: Path) -> None:
    for bits in (None, 4, 8):
        model = load_base(tiny.tiny_base(root / "llama", bits=bits))
        original = OriginalState(model)
        logits(model)
        assert original.restore()
        weight = model.model.layers[1].mlp.up_proj.weight
        flat = weight.data.view(torch.uint8).flatten()
        flat[-1] ^= 1
        assert not original.restore()
        flat[-1] ^= 1
        assert original.restore()


def test_hooks_classes_flags_and_tensors_are_put_back(root: Path) -> None:
    model = load_base(tiny.tiny_base(root / "llama"))
    said, state = logits(model), set(model.state_dict())
    original = OriginalState(model)

    class Other(type(model.model.norm)):  # type: ignore[misc]
        def forward(self, hidden: Tensor) -> Tensor:
            return torch.zeros_like(hidden)

    model.model.norm.__class__ = Other
    model.model.layers[0].register_forward_pre_hook(lambda module, inputs: None)
    model.lm_head = nn.Linear(64, 3)
    model.model.layers[1].mlp.extra = nn.Parameter(torch.zeros(2))
    model.model.layers[0].input_layernorm.weight.data = torch.zeros(64)
    model.config.use_cache = True
    del model.model.layers[1]
    model.requires_grad_(True).train()
    assert original.restore()
    assert torch.equal(logits(model), said)
    assert set(model.state_dict()) == state
    assert not model.config.use_cache and not model.training and not model.model.layers[0]._forward_pre_hooks
    assert not any(parameter.requires_grad for parameter in model.parameters())


# Merged, quantized and invalid deltas


def test_merged_then_quantized_is_a_checkpoint_of_the_trained_weights_in_nf4(root: Path, tmp_path: Path) -> None:
    base = tiny.tiny_base(root / "llama")
    recipe = saved(tmp_path / "freeze", base, "freeze", layers=1)
    small = resident(base).attach(replace(recipe, merged=True, bits_after_merge=4))
    model = resident(base).attach(recipe)
    model.save_pretrained(tmp_path / "checkpoint")
    tuned = load_base(tiny.tiny_base(tmp_path / "checkpoint", bits=4))
    assert torch.equal(logits(small), logits(tuned))


def test_trained_weights_do_not_fit_into_4_bits_unmerged(root: Path, tmp_path: Path) -> None:
    recipe = saved(tmp_path / "freeze", tiny.tiny_base(root / "llama"), "freeze", layers=1)
    one = resident(tiny.tiny_base(root / "llama", bits=4))
    with pytest.raises(UserError, match="quantized"):
        one.attach(replace(recipe, base=one.base))
    assert torch.equal(logits(one.bare), logits(load_base(one.base))), "the next variant finds the base as it was"


def test_norms_and_biases_act_on_a_base_in_4_bits(root: Path, tmp_path: Path) -> None:
    base, small = tiny.tiny_base(root / "llama"), tiny.tiny_base(root / "llama", bits=4)
    one = resident(small)
    untouched = logits(one.bare)
    for name, options in (("ln", {}), ("bitfit", {"add": True})):
        recipe = replace(saved(tmp_path / name, base, name, **options), base=small)
        assert not torch.equal(logits(one.attach(recipe)), untouched)
        assert torch.equal(logits(one.attach(tiny.bare(small))), untouched)


def test_biases_that_an_architecture_has_no_place_for_are_not_quantized_away(root: Path, tmp_path: Path) -> None:
    base = tiny.tiny_base(root / "llama")
    recipe = saved(tmp_path / "bitfit", base, "bitfit", add=True)
    merged = resident(base).attach(replace(recipe, merged=True))
    assert torch.equal(logits(merged), logits(resident(base).attach(recipe)))
    with pytest.raises(UserError, match=r"no place for: model\.layers\.0\.mlp\.down_proj\.bias") as caught:
        resident(base).attach(replace(recipe, merged=True, bits_after_merge=4))
    assert "`@4bit` without `@merged`" in str(caught.value.hint)


def _wider(root: Path, recipe: Recipe) -> Recipe:
    assert recipe.adapter is not None
    wide = tiny.tiny_base(tiny.save_tiny(recipe.adapter.parent / "wide", hidden=96))
    return replace(recipe, base=wide)


def _deeper(root: Path, recipe: Recipe) -> Recipe:
    assert recipe.adapter is not None
    return replace(recipe, base=tiny.tiny_base(tiny.save_tiny(recipe.adapter.parent / "deep", layers=3)))


def _another_shape(root: Path, recipe: Recipe) -> Recipe:
    return replace(recipe, base=tiny.tiny_base(root / "gpt2"))


def _torn(root: Path, recipe: Recipe) -> Recipe:
    assert recipe.adapter is not None
    file = recipe.adapter / DELTA_FILE
    file.write_bytes(file.read_bytes()[:-100])
    return recipe


def _gone(root: Path, recipe: Recipe) -> Recipe:
    assert recipe.adapter is not None
    (recipe.adapter / DELTA_FILE).unlink()
    return recipe


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (_wider, r"does not fit this base: .* \[64\] and \[96\]"),
        (_deeper, "lacks tensors that it trains: model.layers.2"),
        (_another_shape, "holds tensors that method `ln` does not make: model.layers.0"),
        (_torn, "cannot be read"),
        (_gone, "cannot be read"),
    ],
)
def test_a_delta_that_does_not_fit_is_an_error(
    root: Path, tmp_path: Path, spoil: Callable[[Path, Recipe], Recipe], message: str
) -> None:
    recipe = spoil(root, saved(tmp_path / "ln", tiny.tiny_base(root / "llama"), "ln"))
    one = resident(recipe.base)
    said = logits(one.bare)
    with pytest.raises(UserError, match=message):
        one.attach(recipe)
    assert torch.equal(logits(one.bare), said)


def test_the_record_says_what_made_the_delta(root: Path, tmp_path: Path) -> None:
    recipe = saved(tmp_path / "adapter", tiny.tiny_base(root / "llama"), "adapter", size=4)
    assert recipe.adapter is not None
    record = json.loads((recipe.adapter / "method.json").read_text())
    assert record == {"method": "adapter", "hyperparameters": {"size": 4}}


def test_the_record_of_a_users_method_leads_back_to_its_file(root: Path, tmp_path: Path) -> None:
    method = tiny.from_file(root / "doubled.py", "doubled")
    model = method_function(method)(load_base(tiny.tiny_base(root / "llama")))
    save_artifact(model, None, tmp_path, saves="delta", method=method)
    entry = find("method", json.loads((tmp_path / "method.json").read_text())["method"])
    assert (entry.name, entry.path) == ("doubled", root / "doubled.py")


def test_bottlenecks_are_not_called_merged(root: Path, tmp_path: Path) -> None:
    recipe = saved(tmp_path / "adapter", tiny.tiny_base(root / "llama"), "adapter", size=4)
    with pytest.raises(UserError, match="method `adapter` cannot be merged"):
        resident(recipe.base).attach(replace(recipe, merged=True))


def test_equal_recipes_are_one_key(root: Path) -> None:
    def recipe(size: int) -> Recipe:
        return Recipe(tiny.tiny_base(root / "llama"), root, method=tiny.built_in("adapter", size=size))

    assert {recipe(4): "timed"}.get(recipe(4)) == "timed"
    assert {recipe(4): "timed"}.get(recipe(8)) is None
