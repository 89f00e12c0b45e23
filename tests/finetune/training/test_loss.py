"""The loss computed from labelled tokens only: equal to the model's own loss, without the logits of the whole batch."""

from collections.abc import Callable
from typing import Any

import pytest
import tiny_models as tiny
import torch
from architectures import SHAPES, random_model
from peft import LoraConfig, PrefixTuningConfig, PromptTuningConfig, get_peft_model
from torch.utils._python_dispatch import TorchDispatchMode
from transformers import AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM

from harness.finetune.training import loss
from harness.tokens.training_labels import IGNORED

LENGTHS = (11, 5, 8)
VOCABULARY = len(tiny.tiny_tokenizer())


def toy_batch(vocabulary: int = VOCABULARY, lengths: tuple[int, ...] = LENGTHS, learned: int = 3) -> dict[str, Any]:
    """Makes rows padded on the right, with labels on the last tokens of each."""
    torch.manual_seed(1)
    width = max(lengths)
    ids = torch.zeros(len(lengths), width, dtype=torch.long)
    labels, mask = torch.full_like(ids, IGNORED), torch.zeros_like(ids)
    for row, length in enumerate(lengths):
        ids[row, :length] = torch.randint(3, vocabulary, (length,))
        labels[row, length - learned : length] = ids[row, length - learned : length]
        mask[row, :length] = 1
    return {"input_ids": ids, "labels": labels, "attention_mask": mask}


def gradients(model: Any, compute: Callable[[], torch.Tensor]) -> tuple[float, dict[str, torch.Tensor]]:
    model.zero_grad()
    value = compute()
    value.backward()
    return value.item(), {n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None}


def own_loss(model: Any, batch: dict[str, Any]) -> torch.Tensor:
    """Sums the cross-entropies computed from all logits of the model."""
    inputs = {key: value for key, value in batch.items() if key != "labels"}
    logits = model(**inputs).logits[:, -batch["labels"].shape[1] :][:, :-1]
    return torch.nn.functional.cross_entropy(
        logits.flatten(0, 1).float(), batch["labels"][:, 1:].flatten(), ignore_index=IGNORED, reduction="sum"
    )


@pytest.mark.parametrize("pieces", [1, 4])
@pytest.mark.parametrize("shape", SHAPES)
def test_loss_and_gradients_are_the_models_own(shape: str, pieces: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loss, "LOGITS_AT_ONCE", {"cpu": 9 // pieces * VOCABULARY})
    model, batch = random_model(shape), toy_batch()
    model.config.use_cache = False
    assert loss.whole_logits_note(model) is None
    theirs, wanted = gradients(model, lambda: own_loss(model, batch))
    ours, found = gradients(model, lambda: loss.label_loss(model, batch))
    assert ours == pytest.approx(theirs, rel=1e-6)
    assert found.keys() == wanted.keys()
    assert all(torch.allclose(found[name], wanted[name], atol=1e-5) for name in wanted)


def test_soft_capped_and_scaled_logits_are_right() -> None:
    for shape, field, value in (("gemma2", "final_logit_softcapping", 0.05), ("granite", "logits_scaling", 0.01)):
        model, batch = random_model(shape), toy_batch()
        plain = float(loss.label_loss(model, batch))
        setattr(model.config, field, value)
        if hasattr(model, field):
            setattr(model, field, value)
        assert float(loss.label_loss(model, batch)) == pytest.approx(float(own_loss(model, batch)), rel=1e-6)
        assert float(loss.label_loss(model, batch)) != pytest.approx(plain, rel=1e-3)


CONFIGS = {
    "lora": LoraConfig(task_type="CAUSAL_LM", r=4, target_modules="all-linear"),
    "lora with head": LoraConfig(task_type="CAUSAL_LM", r=4, target_modules=["q_proj", "lm_head"]),
    "head whole": LoraConfig(task_type="CAUSAL_LM", r=4, target_modules=["q_proj"], modules_to_save=["lm_head"]),
    "prompt": PromptTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=5),
    "prefix": PrefixTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=5),
}


