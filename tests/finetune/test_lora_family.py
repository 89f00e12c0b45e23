"""LoRA and its relatives: properties of single methods. test_all_methods.py tests what all methods share."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import architectures
import numpy as np
import pytest
import tiny_models as tiny
import torch
from torch import Tensor

from harness import UserError, decoder_layers, linear_layers
from harness.config.variants import parse_variant
from harness.engine.runner import Runner
from harness.finetune.training.adaptive_rank import AdaptiveRank, adaptive_rank
from harness.jobs import Base, Quant, Recipe
from harness.models.artifacts import load_trained, save_artifact
from harness.models.load import Resident, load_base, method_function
from harness.tokens.encode import Encoder
from harness.worker import child

IDS = torch.randint(3, 340, (4, 24), generator=torch.Generator().manual_seed(0))
PARTS = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
FORMATS: tuple[Quant, ...] = ("nf4", "nf4_single", "fp4", "fp4_single", "int8")


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("lora")
    tiny.save_tiny(root / "llama")
    tiny.save_tiny(root / "gpt2", "gpt2")
    return root


@pytest.fixture(scope="module")
def base(root: Path) -> Base:
    return tiny.tiny_base(root / "llama")


def made(base: Base, name: str, **hyperparameters: Any) -> Any:
    """Applies the method to a newly loaded base."""
    torch.manual_seed(1)
    return method_function(tiny.built_in(name))(load_base(base), **hyperparameters)


def trained(model: Any) -> list[Tensor]:
    return [parameter for parameter in model.parameters() if parameter.requires_grad]


def teach(
    model: Any, steps: int = 5, *, ranks: AdaptiveRank | None = None, first: int = 1, optimizer: Any = None
) -> Any:
    """Trains for a few steps on a few rows and returns the optimizer."""
    optimizer = optimizer or torch.optim.Adam(trained(model), 1e-2)
    for step in range(first, first + steps):
        loss = model(input_ids=IDS, labels=IDS).loss
        (loss + ranks.penalty() if ranks else loss).backward()
        optimizer.step()
        if ranks:
            ranks.after_step(step)
        optimizer.zero_grad()
    model.eval()
    return optimizer


def save(model: Any, folder: Path) -> Path:
    folder.mkdir()
    save_artifact(model, tiny.tiny_tokenizer(), folder, saves="delta", method=tiny.built_in("lora"))
    return folder


@torch.inference_mode()
def logits(model: Any) -> Tensor:
    result: Tensor = model(input_ids=IDS).logits
    return result


def by_peft_alone(base: Base, folder: Path) -> Any:
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    return PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(base.folder), folder)


# Target layers


@pytest.mark.parametrize(
    ("which", "layers", "found"),
    [
        ("all-linear", None, PARTS),
        ("attention", None, PARTS[:4]),
        ("mlp", None, PARTS[4:]),
        ("v_proj", None, ["v_proj"]),
        (["up_proj", "lm_head"], None, ["up_proj", "lm_head"]),
        ("mlp", [-1], [f"model.layers.1.mlp.{part}" for part in PARTS[4:]]),
        (["v_proj", "mlp.up_proj"], [0], ["model.layers.0.self_attn.v_proj", "model.layers.0.mlp.up_proj"]),
        ("v_proj", [0, 1], ["v_proj"]),
        ("model.layers.1.self_attn.q_proj", None, ["model.layers.1.self_attn.q_proj"]),
    ],
)
def test_linear_layers_have_the_shortest_unambiguous_names(
    base: Base, which: Any, layers: Any, found: list[str]
) -> None:
    assert linear_layers(load_base(base), which, layers=layers) == found


@pytest.mark.parametrize("shape", ["gpt2", "gpt_neox", "falcon", "opt", "bloom", "phi", "gemma3"])
def test_attention_and_mlp_cover_the_linear_layers_of_any_architecture(shape: str) -> None:
    model = architectures.random_model(shape)
    modules = dict(model.named_modules())

    def full(which: str) -> set[str]:
        ends = linear_layers(model, which)
        return {name for name in modules if any(name == end or name.endswith(f".{end}") for end in ends)}

    stack, layers = decoder_layers(model)
    assert modules[stack] is layers and len(layers) == model.config.num_hidden_layers
    attention, mlp = full("attention"), full("mlp")
    assert attention and mlp and not attention & mlp
    assert attention | mlp == {name for name in full("all-linear") if name.startswith(stack)}
    assert not any(modules[name] is model.get_output_embeddings() for name in full("all-linear"))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"which": "q_prj"}, "no linear module `q_prj`"),
        ({"which": ["q_proj", "norm"]}, "no linear module `norm`"),
        ({"which": []}, "`\\[\\]` names no linear layer of this model"),
        ({"layers": [2]}, "no decoder layer 2"),
        ({"layers": [-3]}, "no decoder layer -3"),
        ({"which": "lm_head", "layers": [0]}, "`lm_head` names no linear layer of the decoder layers 0"),
        (
            {"rank": 33},
            "rank 33 is larger than layer `model.layers.0.self_attn.k_proj`, which has 64 inputs and 32 out",
        ),
        ({"rank": 0}, "a rank of 0 has nothing to train"),
    ],
)
def test_layers_that_a_model_lacks_are_an_error(base: Base, options: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        linear_layers(load_base(base), **options)


def test_the_error_for_a_misspelt_module_lists_the_names(base: Base) -> None:
    with pytest.raises(UserError) as near:
        linear_layers(load_base(base), "q_prj")
    assert "`q_proj`" in str(near.value.hint)
    with pytest.raises(UserError) as far:
        linear_layers(load_base(base), "c_fc_xyz")
    assert all(f"`{part}`" in str(far.value.hint) for part in PARTS)


@pytest.mark.parametrize("name", ["miss", "oft", "shira"])
def test_a_model_that_the_library_cannot_adapt_is_an_error_of_the_user(root: Path, name: str) -> None:
    base = tiny.tiny_base(root / "gpt2")
    job: Any = SimpleNamespace(base=base, method=tiny.built_in(name), training=SimpleNamespace(seed=0))
    with pytest.raises(UserError, match=f"method `{name}`: Target module Conv1D"):
        child.train(job, print)


# LoRA initialised from the weights


def low_rank_part(name: str, weight: Tensor, rank: int) -> Tensor:
    if name == "pissa":
        u, s, v = torch.linalg.svd(weight)
        return u[:, :rank] * s[:rank] @ v[:rank]
    q, r = torch.linalg.qr(weight)
    return q[:, :rank] @ r[:rank]


@pytest.mark.parametrize("shape", ["llama", "gpt2"])
@pytest.mark.parametrize("name", ["pissa", "olora"])
def test_it_starts_as_a_part_of_each_weight_and_the_weight_stays(root: Path, shape: str, name: str) -> None:
    base = tiny.tiny_base(root / shape)
    model = made(base, name, rank=4)
    untouched = dict(load_base(base).named_parameters())
    for path, module in model.base_model.model.named_modules():
        if hasattr(module, "lora_A"):
            weight = untouched[f"{path}.weight"]
            assert torch.equal(module.get_base_layer().weight, weight)
            start = module.lora_B["default"].weight @ module.lora_A["default"].weight
            part = low_rank_part(name, weight.T if shape == "gpt2" else weight, 4)
            assert torch.allclose(start, part, atol=1e-5)
    assert all(".start." not in n for n, p in model.named_parameters() if p.requires_grad)


@pytest.mark.parametrize("name", ["pissa", "olora"])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_it_is_saved_for_the_base_as_it_was(root: Path, tmp_path: Path, name: str, dtype: str) -> None:
    base = tiny.tiny_base(root / "llama", dtype=dtype)
    model = made(base, name, rank=4)
    teach(model)
    ours = logits(model)
    with model.disable_adapter():
        assert torch.equal(logits(model), logits(load_base(base)))
    folder = save(model, tmp_path / "adapter")
    assert {path.name for path in folder.iterdir()} == {"adapter_config.json", "adapter_model.safetensors"}
    assert torch.equal(logits(model), ours), "saving leaves the model as it is"
    again = Resident(base, method_function).attach(Recipe(base, folder))
    assert again.peft_config["default"].r == 8
    rounding = 1e-6 if dtype == "float32" else 2e-2
    assert float((logits(again) - ours).abs().max() / ours.abs().max()) < rounding
    if dtype == "float32":
        assert torch.allclose(logits(by_peft_alone(base, folder)), ours, rtol=1e-5, atol=1e-5)


def test_it_continues_from_its_saved_state(base: Base, tmp_path: Path) -> None:
    model = made(base, "pissa", rank=4)
    teach(model)
    folder = save(model, tmp_path / "adapter")
    again = made(base, "pissa", rank=4)
    load_trained(again, folder, "pissa")
    assert torch.equal(logits(again.eval()), logits(model))
    assert trained(again) and all(torch.equal(*pair) for pair in zip(trained(again), trained(model), strict=True))
    with pytest.raises(UserError, match="does not have the same shape"):
        load_trained(made(base, "pissa", rank=16), folder, "pissa")


# Frozen matrices and higher learning rates


def test_lora_fa_keeps_its_random_matrices_and_saves_them(base: Base, tmp_path: Path) -> None:
    from safetensors.torch import load_file

    model = made(base, "lora_fa", rank=4)
    before = {name: value.clone() for name, value in model.named_parameters() if "lora_" in name}
    assert {name.split(".")[-3] for name, value in model.named_parameters() if value.requires_grad} == {"lora_B"}
    teach(model)
    for name, value in model.named_parameters():
        if "lora_" in name:
            assert torch.equal(value, before[name]) == ("lora_A" in name)
    saved = load_file(save(model, tmp_path / "adapter") / "adapter_model.safetensors")
    assert len(saved) == len(before)


def test_lora_plus_asks_for_a_higher_rate_of_the_second_matrices(base: Base) -> None:
    model = made(base, "lora_plus", rank=4, ratio=8.0)
    scales = {
        (name.split(".")[-3], getattr(p, "lr_scale", 1.0)) for name, p in model.named_parameters() if p.requires_grad
    }
    assert scales == {("lora_A", 1.0), ("lora_B", 8.0)}
    with pytest.raises(ValueError, match="would not learn"):
        made(base, "lora_plus", rank=4, ratio=0.0)


def test_rank_stabilised_scale_falls_with_the_root_of_the_rank(base: Base) -> None:
    scales = {
        rank: made(base, "rslora", rank=rank).base_model.model.model.layers[0].mlp.up_proj.scaling for rank in (4, 16)
    }
    assert scales == {4: {"default": 8.0}, 16: {"default": 4.0}}


# AdaLoRA


def ranks_of(model: Any) -> list[int]:
    return [module.lora_E["default"].shape[0] for module in model.modules() if hasattr(module, "lora_E")]


def test_adalora_cuts_to_its_budget_and_drops_what_it_cut(base: Base, tmp_path: Path) -> None:
    model = made(base, "adalora", rank=2, init_rank=6, interval=2)
    ranks = adaptive_rank(model, 20)
    assert ranks is not None
    teach(model, 20, ranks=ranks)
    whole = logits(model)
    assert set(ranks_of(model)) == {6}
    ranks.finish()
    assert sum(ranks_of(model)) == 2 * 14 and len(set(ranks_of(model))) > 1
    assert torch.allclose(logits(model), whole, rtol=1e-5, atol=1e-5)
    ours = logits(model)
    folder = save(model, tmp_path / "adapter")
    one = Resident(base, method_function)
    assert torch.equal(logits(one.attach(Recipe(base, folder))), ours)
    assert torch.equal(logits(by_peft_alone(base, folder)), ours)
    merged = Resident(base, method_function).attach(Recipe(base, folder, merged=True))
    assert torch.allclose(logits(merged), ours, rtol=1e-5, atol=1e-5)


def test_adaloras_schedule_is_a_share_of_the_training(base: Base) -> None:
    config = made(base, "adalora", rank=2, init_rank=4, hold=0.1, settle=0.5).peft_config["default"]
    assert (config.tinit, config.tfinal, config.total_step) == (100, 500, 1000)
    model = made(base, "adalora", rank=2, init_rank=4, hold=0.1, settle=0.5)
    adaptive_rank(model, 40)
    config = model.peft_config["default"]
    assert (config.tinit, config.tfinal, config.total_step) == (4, 20, 40)


@pytest.mark.parametrize("steps", [1, 2, 3, 5])
def test_adalora_works_in_a_short_training(base: Base, steps: int) -> None:
    model = made(base, "adalora", rank=2, init_rank=4, interval=1)
    ranks = adaptive_rank(model, steps)
    assert ranks is not None
    teach(model, steps, ranks=ranks)
    ranks.finish()
    assert sum(ranks_of(model)) == (4 * 14 if steps < 3 else 2 * 14)


def test_adaloras_penalty_is_the_librarys(base: Base) -> None:
    model = made(base, "adalora", rank=2, init_rank=4, orthogonality=0.25)
    ranks = adaptive_rank(model, 20)
    assert ranks is not None
    with torch.no_grad():
        theirs = model(input_ids=IDS, labels=IDS).loss - model.base_model.model(input_ids=IDS, labels=IDS).loss
    assert float(ranks.penalty().detach()) == pytest.approx(float(theirs), rel=1e-5)


def test_an_interrupted_adalora_continues_to_the_same_weights(base: Base, tmp_path: Path) -> None:
    def start() -> tuple[Any, AdaptiveRank]:
        model = made(base, "adalora", rank=2, init_rank=4, interval=1, settle=0.2)
        ranks = adaptive_rank(model, 12)
        assert ranks is not None
        return model, ranks

    for cut in (5, 11):  # between two cuts, and after the last one
        whole, ranks = start()
        teach(whole, 12, ranks=ranks)
        broken, ranks = start()
        optimizer = teach(broken, cut, ranks=ranks)
        ranks.save(tmp_path)
        weights, moments = broken.state_dict(), optimizer.state_dict()
        resumed, ranks = start()
        resumed.load_state_dict(weights)
        ranks.load(tmp_path)
        optimizer = torch.optim.Adam(trained(resumed), 1e-2)
        optimizer.load_state_dict(moments)
        teach(resumed, 12 - cut, ranks=ranks, first=cut + 1, optimizer=optimizer)
        assert torch.equal(logits(resumed), logits(whole))


def test_only_adalora_has_ranks_to_cut(base: Base) -> None:
    assert adaptive_rank(made(base, "lora", rank=4), 10) is None
    assert adaptive_rank(load_base(base), 10) is None


@pytest.mark.parametrize(
    ("options", "message"),
    [({"rank": 8, "init_rank": 4}, "is above `init_rank`"), ({"hold": 0.5, "settle": 0.5}, "leave none to cut in")],
)
def test_adalora_without_a_budget_is_an_error(base: Base, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        made(base, "adalora", **options)


# Quantized bases


@pytest.mark.parametrize("quant", FORMATS)
def test_qlora_trains_on_a_base_of_any_format_and_merges_into_the_dequantized_weights(
    root: Path, tmp_path: Path, quant: Quant
) -> None:
    base = replace(tiny.tiny_base(root / "llama"), quant=quant)
    model = made(base, "qlora", rank=4, quant=quant)
    packed = next(m for m in model.modules() if type(m).__name__ in ("Linear4bit", "Linear8bitLt"))
    if quant == "int8":
        assert packed.weight.dtype == torch.int8
    else:
        state = packed.weight.quant_state
        assert (state.quant_type, state.nested) == (quant[:3], not quant.endswith("_single"))
    teach(model, 10)
    ours = logits(model)
    folder = save(model, tmp_path / "adapter")
    assert torch.equal(logits(Resident(base, method_function).attach(Recipe(base, folder))), ours)
    merged = Resident(base, method_function).attach(Recipe(base, folder, merged=True))
    assert not any(type(m).__name__ in ("Linear4bit", "Linear8bitLt") for m in merged.modules())
    assert torch.equal(logits(merged).argmax(-1), ours.argmax(-1))
    rounding = 5e-2 if quant == "int8" else 1e-5  # LLM.int8 also rounds activations; merged weights do not
    assert float((logits(merged) - ours).abs().max() / ours.abs().max()) < rounding


@pytest.mark.parametrize(
    ("text", "load", "bits"),
    [
        ("lora", None, None),
        ("lora@4bit", None, 4),
        ("qlora", "nf4", None),
        ("qlora@4bit", "nf4", None),
        ("qlora:quant=int8", "int8", None),
        ("qlora:quant=int8@8bit", "int8", None),
        ("qlora:quant=fp4", "fp4", None),
        ("qlora:quant=fp4@merged", "fp4", None),
        ("qlora:quant=nf4_single@merged@8bit", "nf4_single", 8),
    ],
)
def test_a_hyperparameter_says_what_the_base_is_loaded_in(text: str, load: Any, bits: Any) -> None:
    variant = parse_variant(text)
    assert variant.entry is not None
    assert (variant.entry.quantization(variant.hyperparameters), variant.bits) == (load, bits)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("qlora:quant=nf5", "expected `nf4` or"),
        ("qlora:quant=fp4@4bit", "need a base in fp4"),
        ("qlora:quant=nf4_single@4bit", "need a base in nf4_single"),
        ("qlora:quant=int8@4bit", "need a base in int8"),
        ("./m.py@loose:format=q3", "unknown quantization `q3`"),
        ("./m.py@wrong", "has `load='nf5'`, which is not a quantization"),
    ],
)
def test_formats_that_do_not_go_together_are_errors(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str, message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    loose = '@method(load="format")\ndef loose(model, *, format: str | None = None):\n    return model\n'
    wrong = '@method(load="nf5")\ndef wrong(model):\n    return model\n'
    Path("m.py").write_text("from harness import method\n\n" + (wrong if "wrong" in text else loose))
    with pytest.raises(UserError, match=message):
        parse_variant(text)


def test_qlora_requires_a_quantized_base(base: Base) -> None:
    with pytest.raises(ValueError, match="is not quantized"):
        made(base, "qlora", rank=4)


# Lily


def test_lily_shares_matrices_between_layers_and_routes_each_token_by_itself(tmp_path: Path) -> None:
    base = tiny.tiny_base(tiny.save_tiny(tmp_path / "deep", layers=4))
    model = made(base, "lily", rank=4, stride=2, matrices=3)
    mixtures = [layer.mlp.up_proj.lily for layer in model.model.layers]
    assert mixtures[0].first is mixtures[1].first and mixtures[2].first is mixtures[3].first
    assert mixtures[0].first is not mixtures[2].first
    assert len({id(mixture.second) for mixture in mixtures}) == 1
    assert len({id(mixture.router) for mixture in mixtures}) == 4
    teach(model)
    whole = logits(model)
    with torch.inference_mode():
        alone = torch.cat([model(input_ids=row[None]).logits for row in IDS])
        short = model(input_ids=IDS[:, :10]).logits
    assert torch.allclose(alone, whole, rtol=1e-5, atol=1e-5), "other rows change nothing"
    assert torch.allclose(short, whole[:, :10], rtol=1e-5, atol=1e-5), "later words change nothing"


def test_lily_adapts_the_head_on_the_fast_path_too_and_no_embeddings(tmp_path: Path) -> None:
    base = tiny.tiny_base(tiny.save_tiny(tmp_path / "llama"))
    model = made(base, "lily", rank=4, target_modules=["q_proj", "lm_head"])
    torch.manual_seed(2)
    for parameter in model.parameters():
        if parameter.requires_grad:
            parameter.data.normal_(std=0.2)
    items = Encoder(tiny.tiny_tokenizer(), 256).encode(
        tiny.task(*(tiny.choose(tiny.words(6 + n), [" Paris", " 42"], id=str(n)) for n in range(4)))
    )
    found = {}
    for engine in ("auto", "plain"):
        runner = Runner(
            model.eval(), tiny.tiny_tokenizer(), engine=engine, numerics="fp32", token_budget=512, max_rows=None, seed=0
        )
        raws = [raw for pack in runner.plan(items) for raw in runner.run(pack)]
        found[engine] = [raw.loglikelihoods for raw in sorted(raws, key=lambda raw: raw.index)]
    assert np.allclose(found["auto"], found["plain"], rtol=1e-5)
    with pytest.raises(ValueError, match="is not a linear layer"):
        made(base, "lily", rank=4, target_modules="embed_tokens")


# Any type of peft


@pytest.mark.parametrize(
    ("options", "message", "hint"),
    [
        ({"type": "lora"}, "no type `lora`", "did you mean `LORA`?"),
        ({"type": "ROPE?"}, "no type `ROPE?`", "VERA"),
        ({"type": "XLORA"}, "XLORA mixes adapters", "VERA"),
        ({"type": "POLY"}, "needs the task of every row", "VERA"),
        ({"type": "LILY"}, "change one another", "VERA"),
        ({"type": "LORA", "rank": 4}, "LORA has no key `rank`", "its keys: r, target_modules"),
        ({"type": "LORA", "inference_mode": True}, "LORA has no key `inference_mode`", "its keys"),
        ({"type": "LORA", "r": -3}, "positive integer", "its keys"),
        ({"type": "LORA", "target_modules": ["nope"]}, "no linear module `nope`", "`q_proj`"),
    ],
)
def test_what_the_library_does_not_take_is_an_error(
    base: Base, options: dict[str, Any], message: str, hint: str
) -> None:
    with pytest.raises(UserError) as error:
        made(base, "peft", **options)
    assert message in error.value.message and hint in str(error.value.hint)


def test_a_type_that_needs_another_package_says_which(base: Base, monkeypatch: pytest.MonkeyPatch) -> None:
    import peft

    def lacking(*_: Any) -> Any:
        raise ImportError("scikit-learn is required: pip install scikit-learn")

    monkeypatch.setattr(peft, "get_peft_model", lacking)
    with pytest.raises(UserError, match="pip install scikit-learn"):
        made(base, "peft", type="ADAMSS")


@pytest.mark.parametrize("kind", ["ADAPTION_PROMPT", "ADALORA", "PREFIX_TUNING", "HRA"])
def test_a_type_needs_no_keys(base: Base, kind: str) -> None:
    assert trained(made(base, "peft", type=kind))


# Several adapters on one base


def test_adapters_of_the_family_attach_to_one_base_in_turn(root: Path, tmp_path: Path, base: Base) -> None:
    saved: dict[str, tuple[Path, Tensor]] = {}
    builders: dict[str, Callable[[], Any]] = {
        "pissa": lambda: made(base, "pissa", rank=4),
        "adalora": lambda: made(base, "adalora", rank=2, init_rank=4),
        "vera": lambda: made(base, "vera", rank=8),
        "oft": lambda: made(base, "oft", block_size=8),
    }
    for name, build in builders.items():
        model = build()
        teach(model, 2)
        saved[name] = save(model, tmp_path / name), logits(model)
    one = Resident(base, method_function)
    said, bare = logits(one.bare), one.bare
    for name in (*saved, *reversed(saved)):
        folder, theirs = saved[name]
        assert torch.allclose(logits(one.attach(Recipe(base, folder))), theirs, rtol=1e-5, atol=1e-5)
        one.detach()
        assert one.bare is bare and torch.equal(logits(bare), said)


@pytest.mark.parametrize("kind", ["PROMPT_TUNING", "BEFT"])
def test_what_cannot_be_merged_says_so(base: Base, tmp_path: Path, kind: str) -> None:
    folder = save(made(base, "peft", type=kind), tmp_path / "adapter")
    with pytest.raises(UserError, match=f"{kind} adapter .* cannot be merged"):
        Resident(base, method_function).attach(Recipe(base, folder, merged=True))
