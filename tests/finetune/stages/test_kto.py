"""KTO on toy answers that are marked good or bad: its loss and reference point by hand, and training runs."""

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import tiny_models as tiny
import torch
from stages import PAIRS, Interrupted, attached, job_for, steps, train

from harness.errors import UserError
from harness.finetune.stages.kto import Kto, kto_losses, mismatched
from harness.finetune.stages.policy import answer_logprobs
from harness.finetune.training import loop
from harness.jobs import Example, TrainJob
from harness.models.load import load_base

MARKED = [
    replace(pair, completion=pair.completion if good else str(pair.rejected), rejected=None, desirable=good)
    for number, pair in enumerate(PAIRS)
    for good in [number % 3 != 0]
]


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("kto")
    tiny.save_tiny(root / "llama", hidden=32)
    return root


def kto_job(root: Path, output: Path, **settings: Any) -> TrainJob:
    return job_for(root, output, **{"stage": "kto", "examples": MARKED, **settings})


def stage_of(job: TrainJob) -> tuple[Kto, Any]:
    model = load_base(job.base)
    return Kto(job, model, tiny.tiny_tokenizer(), 128), model


def moved(root: Path, tmp_path: Path, direction: float = 1.0, **settings: Any) -> tuple[Any, Any, Kto]:
    """The reference policy, a model that finds the answers likelier (or less likely), and the stage made before that."""
    job = kto_job(root, tmp_path, **settings)
    begun, model = load_base(job.base), load_base(job.base)
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(name.endswith("mlp.down_proj.weight"))
    stage = Kto(job, model, tiny.tiny_tokenizer(), 128)
    for _ in range(5):
        answer_logprobs(model, stage.collate(stage.rows)).mean().backward()  # type: ignore[no-untyped-call]
        for parameter in model.parameters():
            if parameter.grad is not None:
                parameter.data.add_(direction * 0.05 * parameter.grad / parameter.grad.norm())
                parameter.grad = None
    return begun, model, stage


def logprob(model: Any, prompt: list[int], answer: list[int]) -> float:
    with torch.no_grad():
        found = model(torch.tensor([[*prompt, *answer]])).logits[0].log_softmax(-1)
    return sum(float(found[len(prompt) - 1 + place, token]) for place, token in enumerate(answer))


def test_the_loss_by_hand() -> None:
    def value(z: float) -> float:
        return 1 / (1 + math.exp(-z))

    gains, desirable = torch.tensor([0.5, -2.0, 3.0, 0.1]), torch.tensor([True, True, False, False])
    by_hand = [
        1.5 - 1.5 * value(0.2 * (0.5 - 0.7)),
        1.5 - 1.5 * value(0.2 * (-2.0 - 0.7)),
        0.5 - 0.5 * value(0.2 * (0.7 - 3.0)),
        0.5 - 0.5 * value(0.2 * (0.7 - 0.1)),
    ]
    found = kto_losses(gains, desirable, 0.7, beta=0.2, weights=(1.5, 0.5))
    assert found.tolist() == pytest.approx(by_hand, abs=1e-6)


def test_the_reference_point_is_the_mean_gain_of_mismatched_answers(root: Path, tmp_path: Path) -> None:
    begun, model, stage = moved(root, tmp_path, micro_batch_size=3)
    rows = [stage.rows[index] for index in (4, 1, 9, 7)]
    ordered = [stage.rows[index] for index in (1, 4, 7, 9)]
    gains = [
        logprob(model, row["prompt"], before["answer"]) - logprob(begun, row["prompt"], before["answer"])
        for row, before in zip(ordered, [ordered[-1], *ordered[:-1]], strict=True)
    ]
    stage.before_batch(model, rows)
    assert stage._divergence == pytest.approx(sum(gains) / 4, abs=1e-4)
    assert stage._divergence > 0.01
    batch = stage.collate(rows)
    loss = float(stage.loss(model, batch, stage.items(batch)).detach())
    own = [logprob(model, row["prompt"], row["answer"]) - logprob(begun, row["prompt"], row["answer"]) for row in rows]
    marks = torch.tensor([row["desirable"] for row in rows])
    assert loss == pytest.approx(
        float(kto_losses(torch.tensor(own), marks, stage._divergence, beta=0.1).mean()), abs=1e-5
    )


def test_the_reference_point_is_at_least_zero(root: Path, tmp_path: Path) -> None:
    _, model, stage = moved(root, tmp_path, direction=-1.0)
    stage.before_batch(model, stage.rows[:8])
    assert stage._divergence == 0


def test_answers_are_compared_with_other_prompts_each_once() -> None:
    for prompts in ("abcdef", "aabbcc", "abab", "aab", "aaa", "a", "abcabcaa"):
        others = mismatched(prompts)
        assert sorted(others) == list(range(len(prompts)))
        most = max(map(prompts.count, prompts))
        if 2 * most <= len(prompts):
            assert all(prompts[index] != prompts[other] for index, other in enumerate(others))
        assert len(prompts) == 1 or all(index != other for index, other in enumerate(others))