@pytest.mark.parametrize("name", CONFIGS)
def test_adapters_and_learned_prompts_are_supported(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    model = get_peft_model(random_model("llama"), CONFIGS[name])
    for parameter in model.parameters():
        if parameter.requires_grad:
            parameter.data.normal_(std=0.1)
    batch = toy_batch()
    assert loss.whole_logits_note(model) is None
    monkeypatch.setattr(loss, "LOGITS_AT_ONCE", {"cpu": 2 * VOCABULARY})
    theirs, wanted = gradients(model, lambda: own_loss(model, batch))
    ours, found = gradients(model, lambda: loss.label_loss(model, batch))
    assert ours == pytest.approx(theirs, rel=1e-6)
    assert found.keys() == wanted.keys()
    assert all(torch.allclose(found[name], wanted[name], atol=1e-5) for name in wanted)


class Opaque(torch.nn.Module):
    """A model whose output head cannot be separated from its backbone."""

    def __init__(self) -> None:
        super().__init__()
        self.inside = random_model("llama")

    def get_input_embeddings(self) -> Any:
        return self.inside.get_input_embeddings()

    def forward(self, **inputs: Any) -> Any:
        return self.inside(**inputs)


def test_a_model_without_a_backbone_to_find_keeps_its_own_logits_and_says_so() -> None:
    model, batch = Opaque(), toy_batch()
    assert "logits of whole batches" in str(loss.whole_logits_note(model))
    assert float(loss.label_loss(model, batch)) == pytest.approx(float(own_loss(model, batch)), rel=1e-6)


def test_smoothed_labels_are_those_of_torch() -> None:
    model, batch = random_model("llama"), toy_batch()
    logits = model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]).logits[:, :-1].flatten(0, 1)
    expected = torch.nn.functional.cross_entropy(
        logits, batch["labels"][:, 1:].flatten(), ignore_index=IGNORED, reduction="sum", label_smoothing=0.2
    )
    assert float(loss.label_loss(model, batch, label_smoothing=0.2)) == pytest.approx(float(expected), rel=1e-6)


