"""The memory planner: traces without weights, closed formulas, published numbers, and `harness plan`."""

from __future__ import annotations

import json
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import tiny_models as tiny
import torch
from torch import Tensor
from torch.nn import functional
from transformers import GPT2Config, LlamaConfig, MixtralConfig

from harness.cli import main
from harness.comparison.memory_plan import plan_memory, size_bytes
from harness.config.parse import configure
from harness.errors import UserError
from harness.finetune.training import loss as losses
from harness.finetune.training import memory
from harness.finetune.training.memory import estimate, trace
from harness.finetune.training.plan import plan_training
from harness.jobs import Base, PlanJob
from harness.models.load import method_function
from harness.settings import TrainingSettings

GIB = 1 << 30
SMALL = LlamaConfig(
    vocab_size=32_000,
    hidden_size=512,
    intermediate_size=1408,
    num_hidden_layers=4,
    num_attention_heads=8,
    num_key_value_heads=2,
    tie_word_embeddings=False,
)
LLAMA_3B = LlamaConfig(
    vocab_size=128_256,
    hidden_size=3072,
    intermediate_size=8192,
    num_hidden_layers=28,
    num_attention_heads=24,
    num_key_value_heads=8,
    head_dim=128,
    tie_word_embeddings=True,
    max_position_embeddings=131_072,
)


def lora(rank: int = 16, targets: Any = "all-linear") -> Any:
    from peft import LoraConfig, get_peft_model

    return lambda model: get_peft_model(model, LoraConfig(task_type="CAUSAL_LM", r=rank, target_modules=targets))


def full(model: Any) -> Any:
    return model.requires_grad_(True)


def whole_logits(model: Any, batch: dict[str, Tensor], items: int) -> Tensor:
    """Computes the loss of transformers, which makes the logits of the whole batch."""
    found: Tensor = model(**batch).loss
    return found


def bf16(**more: Any) -> dict[str, Any]:
    return {"dtype": torch.bfloat16, "autocast": torch.bfloat16, **more}


def test_parameters_and_their_bytes_are_exact() -> None:
    config = LlamaConfig(
        vocab_size=512, hidden_size=64, intermediate_size=128, num_hidden_layers=2, num_attention_heads=4, head_dim=16
    )
    found = trace(config, full, rows=1, length=8)
    layer = 4 * 64 * 64 + 3 * 64 * 128 + 2 * 64
    assert found.parameters_total == found.parameters_trainable == 2 * 512 * 64 + 2 * layer + 64
    assert 0 <= found.gradient_bytes - 4 * found.parameters_trainable < 20 * 512  # each tensor is rounded up
    assert found.artifact_bytes == 4 * found.parameters_trainable
    assert 0 <= found.optimizer_bytes - 8 * found.parameters_trainable < 100 * 512


def test_rank_decides_what_is_trained_and_nothing_else_of_the_base() -> None:
    small, large = (trace(SMALL, lora(rank), rows=1, length=16) for rank in (8, 32))
    assert large.parameters_trainable == 4 * small.parameters_trainable
    assert large.parameters_total - small.parameters_total == 3 * small.parameters_trainable


@pytest.mark.parametrize("method", ["lora", "full"])
@pytest.mark.parametrize("precision", ["bf16", "fp32"])
@pytest.mark.parametrize("checkpointing", [False, True])
def test_the_formula_is_near_the_trace(method: str, precision: Any, checkpointing: bool) -> None:
    case: dict[str, Any] = {"rows": 4, "length": 256, "checkpointing": checkpointing}
    found = trace(SMALL, {"lora": lora(), "full": full}[method], **case, **(bf16() if precision == "bf16" else {}))
    guessed = estimate(SMALL, method, found.parameters_trainable, precision=precision, **case)
    assert guessed == pytest.approx(found.peak_bytes, rel=0.06)


def test_quantized_layers_take_four_bits_and_are_unpacked_one_at_a_time() -> None:
    plain, packed = (trace(SMALL, lora(), rows=2, length=128, quant=quant, **bf16()) for quant in (None, "nf4"))
    linear = 4 * (2 * 512 * (512 + 128) + 3 * 512 * 1408)
    saved = plain.weights_bytes - packed.weights_bytes
    assert saved == pytest.approx(linear * (16 - 4.127) / 8, rel=0.001)
    assert packed.parameters_total == plain.parameters_total
    assert 0 <= saved - (plain.peak_bytes - packed.peak_bytes) <= 2 * 512 * 1408


