"""Reward models and direct preference optimisation on toy pairs: training, reloading, continuing and judging."""

import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import tiny_models as tiny
import torch
from stages import PAIRS, Interrupted, attached, job_for, recipe_of, steps, train
from torch.nn import functional

from harness.comparison.document import inference_record
from harness.errors import UserError
from harness.finetune.stages import dpo, references
from harness.finetune.stages.dpo import Dpo, dpo_losses
from harness.finetune.stages.pairs import encode_pairs
from harness.finetune.stages.policy import ReferencePolicy
from harness.finetune.training import loop
from harness.jobs import HEAD_FILE, BenchJob, Example, Recipe, ScoreJob, ScoreVariant, TaskRequests
from harness.models.artifacts import load_trained
from harness.models.load import Resident, count_parameters, load_base, method_function
from harness.models.reward_head import has_reward_head, last_token_values, made_on
from harness.worker import child, scoring
from harness.worker.timing import time_variant


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("stages")
    tiny.save_tiny(root / "llama", hidden=32)
    return root


def rewards_of(model: Any, pairs: Sequence[Example]) -> torch.Tensor:
    """Returns `[pairs, 2]` rewards, computed one row at a time without padding."""
    found = []
    for row in encode_pairs(pairs, tiny.tiny_tokenizer(), 128).rows:
        for side in ("better", "worse"):
            ids = torch.tensor([row[side]["input_ids"]])
            with torch.inference_mode():
                found.append(float(last_token_values(model, ids, torch.ones_like(ids))))
    return torch.tensor(found).view(-1, 2)


# Pairs


def test_a_pair_is_two_rows_that_differ_in_the_answer_alone() -> None:
    (row,) = encode_pairs([PAIRS[0]], tiny.tiny_tokenizer(), 128).rows
    tokenizer = tiny.tiny_tokenizer()
    assert tokenizer.decode(row["better"]["input_ids"]) == "Question: hello 0? Answer: yes 0</s>"
    assert tokenizer.decode([i for i in row["worse"]["labels"] if i != -100]) == " no 0</s>"
    assert row["length"] == row["better"]["length"] + row["worse"]["length"]


def test_pairs_whose_difference_is_cut_away_are_left_out_and_counted() -> None:
    long = Example("hello", " world" * 30 + " a", rejected=" world" * 30 + " b")
    encoded = encode_pairs([PAIRS[0], long], tiny.tiny_tokenizer(), 24)
    assert len(encoded.rows) == 1
    assert (encoded.cut, encoded.dropped) == (0, 1)
    with pytest.raises(UserError, match="none of the 1 pairs has two different answers within 24 tokens"):
        encode_pairs([long], tiny.tiny_tokenizer(), 24)


def test_rows_without_a_worse_answer_are_an_error() -> None:
    with pytest.raises(UserError, match="no worse answer"):
        encode_pairs([Example("a", "b")], tiny.tiny_tokenizer(), 24)


# Reward models


@pytest.mark.parametrize(
    "name",
    [
        "lora",
        pytest.param("full", marks=pytest.mark.slow),
        pytest.param("freeze", marks=pytest.mark.slow),
        pytest.param("ptuning_v2", marks=pytest.mark.slow),
    ],
)
def test_a_reward_model_learns_what_is_better_and_reloads(root: Path, tmp_path: Path, name: str) -> None:
    lr = {"full": 3e-3, "freeze": 5e-3, "ptuning_v2": 3e-2}.get(name, 1e-2)
    job = job_for(root, tmp_path, name, stage="reward", lr=lr, steps=30)
    trained = train(job)
    log = steps(tmp_path)
    assert trained.losses[0] == pytest.approx(math.log(2), abs=1e-5)
    assert log[-1]["accuracy"] == 1.0
    whole = load_base(job.base)
    base, words = count_parameters(whole)[0], count_parameters(whole.lm_head)[0]
    if name == "full":  # the language-model head is not trained, the reward head is
        assert trained.parameters_trainable == trained.parameters_total == base - words + 32
    elif name == "lora":
        assert trained.parameters_total == base - words + trained.parameters_trainable
    model = attached(job)
    assert has_reward_head(model)
    unseen = [Example("Question: answer 9? Answer:", " yes 9", rejected=" no 9")]
    rewards = rewards_of(model, [*PAIRS, *unseen])
    assert float((rewards[:, 0] > rewards[:, 1]).float().mean()) > 0.9
    last = -functional.logsigmoid(rewards[:-1, 0] - rewards[:-1, 1]).mean()
    assert float(last) < 0.5


