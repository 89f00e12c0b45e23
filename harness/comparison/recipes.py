"""Jobs and recipes for children: how each variant's model is trained, merged, loaded and timed, with the keys of the results."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from harness.comparison import keys
from harness.comparison.state import Session, State
from harness.data.model_files import Snapshot
from harness.jobs import (
    QUANT_OF_BITS,
    Base,
    BenchJob,
    Bits,
    MergeJob,
    Method,
    Quant,
    Recipe,
    RewardFunction,
    TrainJob,
    Writer,
)
from harness.prepare.tasks import ScoredTask
from harness.prepare.training_settings import on_machine
from harness.prepare.trainings import Training
from harness.registry.recorded import recorded_method
from harness.runs.folder import CostRecord
from harness.serving.model import ServedModel

RATIO_PRECISION = 0.05
"""Half the width of a latency ratio's interval at which its repeats end."""


def train_job(session: Session, training: Training) -> TrainJob:
    """The job of a training run, with its key."""
    base = _base(session, _quantization(training), _start_checkpoint(session, training))
    settings = on_machine(training.settings, session.environment)
    start, reward = _start_adapter(session, training), _reward(session, training)
    return TrainJob(
        base=base,
        method=_method(training),
        training=settings,
        examples=training.data.examples,
        saves=training.saves,
        output=session.folder.artifact(training.id, training.saves),
        log=session.folder.train_log(training.id),
        state=session.folder.train_state(training.id),
        validation=training.validation.examples if training.validation else (),
        monitor=training.monitor,
        start=start,
        reward=reward,
        report_to=session.config.report_to,
        train_key=keys.train_key(session, training, settings),
    )


def recipe(session: Session, state: State) -> Recipe:
    """The steps to a variant's model for scoring and timing; `harness.models.load` carries them out."""
    form = state.variant.spec.form
    if form is None:
        return trained_recipe(session, state)
    assert state.deployed is not None, "deploy first"
    return Recipe(replace(_base(session, None, state.deployed.weights), reader=form.reader))


def trained_recipe(session: Session, state: State) -> Recipe:
    """The steps to a variant's model before its weights are converted to a deployed form, adapters merged."""
    variant, spec = state.variant, state.variant.spec
    if variant.served is not None:
        return Recipe(served_base(session, variant.served))
    if spec.kind == "base":
        return Recipe(_base(session, QUANT_OF_BITS[spec.bits]))
    if variant.adapter is not None and not variant.adapter.is_adapter:
        return Recipe(_base(session, QUANT_OF_BITS[spec.bits], variant.adapter.folder))
    if variant.adapter is not None:
        method = recorded_method(variant.adapter.folder, session.config.method_files)
        merged = spec.merged or spec.form is not None
        return _with_adapter(session, spec.bits, None, variant.adapter.folder, method, merged)
    assert variant.training is not None and state.artifact is not None
    return _trained_recipe(session, variant.training, state.artifact, spec.bits, spec.merged)


def served_base(session: Session, model: ServedModel) -> Base:
    """The base of a variant that is scored on a server; its folder is that of the tokenizer."""
    return replace(_base(session, None, model.folder), served=model.served)


def merge_job(session: Session, state: State) -> MergeJob:
    """The job that merges a trained variant into a checkpoint; its transforms have no influence."""
    training = state.variant.training
    assert training is not None and state.artifact is not None
    return MergeJob(_trained_recipe(session, training, state.artifact, None, True), session.folder.merged(training.id))


def sample_keys(session: Session, state: State, task: ScoredTask, writer: Writer = "slots") -> list[str]:
    """The key of each sample of a variant on a task; made once, however many packs are scored."""
    place = (state.name, recipe(session, state), task.name, writer)
    if place not in session.sample_keys:
        vllm = session.vllm if writer == "vllm" else None
        session.sample_keys[place] = keys.sample_keys(session, place[1], state.variant.items[task.name], vllm)
    return session.sample_keys[place]


