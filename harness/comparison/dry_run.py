"""The plan of a run, before it starts: in one line, and in full for `--dry-run`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal

from harness.comparison.state import Session
from harness.comparison.suitability import unsuitable
from harness.config.config import Config
from harness.jobs import EnvironmentJob, TaskRequests
from harness.prepare.prepare import Prepared, prepare
from harness.prepare.training_settings import TINY_LR_SCALE
from harness.report.numbers import counted
from harness.runs.folder import RunFolder
from harness.serving.model import ServedModel
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
    timed = not prepared.config.no_timing and not all(variant.served for variant in prepared.variants)
    if purpose == "bench" or (purpose == "compare" and timed):
        steps.append("time each" if steps else f"time {variants}")
    return "; ".join(steps)


@dataclass(frozen=True)
class PlannedTraining:
    """A training run that would be made or reused."""

    method: str
    length: str
    batch_size: int
    lr: float
    is_lr_scaled: bool
    """Whether the embedded model's factor is in the learning rate."""
    rows: int
    data: str
    seed: int

    def __str__(self) -> str:
        scaled = f" ({TINY_LR_SCALE:g} × the method's: the embedded model needs it)" if self.is_lr_scaled else ""
        return (
            f"{self.method}  {self.length} of batch {self.batch_size}, lr {self.lr:g}{scaled},"
            f" {self.rows} rows of {self.data}, seed {self.seed}"
        )


@dataclass(frozen=True)
class PlannedTask:
    """A task on which every variant would be scored; tokens are those of the first variant's prompts."""

    name: str
    samples: int
    mode: str
    tokens: int | None
    """None: a served model's own tokenizer counts them."""
    tokens_computed: int | None
    cut_prompts: int

    def __str__(self) -> str:
        if self.tokens is None:
            return f"{self.name}  {self.samples} samples ({self.mode}), tokens as the server counts them"
        cut = f"; {counted(self.cut_prompts, 'prompt')} cut on the left to fit the context" if self.cut_prompts else ""
        return (
            f"{self.name}  {self.samples} samples ({self.mode}), {self.tokens:,} tokens,"
            f" {self.tokens_computed:,} of them computed (shared prefixes once){cut}"
        )


@dataclass(frozen=True)
class Plan:
    """Everything that a run would do; as text, a line for each part."""

    model: str
    digest: str
    train: tuple[PlannedTraining, ...]
    score: tuple[PlannedTask, ...]
    rows: Mapping[str, str]
    """Each variant's name and canonical form."""
    fails: Mapping[str, str]
    """The variants that cannot work, with the reasons."""

    def __str__(self) -> str:
        lines = [f"model  {self.model}  {self.digest[:12]}"]
        lines += [f"train  {each}" for each in self.train]
        lines += [f"score  {each}" for each in self.score]
        lines += [f"row    {name}  {canonical}" for name, canonical in self.rows.items()]
        lines += [f"fails  {name}  {problem}" for name, problem in self.fails.items()]
        return "\n".join(lines)

    def to_dict(self) -> dict[str, Any]:
        """The plan as JSON has it."""
        return asdict(self)


def plan(config: Config) -> Plan:
    """Plans in full what `run` would do: resolves, renders and counts everything, but loads no weights.

    Raises:
        UserError: The configuration, a file or a plugin has a mistake that the user can fix.
    """
    prepared = prepare(config)
    model = prepared.model
    known = not isinstance(model, ServedModel) or model.tokenizer is not None
    encoder = load_encoder(model, trust_remote_code=config.trust_remote_code) if known else None
    trainings = []
    for training in prepared.trainings:
        without = "" if training.fold is None else f" without fold {training.fold + 1} of {config.folds}"
        trainings.append(
            PlannedTraining(
                method=training.id.rpartition("#")[0],
                length=training.length,
                batch_size=training.settings.batch_size,
                lr=training.settings.lr,
                is_lr_scaled=config.model == "tiny" and training.given.lr is None,
                rows=len(training.data.examples),
                data=training.data.name + without,
                seed=training.settings.seed,
            )
        )
    tasks = []
    for task in prepared.tasks:
        items = prepared.variants[0].items[task.name]
        encoded = encoder.encode(TaskRequests(task.name, [item.request for item in items])) if encoder else []
        packs = plan_tree(encoded, token_budget(config.device), config.batch_size) if encoder else []
        tasks.append(
            PlannedTask(
                name=task.name,
                samples=len(items),
                mode=items[0].request.mode,
                tokens=tokens_needed(encoded) if encoder else None,
                tokens_computed=tokens_fed(packs) if encoder else None,
                cut_prompts=sum(item.truncated for item in encoded),
            )
        )
    return Plan(
        model=prepared.model.name,
        digest=prepared.model.digest,
        train=tuple(trainings),
        score=tuple(tasks),
        rows={variant.spec.name: variant.spec.canonical for variant in prepared.variants},
        fails=_unsuitable(prepared) if prepared.trainings else {},
    )


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
