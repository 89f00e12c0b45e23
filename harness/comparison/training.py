"""Training one variant without scoring it: `harness train`, and `--merge`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from harness.comparison import recipes
from harness.comparison.card import CARD, model_card
from harness.comparison.document import training_data_notes, unfinished
from harness.comparison.run import RunInProgress
from harness.comparison.state import State
from harness.comparison.thought_notes import default_thinking
from harness.config.config import Config
from harness.errors import UserError
from harness.report.progress import Progress
from harness.storage import write_whole
from harness.worker.server import JobFailed


@dataclass(frozen=True)
class TrainResult:
    """The folders that `harness train` saves."""

    artifact: Path
    merged: Path | None = None
    """The base with the artifact merged into its weights, if that was requested."""


def train_only(
    config: Config,
    *,
    progress: Progress | None = None,
    fresh: bool = False,
    command: str = "",
    merge: bool = False,
) -> TrainResult:
    """Trains the one variant of a configuration once, whatever `seeds` and `folds` are, and scores nothing.

    Args:
        config: The configuration.
        progress: Receives progress events.
        fresh: Start again even if there is an earlier run of the same configuration.
        command: The command line, for the record.
        merge: Also save the base with the trained adapter merged into its weights.

    Raises:
        UserError: The variant is not a method, its training run failed, or its artifact cannot be merged.
    """
    config = config.one_training()
    if suffix := config.variants[0].transforms:
        raise UserError(
            f"`{suffix}` changes how a variant is scored, but `harness train` scores nothing",
            hint=f"remove `{suffix}`" + ("; `--merge` saves the merged weights" if "@merged" in suffix else ""),
        )
    if merge:
        refuse_merge(config)
    progress = progress or Progress()
    with RunInProgress.open(config, progress, fresh=fresh, command=command, purpose="train") as work:
        folder = work.session.folder.path
        if not work.session.prepared.trainings:
            raise UserError(f"`{config.variants[0].name}` is not trained", hint="name a method: `harness ls methods`")
        work.check_all()
        work.train_all()
        state = next(iter(work.session.states.values()))
        if state.artifact is None:
            raise UserError(f"training failed: {state.error}", hint=f"see {folder / 'train'}")
        state.status = "done"
        work.session.folder.save(unfinished(work.session))
        trained = state.trained.notes if state.trained else ()
        for note in (*default_thinking(work.session.prepared.variants), *training_data_notes(work.session), *trained):
            progress.say("Note", note)
        return TrainResult(state.artifact, _merge(work, state) if merge else None)


def refuse_merge(config: Config) -> None:
    """Refuses `--merge` before training if there will be nothing to merge.

    Raises:
        UserError: The method saves a checkpoint or cannot be merged, or a reward model is trained.
    """
    spec = config.variants[0]
    if spec.entry is None:
        return
    reason = None
    if spec.entry.options["saves"] == "checkpoint":
        reason = f"`{spec.entry.name}` already saves a complete checkpoint"
    elif not spec.entry.options["mergeable"]:
        reason = f"an artifact of `{spec.entry.name}` cannot be merged into the weights"
    elif spec.training.get("stage", config.train.stage) == "reward":
        reason = "a reward model has a reward head, which the checkpoint of a language model cannot hold"
    if reason:
        raise UserError(f"`--merge`: {reason}", hint="remove `--merge`")


def _merge(work: RunInProgress, state: State) -> Path:
    """Saves the base with a variant's adapter merged into its weights."""
    training, session = state.variant.training, work.session
    assert training is not None and state.artifact is not None
    job = recipes.merge_job(session, state)
    try:
        with work.stage("Merge", state.name):
            work.server.run(job)
    except UserError as error:
        raise UserError(f"{error.message}; the trained adapter is in {state.artifact}", error.hint) from error
    except JobFailed as failure:
        session.folder.log_failure(f"merge-{training.id}", failure.child_traceback)
        raise UserError(f"merging failed: {failure}", hint=f"the trained adapter is in {state.artifact}") from failure
    train_job = recipes.train_job(session, training)
    write_whole(job.output / CARD, model_card(session, state, train_job, command=session.command, merged=True))
    return job.output
