"""Keys of results: digests of everything that decides a value, so that a result is reused only where it would come out again.

- The train key decides the artifact of a training run, which is reused across run folders.
- The sample key decides the model's output for one sample. Metrics and `--limit` are not part of it.
- The cost key decides a timing. The machine is part of it.

Paths, names of variants, file times and the order of variants decide nothing, and are part of no key.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from harness.comparison.state import Session
from harness.data.digests import text_sha256
from harness.data.model_files import Snapshot
from harness.deploy.tools import form_versions, reader_version
from harness.jobs import PACKAGES, REVISIONS, BenchJob, DeployedForm, Item, Method, Recipe, RewardFunction, Vllm
from harness.prepare.trainings import Training, content_digest
from harness.registry.find import source_digest
from harness.registry.sources import sources_sha256
from harness.settings import STAGES, TrainingSettings
from harness.storage import key


def train_key(session: Session, training: Training, settings: TrainingSettings) -> str:
    """The key of a training run: everything that decides its artifact.

    Args:
        session: The run.
        training: The training run.
        settings: Its settings on this machine.
    """
    monitor, prepared = training.monitor, session.prepared
    generates = STAGES[training.given.stage].rows == "prompt"
    revisions = {
        "trainer": REVISIONS["trainer"],
        "engine": REVISIONS["engine"] if monitor or generates else None,
        "metrics": REVISIONS["metrics"] if monitor else None,
    }
    return key(
        model=prepared.model.digest,
        trust_remote_code=session.config.trust_remote_code,
        method=training.entry.name,
        method_source=source_digest(training.entry),
        hyperparameters=training.hyperparameters,
        settings=settings.of_the_loop(),
        data=training.data.digest,
        validation=training.validation.digest if training.validation else None,
        monitor=monitor and [monitor.digest, [item.request.sha256 for item in monitor.items]],
        given=[_given_digest(session, given) for given in (training.start, training.reward)],
        dtype=session.environment["dtype"],
        device=_device_kind(session),
        packages=_packages(session),
        revisions=revisions,
    )


def sample_keys(session: Session, recipe: Recipe, items: Sequence[Item], writer: Vllm | None = None) -> list[str]:
    """The key of each sample: everything that decides the model's output for it.

    Args:
        session: The run.
        recipe: The steps to the model.
        items: The samples of a task.
        writer: The vLLM that generates the texts; None: our own engine.
    """
    config = session.config
    written = {} if writer is None else {"writer": [writer.version, writer.torch, writer.transformers]}
    shared = key(
        model=_model(session, recipe),
        device=_device_kind(session),
        numerics=config.numerics,
        engine=config.engine,
        seed=config.seed,
        packages=_packages(session),
        revision=REVISIONS["engine"],
        **written,
    )
    return [key(shared=shared, request=item.request.sha256)[:32] for item in items]


def cost_key(session: Session, recipe: Recipe, job: BenchJob) -> str:
    """The key of a timing: the model, the lengths and repeats that are timed, and the machine.

    How long it may take is not in it, but whether all repeats are made is: their precision is then None.

    Args:
        session: The run.
        recipe: The steps to the model.
        job: The timing.
    """
    machine = ("device", "device_name", "driver", "threads")
    return key(
        model=_model(session, recipe),
        job={n: value for n, value in vars(job).items() if n not in ("recipe", "budget_seconds", "grid", "beside")}
        | ({"grid": job.grid} if job.grid else {})
        | ({"beside": _model(session, Recipe(job.beside))} if job.beside else {}),
        machine={name: session.environment[name] for name in machine},
        packages=_packages(session),
        revision=REVISIONS["engine"],
    )


def deployed_key(session: Session, recipe: Recipe, form: DeployedForm, calibration: str | None) -> str:
    """The key of a deployed form: everything that decides the converted weights.

    Args:
        session: The run.
        recipe: The steps to the model that is converted.
        form: The form; its reader decides nothing.
        calibration: Digest of the rows on which weights are rounded.
    """
    return key(
        model=_model(session, recipe),
        form=form.made,
        versions=form_versions(form),
        calibration=calibration,
        seed=session.config.seed if calibration else None,
        device=_device_kind(session),
        packages=_packages(session),
    )


def _model(session: Session, recipe: Recipe) -> str:
    """Digest of a model: the content of its base and artifact, and how they are put together."""
    base = recipe.base
    if base.served is not None:
        found = session.capabilities[base.served]
        says = next(model.digest for model in session.prepared.served if model.served == base.served)
        return key(served=says, way=found.way, likelihoods=found.likelihoods, answers_as=found.answers_as)
    if recipe not in session.models:
        session.models[recipe] = key(
            base=_folder(session, Snapshot(base.folder.name, base.folder)),
            load=[base.dtype, base.quant, base.trust_remote_code, *_reader(recipe)],
            adapter=recipe.adapter and _folder(session, Snapshot(recipe.adapter.name, recipe.adapter)),
            method=recipe.method and _method(recipe.method),
            merged=[recipe.merged, recipe.bits_after_merge],
        )
    return session.models[recipe]


def _reader(recipe: Recipe) -> list[str]:
    """The version of a reader other than transformers, whose version is in every key."""
    reader = recipe.base.reader
    return [] if reader == "transformers" else [reader_version(DeployedForm("gguf", "", reader))]


def _folder(session: Session, made: Snapshot) -> str:
    """Digest of a folder of weights; a model or adapter that was given has its own, a deployed form has its key."""
    if made.folder in session.deployed:
        return session.deployed[made.folder]
    adapters = (variant.adapter for variant in session.prepared.variants)
    given = [session.prepared.model, *(adapter for adapter in adapters if adapter)]
    return next((each.digest for each in given if each.folder == made.folder), None) or made.artifact_digest


def _method(method: Method) -> list[Any]:
    return [method.name, sources_sha256(method.path), dict(method.hyperparameters)]


def _given_digest(session: Session, given: Training | Snapshot | RewardFunction | None) -> str | None:
    """Digest of the starting point or the judge of a training run."""
    if isinstance(given, Training):
        made = Snapshot(given.id, session.folder.artifact(given.id, given.saves))
        return text_sha256(f"{made.artifact_digest}:{source_digest(given.entry)}")
    return content_digest(given, session.config.method_files) if given else None


def _device_kind(session: Session) -> str:
    kind: str = session.environment["device"].split(":")[0]
    return kind


def _packages(session: Session) -> dict[str, str]:
    packages = session.environment["packages"]
    return {name: packages[name] for name in PACKAGES}
