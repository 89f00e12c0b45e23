"""Reinforcement learning: formulas checked by hand, and toy rewards that rise."""

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import stages
import tiny_models as tiny
import torch
from small_tokenizers import small_tokenizer

from harness.errors import UserError
from harness.finetune.stages import grpo, online, ppo, rollouts
from harness.finetune.stages.policy import answer_mask, token_logprobs
from harness.finetune.stages.reward_sources import FunctionReward, load_reward_source
from harness.finetune.stages.rollouts import Prompts, roll_out
from harness.finetune.training import loop
from harness.jobs import HEAD_FILE, Example, RewardFunction, TrainJob
from harness.models.load import load_base
from harness.worker import child

PROMPTS = [Example(f"Question: {name}? Answer:", f" {name}") for name in stages.NAMES]
WORDS = [
    "one",
    "two",
    "three",
    "four",
    "hello",
    "world",
    "small",
    "capital",
    "France",
    "Paris",
    "the",
    "is",
    "what",
    "and",
    "plus",
    "answer",
]
REWARDS = """
import math

def wanted(prompts, completions, references):
    return [float(completion.strip() == "Paris") for completion in completions]

def letters(prompts, completions, references):
    return [float(completion.count("o")) for completion in completions]

def short(prompts, completions, references):
    return [0.0]

def undefined(prompts, completions, references):
    return [math.nan for _ in prompts]

def broken(prompts, completions, references):
    return [1 / 0]

def words(prompts, completions, references):
    return completions

def answered(prompts, completions, references, answers):
    return [float(answer == reference) for answer, reference in zip(answers, references)]

def thoughtful(prompts, completions, references):
    return [float("</think>" in completion) for completion in completions]

number = 3
"""


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("rl")
    (root / "rewards.py").write_text(REWARDS)
    tiny.save_tiny(root / "random" / "llama", hidden=32)
    answers = [Example(prompt.prompt, f" {word}") for prompt in PROMPTS for word in WORDS]
    knows = {"stage": "sft", "lr": 1e-2, "steps": 60, "batch_size": 16, "micro_batch_size": 16}
    job = stages.job_for(root / "random", root / "sft", "full", examples=answers, **knows)
    child.train(job, lambda event: None)
    job.output.rename(root / "llama")  # it answers any question with a random word
    return root


def job_for(root: Path, output: Path, name: str = "lora", *, reward: str = "wanted", **settings: Any) -> TrainJob:
    given: dict[str, Any] = {
        "stage": "grpo",
        "lr": 3e-2,
        "steps": 40,
        "batch_size": 6,
        "micro_batch_size": 6,
        "generations": 8,
        "max_tokens": 3,
        "examples": PROMPTS,
        "reward": RewardFunction(root / "rewards.py", reward),
    }
    return stages.job_for(root, output, name, **(given | settings))


# Rewards


def test_a_reward_function_gives_a_number_for_every_answer(root: Path) -> None:
    reward = FunctionReward(RewardFunction(root / "rewards.py", "wanted"))
    assert reward(["p", "p"], [" Paris", "Rome"], ["", ""], [True, False]) == [1.0, 0.0]


