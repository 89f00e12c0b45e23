"""The layers and experts that methods reach on mixtures of experts and state-space models."""

from pathlib import Path
from typing import Any

import architectures
import pytest
import stages
import tiny_models as tiny
import torch
import transformers
from torch import Tensor

from harness import expert_parameters, linear_layers
from harness.comparison.training import train_only
from harness.config.parse import configure
from harness.errors import UserError
from harness.jobs import Base, MergeJob, Noted, Recipe, ScoreJob, ScoreVariant
from harness.models.load import Resident, load_base, method_function
from harness.models.reach import layer_weights, reach_note, reached_share
from harness.report.progress import Progress
from harness.worker import child, scoring

IDS = torch.randint(3, 340, (2, 24), generator=torch.Generator().manual_seed(0))
SIZES = {
    **{"vocab_size": architectures.VOCABULARY, "hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 2},
    **{"num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 256, "pad_token_id": 0},
}
ROUTED = {"n_routed_experts": 4, "num_experts_per_tok": 2, "topk_group": 1, "moe_intermediate_size": 32}
MIXTURES: dict[str, dict[str, Any]] = {
    "mixtral": {"num_local_experts": 4},
    "qwen2_moe": {"num_experts": 4, "moe_intermediate_size": 32, "shared_expert_intermediate_size": 48},
    "qwen3_moe": {"num_experts": 4, "moe_intermediate_size": 32, "num_experts_per_tok": 2, "head_dim": 16},
    "olmoe": {"num_experts": 4, "num_experts_per_tok": 2},
    "phimoe": {"num_local_experts": 4},
    "gpt_oss": {"num_local_experts": 4, "num_experts_per_tok": 2, "head_dim": 16},
    "granitemoe": {"num_local_experts": 4, "num_experts_per_tok": 2},
    "llama4_text": {"num_local_experts": 4, "intermediate_size_mlp": 96, "head_dim": 16},
    "glm4_moe": {**ROUTED, "n_group": 1, "first_k_dense_replace": 1, "head_dim": 16},
    "deepseek_v3": {
        **{**ROUTED, "n_group": 2, "first_k_dense_replace": 1, "q_lora_rank": 16, "kv_lora_rank": 16},
        **{"qk_rope_head_dim": 8, "qk_nope_head_dim": 8, "v_head_dim": 16, "num_key_value_heads": 4},
    },
}
MAMBA = {"hidden_size": 32, "num_hidden_layers": 2}
STATE_SPACE: dict[str, dict[str, Any]] = {
    "mamba": MAMBA,
    "mamba2": {**MAMBA, "num_heads": 8, "head_dim": 8, "n_groups": 1, "chunk_size": 16},
    "falcon_mamba": MAMBA,
}


def made(kind: str, **fields: Any) -> Any:
    torch.manual_seed(0)
    config = transformers.CONFIG_MAPPING[kind](**{**SIZES, **MIXTURES.get(kind, {}), **fields})
    return transformers.AutoModelForCausalLM.from_config(config, dtype=torch.float32).eval()


def saved(folder: Path, kind: str, bits: Any = None, **fields: Any) -> Base:
    made(kind, **fields).save_pretrained(folder)
    tiny.tiny_tokenizer().save_pretrained(folder)
    return tiny.tiny_base(folder, bits=bits)


def adapted(model: Any, name: str = "lora", **hyperparameters: Any) -> Any:
    return method_function(tiny.built_in(name))(model.requires_grad_(False), **hyperparameters)


def logits(model: Any) -> Tensor:
    with torch.inference_mode():
        result: Tensor = model.eval()(input_ids=IDS, use_cache=False).logits
    return result


def stirred(model: Any) -> Any:
    """Gives an adapter random weights, so that it changes the outputs."""
    torch.manual_seed(1)
    for parameter in model.parameters():
        if parameter.requires_grad:
            parameter.data = parameter.data + 0.05 * torch.randn_like(parameter)
    return model


# Mixtures of experts


@pytest.mark.parametrize("kind", sorted(MIXTURES))
def test_lora_by_default_adapts_linear_layers_of_a_mixture_and_neither_routers_nor_experts(kind: str) -> None:
    model = adapted(made(kind), rank=4)
    names = model.base_model.targeted_module_names
    assert any("self_attn" in name for name in names)
    assert not any("router" in name or name.endswith("gate") or "experts" in name.split(".") for name in names)
    assert not model.base_model.targeted_parameter_names
    assert logits(stirred(model)).isfinite().all()


@pytest.mark.parametrize("targets", ["experts", pytest.param(["all-linear", "experts"], marks=pytest.mark.slow)])
@pytest.mark.parametrize("kind", sorted(MIXTURES))
def test_lora_on_experts_changes_the_model_and_is_saved_loaded_and_merged(
    tmp_path: Path, kind: str, targets: Any
) -> None:
    base = saved(tmp_path / "base", kind)
    said = logits(load_base(base))
    model = adapted(load_base(base), rank=4, target_modules=targets)
    experts = model.base_model.targeted_parameter_names
    assert {name.rpartition(".")[2] for name in experts} == {"gate_up_proj", "down_proj"}
    assert bool(model.base_model.targeted_module_names) == (targets != "experts")
    changed = logits(stirred(model))
    assert not torch.allclose(changed, said, atol=1e-3)
    model.save_pretrained(tmp_path / "adapter")
    one = Resident(base, method_function)
    assert torch.allclose(logits(one.attach(Recipe(base, tmp_path / "adapter"))), changed, atol=1e-5)
    assert torch.equal(logits(one.attach(tiny.bare(base))), said)
    child.merge(MergeJob(Recipe(base, tmp_path / "adapter", merged=True), tmp_path / "merged"))
    merged = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "merged")
    assert torch.allclose(logits(merged), changed, atol=1e-4)


def test_experts_of_single_layers_and_of_a_given_rank() -> None:
    first, last = (
        [f"model.layers.{layer}.mlp.experts.{name}" for name in ("gate_up_proj", "down_proj")] for layer in (0, 1)
    )
    assert expert_parameters(made("qwen3_moe"), layers=[-1]) == last
    model = adapted(made("qwen3_moe"), rank=4, layers=[0], target_modules="experts")
    assert sorted(model.base_model.targeted_parameter_names) == sorted(first)
    with pytest.raises(UserError, match=f"rank 33 is larger than layer `{first[1]}`"):
        adapted(made("qwen3_moe"), rank=33, target_modules="experts")


def test_what_has_no_experts_or_cannot_adapt_them_says_so() -> None:
    with pytest.raises(UserError, match="this model has no experts"):
        adapted(made("llama"), target_modules="experts")
    with pytest.raises(UserError, match="which this method does not adapt"):
        linear_layers(made("mixtral"), "experts")
    assert expert_parameters(made("llama")) == []


def test_names_that_peft_takes_for_experts_are_refused() -> None:
    with pytest.raises(UserError, match="peft takes `up_proj` for the experts of this architecture: "):
        adapted(made("deepseek_v3"), rank=4, target_modules="up_proj")


def test_several_groups_are_joined_in_the_order_of_the_model() -> None:
    model = made("llama")
    assert linear_layers(model, ["mlp", "attention"]) == linear_layers(model)
    assert linear_layers(model, ["mlp", "q_proj"]) == ["q_proj", "gate_proj", "up_proj", "down_proj"]


@pytest.mark.parametrize(
    ("kind", "targets", "share"),
    [
        ("llama", "all-linear", 1.0),
        ("llama", "attention", 0.4),
        ("mixtral", "all-linear", 0.14),
        ("mixtral", "experts", 0.85),
        ("mixtral", ["all-linear", "experts"], 1.0),
        ("qwen3_moe", "all-linear", 0.33),
    ],
)
def test_the_share_of_weights_that_a_method_reaches(kind: str, targets: Any, share: float) -> None:
    base = made(kind)
    weights = layer_weights(base)
    assert reached_share(weights, adapted(base, rank=4, target_modules=targets)) == pytest.approx(share, abs=0.01)


@pytest.mark.parametrize("bits", [None, 4])
def test_the_share_counts_quantized_weights_unpacked(tmp_path: Path, bits: Any) -> None:
    base = load_base(tiny.tiny_base(tiny.save_tiny(tmp_path), bits=bits))
    assert layer_weights(base).total == 2 * (2 * 64 * 64 + 2 * 32 * 64 + 3 * 64 * 128 + 2 * 64) + 64


def test_a_share_under_half_is_noted_with_the_experts_that_are_left() -> None:
    base = made("mixtral")
    weights = layer_weights(base)
    assert reach_note(weights, adapted(base, rank=4), {"target_modules": "all-linear"}) == (
        "reaches 14% of the weights between embeddings and output head: the experts (85%) stay as they are; LoRA adapts"
        " them with `target_modules=all-linear+experts`"
    )
    assert reach_note(weights, adapted(made("mixtral"), rank=4, target_modules="experts"), {}) is None
    dense = made("llama")
    small = reach_note(layer_weights(dense), adapted(dense, rank=4, target_modules="attention"), {})
    assert small == "reaches 40% of the weights between embeddings and output head"
    assert reach_note(weights, adapted(made("mixtral"), "full"), {}) is None


def test_training_and_scoring_a_quantized_mixture_say_what_is_left(tmp_path: Path) -> None:
    base = saved(tmp_path / "base", "mixtral", bits=4)
    job = stages.job_for(
        tmp_path,
        tmp_path / "out",
        "qlora",
        base=base,
        stage="sft",
        steps=1,
        hyperparameters={"rank": 4, "target_modules": "all-linear"},
    )
    notes = stages.train(job).notes
    assert [note for note in notes if note.startswith("the experts (85% of the weights")]
    assert [
        note
        for note in notes
        if note.startswith("reaches 14%") and note.endswith("`target_modules=all-linear+experts`")
    ]
    variants = [ScoreVariant("base@4bit", tiny.bare(base), (tiny.task(tiny.choose("hello", [" two", " 42"])),))]
    events: list[Any] = []
    scoring.score(ScoreJob(variants, "auto", "fp32", 500, None, 0), events.append)
    assert any("are not quantized" in event.note for event in events if isinstance(event, Noted))


# State-space models


@pytest.mark.parametrize("kind", sorted(STATE_SPACE))
def test_loras_default_trains_a_state_space_model(tmp_path: Path, kind: str) -> None:
    base = saved(tmp_path / "base", kind, **STATE_SPACE[kind])
    job = stages.job_for(tmp_path, tmp_path / "out", base=base, stage="sft", steps=2, hyperparameters={"rank": 16})
    assert stages.train(job).parameters_trainable > 0
    model = stages.attached(job)
    assert "in_proj" in {name.rpartition(".")[2] for name in model.base_model.targeted_module_names}
    assert not torch.equal(logits(model), logits(load_base(base)))


def test_layers_whose_weight_a_mixer_reads_itself_are_left_out() -> None:
    assert linear_layers(made("mamba", **MAMBA)) == ["in_proj"]


@pytest.mark.parametrize("bits", [4, 8])
@pytest.mark.parametrize("kind", sorted(STATE_SPACE))
def test_layers_whose_weight_a_mixer_reads_are_not_quantized(tmp_path: Path, kind: str, bits: Any) -> None:
    sizes = {"hidden_size": 64, "num_heads": 8, "head_dim": 16} if kind == "mamba2" else {"hidden_size": 64}
    plain = load_base(saved(tmp_path, kind, **{**STATE_SPACE[kind], **sizes}))
    packed = load_base(tiny.tiny_base(tmp_path, bits=bits))
    names = {name.rpartition(".")[2] for name, layer in packed.named_modules() if "bit" in type(layer).__name__}
    assert names == {"in_proj"}
    assert (logits(packed) - logits(plain)).norm() < 0.5 * logits(plain).norm()
    (note,) = packed.loading_notes
    assert "`out_proj`" in note and "the state-space mixer reads their weights past the layer" in note
    if bits == 4:
        model = adapted(packed, "qlora", rank=4)
        stirred(model)(input_ids=IDS, labels=IDS, use_cache=False).loss.backward()
        assert all(p.grad is not None for p in model.parameters() if p.requires_grad)


def test_harness_train_shows_the_notes_of_the_training_run(tmp_path: Path, in_process: None) -> None:
    base = saved(tmp_path / "base", "mixtral")
    (tmp_path / "rows.jsonl").write_text('{"prompt": "hello", "completion": " world"}\n' * 2)
    said: list[str] = []

    class Shown(Progress):
        def say(self, label: str, text: str) -> None:
            said.append(f"{label} {text}")

    train = {"data": str(tmp_path / "rows.jsonl"), "steps": 1}
    config = configure(["lora"], model=str(base.folder), train=train, output_dir=tmp_path, tasks_needed=False)
    train_only(config, progress=Shown())
    assert any(line.startswith("Note reaches 14% of the weights") for line in said)
