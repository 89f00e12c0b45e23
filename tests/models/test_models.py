"""Bases and the variants made of them: restored bit-equal, merged, quantized, and counted by hand."""

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import tiny_models as tiny
import torch
from torch import Tensor

from harness.errors import UserError
from harness.jobs import Base, Method, Packed, Recipe, ScoreJob, ScoreVariant, VariantFailed, VariantStarted
from harness.models.artifacts import save_artifact
from harness.models.load import Resident, context_length, count_parameters, load_base, method_function, model_bytes
from harness.tokens.tokenizer import load_tokenizer
from harness.worker import scoring

IDS = torch.randint(3, 340, (4, 40), generator=torch.Generator().manual_seed(0))

NORMS = """
from harness import method

@method(lr=1e-2, mergeable=False)
def norms(model, *, level: float = 1.0):
    for name, parameter in model.named_parameters():
        parameter.requires_grad_("norm" in name)
        if "norm" in name:
            parameter.data.fill_(level)
    return model
"""


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Llama, LoRA adapters for it in full precision and in 4 bits, and a method that trains layer norms."""
    root = tmp_path_factory.mktemp("models")
    tiny.save_tiny(root / "llama")
    tiny.save_random_lora(root / "lora", tiny.tiny_base(root / "llama"))
    tiny.save_random_lora(root / "qlora", tiny.tiny_base(root / "llama", bits=4), scale=0.05)
    (root / "norms.py").write_text(NORMS)
    return root


def resident(base: Base) -> Resident:
    return Resident(base, method_function)


def logits(model: Any) -> Tensor:
    with torch.inference_mode():
        result: Tensor = model(input_ids=IDS).logits
    return result


def snapshot(model: Any) -> dict[str, Tensor]:
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}


def assert_bit_equal(ours: dict[str, Tensor], theirs: dict[str, Tensor]) -> None:
    assert ours.keys() == theirs.keys()
    assert [name for name in ours if not torch.equal(ours[name], theirs[name])] == []


# Attaching and detaching


@pytest.mark.parametrize(("bits", "dtype"), [(None, "float32"), (None, "bfloat16"), (4, "float32"), (4, "bfloat16")])
def test_detaching_an_adapter_leaves_the_base_bit_equal(root: Path, bits: Any, dtype: str) -> None:
    base = tiny.tiny_base(root / "llama", bits=bits, dtype=dtype)
    one = resident(base)
    before, said = snapshot(one.bare), logits(one.bare)
    bare = one.bare
    changed = logits(one.attach(Recipe(base, root / ("qlora" if bits else "lora"))))
    assert not torch.equal(changed, said)
    assert one.attach(tiny.bare(base)) is bare, "the base is loaded once"
    assert_bit_equal(snapshot(one.bare), before)
    assert torch.equal(logits(one.bare), said)
    assert torch.equal(logits(one.attach(Recipe(base, root / ("qlora" if bits else "lora")))), changed)


@pytest.mark.parametrize("kind", ["IA3", "LN_TUNING", "PREFIX_TUNING", "PROMPT_TUNING"])
def test_adapters_of_every_family_can_be_detached(root: Path, tmp_path: Path, kind: str) -> None:
    from peft import PEFT_TYPE_TO_CONFIG_MAPPING, PeftType, get_peft_model

    base = tiny.tiny_base(root / "llama")
    options = {"num_virtual_tokens": 4} if kind.endswith("X_TUNING") or kind == "PROMPT_TUNING" else {}
    made = get_peft_model(
        load_base(base), PEFT_TYPE_TO_CONFIG_MAPPING[PeftType(kind)](task_type="CAUSAL_LM", **options)
    )
    for parameter in made.parameters():
        if parameter.requires_grad:
            parameter.data += 0.1
    made.save_pretrained(tmp_path)
    one = resident(base)
    before, said = snapshot(one.bare), logits(one.bare)
    with torch.inference_mode():
        changed = one.attach(Recipe(base, tmp_path))(input_ids=IDS, use_cache=True).logits[:, -IDS.shape[1] :]
    assert not torch.equal(changed, said)
    one.detach()
    assert_bit_equal(snapshot(one.bare), before)
    assert torch.equal(logits(one.bare), said)


def test_a_merged_adapter_gives_the_unmerged_logits_and_the_base_is_loaded_again(root: Path) -> None:
    base = tiny.tiny_base(root / "llama")
    one = resident(base)
    said, unmerged = logits(one.bare), logits(one.attach(Recipe(base, root / "lora")))
    merged = one.attach(Recipe(base, root / "lora", merged=True))
    assert not any("lora" in name for name, _ in merged.named_parameters())
    assert torch.allclose(logits(merged), unmerged, rtol=1e-5, atol=1e-5)
    assert torch.equal(logits(one.attach(tiny.bare(base))), said), "the next variant gets the original base"


@pytest.mark.parametrize("layer", ["lm_head", "wte"])
def test_an_adapter_of_one_layer_is_not_merged_into_a_weight_of_two(tmp_path: Path, layer: str) -> None:
    base = tiny.tiny_base(tiny.save_tiny(tmp_path / "tied", "gpt2"))
    tiny.save_random_lora(tmp_path / "lora", base, target_modules=[layer, "c_attn"])
    with pytest.raises(UserError, match="they share one weight"):
        resident(base).attach(Recipe(base, tmp_path / "lora", merged=True))
    free = tiny.save_random_lora(tmp_path / "free", base, target_modules=["c_attn"])
    said = logits(resident(base).attach(Recipe(base, free)))
    assert torch.allclose(logits(resident(base).attach(Recipe(base, free, merged=True))), said, rtol=1e-4, atol=1e-5)


def test_qlora_is_merged_into_dequantized_weights(root: Path) -> None:
    from peft import PeftModel

    base = tiny.tiny_base(root / "llama", bits=4)
    unmerged = logits(resident(base).attach(Recipe(base, root / "qlora")))
    merged = resident(base).attach(Recipe(base, root / "qlora", merged=True))
    assert not any("4bit" in type(module).__name__ for module in merged.modules())
    assert torch.equal(logits(merged).argmax(-1), unmerged.argmax(-1))
    assert torch.allclose(logits(merged), unmerged, rtol=1e-4, atol=1e-4)
    naive = PeftModel.from_pretrained(load_base(base), root / "qlora").merge_and_unload()
    agreement = (logits(naive).argmax(-1) == unmerged.argmax(-1)).float().mean()
    assert agreement < 1.0, "merging into 4-bit weights would round the adapter away"


@pytest.mark.parametrize("trained_bits", [None, 4])
def test_merged_then_quantized_is_the_merged_weights_in_nf4(root: Path, trained_bits: Any) -> None:
    from bitsandbytes.functional import dequantize_4bit, quantize_4bit

    base = tiny.tiny_base(root / "llama", bits=trained_bits)
    adapter = root / ("qlora" if trained_bits else "lora")
    small = resident(base).attach(Recipe(base, adapter, merged=True, bits_after_merge=4))
    assert sum(type(module).__name__ == "Linear4bit" for module in small.modules()) == 14
    expected = resident(base).attach(Recipe(base, adapter, merged=True))
    for name, module in expected.named_modules():
        if isinstance(module, torch.nn.Linear) and name != "lm_head":
            packed, state = quantize_4bit(module.weight.data, quant_type="nf4", compress_statistics=True)
            module.weight.data = dequantize_4bit(packed, state)
    assert torch.allclose(logits(small), logits(expected), rtol=1e-4, atol=1e-4)


def test_8_bit_outputs_do_not_depend_on_the_batch(root: Path) -> None:
    model = load_base(tiny.tiny_base(root / "llama", bits=8))
    assert any(type(module).__name__ == "Linear8bitLt" for module in model.modules())
    with torch.inference_mode():
        alone = torch.cat([model(input_ids=IDS[n : n + 1]).logits for n in range(len(IDS))])
    assert torch.allclose(alone, logits(model), rtol=1e-5, atol=1e-5)


# Artifacts


@pytest.mark.parametrize("bits", [None, 4])
def test_a_delta_is_restored_bit_equal_by_its_method(root: Path, tmp_path: Path, bits: Any) -> None:
    base = tiny.tiny_base(root / "llama", bits=bits)
    method = tiny.from_file(root / "norms.py", "norms", level=0.5)
    model = method_function(method)(load_base(base), level=0.5)
    assert count_parameters(model)[1] == 5 * 64
    torch.manual_seed(1)
    for parameter in model.parameters():
        if parameter.requires_grad:
            parameter.data.normal_()
    save_artifact(model, load_tokenizer(base.folder), tmp_path, saves="delta", method=method)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["delta.safetensors", "method.json"]
    one = resident(base)
    said = logits(one.bare)
    loaded = one.attach(Recipe(base, tmp_path, method=method))
    assert_bit_equal(snapshot(loaded), snapshot(model))
    assert torch.equal(logits(loaded), logits(model))
    assert not any(parameter.requires_grad for parameter in loaded.parameters())
    assert torch.equal(logits(one.attach(tiny.bare(base))), said), "the changed base is not used again"


def test_a_delta_of_a_method_that_has_changed_is_an_error(root: Path, tmp_path: Path) -> None:
    base = tiny.tiny_base(root / "llama")
    method = tiny.from_file(root / "norms.py", "norms")
    other = tmp_path / "norms.py"
    other.write_text(NORMS.replace("return model", "model.lm_head = model.lm_head\n    return model.model"))
    model = method_function(method)(load_base(base))
    save_artifact(model, load_tokenizer(base.folder), tmp_path, saves="delta", method=method)
    with pytest.raises(UserError, match="does not make"):
        resident(base).attach(Recipe(base, tmp_path, method=tiny.from_file(other, "norms")))


def test_a_checkpoint_loads_as_a_base(root: Path, tmp_path: Path) -> None:
    base = tiny.tiny_base(root / "llama")
    model = load_base(base)
    model.model.layers[0].mlp.up_proj.weight.data += 0.1
    method = Method("full", Path("full.py"), "harness.finetune.full", {})
    save_artifact(model, load_tokenizer(base.folder), tmp_path, saves="checkpoint", method=method)
    assert torch.equal(logits(load_base(tiny.tiny_base(tmp_path))), logits(model))
    assert load_tokenizer(tmp_path)("hello world") == load_tokenizer(base.folder)("hello world")


# Counting


def test_bytes_of_a_4_bit_model_are_the_hand_count(tmp_path: Path) -> None:
    folder = tiny.save_tiny(tmp_path, hidden=1024, layers=1)
    whole, half = load_base(tiny.tiny_base(folder)), load_base(tiny.tiny_base(folder, dtype="bfloat16"))
    small = load_base(tiny.tiny_base(folder, bits=4, dtype="bfloat16"))
    linears = [m for m in small.modules() if type(m).__name__ == "Linear4bit"]
    weights = sum(m.in_features * m.out_features for m in linears)
    assert weights == 2 * 1024 * 1024 + 2 * 1024 * 512 + 3 * 1024 * 2048
    rest = 2 * (count_parameters(half)[0] - weights) + sum(b.numel() * b.element_size() for b in half.buffers())
    packed = weights / 2 + weights / 64 + weights / 64 / 256 * 4  # 4 bits, a byte a block, a float32 for 256 blocks
    assert packed * 8 / weights == pytest.approx(4.127, abs=1e-3)
    codes = 16 * 4 + 256 * 4 + 4  # the NF4 levels, the levels of the scales, the scales' mean
    assert model_bytes(small) - rest == pytest.approx(packed + len(linears) * codes, abs=len(linears) * codes)
    assert model_bytes(small) - rest > packed, "the code tables are counted"
    assert model_bytes(small) < model_bytes(half) < model_bytes(whole)
    assert model_bytes(whole) == 4 * count_parameters(whole)[0] + sum(b.nbytes for b in whole.buffers())
    assert count_parameters(small) == count_parameters(half) == count_parameters(whole)


def test_shared_weights_count_once(tmp_path: Path) -> None:
    model = load_base(tiny.tiny_base(tiny.save_tiny(tmp_path, "gpt2")))
    assert model.lm_head.weight is model.transformer.wte.weight
    total = sum(math.prod(p.shape) for p in model.parameters())
    assert count_parameters(model) == (total, 0)
    assert model_bytes(model) == 4 * total + sum(b.nbytes for b in model.buffers())


@pytest.mark.parametrize("shape", tiny.SHAPES)
def test_the_context_length_comes_from_the_configuration(tmp_path: Path, shape: tiny.Shape) -> None:
    folder = tiny.save_tiny(tmp_path, shape, context=77)
    assert context_length(load_base(tiny.tiny_base(folder)), load_tokenizer(folder)) == 77


# Errors that a user can fix


def test_4_bits_of_a_model_without_linear_layers_is_an_error(tmp_path: Path) -> None:
    folder = tiny.save_tiny(tmp_path, layers=0)
    with pytest.raises(UserError, match="no linear layers to quantize to nf4"):
        load_base(tiny.tiny_base(folder, bits=4))


def _another_width(folder: Path) -> None:
    tiny.save_tiny(folder / "other", hidden=32)
    tiny.save_random_lora(folder, tiny.tiny_base(folder / "other"))


def _fewer_layers(folder: Path) -> None:
    tiny.save_tiny(folder / "other", layers=1)
    tiny.save_random_lora(folder, tiny.tiny_base(folder / "other"), target_modules=["q_proj"])


def _more_layers(folder: Path) -> None:
    tiny.save_tiny(folder / "other", layers=3)
    tiny.save_random_lora(folder, tiny.tiny_base(folder / "other"), target_modules=["q_proj"])


def _another_shape(folder: Path) -> None:
    tiny.save_tiny(folder / "other", "gpt2")
    tiny.save_random_lora(folder, tiny.tiny_base(folder / "other"))


def _damaged(folder: Path) -> None:
    tiny.save_tiny(folder / "other")
    tiny.save_random_lora(folder, tiny.tiny_base(folder / "other"))
    weights = folder / "adapter_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-500])


@pytest.mark.parametrize("make", [_another_width, _fewer_layers, _more_layers, _another_shape, _damaged])
def test_an_adapter_that_does_not_fit_is_an_error(root: Path, tmp_path: Path, make: Callable[[Path], None]) -> None:
    make(tmp_path)
    base = tiny.tiny_base(root / "llama")
    one = resident(base)
    said = logits(one.bare)
    with pytest.raises(UserError, match="does not fit this base") as caught:
        one.attach(Recipe(base, tmp_path))
    assert str(tmp_path) in caught.value.message
    assert torch.equal(logits(one.bare), said)


def test_a_folder_without_a_model_is_an_error_that_names_it(root: Path, tmp_path: Path) -> None:
    for read in (lambda: load_base(tiny.tiny_base(tmp_path)), lambda: load_tokenizer(tmp_path)):
        with pytest.raises(UserError, match=tmp_path.name):
            read()


def test_damaged_weights_are_an_error_that_names_the_folder(tmp_path: Path) -> None:
    weights = tiny.save_tiny(tmp_path) / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1000])
    with pytest.raises(UserError, match=tmp_path.name):
        load_base(tiny.tiny_base(tmp_path))


def test_a_tokenizer_without_an_end_token_is_an_error(tmp_path: Path) -> None:
    from transformers import PreTrainedTokenizerFast

    PreTrainedTokenizerFast(tokenizer_object=tiny.tiny_tokenizer()._tokenizer).save_pretrained(tmp_path)
    with pytest.raises(UserError, match="no end-of-sequence token"):
        load_tokenizer(tmp_path)


def test_an_adapter_that_changes_nothing_fails_its_variant_and_no_other(root: Path, tmp_path: Path) -> None:
    base = tiny.tiny_base(root / "llama")
    tiny.save_random_lora(tmp_path, base, scale=0.0)
    requests = (tiny.task(tiny.choose("hello", [" world", " two"])),)
    recipes = {"idle": Recipe(base, tmp_path), "base": tiny.bare(base), "lora": Recipe(base, root / "lora")}
    variants = [ScoreVariant(name, recipe, requests) for name, recipe in recipes.items()]
    events: list[Any] = []
    scoring.score(ScoreJob(variants, "auto", "fp32", 500, None, 0), events.append)
    assert [e.variant for e in events if isinstance(e, VariantFailed)] == ["idle"]
    assert [e.variant for e in events if isinstance(e, VariantStarted)] == ["base", "lora"]
    found = {e.variant: e.raws[0].loglikelihoods for e in events if isinstance(e, Packed)}
    assert found.keys() == {"base", "lora"}
    assert found["base"] != found["lora"]