def bench_job(session: Session, state: State, budget_seconds: float | None = None, **lengths: Any) -> BenchJob:
    """The job that times a variant, alternately with the bare base if they share weights, and in `harness bench` if both fit.

    Args:
        session: The run.
        state: The variant.
        budget_seconds: Seconds for it; None: all repeats are made.
        **lengths: Fields of the job that `harness bench` sets: `grid`, `new_tokens`.
    """
    made, bare = recipe(session, state), _base(session)
    on_bare_base = made.base.quant is None and made.method is None and not made.merged
    with_base = made.adapter is not None and on_bare_base
    job = BenchJob(made, with_base, seed=session.config.seed, **lengths)
    if job.grid and not with_base and made != Recipe(bare):
        job = replace(job, beside=bare)
    return job if budget_seconds is None else replace(job, budget_seconds=budget_seconds, precision=RATIO_PRECISION)


def cost_record(session: Session, state: State, job: BenchJob) -> CostRecord:
    """The saved timing of a variant."""
    return session.folder.costs(session.stored_as(state), keys.cost_key(session, job.recipe, job))


def _artifact_of(session: Session, training: Training) -> Path:
    return session.folder.artifact(training.id, training.saves)


def _start_checkpoint(session: Session, training: Training) -> Path | None:
    """The folder of the whole checkpoint that a training run starts from, which is its base."""
    start = training.start
    if isinstance(start, Training):
        if start.saves == "checkpoint":
            return _artifact_of(session, start)
        return _start_checkpoint(session, start)  # an adapter keeps the base of the adapter that it starts from
    return start.folder if start is not None and not start.is_adapter else None


def _start_adapter(session: Session, training: Training) -> Path | None:
    """The folder of the adapter that a training run starts from."""
    start = training.start
    if isinstance(start, Training):
        return None if start.saves == "checkpoint" else _artifact_of(session, start)
    return start.folder if start is not None and start.is_adapter else None


def _reward(session: Session, training: Training) -> Recipe | RewardFunction | None:
    reward = training.reward
    if isinstance(reward, Training):
        return _trained_recipe(session, reward, _artifact_of(session, reward), None, False)
    if isinstance(reward, Snapshot):
        if not reward.is_adapter:
            return Recipe(_base(session, None, reward.folder))
        method = recorded_method(reward.folder, session.config.method_files)
        return _with_adapter(session, None, None, reward.folder, method, False)
    return reward


def _trained_recipe(session: Session, training: Training, artifact: Path, bits: Bits, merged: bool) -> Recipe:
    if training.saves == "checkpoint":
        return Recipe(_base(session, QUANT_OF_BITS[bits], artifact))
    saved_by_peft = (artifact / "adapter_config.json").is_file()
    method = None if saved_by_peft else _method(training)
    return _with_adapter(
        session, bits, _quantization(training), artifact, method, merged, _start_checkpoint(session, training)
    )


def _with_adapter(
    session: Session,
    bits: Bits,
    load: Quant | None,
    adapter: Path,
    method: Method | None,
    merged: bool,
    checkpoint: Path | None = None,
) -> Recipe:
    if merged:  # merged at the precision it was trained at, then quantized
        return Recipe(_base(session, load, checkpoint), adapter, True, bits, method)
    return Recipe(_base(session, QUANT_OF_BITS[bits] or load, checkpoint), adapter, method=method)


def _base(session: Session, quant: Quant | None = None, folder: Path | None = None) -> Base:
    return Base(
        folder or session.prepared.model.folder,
        session.environment["device"],
        session.environment["dtype"],
        quant,
        session.config.trust_remote_code,
    )


def _quantization(training: Training) -> Quant | None:
    found: Quant | None = training.entry.quantization(training.hyperparameters)
    return found


def _method(training: Training) -> Method:
    entry = training.entry
    return Method(entry.name, entry.path, entry.module, training.hyperparameters)
