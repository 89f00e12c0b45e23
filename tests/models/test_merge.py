"""Merged weights: GPT-2's transposed layers, weights that two layers share, and configurations that tie weights again."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import tiny_models as tiny
import torch
from peft import LoraConfig, get_peft_model
from torch import Tensor, nn
from transformers import AutoModelForCausalLM

from harness.engine.merging import merge_for_scoring
from harness.errors import UserError
from harness.jobs import Base, MergeJob, Recipe
from harness.models.load import Resident, load_base, method_function
from harness.worker import child

IDS = torch.randint(3, 340, (2, 24), generator=torch.Generator().manual_seed(0))


def logits(model: Any) -> Tensor:
    with torch.inference_mode():
        result: Tensor = model.eval()(input_ids=IDS, use_cache=False).logits
    return result


def attached(base: Base, adapter: Path | None = None, **recipe: Any) -> Tensor:
    return logits(Resident(base, method_function).attach(Recipe(base, adapter, **recipe)))


def off(ours: Tensor, theirs: Tensor) -> float:
    """Distance relative to the spread of the logits."""
    return float((ours - theirs).norm() / (theirs - theirs.mean(-1, keepdim=True)).norm())


def qlora(folder: Path, shape: tiny.Shape, bits: Any, scale: float = 0.05) -> tuple[Base, Path]:
    base = tiny.tiny_base(tiny.save_tiny(folder / shape, shape), bits=bits)
    return base, tiny.save_random_lora(folder / "adapter", base, scale=scale)


@pytest.mark.parametrize("bits", [4, pytest.param(8, marks=pytest.mark.slow)])
@pytest.mark.parametrize("shape", tiny.SHAPES)
def test_a_merged_checkpoint_of_a_quantized_base_loads_in_transformers_with_the_same_logits(
    tmp_path: Path, shape: tiny.Shape, bits: Any
) -> None:
    base, adapter = qlora(tmp_path, shape, bits)
    unmerged = attached(base, adapter)
    assert off(attached(base, adapter, merged=True), unmerged) < (1e-5 if bits == 4 else 0.05)
    child.merge(MergeJob(Recipe(base, adapter, merged=True), tmp_path / "merged"))
    loaded = AutoModelForCausalLM.from_pretrained(tmp_path / "merged")
    assert torch.allclose(logits(loaded), attached(base, adapter, merged=True), atol=1e-5)
    if shape == "gpt2":
        assert loaded.transformer.h[0].attn.c_attn.weight.shape == (64, 192), "inputs before outputs"


@pytest.mark.parametrize("shape", tiny.SHAPES)
def test_merged_then_quantized_is_off_by_the_error_of_quantizing_alone(tmp_path: Path, shape: tiny.Shape) -> None:
    base, adapter = qlora(tmp_path, shape, 4)
    merged = attached(base, adapter, merged=True)
    child.merge(MergeJob(Recipe(base, adapter, merged=True), tmp_path / "merged"))
    requantized = load_base(replace(base, folder=tmp_path / "merged"))
    small = attached(base, adapter, merged=True, bits_after_merge=4)
    assert torch.equal(small, logits(requantized))
    assert off(small, merged) < 0.25


@pytest.mark.parametrize("tied", [("model.layers.1.mlp.down_proj", "model.layers.0.mlp.down_proj")])
def test_an_adapter_of_one_of_two_layers_that_share_a_weight_is_not_merged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tied: tuple[str, str]
) -> None:
    """The weights are two parameters with one memory, as some architectures make them."""
    base = tiny.tiny_base(tiny.save_tiny(tmp_path / "llama"))
    adapter = tiny.save_random_lora(tmp_path / "adapter", base, target_modules=["layers.1.mlp.down_proj"])

    def sharing(base: Base) -> Any:
        model = load_base(base)
        shared = model.get_submodule(tied[1]).weight
        model.get_submodule(tied[0]).weight = nn.Parameter(shared.data, requires_grad=False)
        return model

    monkeypatch.setattr("harness.models.load.load_base", sharing)
    unmerged = Resident(base, method_function).attach(Recipe(base, adapter))
    said = logits(unmerged)
    assert merge_for_scoring(unmerged) is None
    assert torch.equal(logits(unmerged), said)
    with pytest.raises(UserError, match=f"one of `{tied[1]}`, `{tied[0]}` alone, but they share one weight"):
        Resident(base, method_function).attach(Recipe(base, adapter, merged=True))


def test_a_head_that_was_trained_apart_from_the_embedding_survives_saving(tmp_path: Path) -> None:
    """The configuration of GPT-2 ties the two, and loading would overwrite one by the other."""
    base = tiny.tiny_base(tiny.save_tiny(tmp_path / "gpt2", "gpt2"))
    torch.manual_seed(0)
    config = LoraConfig(r=4, target_modules=["c_attn"], modules_to_save=["lm_head"], task_type="CAUSAL_LM")
    model = get_peft_model(load_base(base), config)
    for parameter in model.parameters():
        if parameter.requires_grad:
            parameter.data += 0.1 * torch.randn_like(parameter)
    model.save_pretrained(tmp_path / "adapter")
    said = attached(base, tmp_path / "adapter")
    child.merge(MergeJob(Recipe(base, tmp_path / "adapter", merged=True), tmp_path / "merged"))
    assert torch.allclose(logits(AutoModelForCausalLM.from_pretrained(tmp_path / "merged")), said, rtol=1e-4, atol=1e-4)
    assert off(attached(base, tmp_path / "adapter", merged=True, bits_after_merge=4), said) < 0.25
