"""What a run will do, said before it starts: one line of the plan, and the whole of `--dry-run`."""

from __future__ import annotations

from typing import Literal

from harness.comparison.state import token_budget
from harness.config.config import Config
from harness.jobs import (
    TaskRequests,
)
from harness.prepare.checks import check
from harness.prepare.prepare import Prepared, prepare
from harness.report.numbers import counted
from harness.tokens.encode import load_encoder
from harness.tokens.packs import plan_tree, tokens_fed, tokens_needed

Purpose = Literal["compare", "train", "bench"]


def describe(prepared: Prepared, purpose: Purpose = "compare") -> str:
    """What a run will do, in a line.

    Example:
        >>> describe(prepare(configure(["base", "lora"])))
        'train lora on 6 tasks; score 2 variants × 7 tasks; time each'
    """
    by_data: dict[str, list[str]] = {}
    for training in prepared.trainings:
        tasks = training.data.tasks
        name = f"{len(tasks)} tasks" if len(tasks) > 2 else training.data.name
        by_data.setdefault(name, []).append(training.entry.name)
    steps = [f"train {', '.join(methods)} on {data}" for data, methods in by_data.items()]
    variants = counted(len(prepared.rows), "variant")
    if purpose == "compare":
        steps.append(f"score {variants} × {counted(len(prepared.tasks), 'task')}")
    if purpose != "train":
        steps.append("time each" if steps else f"time {variants}")
    return "; ".join(steps)


def plan(config: Config) -> str:
    """What `run` would do, for `--dry-run`: everything is resolved, rendered and counted, no weights are loaded.

    Raises:
        UserError: Something the user can mend.
    """
    prepared = prepare(config)
    check(prepared, scores=True)
    encoder = load_encoder(prepared.model, trust_remote_code=config.trust_remote_code)
    lines = [f"model  {prepared.model.name}  {prepared.model.digest[:12]}"]
    for training in prepared.trainings:
        length = f"{training.steps} steps" if training.steps is not None else f"{training.epochs:g} epochs"
        without = "" if training.fold is None else f" without part {training.fold + 1} of {config.folds}"
        lines.append(
            f"train  {training.id.rpartition('#')[0]}  {length} of batch {training.batch_size}, lr {training.lr:g},"
            f" {len(training.data.examples)} rows of {training.data.name}{without}, seed {training.seed}"
        )
    for task in prepared.tasks:
        items = prepared.rows[0].items[task.name]
        encoded = encoder.encode(TaskRequests(task.name, [item.request for item in items]))
        packs = plan_tree(encoded, token_budget(config.device), config.batch_size)
        lines.append(
            f"score  {task.name}  {len(items)} samples ({items[0].request.mode}),"
            f" {tokens_needed(encoded):,} tokens of which {tokens_fed(packs):,} are to be fed"
        )
    lines += [f"row    {row.spec.name}  {row.spec.canonical}" for row in prepared.rows]
    return "\n".join(lines)
