"""A training run whose rows are dealt to processes that work together.

Every process learns from its own share with the same number of labels, so the mean of their gradients, which DDP takes, is
the gradient of all rows in one process.
"""

import os
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import torch
from accelerate import Accelerator
from architectures import random_model
from torch.nn import functional
from transformers import TrainingArguments

from harness.finetune.training.figures import Figures
from harness.finetune.training.loop import Loop
from harness.finetune.training.optimizers import make_optimizer
from harness.settings import TrainingSettings, optimizer_name

STEPS, ROWS, LENGTH = 4, 8, 12


class Share:
    """A stage on every `world`-th row."""

    updates = 1

    def __init__(self, rank: int, world: int) -> None:
        ids = torch.randint(3, 40, (ROWS, LENGTH), generator=torch.Generator().manual_seed(0))
        self.rows = [{"input_ids": row, "length": LENGTH} for row in ids[rank::world]]
        self.figures = Figures()

    def begin(self, step: int) -> None:
        pass

    def before_batch(self, model: Any, rows: Any) -> None:
        pass

    def collate(self, rows: Any) -> dict[str, Any]:
        return {"input_ids": torch.stack([row["input_ids"] for row in rows]), "tokens": LENGTH * len(rows)}

    def items(self, batch: Any) -> int:
        return len(batch["input_ids"]) * (LENGTH - 1)

    def loss(self, model: Any, batch: Any, items: int) -> torch.Tensor:
        logits, ids = model(input_ids=batch["input_ids"]).logits[:, :-1], batch["input_ids"][:, 1:]
        return functional.cross_entropy(logits.flatten(0, 1), ids.flatten(), reduction="sum") / items


def train(folder: Path, world: int) -> tuple[list[float], dict[str, torch.Tensor]]:
    """Gradient norms and weights; by plain descent, which hides no factor of the gradient as AdamW does."""
    settings = TrainingSettings(
        lr=0.1,
        steps=STEPS,
        epochs=None,
        batch_size=ROWS,
        micro_batch_size=2,
        max_length=LENGTH,
        seed=0,
        optimizer="sgd",
        schedule="constant",
        warmup=0,
    )
    arguments = TrainingArguments(str(folder), optim=optimizer_name("sgd"), learning_rate=0.1, use_cpu=True)
    accelerator = Accelerator(cpu=True)
    assert accelerator.num_processes == world, f"{accelerator.num_processes} processes work together"
    model, recorder = random_model("llama").requires_grad_(True), Mock()
    loop = Loop(
        Share(accelerator.process_index, world),
        model,
        settings,
        STEPS,
        accelerator=accelerator,
        optimizer=make_optimizer(model, settings, arguments),
        recorder=recorder,
        state=folder,
        train_key="",
    )
    loop.run()
    norms = [call.args[2]["grad_norm"] for call in recorder.step.call_args_list]
    return norms, {name: parameter.detach() for name, parameter in model.named_parameters()}


def train_two(folder: Path) -> tuple[list[float], dict[str, torch.Tensor]]:
    """The same by two processes; forked ones import nothing again, but autograd on a GPU does not survive a fork."""
    method = "spawn" if torch.cuda.is_available() else "fork"
    torch.multiprocessing.start_processes(_process, (folder,), nprocs=2, start_method=method)
    norms, weights = torch.load(folder / "result.pt", weights_only=True)
    return norms, weights


def _process(rank: int, folder: Path) -> None:
    os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1"}
    store = torch.distributed.FileStore(str(folder / "store"), 2)
    torch.distributed.init_process_group("gloo", store=store, rank=rank, world_size=2)
    made = train(folder, world=2)
    if rank == 0:
        torch.save(made, folder / "result.pt")
    torch.distributed.destroy_process_group()
