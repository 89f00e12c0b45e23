"""Jobs and recipes for children: how each variant's model is trained, merged, loaded and timed, with the keys of the results."""

from __future__ import annotations

from pathlib import Path

from harness.comparison.state import Session, State
from harness.data.model_files import Snapshot
from harness.jobs import QUANT_OF_BITS, Base, Bits, MergeJob, Method, Quant, Recipe, RewardFunction, TrainJob
from harness.prepare.training_settings import on_machine
from harness.prepare.trainings import Training
from harness.registry.find import source_digest
from harness.registry.load import recorded_method
from harness.runs.folder import CostRecord
from harness.storage import key


def train_job(session: Session, training: Training) -> TrainJob:
    """The job of a training run, with its key."""
    base = _base(session, _quantization(training), _start_checkpoint(session, training))
    settings = on_machine(training.settings, session.environment)
    start, reward = _start_adapter(session, training), _reward(session, training)
    packages = session.environment["packages"]
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
        train_key=key(
            model=session.prepared.model.digest,
            method=training.entry.name,
            method_source=source_digest(training.entry),
            hyperparameters=training.hyperparameters,
            settings=settings.of_the_loop(),
            data=training.data.digest,
            validation=training.validation.digest if training.validation else None,
            monitor=training.monitor and [training.monitor.digest, [i.request.sha256 for i in training.monitor.items]],
            given=[_given_digest(session, given) for given in (training.start, training.reward)],
            dtype=base.dtype,
            device=base.device.split(":")[0],
            packages={name: packages[name] for name in ("torch", "transformers", "peft", "bitsandbytes")},
        ),
    )


def recipe(session: Session, state: State) -> Recipe:
    """The steps to a variant's model for scoring and timing; `harness.models.load` carries them out."""
    variant, spec = state.variant, state.variant.spec
    if spec.kind == "base":
        return Recipe(_base(session, QUANT_OF_BITS[spec.bits]))
    if variant.adapter is not None and not variant.adapter.is_adapter:
        return Recipe(_base(session, QUANT_OF_BITS[spec.bits], variant.adapter.folder))
    if variant.adapter is not None:
        return _with_adapter(
            session, spec.bits, None, variant.adapter.folder, recorded_method(variant.adapter.folder), spec.merged
        )
    assert variant.training is not None and state.artifact is not None
    return _trained_recipe(session, variant.training, state.artifact, spec.bits, spec.merged)


def merge_job(session: Session, state: State) -> MergeJob:
    """The job that merges a trained variant into a checkpoint; its transforms have no influence."""
    training = state.variant.training
    assert training is not None and state.artifact is not None
    return MergeJob(_trained_recipe(session, training, state.artifact, None, True), session.folder.merged(training.id))


def cost_record(session: Session, state: State, in_full: bool) -> CostRecord:
    """The cached timing of a variant; its key contains everything that influences the time.

    Args:
        session: The run.
        state: The variant.
        in_full: Whether all repeats are asked for, so that a timing with a budget does not serve.
    """
    made, environment = recipe(session, state), session.environment
    artifact = Snapshot(state.name, state.artifact).weights_digest if state.artifact else None
    names = ("device_name", "driver", "threads", "packages")
    cost_key = key(
        model=session.prepared.model.digest,
        base=[made.base.folder.name, made.base.device, made.base.dtype, made.base.quant],
        artifact=artifact or (state.variant.adapter.digest if state.variant.adapter else None),
        transforms=state.variant.spec.transforms,
        machine={name: environment[name] for name in names},
        in_full=in_full,
    )
    return session.folder.costs(session.stored_as(state), cost_key)


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
        return _with_adapter(session, None, None, reward.folder, recorded_method(reward.folder), False)
    return reward


def _given_digest(session: Session, given: Training | Snapshot | RewardFunction | None) -> str | None:
    """Digest of the starting point or the judge of a training run."""
    if isinstance(given, Training):
        return Snapshot(given.id, _artifact_of(session, given)).weights_digest
    return given.digest if given else None


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