def test_eight_bit_optimizers_hold_two_bytes_a_parameter() -> None:
    usual, small = (trace(SMALL, lora(64), rows=1, length=8, optimizer=each) for each in ("adamw", "adamw_8bit"))
    assert small.optimizer_bytes == pytest.approx(usual.optimizer_bytes / 4, rel=0.05)


def test_our_loss_takes_a_fraction_of_the_logits_and_less_with_fewer_labels() -> None:
    case: dict[str, Any] = {"rows": 4, "length": 512, "checkpointing": True}
    theirs, ours, few = (trace(SMALL, lora(), **case, **more) for more in ({"loss": whole_logits}, {}, {"labels": 0.1}))
    held = theirs.weights_bytes + theirs.optimizer_bytes
    logits = 4 * 4 * 512 * 32_000
    assert theirs.peak_bytes - held > 2 * logits
    assert ours.peak_bytes - held < logits
    assert few.peak_bytes < ours.peak_bytes


def test_any_architecture_and_any_method_is_followed() -> None:
    config = GPT2Config(n_embd=64, n_layer=2, n_head=4, vocab_size=512, n_positions=128)

    def norms(model: Any) -> Any:
        for name, parameter in model.named_parameters():
            parameter.requires_grad_("ln_" in name)
        return model

    found = trace(config, norms, rows=2, length=32)
    assert found.parameters_trainable == 5 * 2 * 64
    assert found.peak_bytes > found.weights_bytes


def test_a_method_that_reads_the_weights_is_refused() -> None:
    def reads(model: Any) -> Any:
        model.get_output_embeddings().weight.tolist()
        return model

    with pytest.raises(UserError, match="cannot be planned without weights"):
        trace(SMALL, reads, rows=1, length=8)


def test_checkpointed_lora_of_3b_with_our_loss_needs_as_much_as_was_traced_before() -> None:
    """2 rows of 4096 tokens: 19.2 GiB with all logits at once, 8.84 GiB with our loss, which makes them in pieces."""
    found = trace(
        LLAMA_3B, lora(32, ["q_proj", "v_proj"]), rows=2, length=4096, dtype=torch.bfloat16, checkpointing=True
    )
    assert found.peak_bytes / GIB == pytest.approx(8.84, rel=0.02)


def test_a_mask_is_kept_with_keys_and_values_for_every_query_head() -> None:
    plain, masked = (trace(SMALL, full, rows=2, length=256, masked=each) for each in (False, True))
    repeated = 2 * 4 * 2 * 256 * (512 - 128)  # keys and values in float32, less those of the key heads
    kept = masked.activation_bytes - plain.activation_bytes - 4 * repeated
    assert kept == pytest.approx(4 * 4 * 2 * 256 * 256, rel=0.3)  # the mask in float32 in each of 4 layers, and in bits