def test_a_reward_function_sees_the_whole_text_and_on_request_the_answer_after_a_thought(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tokenizer = small_tokenizer()
    texts = ["<think>no</think>\n7", "<think>no", "7", "no</think>7", "no"]
    prompts = ["a", "b", "c", "<think>\n", "<think>"]

    def complete(model: Any, completions: list[Any], **options: Any) -> None:
        for completion, text in zip(completions, texts, strict=True):
            completion.ids = tokenizer(text)["input_ids"]

    monkeypatch.setattr(rollouts, "complete_together", complete)
    settings = stages.SETTINGS.model_copy(update={"generations": 1, "max_tokens": 40})
    rows = Prompts(tokenizer, 99, settings).encode([Example(prompt, "7") for prompt in prompts]).rows
    model = load_base(tiny.tiny_base(root / "llama"))
    for name, expected in (("answered", [1, 0, 1, 1, 0]), ("thoughtful", [1, 0, 0, 1, 0])):
        reward = FunctionReward(RewardFunction(root / "rewards.py", name))
        assert roll_out(model, tokenizer, rows, settings, reward).rewards.tolist() == expected


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("short", "returned 1 rewards for 2 answers"),
        ("undefined", "returned nan for the answer 'a'"),
        ("broken", "the reward function `broken` failed in `rewards.py`"),
        ("words", "not a list of numbers"),
        ("number", "rewards.py` has no function `number`"),
        ("missing", "rewards.py` has no function `missing`"),
    ],
)
def test_a_bad_reward_function_is_an_error_of_the_user(root: Path, name: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        FunctionReward(RewardFunction(root / "rewards.py", name))(["p", "p"], ["a", "b"], ["", ""], [True, True])


def test_a_model_without_a_reward_head_is_refused(root: Path) -> None:
    with pytest.raises(UserError, match="is not a reward model"):
        load_reward_source(tiny.bare(tiny.tiny_base(root / "llama")))
    with pytest.raises(UserError, match="needs a reward"):
        load_reward_source(None)


# Answers


def test_answers_are_drawn_from_the_policy_and_the_same_whatever_the_batch(root: Path) -> None:
    model, tokenizer = load_base(tiny.tiny_base(root / "llama")), tiny.tiny_tokenizer()
    settings = stages.SETTINGS.model_copy(update={"generations": 4, "max_tokens": 5, "temperature": 0.7})
    prompts = Prompts(tokenizer, 64, settings)
    rows = prompts.encode([*PROMPTS, Example("", "")]).rows
    seen: list[tuple[str, str, bool]] = []

    def reward(asked: Any, answers: Any, references: Any, ended: Any) -> list[float]:
        seen.extend(zip(asked, answers, ended, strict=True))
        return [float(len(answer)) for answer in answers]

    torch.manual_seed(3)
    whole = roll_out(model, tokenizer, rows, settings, reward)
    together, seen[:] = list(seen), []
    torch.manual_seed(3)
    for row in rows:
        roll_out(model, tokenizer, [row], settings, reward)
    assert together == seen
    assert len(set(seen)) > len(rows)
    assert whole.rewards.tolist() == [len(answer) for _, answer, _ in seen]
    for number, (_, answer, ended) in enumerate(seen):
        labels = whole.batch["labels"][number]
        ids = labels[labels != -100].tolist()
        assert (ids[-1] == tiny.EOS) == ended
        assert len(ids) <= 5
        assert tokenizer.decode(ids, skip_special_tokens=True) == answer


def test_a_prompt_that_leaves_no_room_is_cut_on_the_left_and_no_room_at_all_is_an_error() -> None:
    tokenizer = tiny.tiny_tokenizer()
    settings = stages.SETTINGS.model_copy(update={"max_tokens": 5})
    encoded = Prompts(tokenizer, 9, settings).encode([Example("hello " * 9 + "Answer:", "")])
    assert tokenizer.decode(encoded.rows[0]["prompt"]).endswith("Answer:")
    assert (len(encoded.rows[0]["prompt"]), encoded.cut) == (4, 1)
    with pytest.raises(UserError, match="answers of 5 tokens leave no room for a prompt within 5"):
        Prompts(tokenizer, 5, settings)


@pytest.mark.parametrize("temperature", [1.0, 0.5])
def test_logprobs_of_tokens_are_those_of_a_plain_forward(root: Path, temperature: float) -> None:
    model = load_base(tiny.tiny_base(root / "llama"))
    ids = torch.tensor([[3, 4, 5, 6, 2], [3, 9, 8, 2, 0]])
    labels = torch.tensor([[-100, -100, 5, 6, 2], [-100, -100, 8, 2, -100]])
    batch = {"input_ids": ids, "labels": labels, "attention_mask": (ids > 0).long()}
    found = token_logprobs(model, batch, temperature=temperature)
    logprobs = (model(ids).logits / temperature).log_softmax(-1)
    expected = torch.stack(
        [torch.stack([logprobs[row, at - 1, ids[row, at]] for at in range(2, 5)]) for row in range(2)]
    )
    expected[1, 2] = 0
    assert torch.allclose(found, expected, atol=1e-5)
    assert answer_mask(labels).tolist() == [[1, 1, 1], [1, 1, 0]]


# Arithmetic by hand


def test_advantages_of_grpo_are_deviations_within_a_prompt() -> None:
    found = grpo.advantages(torch.tensor([[1.0, 2.0, 3.0], [5.0, 5.0, 5.0]]))
    assert found[0].tolist() == pytest.approx([-1 / 1.0001, 0, 1 / 1.0001])
    assert found[1].tolist() == [0, 0, 0]


def test_the_loss_of_grpo_by_hand() -> None:
    logprobs, old = torch.tensor([[-1.0, -0.5, 0.0]]), torch.tensor([[-1.5, -0.5, 0.0]])
    reference = torch.tensor([[-1.2, -0.4, 0.0]])
    mask = torch.tensor([[1.0, 1.0, 0.0]])
    for advantage in (2.0, -2.0):
        ratio = math.exp(0.5)
        first = min(ratio * advantage, 1.2 * advantage)
        divergences = [math.exp(-0.2) + 0.2 - 1, math.exp(0.1) - 0.1 - 1]
        by_hand = -((first - 0.1 * divergences[0]) + (advantage - 0.1 * divergences[1])) / 2
        found = grpo.grpo_losses(logprobs, old, reference, torch.tensor([advantage]), mask, beta=0.1)
        assert float(found) == pytest.approx(by_hand, rel=1e-5)


def test_rewards_of_tokens_are_the_penalty_and_at_the_end_the_reward() -> None:
    mask = torch.tensor([[1.0, 1.0, 1.0], [1.0, 0.0, 0.0]])
    divergence = torch.tensor([[0.1, 0.2, 0.3], [0.4, 9.0, 9.0]])
    found = ppo.token_rewards(torch.tensor([5.0, 7.0]), divergence, mask, beta=0.5)
    assert found.flatten().tolist() == pytest.approx([-0.05, -0.1, 4.85, 6.8, 0, 0])


def test_generalised_advantages_by_hand() -> None:
    rewards, values = torch.tensor([[0.1, 0.0, 1.0]]), torch.tensor([[0.3, 0.6, 0.2]])
    surprises = [0.1 + 0.6 - 0.3, 0.0 + 0.2 - 0.6, 1.0 - 0.2]
    third = surprises[2]
    second = surprises[1] + 0.95 * third
    first = surprises[0] + 0.95 * second
    found = ppo.advantages(rewards, values, torch.ones(1, 3))
    assert found[0].tolist() == pytest.approx([first, second, third], rel=1e-5)
    padded = ppo.advantages(
        torch.tensor([[0.1, 0.0, 1.0, 0.0]]), torch.tensor([[0.3, 0.6, 0.2, 0.0]]), torch.tensor([[1.0, 1, 1, 0]])
    )
    assert padded[0].tolist() == pytest.approx([first, second, third, 0], rel=1e-5)


def test_the_clipped_losses_of_ppo_by_hand() -> None:
    one = torch.ones(1, 1)

    def loss(logprob: float, value: float, advantage: float, old_value: float = 0.0) -> float:
        new, old, now, then, gain = (torch.tensor([[x]]) for x in (logprob, 0.0, value, old_value, advantage))
        return float(ppo.ppo_losses(new, old, now, then, gain, one))

    assert loss(0.1, 0.0, 1.0) == pytest.approx(-math.exp(0.1) + 0.1 * 0.5)
    assert loss(0.5, 0.0, 1.0) == pytest.approx(-1.2 + 0.1 * 0.5)  # the ratio is clipped at 1.2
    assert loss(-0.5, 0.0, -1.0) == pytest.approx(0.8 + 0.1 * 0.5)
    assert loss(0.5, 0.0, -1.0) == pytest.approx(math.exp(0.5) + 0.1 * 0.5)  # no clipping: the advantage is negative
    assert loss(0.0, 0.9, 1.0) == pytest.approx(
        -1 + 0.1 * (0.8**2) / 2
    )  # the value is clipped to within 0.2 of the old one
    assert loss(0.0, 0.1, 1.0) == pytest.approx(-1 + 0.1 * (0.9**2) / 2)


# Learning


@pytest.mark.parametrize(("stage", "name", "lr", "steps"), [("grpo", "full", 5e-3, 24), ("ppo", "full", 3e-3, 48)])
def test_a_toy_reward_rises(root: Path, tmp_path: Path, stage: str, name: str, lr: float, steps: int) -> None:
    job = job_for(root, tmp_path, name, stage=stage, lr=lr, steps=steps)
    child.train(job, lambda event: None)
    log = [line for line in stages.steps(tmp_path) if "reward" in line]
    assert log[0]["reward"] < 0.15
    assert sum(line["reward"] for line in log[-3:]) / 3 > 0.7, [line["reward"] for line in log]
    assert log[0]["kl"] == pytest.approx(0, abs=1e-5)
    assert log[-1]["kl"] > 0.1
    assert not (job.output / HEAD_FILE).exists()
    assert stages.attached(job)(torch.tensor([[5, 6]])).logits.shape[-1] > 100


@pytest.mark.parametrize(
    ("stage", "name"),
    [
        ("ppo", "prefix"),
        pytest.param("grpo", "ptuning_v2", marks=pytest.mark.slow),
        pytest.param("ppo", "freeze", marks=pytest.mark.slow),
    ],
)
def test_every_kind_of_method_learns_from_rewards_and_saves_its_usual_artifact(
    root: Path, tmp_path: Path, stage: str, name: str
) -> None:
    job = job_for(root, tmp_path, name, stage=stage, reward="letters", steps=5, lr=1e-2, batch_size=2)
    child.train(job, lambda event: None)
    log = [line for line in stages.steps(tmp_path) if "reward" in line]
    assert log[0]["kl"] == pytest.approx(0, abs=1e-5)
    assert log[-1]["kl"] != 0
    assert stages.attached(job)(torch.tensor([[5, 6]]), use_cache=True).logits.shape[-1] > 100


def test_gradients_do_not_vanish_in_sixteen_bits(root: Path, tmp_path: Path) -> None:
    trained = child.train(job_for(root, tmp_path, steps=6, batch_size=2, precision="bf16"), lambda event: None)
    log = stages.steps(tmp_path)
    assert all(line["grad_norm"] > 0 for line in log if line["spread"] > 0)
    assert max(line["kl"] for line in log) > 1e-4  # the reference policy is the start, not a copy of the current policy
    assert trained.tokens > 0


def test_held_out_prompts_are_evaluated_by_their_reward(root: Path, tmp_path: Path) -> None:
    trained = child.train(
        job_for(root, tmp_path, steps=4, batch_size=2, validation=PROMPTS[:2], evaluate_every=2), lambda event: None
    )
    evaluations = [line["held_out"] for line in stages.steps(tmp_path) if "held_out" in line]
    assert [each["loss"] for each in evaluations] == [-each["reward"] for each in evaluations]
    assert trained.validation


def test_one_answer_a_prompt_teaches_grpo_nothing(root: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="`generations=1` gives one"):
        child.train(job_for(root, tmp_path, generations=1), lambda event: None)


@pytest.mark.parametrize("stage", ["ppo", pytest.param("grpo", marks=pytest.mark.slow)])
def test_an_interrupted_training_continues_with_the_same_answers(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stage: str
) -> None:
    assert_continues(root, tmp_path, monkeypatch, at=5, stage=stage, steps=6, batch_size=2)


def assert_continues(root: Path, folder: Path, monkeypatch: pytest.MonkeyPatch, *, at: int, **settings: Any) -> None:
    """Checks that a training run interrupted after a step and continued has the losses and weights of an uninterrupted one."""
    whole = child.train(job_for(root, folder / "whole", **settings), lambda event: None)
    monkeypatch.setattr(loop, "CHECKPOINT_EVERY_SECONDS", 0.0)
    job = job_for(root, folder / "cut", **settings)

    def stop(event: Any) -> None:
        if getattr(event, "done", None) == at:
            raise stages.Interrupted

    with pytest.raises(stages.Interrupted):
        child.train(job, stop)
    assert child.train(job, lambda event: None).losses == whole.losses
    name = "adapter_model.safetensors"
    assert (job.output / name).read_bytes() == (folder / "whole" / "artifact" / name).read_bytes()


def test_a_training_in_rounds_interrupted_in_a_later_epoch_continues_with_the_same_rows(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # the last checkpoint is from the first round of the second epoch
    settings: dict[str, Any] = {"stage": "ppo", "batch_size": 2, "steps": 24, "generations": 2, "warmup": 0}
    assert_continues(root, tmp_path, monkeypatch, at=18, **settings)


@pytest.mark.parametrize(("stage", "where"), [("ppo", "updating"), ("ppo", "generating"), ("grpo", "generating")])
def test_running_out_of_memory_changes_neither_answers_nor_log_nor_updates(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stage: str, where: str
) -> None:
    settings: dict[str, Any] = {"stage": stage, "steps": {"ppo": 8, "grpo": 2}[stage], "generations": 2, "warmup": 0}
    settings |= {"reward": "letters", "micro_batch_size": 4}
    plain = child.train(job_for(root, tmp_path / "plain", **settings), lambda event: None)
    module = {"updating": ppo, "generating": online}[where]
    calls = {"updating": "ppo_losses", "generating": "roll_out"}[where]
    own, count = getattr(module, calls), 0

    def scarce(*given: Any, **options: Any) -> Any:
        nonlocal count
        count += 1
        if count == 2:  # the second micro-batch of the first step, after the first one was counted
            raise MemoryError
        return own(*given, **options)

    monkeypatch.setattr(module, calls, scarce)
    smaller = child.train(job_for(root, tmp_path / "smaller", **settings), lambda event: None)
    assert smaller.micro_batch_size == 2
    assert smaller.losses == pytest.approx(plain.losses, rel=1e-3, abs=1e-5)
    assert smaller.rewards == pytest.approx(plain.rewards, rel=1e-6)
    log = stages.steps(tmp_path / "smaller")
    assert [line["step"] for line in log if "reward" in line] == ([1, 5] if stage == "ppo" else [1, 2])


@pytest.mark.slow
def test_rewards_come_from_a_reward_model_too(root: Path, tmp_path: Path) -> None:
    reward_model = stages.job_for(root, tmp_path / "rm", stage="reward", lr=1e-2, steps=10)
    child.train(reward_model, lambda event: None)
    job = job_for(root, tmp_path / "rl", steps=2, batch_size=2)
    job = replace(job, reward=stages.recipe_of(reward_model))
    child.train(job, lambda event: None)
    assert all(math.isfinite(json.loads(line)["reward"]) for line in job.log.read_text().splitlines())