def test_good_answers_become_likelier_and_bad_ones_less_likely(root: Path, tmp_path: Path) -> None:
    job = kto_job(root, tmp_path, steps=30, lr=1e-2)
    trained = train(job)
    log = steps(tmp_path)
    assert trained.losses[0] == pytest.approx(0.5, abs=1e-5) and log[0]["kl"] == pytest.approx(0, abs=1e-4)
    assert log[-1]["loss"] < 0.45 and log[-1]["chosen"] > 0.1 > 0 > log[-1]["rejected"]
    assert all(line["kl"] >= 0 for line in log if "kl" in line)
    begun, model = load_base(job.base), attached(job)
    prompt, good, bad = tiny.tiny_tokenizer()(["Question: hello 9? Answer:", " yes 9", " no 9"])["input_ids"]
    good, bad = good[-3:], bad[-3:]
    gain = [logprob(model, prompt, answer) - logprob(begun, prompt, answer) for answer in (good, bad)]
    assert gain[0] > gain[1]


def test_kto_in_micro_batches_is_kto(root: Path, tmp_path: Path) -> None:
    whole = train(kto_job(root, tmp_path / "8", steps=2, validation=MARKED[:5]))
    smaller = train(kto_job(root, tmp_path / "2", steps=2, micro_batch_size=2, validation=MARKED[:5]))
    assert smaller.losses == pytest.approx(whole.losses, rel=1e-3)
    assert smaller.validation_loss == pytest.approx(whole.validation_loss, rel=1e-3)


def test_weights_of_good_and_bad_answers(root: Path, tmp_path: Path) -> None:
    stage, model = stage_of(kto_job(root, tmp_path, desirable_weight=0.5, undesirable_weight=2.0))
    stage.before_batch(model, stage.rows)
    loss = stage.loss(model, stage.collate(stage.rows), 36)
    assert float(loss.detach()) == pytest.approx((24 * 0.5 + 12 * 2.0) * 0.5 / 36, abs=1e-5)


def test_a_batch_of_one_row_is_refused_and_a_last_or_held_out_row_alone_is_not(root: Path, tmp_path: Path) -> None:
    for settings in ({"batch_size": 1}, {"examples": MARKED[:1]}):
        with pytest.raises(UserError, match="KTO compares each answer with the answer of another row"):
            stage_of(kto_job(root, tmp_path, **settings))
    found = train(kto_job(root, tmp_path, examples=MARKED[:5], batch_size=2, steps=3, validation=MARKED[5:6]))
    assert len(found.losses) == 3 and found.validation_loss is not None and math.isfinite(found.validation_loss)


def test_rows_without_a_mark_and_rows_that_do_not_fit(root: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="marked neither good nor bad"):
        stage_of(kto_job(root, tmp_path, examples=[*MARKED[:3], Example("a", " b")]))
    long = Example("hello " * 200, " a", desirable=True)
    stage, _ = stage_of(kto_job(root, tmp_path, examples=[*MARKED[:3], long]))
    assert (stage.dropped, len(stage.rows), stage.lost_tokens > 200) == (1, 3, True)
    with pytest.raises(UserError, match="none of the 1 training rows has an answer within 128 tokens"):
        stage_of(kto_job(root, tmp_path, examples=[long]))


@pytest.mark.slow
def test_an_interrupted_run_continues_to_the_same_weights(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = kto_job(root, tmp_path / "plain", steps=8)
    train(plain)
    monkeypatch.setattr(loop, "CHECKPOINT_EVERY_SECONDS", 0)
    job = kto_job(root, tmp_path / "stopped", steps=8)
    own = Kto.loss

    def stopping(stage: Kto, *given: Any) -> Any:
        stopping.calls += 1  # type: ignore[attr-defined]
        if stopping.calls == 5:  # type: ignore[attr-defined]
            raise Interrupted
        return own(stage, *given)

    stopping.calls = 0  # type: ignore[attr-defined]
    monkeypatch.setattr(Kto, "loss", stopping)
    with pytest.raises(Interrupted):
        train(job)
    train(job)
    ids = torch.tensor([[5, 6, 7, 8]])
    assert torch.allclose(attached(job)(ids).logits, attached(plain)(ids).logits, atol=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["full", "ptuning_v2"])
def test_other_methods_learn_from_marks(root: Path, tmp_path: Path, name: str) -> None:
    trained = train(kto_job(root, tmp_path, name=name, lr={"full": 1e-3}.get(name, 2e-2), steps=12))
    assert trained.losses[0] == pytest.approx(0.5, abs=1e-5) and trained.losses[-1] < 0.49