@pytest.mark.slow
def test_full_training_in_bfloat16_takes_what_torchtune_measured(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """torchtune: 60.0 GiB for 3B in bfloat16 with AdamW, two packed rows of 4096 tokens and all of their logits at once."""
    settings = TrainingSettings(
        lr=1e-5, batch_size=2, micro_batch_size=2, max_length=4096, packing=True, precision="bf16", weights="bf16"
    )
    job = PlanJob(Base(tmp_path, "cuda", "bfloat16"), tiny.built_in("full"), settings)

    def peak(**changed: Any) -> float:
        asked = replace(job, training=settings.model_copy(update=changed))
        return plan_training(LLAMA_3B, method_function(job.method), asked).peak_bytes / GIB

    ours, usual = peak(), peak(weights="fp32")
    assert peak(checkpointing=True) == pytest.approx(24.9, rel=0.03)  # torchtune, with its loss in pieces and compiled
    monkeypatch.setattr(losses, "label_loss", lambda model, batch: whole_logits(model, batch, 1))
    assert peak() == pytest.approx(60.0, rel=0.03)
    assert (ours, usual) == pytest.approx((52, 86), rel=0.02)  # our loss makes no logits of whole batches


LLAMA_8B = LlamaConfig(
    vocab_size=128_256,
    hidden_size=4096,
    intermediate_size=14_336,
    num_hidden_layers=32,
    num_attention_heads=32,
    num_key_value_heads=8,
    tie_word_embeddings=False,
)


def float_logits(model: Any, batch: dict[str, Tensor], items: int) -> Tensor:
    """Computes the loss of transformers 4.46: the logits, and the same in float32 without the last position."""
    logits = model(input_ids=batch["input_ids"]).logits
    shifted = logits.float()[:, :-1].contiguous()
    return functional.cross_entropy(shifted.flatten(0, 1), batch["labels"][:, 1:].flatten())


@pytest.mark.slow
def test_contexts_that_unsloth_found_to_fit_take_as_much_as_is_reserved() -> None:
    """Unsloth: the longest row of QLoRA on 8B with transformers and peft, by size of the GPU; 2.653 MB for each token.

    peft's `prepare_model_for_kbit_training` holds everything in float32 that is not quantized, the residual stream with it.
    """

    def prepared(model: Any) -> Any:
        for parameter in model.parameters():
            if parameter.is_floating_point():
                parameter.data = parameter.data.float()
        return lora(32)(model)

    published = {932: 12, 12_264: 40, 28_454: 80}
    options: dict[str, Any] = {"quant": "nf4", "checkpointing": True, "device": "cuda", "loss": float_logits}
    traced = [trace(LLAMA_8B, prepared, rows=1, length=length, **bf16(**options)) for length in published]
    reserved = [found.reserved_bytes or 0 for found in traced]
    assert reserved == pytest.approx([size * GIB for size in published.values()], rel=0.025)
    per_token = (reserved[-1] - reserved[0]) / (28_454 - 932)
    assert per_token == pytest.approx(2.653e6, rel=0.02)
    tensors = (traced[-1].peak_bytes - traced[0].peak_bytes) / (28_454 - 932)
    width, words = 4096, 128_256
    terms = 4 * width * 32 + 12 * words  # inputs of the layers; logits, their softmax and its gradient in float32
    assert tensors == pytest.approx(terms, rel=0.01)


@pytest.mark.slow
def test_published_numbers_are_reproduced() -> None:
    """QLoRA: 65B in 48 GB."""
    usual = trace(
        LLAMA_3B,
        lora(32, ["q_proj", "v_proj"]),
        rows=2,
        length=4096,
        loss=whole_logits,
        checkpointing=True,
        dtype=torch.bfloat16,
    )
    assert usual.peak_bytes / GIB == pytest.approx(19.2, rel=0.02)

    llama_65b = LlamaConfig(
        vocab_size=32_000,
        hidden_size=8192,
        intermediate_size=22_016,
        num_hidden_layers=80,
        num_attention_heads=64,
        tie_word_embeddings=False,
    )
    options: dict[str, Any] = {"quant": "nf4", "checkpointing": True, "optimizer": "paged_adamw_8bit", "device": "cuda"}
    found = trace(llama_65b, lora(64), rows=1, length=512, **bf16(**options))
    assert found.peak_bytes < 48e9


def test_a_learned_prompt_is_counted() -> None:
    from peft import PromptTuningConfig, get_peft_model

    def prompt(model: Any) -> Any:
        return get_peft_model(model, PromptTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=8))

    found = trace(SMALL, prompt, rows=2, length=32)
    assert found.parameters_trainable == 8 * 512


def test_a_learned_prompt_takes_its_part_of_the_context() -> None:
    from peft import PromptTuningConfig, get_peft_model

    def prompt(model: Any) -> Any:
        return get_peft_model(model, PromptTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=48))

    case: dict[str, Any] = {"rows": 1, "length": 128}
    assert trace(SMALL, prompt, **case, context=64) == trace(SMALL, prompt, rows=1, length=16)
    assert trace(SMALL, prompt, **case, context=176) == trace(SMALL, prompt, **case)


def test_sizes_are_read_as_people_write_them() -> None:
    assert size_bytes("24GB") == 24 * 10**9
    assert size_bytes("1.5gib") == 3 << 29
    for wrong in ("", "GB", "-1GB", "0GB", "24 apples", "24", "24B", "much", "1e3GB", "nanGB"):
        with pytest.raises(UserError, match="is not a size"):
            size_bytes(wrong)