@pytest.mark.parametrize("pieces", [1, 5])
def test_logprobs_are_those_of_the_labels_with_gradients(pieces: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loss, "LOGITS_AT_ONCE", {"cpu": 10 // pieces * VOCABULARY})
    model, batch = random_model("llama"), toy_batch()
    wanted, slopes = gradients(model, lambda: own_loss(model, batch))
    found, ours = gradients(model, lambda: -loss.label_logprobs(model, batch).sum())
    assert found == pytest.approx(wanted, rel=1e-6)
    assert all(torch.allclose(ours[name], slopes[name], atol=1e-5) for name in slopes)
    with torch.no_grad():
        values = loss.label_logprobs(model, batch, temperature=2.0)
        alone = [loss.label_logprobs(model, {k: v[row : row + 1] for k, v in batch.items()}, temperature=2.0)
                 for row in range(3)]  # fmt: skip
    assert values.shape == (9,)
    assert not values.requires_grad
    assert torch.allclose(values, torch.cat(alone), atol=1e-5)
    assert loss.row_sums(values, batch["labels"]).tolist() == pytest.approx([float(v.sum()) for v in alone], rel=1e-5)


def test_rows_without_labels_and_batches_without_any_are_zero() -> None:
    model, batch = random_model("llama"), toy_batch()
    batch["labels"][1] = IGNORED
    assert loss.row_sums(loss.label_logprobs(model, batch), batch["labels"])[1] == 0
    batch["labels"][:] = IGNORED
    assert float(loss.label_loss(model, batch)) == 0


def test_padding_and_the_other_rows_change_nothing() -> None:
    model, batch = random_model("qwen3"), toy_batch()
    alone = [
        loss.label_loss(model, {key: value[row : row + 1, :length] for key, value in batch.items()})
        for row, length in enumerate(LENGTHS)
    ]
    assert float(loss.label_loss(model, batch)) == pytest.approx(float(sum(alone)), rel=1e-6)


@pytest.mark.parametrize("whole", [False, True])
def test_states_are_the_inputs_of_the_head_before_each_label(whole: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    if whole:
        monkeypatch.setattr(loss, "_try_tails", lambda model: "its head is hidden")
    model, batch = get_peft_model(random_model("llama"), CONFIGS["prompt"]), toy_batch()
    logprobs, states = loss.label_logprobs_and_states(model, batch, temperature=2.0)
    targets = batch["labels"][:, 1:][batch["labels"][:, 1:] != IGNORED]
    by_hand = (model.get_base_model().lm_head(states) / 2.0).log_softmax(-1)
    assert torch.allclose(logprobs, by_hand.gather(1, targets[:, None])[:, 0], atol=1e-6)
    assert torch.equal(logprobs, loss.label_logprobs(model, batch, temperature=2.0))


class Largest(TorchDispatchMode):
    """Records the size of the largest tensor made."""

    numbers = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        made = func(*args, **(kwargs or {}))
        for each in made if isinstance(made, (tuple, list)) else (made,):
            if isinstance(each, torch.Tensor):
                self.numbers = max(self.numbers, each.numel())
        return made


def test_the_logits_of_a_batch_never_exist(monkeypatch: pytest.MonkeyPatch) -> None:
    rows, width, vocabulary, hidden = 4, 32, 20_000, 16
    config = LlamaConfig(
        vocab_size=vocabulary, hidden_size=hidden, intermediate_size=32, num_hidden_layers=1, num_attention_heads=2
    )
    torch.manual_seed(0)
    model = get_peft_model(LlamaForCausalLM(config), CONFIGS["lora"])
    batch = toy_batch(vocabulary, (width,) * rows, learned=width - 1)
    monkeypatch.setattr(loss, "LOGITS_AT_ONCE", {"cpu": 8 * vocabulary})
    loss.label_loss(model, batch)  # the first call tests whether the model can be split into backbone and head
    with Largest() as ours:
        loss.label_loss(model, batch).backward()
    with Largest() as theirs:
        model(**batch).loss.backward()
    assert theirs.numbers >= rows * (width - 1) * vocabulary
    assert ours.numbers <= max(8 * vocabulary, hidden * vocabulary) < theirs.numbers / 7


def test_mixed_precision_gives_the_loss_of_mixed_precision() -> None:
    model, batch = AutoModelForCausalLM.from_config(tiny.tiny_config("llama")), toy_batch()
    with torch.autocast("cpu", torch.bfloat16):
        assert float(loss.label_loss(model, batch)) == pytest.approx(float(own_loss(model, batch)), rel=1e-3)
    assert float(loss.label_loss(model, batch)) == pytest.approx(float(own_loss(model, batch)), rel=1e-6)


@pytest.mark.parametrize("shape", ["llama", "gemma3", "gpt2", "opt", "bloom", "falcon", "mamba", "jamba"])
def test_padding_on_the_right_needs_no_mask(shape: str) -> None:
    model = random_model(shape)
    lengths = (9, 4, 7)
    mask = torch.tensor([[1] * count + [0] * (9 - count) for count in lengths])
    ids = torch.randint(3, 90, (3, 9)) * mask
    batch = {"input_ids": ids, "labels": ids.masked_fill(mask == 0, IGNORED), "attention_mask": mask}
    seen: list[Any] = []
    handle = model.register_forward_pre_hook(
        lambda _, __, given: seen.append(given.get("attention_mask")), with_kwargs=True
    )
    ours = loss.label_loss(model, batch)
    handle.remove()
    assert seen and seen[0] is None
    logits = model(input_ids=ids, attention_mask=mask).logits[:, :-1]
    targets = batch["labels"][:, 1:]
    whole = torch.nn.functional.cross_entropy(
        logits.flatten(0, 1).float(), targets.flatten(), ignore_index=IGNORED, reduction="sum"
    )
    assert float(ours) == pytest.approx(float(whole), rel=1e-5)