@pytest.mark.slow
def test_a_reward_is_that_of_its_last_token_whatever_the_batch(root: Path, tmp_path: Path) -> None:
    job = job_for(root, tmp_path, stage="reward", steps=4, lr=1e-2)
    train(job)
    model = attached(job)
    alone = rewards_of(model, [*PAIRS[:4], Example("hello", " world", rejected=" world" * 9)])
    from harness.finetune.stages.reward_sources import ModelReward

    pairs = [*PAIRS[:4], Example("hello", " world", rejected=" world" * 9)]
    asked = [(pair.prompt, answer) for pair in pairs for answer in (pair.completion, str(pair.rejected))]
    prompts, answers = [each[0] for each in asked], [each[1] for each in asked]
    rewards = ModelReward(recipe_of(job))(prompts, answers, prompts, [True] * len(asked))
    assert rewards == pytest.approx(alone.flatten().tolist(), abs=1e-5)
    assert ModelReward(recipe_of(job))(prompts[:1], answers[:1], prompts[:1], [False]) != rewards[:1]


def test_a_reward_model_says_what_it_was_made_on(root: Path, tmp_path: Path) -> None:
    job = job_for(root, tmp_path, stage="reward", steps=1)
    train(job)
    assert made_on(job.output) == (str(root / "llama"), None)
    with pytest.raises(UserError, match="holds no reward model"):
        made_on(root / "llama")
    from harness.finetune.stages.reward_sources import folder_recipe

    with pytest.raises(UserError, match="only a base that you name yourself is loaded") as refused:
        folder_recipe(job.output)
    assert refused.value.hint == f"name it: `-T reward_base={root / 'llama'}`"
    recipe = folder_recipe(job.output, base=str(root / "llama"))
    assert recipe.base.folder == root / "llama" and not recipe.base.trust_remote_code


def test_timing_a_reward_model_times_no_generation(root: Path, tmp_path: Path) -> None:
    job = job_for(root, tmp_path, stage="reward", steps=1)
    train(job)
    asked = BenchJob(recipe_of(job), True, prompt_tokens=8, new_tokens=3, warmup=0, repeats=2, batch_sizes=(1,))
    found = inference_record(time_variant(asked))
    assert found.prefill_seconds_p50 > 0
    assert found.base_prefill_seconds_p50 is not None
    assert (found.new_tokens, found.decode_seconds_per_token_p50, found.throughput) == (0, None, ())


def test_detaching_a_reward_model_restores_the_base(root: Path, tmp_path: Path) -> None:
    job = job_for(root, tmp_path, stage="reward", steps=1)
    train(job)
    resident = Resident(job.base, method_function)
    ids = torch.tensor([[5, 6, 7]])
    before = resident.bare(ids).logits
    assert resident.attach(recipe_of(job))(ids).logits.shape == (1, 3, 1)
    resident.detach()
    assert torch.equal(resident.bare(ids).logits, before)


def test_a_reward_model_answers_choices_with_rewards(root: Path, tmp_path: Path) -> None:
    job = job_for(root, tmp_path, stage="reward", lr=1e-2, steps=30)
    train(job)
    requests = [tiny.choose(p.prompt, [str(p.rejected), p.completion], id=str(n)) for n, p in enumerate(PAIRS[:5])]
    raws: dict[int, Any] = {}

    def take(event: Any) -> None:
        for raw in getattr(event, "raws", ()):
            raws[raw.index] = raw

    variant = ScoreVariant("rm", recipe_of(job), [TaskRequests("toy", requests)])
    for engine in ("auto", "plain"):
        raws.clear()
        scoring.score(ScoreJob([variant], engine, "fp32", 256, None, 0), take)
        expected = rewards_of(attached(job), PAIRS[:5])
        for number in range(5):
            assert raws[number].loglikelihoods == pytest.approx(expected[number].flip(0).tolist(), abs=1e-5)


def test_a_reward_head_of_another_width_is_an_error(root: Path, tmp_path: Path) -> None:
    job = job_for(root, tmp_path, stage="reward", steps=1)
    train(job)
    tiny.save_tiny(tmp_path / "wide", hidden=64)
    (tmp_path / "wide" / HEAD_FILE).write_bytes((job.output / HEAD_FILE).read_bytes())
    with pytest.raises(UserError, match="its head is 32 wide, not 64"):
        Resident(tiny.tiny_base(tmp_path / "wide"), method_function).attach(Recipe(tiny.tiny_base(tmp_path / "wide")))


