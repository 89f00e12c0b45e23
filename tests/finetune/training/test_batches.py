"""Packed rows give the loss of single rows, for every architecture that accepts a mask of what each token attends to."""

import random
from pathlib import Path
from typing import Any

import pytest
import tiny_models as tiny
import torch
from architectures import SHAPES, random_model
from torch.nn import functional

from harness.errors import UserError
from harness.finetune.stages.sft import Sft
from harness.finetune.training.batches import Packing, Padding, pack, packing_fault
from harness.jobs import Example, TrainJob
from harness.settings import TrainingSettings
from harness.tokens.training_labels import IGNORED
from harness.worker import child


def rows(*lengths: int, seed: int = 0) -> list[dict[str, Any]]:
    draw = random.Random(seed)
    ids = [[draw.randrange(3, len(tiny.tiny_tokenizer())) for _ in range(length)] for length in lengths]
    return [{"input_ids": own, "labels": [IGNORED, *own[1:]]} for own in ids]


def summed_loss(model: Any, batch: dict[str, Any]) -> torch.Tensor:
    inputs = {name: value for name, value in batch.items() if name not in ("labels", "tokens")}
    logits = model(**inputs, use_cache=False).logits
    return functional.cross_entropy(logits[:, :-1].flatten(0, 1), batch["labels"][:, 1:].flatten(), reduction="sum")


def test_padding_is_on_the_right_and_neither_seen_nor_learned() -> None:
    batch = Padding(tiny.PAD)(rows(3, 5))
    assert batch["input_ids"].shape == batch["labels"].shape == (2, 5)
    assert batch["attention_mask"].tolist() == [[1, 1, 1, 0, 0], [1, 1, 1, 1, 1]]
    assert batch["labels"][0, 3:].tolist() == [IGNORED, IGNORED]
    assert batch["tokens"] == 8


@pytest.mark.parametrize("seed", range(20))
def test_lines_hold_every_row_once_and_are_no_longer_than_the_longest(seed: int) -> None:
    draw = random.Random(seed)
    lengths = [draw.randint(1, 60) for _ in range(draw.randint(1, 40))]
    lines = pack(lengths)
    assert sorted(place for line in lines for place in line) == list(range(len(lengths)))
    assert max(sum(lengths[place] for place in line) for line in lines) == max(lengths)
    assert len(lines) <= 1 + 1.7 * sum(lengths) / max(lengths)


@pytest.mark.parametrize("shape", SHAPES)
def test_packed_rows_have_the_loss_of_single_rows_or_the_model_is_refused(shape: str) -> None:
    model, data = random_model(shape), rows(17, 4, 9, 1, 6, 3, 12, 2)
    if not SHAPES[shape][2]:  # it ignores our mask
        with pytest.raises(UserError, match="rows cannot be packed for this model"):
            Packing(model, tiny.PAD)
        return
    batch = Packing(model, tiny.PAD)(data)
    assert batch["input_ids"].shape[0] < len(data) and batch["tokens"] == 54
    with torch.no_grad():
        single = sum(float(summed_loss(model, Padding(tiny.PAD)([row]))) for row in data)
        assert float(summed_loss(model, batch)) == pytest.approx(single, rel=1e-5)


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@pytest.mark.parametrize("shape", ["llama", "gemma3", "mistral"])
def test_no_row_sees_another(shape: str, attention: str) -> None:
    model = random_model(shape)
    model.set_attn_implementation(attention)
    packing = Packing(model, tiny.PAD)
    data, other = rows(30, 9, 6, 15), rows(30, 9, 6, 15, seed=1)
    data[1] = other[1] = rows(9, seed=2)[0]
    lines = pack([30, 9, 6, 15])
    line = next(number for number, line in enumerate(lines) if 1 in line)
    start = sum([30, 9, 6, 15][place] for place in lines[line][: lines[line].index(1)])
    assert start > 0 and len(lines[line]) > 1
    own = []
    for batch in (packing(data), packing(other)):
        inputs = {name: batch[name] for name in ("input_ids", "attention_mask", "position_ids")}
        with torch.no_grad():
            own.append(model(**inputs, use_cache=False).logits[line, start : start + 9])
    assert torch.equal(own[0], own[1])


