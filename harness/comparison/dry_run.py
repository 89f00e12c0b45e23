"""The plan of a run, before it starts: in one line, and in full for `--dry-run`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from harness.comparison.state import Session
from harness.comparison.suitability import unsuitable
from harness.config.config import Config
from harness.jobs import EnvironmentJob, TaskRequests
from harness.prepare.prepare import Prepared, prepare
from harness.prepare.training_settings import TINY_LR_SCALE
from harness.report.numbers import counted
from harness.runs.folder import RunFolder
from harness.tokens.encode import load_encoder
from harness.tokens.packs import plan_tree, token_budget, tokens_fed, tokens_needed
from harness.worker.server import Server

Purpose = Literal["compare", "train", "bench"]


def describe(prepared: Prepared, purpose: Purpose = "compare") -> str:
    """Describes in one line what a run will do.

    Example:
        >>> from harness.config.parse import configure
        >>> describe(prepare(configure(["base", "lora"])))
        'train lora on 4 tasks; score 2 variants × 7 tasks; time each'
    """
    by_data: dict[str, list[str]] = {}
    for training in prepared.trainings:
        tasks = training.data.tasks
        name = f"{len(tasks)} tasks" if len(tasks) > 2 else training.data.name
        by_data.setdefault(name, []).append(training.entry.name)
    steps = [f"train {', '.join(methods)} on {data}" for data, methods in by_data.items()]
    variants = counted(len(prepared.variants), "variant")
    if purpose == "compare":
        steps.append(f"score {variants} × {counted(len(prepared.tasks), 'task')}")
    if purpose == "bench" or (purpose == "compare" and not prepared.config.no_timing):
        steps.append("time each" if steps else f"time {variants}")
    return "; ".join(steps)


class Plan(str):
    """The text of a plan; `unsuitable` has the variants that will fail, with the reasons."""

    unsuitable: Mapping[str, str] = {}


def plan(config: Config) -> Plan:
    """Describes in full what `run` would do: resolves, renders and counts everything, but loads no weights.

    Raises:
        UserError: The configuration, a file or a plugin has a mistake that the user can fix.
    """
    prepared = prepare(config)
    encoder = load_encoder(prepared.model, trust_remote_code=config.trust_remote_code)
    lines = [f"model  {prepared.model.name}  {prepared.model.digest[:12]}"]
    for training in prepared.trainings:
        tiny = config.model == "tiny" and training.given.lr is None
        scaled = f" ({TINY_LR_SCALE:g} × the method's: the embedded model needs it)" if tiny else ""
        without = "" if training.fold is None else f" without fold {training.fold + 1} of {config.folds}"
        lines.append(
            f"train  {training.id.rpartition('#')[0]}  {training.length} of batch {training.settings.batch_size}, lr {training.settings.lr:g}{scaled},"
            f" {len(training.data.examples)} rows of {training.data.name}{without}, seed {training.settings.seed}"
        )
    for task in prepared.tasks:
        items = prepared.variants[0].items[task.name]
        encoded = encoder.encode(TaskRequests(task.name, [item.request for item in items]))
        cut = sum(item.truncated for item in encoded)
        packs = plan_tree(encoded, token_budget(config.device), config.batch_size)
        lines.append(
            f"score  {task.name}  {len(items)} samples ({items[0].request.mode}),"
            f" {tokens_needed(encoded):,} tokens, {tokens_fed(packs):,} of them computed (shared prefixes once)"
            + (f"; {counted(cut, 'prompt')} cut on the left to fit the context" if cut else "")
        )
    problems = _unsuitable(prepared) if prepared.trainings else {}
    lines += [f"row    {variant.spec.name}  {variant.spec.canonical}" for variant in prepared.variants]
    lines += [f"fails  {name}  {problem}" for name, problem in problems.items()]
    text = Plan("\n".join(lines))
    text.unsuitable = problems
    return text


def _unsuitable(prepared: Prepared) -> dict[str, str]:
    """The variants whose training run cannot work, with the reasons."""
    config = prepared.config
    with Server() as server:
        environment = server.run(EnvironmentJob(config.device, config.dtype))
        session = Session(prepared, RunFolder(config.output_dir, lock=-1), "", environment)
        problems = unsuitable(session, server.run, prepared.trainings)
    return {
        variant.spec.name: problems[variant.training.id].sentence
        for variant in prepared.variants
        if variant.training and variant.training.id in problems
    }