def test_a_plan_says_what_fits_and_how_many_rows(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], in_process: None
) -> None:
    SMALL.save_pretrained(tmp_path)  # config.json alone: no weights, no tokenizer
    asked = ["plan", "lora", "qlora", "full", "-m", str(tmp_path), "--max-length", "256", "--train-batch-size", "8"]
    assert main([*asked, "--memory", "300MB", "--format", "json", "-q"]) == 0
    found = json.loads(capsys.readouterr().out)
    rows = {row["name"]: row for row in found["variants"]}
    assert found["memory_bytes"] == 300_000_000
    assert rows["full"]["largest_micro_batch"] == 0
    assert not rows["full"]["fits"]
    assert rows["qlora"]["weights_bytes"] < rows["lora"]["weights_bytes"]
    for row in rows.values():
        assert row["error"] is None
        assert row["fits"] == (row["largest_micro_batch"] >= 8) == (row["peak_bytes"] <= 300_000_000)


def test_a_plan_fits_on_eighty_columns(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    assert main(["plan", "lora:rank=4", "-q", "--max-length", "64"]) == 0
    said = capsys.readouterr().out
    assert all(len(line) <= 80 for line in said.splitlines())
    assert "lora:rank=4" in said
    assert "peak" in said


def test_the_largest_micro_batch_is_the_last_that_fits(in_process: None) -> None:
    plan = plan_memory(configure(["lora"], train={"max_length": 64, "batch_size": 4}), memory="100MB")
    (row,) = plan.rows
    assert row.planned is not None
    edge = row.planned.largest_micro_batch

    def peak(rows: int) -> int:
        settings = {"max_length": 64, "batch_size": rows}
        (again,) = plan_memory(configure(["lora"], train=settings), memory="100MB").rows
        assert again.planned is not None
        return again.planned.peak_bytes

    assert peak(edge) <= 100_000_000 < peak(edge + 1)


def test_only_what_is_trained_can_be_planned() -> None:
    with pytest.raises(UserError, match="none of the variants is trained"):
        plan_memory(configure(["base"]))


def test_a_method_that_cannot_be_planned_has_the_error_in_its_row(in_process: None) -> None:
    plan = plan_memory(configure(["lora", "lora:rank=100000"], train={"max_length": 32}))
    good, bad = plan.rows
    assert good.error is None
    assert bad.planned is None
    assert bad.error is not None
    assert "rank" in bad.error


def test_one_training_that_cannot_be_planned_leaves_the_others(in_process: None) -> None:
    variants = ["rl=lora:stage=grpo", "prefix:checkpointing=true", "pairs=lora:stage=dpo", "lora"]
    plan = plan_memory(configure(variants, folds=2, train={"max_length": 32, "micro_batch_size": 4}))
    written, kept, pairs, lora = plan.rows
    assert "learns from generated answers" in str(written.error)
    assert kept.error == "`prefix` does not support activation checkpointing"
    assert lora.planned is not None and (pairs.rows, lora.rows) == (8, 4)


def test_every_kind_of_the_formula_has_both_precisions() -> None:
    assert memory._KEPT_BYTES["bf16"].keys() == memory._KEPT_BYTES["fp32"].keys()


def test_the_plan_says_what_a_method_leaves_on_a_mixture_and_what_is_not_quantized() -> None:
    sizes = {"vocab_size": 64, "hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 2}
    config = MixtralConfig(**sizes, num_attention_heads=4, num_key_value_heads=2, num_local_experts=4)

    def notes(quant: Any, *targets: str) -> tuple[str, ...]:
        lora = partial(method_function(tiny.built_in("lora")), rank=4, target_modules=list(targets))
        return trace(config, lora, rows=1, length=8, quant=quant, dtype=torch.bfloat16).notes

    (left,) = notes(None, "all-linear")
    assert left.startswith("reaches 14%") and left.endswith("`target_modules=all-linear+experts`")
    (whole,) = notes("nf4", "all-linear", "experts")
    assert whole.startswith("the experts (85%") and "are not quantized" in whole
    assert notes(None, "all-linear", "experts") == ()


@pytest.mark.parametrize("method", ["lora", "full"])
def test_a_mixture_is_traced_in_float32_too(method: str) -> None:
    sizes = {"vocab_size": 64, "hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 2}
    config = MixtralConfig(**sizes, num_attention_heads=4, num_key_value_heads=2, num_local_experts=4)
    found = trace(config, method_function(tiny.built_in(method)), rows=2, length=32)
    assert found.weights_bytes > 4 * 2 * 4 * 3 * 64 * 96  # the experts of two layers
    assert found.peak_bytes > found.weights_bytes + found.activation_bytes > found.weights_bytes