def test_gradients_are_those_of_padded_rows() -> None:
    model, data = random_model("llama"), rows(21, 4, 9, 1, 6, 3)
    gradients = []
    for batch in (Padding(tiny.PAD)(data), Packing(model, tiny.PAD)(data)):
        model.zero_grad()
        summed_loss(model, batch).backward()  # type: ignore[no-untyped-call]
        gradients.append(torch.cat([parameter.grad.flatten() for parameter in model.parameters()]))
    assert torch.allclose(gradients[0], gradients[1], atol=1e-5 * float(gradients[0].abs().max()))


def test_trying_leaves_the_model_as_it_was() -> None:
    model = random_model("llama").train()
    assert packing_fault(model) is None
    assert model.training and all(parameter.grad is None for parameter in model.parameters())


@pytest.mark.parametrize("kind", ["LORA", "PROMPT_TUNING", "PREFIX_TUNING"])
def test_adapters_are_packed_and_learned_prompts_refused(kind: str) -> None:
    import peft

    options = {"r": 4} if kind == "LORA" else {"num_virtual_tokens": 5}
    model = peft.get_peft_model(
        random_model("llama"),
        peft.get_peft_config(
            {"peft_type": kind, "task_type": "CAUSAL_LM", **options}
            | ({"target_modules": "all-linear"} if kind == "LORA" else {})
        ),
    )
    if kind == "LORA":
        assert packing_fault(model) is None
    else:
        with pytest.raises(UserError, match="learned tokens come before every row") as caught:
            Packing(model, tiny.PAD)
        assert caught.value.hint == "leave out `packing`"


EXAMPLES = [Example("hello " * (n % 7), f" world {n % 3}") for n in range(16)]


def stage(model: Any, **settings: Any) -> Sft:
    lengths = {"steps": 1, "batch_size": 8, "micro_batch_size": 8, "max_length": 64}
    training = TrainingSettings(lr=1e-3, **lengths).model_copy(update=settings)
    job = TrainJob(
        tiny.tiny_base(Path("none")), tiny.built_in("lora"), training, EXAMPLES, "delta", Path(), Path(), Path(), "key"
    )
    return Sft(job, model, tiny.tiny_tokenizer(), 64)


def test_packing_changes_neither_loss_nor_what_is_counted() -> None:
    model = random_model("llama")
    padded, packed = stage(model), stage(model, packing=True)
    assert packed.rows == padded.rows
    batches = [each.collate(each.rows[:8]) for each in (padded, packed)]
    assert batches[1]["input_ids"].numel() < batches[0]["input_ids"].numel()
    items = padded.items(batches[0])
    assert packed.items(batches[1]) == items and batches[0]["tokens"] == batches[1]["tokens"]
    losses = [
        float(each.loss(model, batch, items).detach()) for each, batch in zip((padded, packed), batches, strict=True)
    ]
    assert losses[1] == pytest.approx(losses[0], rel=1e-5)


def test_plain_text_is_learned_whole() -> None:
    text = stage(random_model("llama"), stage="pretrain")
    batch = text.collate(text.rows)
    assert text.items(batch) > 2 * sum(map(len, (example.completion for example in EXAMPLES))) / 8
    assert all(row["length"] == 64 for row in text.rows[:-1])


@pytest.mark.parametrize("kind", ["sft", "pretrain"])
def test_a_packed_training_takes_the_steps_of_a_padded_one(kind: Any, tmp_path: Path) -> None:
    tiny.save_tiny(tmp_path / "llama")
    trained = []
    for packing in (False, True):
        settings = TrainingSettings(
            lr=1e-2,
            steps=5,
            epochs=None,
            batch_size=8,
            micro_batch_size=4,
            max_length=24,
            seed=0,
            packing=packing,
            stage=kind,
        )
        folder = tmp_path / str(packing)
        lora = tiny.built_in("lora", rank=4)
        job = TrainJob(
            tiny.tiny_base(tmp_path / "llama"),
            lora,
            settings,
            EXAMPLES,
            "delta",
            folder / "artifact",
            folder / "log.jsonl",
            folder / "state",
            "key",
        )
        trained.append(child.train(job, lambda event: None))
    padded, packed = trained
    assert packed.losses == pytest.approx(padded.losses, rel=1e-5)
    assert padded.losses[-1] < padded.losses[0]
    assert (packed.tokens, packed.samples, packed.truncated) == (padded.tokens, padded.samples, padded.truncated)
