"""Checks our losses against TRL's: the same model, rows and settings give the same losses over several steps."""

import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

sys.path.insert(0, str(Path(__file__).parents[1] / "helpers"))

import stages
import tiny_models as tiny

from harness.finetune.stages.grpo import CLIP, advantages, grpo_losses
from harness.finetune.stages.policy import answer_mask, token_logprobs
from harness.models.load import load_base, method_function
from harness.tokens.training_labels import IGNORED

trl = pytest.importorskip("trl", reason="trl: `pip install finetune-harness[parity]`")

pytestmark = pytest.mark.parity

STEPS = 6
PAIRS = stages.PAIRS[::5]
THEIRS = {
    "max_steps": STEPS,
    "report_to": "none",
    "use_cpu": True,
    "logging_steps": 1,
    "save_strategy": "no",
    "disable_tqdm": True,
    "learning_rate": 5e-3,
    "lr_scheduler_type": "constant",
    "optim": "adamw_torch",
    "bf16": False,
    "gradient_checkpointing": False,
}


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("trl")
    tiny.save_tiny(root / "llama", hidden=32)
    return root


@pytest.mark.parametrize("beta", [0.1, 0.5])
def test_dpo(root: Path, tmp_path: Path, beta: float) -> None:
    import datasets

    job = stages.job_for(
        root,
        tmp_path,
        examples=PAIRS,
        steps=STEPS,
        batch_size=len(PAIRS),
        micro_batch_size=3,
        schedule="constant",
        warmup=0.0,
        beta=beta,
    )
    ours = stages.train(job).losses
    base = load_base(job.base)
    torch.manual_seed(job.training.seed)
    model = method_function(job.method)(base, **job.method.hyperparameters)
    model.name_or_path = ""
    options = trl.DPOConfig(
        output_dir=str(tmp_path),
        per_device_train_batch_size=len(PAIRS),
        beta=beta,
        max_length=128,
        **THEIRS,
    )
    rows = [{"prompt": e.prompt, "chosen": e.completion, "rejected": e.rejected} for e in PAIRS]
    data = datasets.Dataset.from_list(rows)
    trainer = trl.DPOTrainer(model=model, args=options, train_dataset=data, processing_class=tiny.tiny_tokenizer())
    trainer.train()
    theirs = [line["loss"] for line in trainer.state.log_history if "loss" in line]
    assert ours == pytest.approx(theirs, abs=1e-4)
    assert ours[-1] < ours[0] - 0.01


@pytest.mark.parametrize(("beta", "weights"), [(0.1, (1.0, 1.0)), (0.5, (0.7, 1.6))])
def test_kto(root: Path, tmp_path: Path, beta: float, weights: tuple[float, float]) -> None:
    import datasets

    rows = [
        replace(
            pair,
            completion=pair.completion if number % 3 else str(pair.rejected),
            rejected=None,
            desirable=number % 3 > 0,
        )
        for number, pair in enumerate(PAIRS)
    ]
    job = stages.job_for(
        root,
        tmp_path,
        stage="kto",
        examples=rows,
        steps=STEPS,
        batch_size=len(rows),
        micro_batch_size=3,
        schedule="constant",
        warmup=0.0,
        lr=3e-2,
        beta=beta,
        desirable_weight=weights[0],
        undesirable_weight=weights[1],
    )
    ours = stages.train(job).losses
    base = load_base(job.base)
    torch.manual_seed(job.training.seed)
    model = method_function(job.method)(base, **job.method.hyperparameters)
    model.name_or_path = ""
    options = trl.KTOConfig(
        output_dir=str(tmp_path),
        per_device_train_batch_size=len(rows),
        beta=beta,
        desirable_weight=weights[0],
        undesirable_weight=weights[1],
        max_length=128,
        train_sampling_strategy="sequential",
        **{**THEIRS, "learning_rate": 3e-2},
    )
    data = datasets.Dataset.from_list(
        [{"prompt": e.prompt, "completion": e.completion, "label": e.desirable} for e in rows]
    )
    trainer = trl.KTOTrainer(model=model, args=options, train_dataset=data, processing_class=tiny.tiny_tokenizer())
    trainer.train()
    theirs = [line["loss"] for line in trainer.state.log_history if "loss" in line]
    assert ours == pytest.approx(theirs, abs=1e-4)
    assert max(line["kl"] for line in stages.steps(tmp_path) if "kl" in line) > 0.01, "the reference point counts"
    assert ours[-1] < ours[0] - 0.01


@pytest.mark.parametrize("beta", [0.0, 0.04])
def test_grpo(root: Path, tmp_path: Path, beta: float) -> None:
    import datasets

    begun = load_base(tiny.tiny_base(root / "llama"))
    options = trl.GRPOConfig(
        output_dir=str(tmp_path),
        beta=beta,
        epsilon=CLIP,
        loss_type="grpo",
        num_generations=4,
        per_device_train_batch_size=8,
        **THEIRS,
    )
    trainer = trl.GRPOTrainer(
        model=str(root / "llama"),
        reward_funcs=lambda completions, **_: [0.0 for _ in completions],
        args=options,
        train_dataset=datasets.Dataset.from_list([{"prompt": "a"}] * 8),
        processing_class=tiny.tiny_tokenizer(),
    )
    model = trainer.model
    torch.manual_seed(5)
    for parameter in model.parameters():  # as after some steps of training
        parameter.data.add_(0.01 * torch.randn_like(parameter))
    trainer.current_gradient_accumulation_steps = 1
    prompts = torch.randint(5, 200, (2, 4)).repeat_interleave(4, 0)
    completions = torch.randint(5, 200, (8, 6))
    lengths = torch.tensor([6, 3, 1, 5, 6, 2, 4, 6])
    mask = (torch.arange(6)[None] < lengths[:, None]).long()
    rewards = torch.randn(2, 4)
    labels = torch.cat([torch.full_like(prompts, IGNORED), completions.where(mask > 0, IGNORED)], 1)
    batch = {
        "input_ids": torch.cat([prompts, completions * mask], 1),
        "labels": labels,
        "attention_mask": torch.cat([torch.ones_like(prompts), mask], 1),
    }
    with torch.no_grad():
        reference = token_logprobs(begun, batch)
        old = token_logprobs(model, batch) + 0.3 * torch.randn(8, 6) * mask  # far enough for the clip to act
    ours = grpo_losses(
        token_logprobs(model, batch), old, reference, advantages(rewards).flatten(), answer_mask(labels), beta=beta
    ).mean()
    inputs: dict[str, Any] = {
        "prompt_ids": prompts,
        "prompt_mask": torch.ones_like(prompts),
        "completion_ids": completions * mask,
        "completion_mask": mask,
        "advantages": advantages(rewards).flatten(),
        "old_per_token_logps": old,
        "ref_per_token_logps": reference,
        "num_items_in_batch": mask.sum(),
    }
    theirs = trainer._compute_loss(model, inputs)
    assert float(ours) == pytest.approx(float(theirs), abs=1e-4)