# Direct preference optimisation


@pytest.mark.parametrize(
    "name", ["lora", pytest.param("full", marks=pytest.mark.slow), pytest.param("ptuning_v2", marks=pytest.mark.slow)]
)
def test_dpo_makes_better_answers_likelier_than_worse_ones(root: Path, tmp_path: Path, name: str) -> None:
    lr = {"full": 1e-3, "ptuning_v2": 2e-2}.get(name, 5e-3)
    trained = train(job_for(root, tmp_path, name, lr=lr))
    log = steps(tmp_path)
    assert trained.losses[0] == pytest.approx(math.log(2), abs=1e-5)
    assert log[0]["margin"] == pytest.approx(0, abs=1e-4)
    assert log[-1]["accuracy"] == 1.0
    assert log[-1]["margin"] > 0.2
    assert log[-1]["margin"] == pytest.approx(log[-1]["chosen"] - log[-1]["rejected"], abs=1e-4)


def test_dpo_in_micro_batches_is_dpo(root: Path, tmp_path: Path) -> None:
    whole = train(job_for(root, tmp_path / "8", steps=5))
    smaller = train(job_for(root, tmp_path / "2", steps=5, micro_batch_size=2))
    assert smaller.losses == pytest.approx(whole.losses, rel=1e-3)


