"""Checks of a prepared run: rows that fit their stage, judges that judge, monitors that are not scored, tasks that can be scored."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.util import find_spec
from typing import TYPE_CHECKING

from harness.api import Sample
from harness.data.model_files import Snapshot
from harness.deploy.tools import CALIBRATED, refuse_missing
from harness.errors import UserError
from harness.jobs import HEAD_FILE, Item
from harness.metrics.oracle import find_blindness
from harness.metrics.text_match import choice_letter, lettered_choices
from harness.prepare.tasks import ScoredTask
from harness.prepare.trainings import Training
from harness.settings import STAGES
from harness.storage import read_json

if TYPE_CHECKING:
    from harness.prepare.prepare import Prepared, PreparedVariant


def check(prepared: Prepared, *, scores: bool) -> None:
    """Refuses training runs that are impossible, and tasks that a variant cannot be scored on.

    Args:
        prepared: The run.
        scores: Whether the variants will be scored.

    Raises:
        UserError: The first thing that is wrong.
    """
    if prepared.config.tune_lr and any(training.tunable for training in prepared.trainings):
        require_optuna()
    for variant in prepared.variants:
        _check_quantized(prepared, variant)
        _check_form(prepared, variant)
        if variant.training is not None:
            _check_rows(variant.spec.name, variant.training)
            _check_rewards(variant.spec.name, variant.training)
            _check_start(variant.spec.name, variant.training)
            if scores:
                _check_monitor(prepared, variant.spec.name, variant.training)
        if scores and variant.scored and _is_reward_model(prepared, variant):
            _check_tasks(variant)
    if scores:
        for task in prepared.tasks:
            items = prepared.variants[0].items[task.name]
            _check_letters(task, items)
            _check_headline(task, [item.sample for item in items])


def train_only(prepared: Prepared) -> set[str]:
    """Names of the reward models that another variant needs and that the tasks cannot score: they are trained, not scored.

    In `sft -> rm -> rl`, tasks of generated answers score `sft` and `rl`; `rm` judges answers and generates none.
    """
    needed = {
        other.id
        for variant in prepared.variants
        if variant.training
        for other in (variant.training.reward, variant.training.start)
        if isinstance(other, Training)
    }
    return {
        variant.spec.name
        for variant in prepared.variants
        if variant.training
        and variant.training.id in needed
        and _is_reward_model(prepared, variant)
        and _unscorable(variant)
    }


def require_optuna() -> None:
    """Checks that optuna is installed.

    Raises:
        UserError: It is not.
    """
    if find_spec("optuna") is None:
        raise UserError("`--tune-lr` needs optuna, which is not installed", hint="pip install 'finetune-harness[tune]'")


def _check_letters(task: ScoredTask, items: Sequence[Item]) -> None:
    """Every choice needs a letter."""
    if not any(metric is choice_letter for metric in task.metrics):
        return
    for item in items:
        try:
            lettered_choices(item.sample)
        except UserError as error:
            raise UserError(f"task `{task.name}`, sample {item.request.id}: {error.message}", error.hint) from error


def _check_headline(task: ScoredTask, samples: Sequence[Sample]) -> None:
    """The headline metric must give right answers a better score than a constant wrong answer."""
    if task.task.executes_code:
        return
    metric = task.metrics[0]
    found = find_blindness(metric, samples)
    if found is None:
        return
    constant = (
        "a guess" if found.answer is None else f"the answer {found.answer!r}" if found.answer else "an empty answer"
    )
    hint = f"`harness check {task.name}` shows the samples; a metric that compares with no target needs an empty target"
    if metric.name == "bleu":
        hint = "BLEU needs targets of four words or more; for scripts without spaces use `bleu_zh` or `bleu_char`"
    raise UserError(
        f"task `{task.name}`: its headline `{metric.name}` gives the right answers {found.oracle + 0.0:.2f}, which is not"
        f" better than {found.constant + 0.0:.2f} for {constant}",
        hint=hint,
    )


def _check_quantized(prepared: Prepared, variant: PreparedVariant) -> None:
    """A checkpoint that is quantized on disk takes an adapter, and nothing that needs its weights as numbers."""
    training, given, spec = variant.training, variant.adapter, variant.spec
    start = training.start if training else None
    base = next((each for each in (start, given) if isinstance(each, Snapshot) and not each.is_adapter), prepared.model)
    if base.quantization is None:
        return
    where = f"variant `{spec.name}`: the weights of `{base.name}` are quantized already ({base.quantization})"
    if spec.merged:
        raise UserError(f"{where}, and an adapter cannot be merged into them", hint="leave out `@merged`")
    if spec.form:
        raise UserError(f"{where}, and cannot be converted again", hint=f"leave out `@{spec.form.text}`")
    if spec.bits:
        raise UserError(f"{where}, and cannot be quantized again", hint=f"leave out `@{spec.bits}bit`")
    if training and training.entry.quantization(training.hyperparameters):
        raise UserError(
            f"{where}, and cannot be quantized again",
            hint="`lora` trains an adapter on them as they are, which is what `qlora` does",
        )
    if training and training.entry.options["saves"] == "checkpoint":
        raise UserError(
            f"{where}, and `{training.entry.name}` cannot train packed weights", hint="train an adapter, such as `lora`"
        )


def _check_form(prepared: Prepared, variant: PreparedVariant) -> None:
    """A deployed form needs its tools, the weights of a language model, and perhaps rows to round them on."""
    form, where = variant.spec.form, f"variant `{variant.spec.name}`"
    if form is None:
        return
    if _is_reward_model(prepared, variant):
        raise UserError(
            f"{where} is a reward model, whose reward head no deployed form has", hint=f"leave out `@{form.text}`"
        )
    refuse_missing(where, form, prepared.config.device)
    if form.tool in CALIBRATED and not prepared.trainings:
        raise UserError(
            f"{where}: `@{form.text}` rounds weights on training rows, and no variant of this run is trained",
            hint="add a trained variant, such as `lora`: its rows are used",
        )


def _check_rows(name: str, training: Training) -> None:
    """Stages that learn from pairs need two different answers in every row, and KTO a mark in every row."""
    kind = STAGES[training.given.stage].rows
    if kind not in ("pair", "marked"):
        return
    examples = [*training.data.examples, *(training.validation.examples if training.validation else ())]
    if kind == "marked":
        if any(example.desirable is None for example in examples):
            raise UserError(
                f"variant `{name}`: `stage={training.given.stage}` learns from answers that are marked good or bad, but rows"
                f" of `{training.data.name}` are not marked",
                hint="name a file or dataset with a column label, or with the columns chosen and rejected: `data=FILE`",
            )
        if training.settings.batch_size < 2 or len(training.data.examples) < 2:
            raise UserError(
                f"variant `{name}`: KTO compares each answer with the answer of another row of the batch, and a batch here"
                " has one row",
                hint="use at least two rows, and `batch_size=2` or more; 16 is usual",
            )
        return
    if any(example.rejected is None for example in examples):
        raise UserError(
            f"variant `{name}`: `stage={training.given.stage}` learns from a better and a worse answer,"
            f" but rows of `{training.data.name}` have one answer",
            hint="name a file or dataset with the columns chosen and rejected: `data=FILE`",
        )
    if all(example.completion == example.rejected for example in examples):
        raise UserError(
            f"variant `{name}`: the two answers of every row of `{training.data.name}` are the same",
            hint="check whether the same column is mapped to chosen and to rejected",
        )


def _check_rewards(name: str, training: Training) -> None:
    stage, reward = training.given.stage, training.reward
    if stage == "grpo" and training.given.generations == 1:
        raise UserError(
            f"variant `{name}`: GRPO compares several answers to a prompt, and `generations=1` gives one",
            hint="use at least 2; 8 is usual",
        )
    if stage == "reward" and training.monitor is not None:
        raise UserError(
            f"variant `{name}`: a reward model cannot be monitored by the task `{training.given.monitor}`",
            hint="use `monitor=loss`, with rows held out by `validation`",
        )
    if (isinstance(reward, Training) and reward.given.stage != "reward") or (
        isinstance(reward, Snapshot) and not (reward.folder / HEAD_FILE).is_file()
    ):
        raise UserError(
            f"variant `{name}`: `reward={training.given.reward}` is not a reward model",
            hint="name a variant of `stage=reward`, its folder, or a function: `reward=FILE.py@function`",
        )


def _check_start(name: str, training: Training) -> None:
    """A delta can only be trained further by the method that made it."""
    start = training.start
    if isinstance(start, Snapshot) and (made_by := _method_of(start)) not in (None, training.entry.name):
        raise UserError(
            f"variant `{name}`: `{training.entry.name}` cannot start from `{start.name}`, which `{made_by}` made",
            hint=f"start from an artifact of `{training.entry.name}`, or from a whole checkpoint",
        )


def _check_monitor(prepared: Prepared, name: str, training: Training) -> None:
    """Weights that were chosen by their result on samples would get too high a score on the same samples."""
    monitored = training.monitored
    if monitored is None:
        return
    for task in prepared.tasks:
        apart = monitored.groups and task.spec.groups and not {*monitored.groups} & {*task.spec.groups}
        if task.spec.source == monitored.source and not apart:
            raise UserError(
                f"variant `{name}`: `monitor={monitored.text}` would choose weights by the samples that score them",
                hint="monitor a task that is not scored, or use `monitor=loss` with `validation=0.1`",
            )


def _check_tasks(variant: PreparedVariant) -> None:
    if unscorable := _unscorable(variant):
        raise UserError(
            f"variant `{variant.spec.name}` is a reward model, which generates no text: task `{unscorable}` cannot score it",
            hint="score it on tasks of choices (`--tasks preference`), train it without scoring (`harness train`),"
            f" or let another variant use it: `reward={variant.spec.name}`",
        )


def _unscorable(variant: PreparedVariant) -> str | None:
    """The first task that cannot score a reward model; None: all tasks are of choices."""
    return next(
        (task for task, items in variant.items.items() if any(item.request.mode != "choose" for item in items)), None
    )


def _is_reward_model(prepared: Prepared, variant: PreparedVariant) -> bool:
    if variant.training is not None:
        return variant.training.given.stage == "reward"
    given = variant.adapter or prepared.model
    return (given.folder / HEAD_FILE).is_file()


def _method_of(artifact: Snapshot) -> str | None:
    """Name of the method that made a delta; None for PEFT adapters and checkpoints, which do not record it."""
    try:
        record = read_json(artifact.folder / "method.json")
        return str(record["method"])
    except (OSError, ValueError, KeyError, TypeError):
        return None