def test_the_reference_of_dpo_takes_as_many_rows_at_once_as_memory_holds(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = train(job_for(root, tmp_path / "plain", steps=3))
    own, most = dpo.answer_logprobs, 0

    def scarce(model: Any, batch: Any) -> torch.Tensor:
        nonlocal most
        if len(batch["input_ids"]) > 6:  # three pairs
            raise torch.OutOfMemoryError("CUDA out of memory")
        most = max(most, len(batch["input_ids"]))
        return own(model, batch)

    for module in (dpo, references):
        monkeypatch.setattr(module, "answer_logprobs", scarce)
    smaller = train(job_for(root, tmp_path / "smaller", steps=3))
    assert most == 4  # eight pairs, four, two
    assert smaller.losses == pytest.approx(plain.losses, rel=1e-4)
    monkeypatch.setattr(references, "tokens_at_once", lambda device, longest: 1)
    monkeypatch.setattr(
        references, "answer_logprobs", lambda model, batch: 1 / 0 if len(batch["input_ids"]) > 2 else own(model, batch)
    )
    assert (
        len(Dpo(job_for(root, tmp_path), load_base(tiny.tiny_base(root / "llama")), tiny.tiny_tokenizer(), 128).rows)
        == 36
    )


def test_evaluations_use_no_label_smoothing(root: Path, tmp_path: Path) -> None:
    for stage in ("dpo", "sft"):
        settings: dict[str, Any] = {"stage": stage, "steps": 1, "warmup": 0, "lr": 1e-9, "validation": PAIRS[:3]}
        plain, smoothed = (
            train(job_for(root, tmp_path / f"{stage}-{share}", label_smoothing=share, **settings))
            for share in (0.0, 0.3)
        )
        assert smoothed.validation_loss == pytest.approx(plain.validation_loss, rel=1e-5)
        if stage == "sft":
            assert smoothed.losses[0] != pytest.approx(plain.losses[0], rel=1e-3)


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_the_loss_of_dpo_by_hand(smoothing: float) -> None:
    margins = torch.tensor([0.5, -2.0])
    right = [math.log(1 / (1 + math.exp(-m))) for m in margins.tolist()]
    wrong = [math.log(1 / (1 + math.exp(m))) for m in margins.tolist()]
    by_hand = [-(1 - smoothing) * r - smoothing * w for r, w in zip(right, wrong, strict=True)]
    assert dpo_losses(margins, smoothing).tolist() == pytest.approx(by_hand, abs=1e-6)


def test_the_reference_policy_can_be_switched_on_and_off(root: Path) -> None:
    model = load_base(tiny.tiny_base(root / "llama"))
    model.lm_head.requires_grad_(True)
    ids = torch.tensor([[5, 6, 7]])
    reference, before = ReferencePolicy(model), model(ids).logits
    model.lm_head.weight.data.mul_(2)
    after = model(ids).logits
    with reference.active_in(model):
        assert torch.equal(model(ids).logits, before)
    assert torch.equal(model(ids).logits, after)
    assert not torch.equal(after, before)


# Starting from another training run


@pytest.mark.parametrize(
    "name",
    [
        "lora",
        "full",
        pytest.param("freeze", marks=pytest.mark.slow),
        pytest.param("ptuning_v2", marks=pytest.mark.slow),
        pytest.param("ia3", marks=pytest.mark.slow),
    ],
)
def test_training_continues_from_an_artifact(root: Path, tmp_path: Path, name: str) -> None:
    first = job_for(root, tmp_path / "first", name, stage="sft", lr=1e-2, steps=6)
    train(first)
    ids = torch.tensor([[5, 6, 7, 8]])
    expected = attached(first)(ids, use_cache=True).logits[:, -4:]
    then: dict[str, Any] = {"start": first.output}
    if name == "full":
        then = {"base": replace(first.base, folder=first.output)}
    job = job_for(root, tmp_path / "then", name, steps=3, **then)
    model = method_function(job.method)(load_base(job.base), **job.method.hyperparameters)
    if job.start:
        load_trained(model, job.start, name)
    assert any(parameter.requires_grad for parameter in model.parameters())
    logits = model.eval()(ids, use_cache=True).logits[:, -4:]
    assert torch.allclose(logits, expected, atol=1e-6)
    assert train(job).losses[0] == pytest.approx(math.log(2), abs=1e-5)  # the trained start is its own reference policy


def test_a_start_of_another_method_or_shape_is_an_error(root: Path, tmp_path: Path) -> None:
    first = job_for(root, tmp_path / "first", stage="sft", steps=1)
    train(first)
    with pytest.raises(UserError, match=r"`lora` cannot go on from .* does not have the same shape in both"):
        train(job_for(root, tmp_path / "a", start=first.output, hyperparameters={"rank": 2}))
    with pytest.raises(UserError, match=r"`freeze` cannot go on from .* another method made"):
        train(job_for(root, tmp_path / "b", "freeze", start=first.output))
    with pytest.raises(UserError, match="cannot go on from"):
        train(job_for(root, tmp_path / "c", "ia3", start=first.output))
    with pytest.raises(UserError, match="the network that computed its prompt was not saved"):
        prompt = job_for(root, tmp_path / "d", "ptuning", stage="sft", steps=1)
        train(prompt)
        train(job_for(root, tmp_path / "e", "ptuning", start=prompt.output))
    ranks = {"hyperparameters": {"rank": 2, "init_rank": 4, "interval": 1}, "stage": "sft"}
    cut = job_for(root, tmp_path / "f", "adalora", steps=8, **ranks)
    train(cut)
    with pytest.raises(UserError, match="its ranks were pruned"):
        train(job_for(root, tmp_path / "g", "adalora", start=cut.output, **ranks))


@pytest.mark.slow
def test_a_reward_model_continues_with_its_head(root: Path, tmp_path: Path) -> None:
    first = job_for(root, tmp_path / "first", stage="reward", lr=1e-2, steps=20)
    last = train(first).losses[-1]
    assert (
        train(job_for(root, tmp_path / "then", stage="reward", steps=1, start=first.output)).losses[0] < 2 * last + 0.1
    )


# Interruption


@pytest.mark.parametrize(
    ("stage", "name"),
    [
        ("reward", "lora"),
        pytest.param("reward", "full", marks=pytest.mark.slow),
        pytest.param("dpo", "lora", marks=pytest.mark.slow),
    ],
)
def test_an_interrupted_stage_continues_to_the_same_weights(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stage: str, name: str
) -> None:
    whole = train(job_for(root, tmp_path / "whole", name, stage=stage, steps=6))
    monkeypatch.setattr(loop, "CHECKPOINT_EVERY_SECONDS", 0.0)
    job = job_for(root, tmp_path / "cut", name, stage=stage, steps=6)

    def stop(event: Any) -> None:
        if getattr(event, "done", None) == 4:
            raise Interrupted

    with pytest.raises(Interrupted):
        child.train(job, stop)
    assert train(job).losses == whole.losses
    for file in (tmp_path / "whole" / "artifact").glob("*.safetensors"):
        assert (job.output / file.name).read_bytes() == file.read_bytes()
