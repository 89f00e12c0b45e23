"""The main job: train every variant, score all of them on the same samples, measure what each costs, say what differs.

`run` reads top to bottom: prepare, open the run folder, train, score, time, count. The heavy work happens in child processes
(`harness.worker.server`); this one renders, keeps the books and does the statistics.
"""

from __future__ import annotations

import contextlib
import datetime
import math
import shutil
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from harness.comparison import recipes
from harness.comparison.card import CARD, model_card
from harness.comparison.document import finished, training_data_notes, unfinished
from harness.comparison.dry_run import Purpose, describe
from harness.comparison.receive import Sink
from harness.comparison.state import Session, State
from harness.comparison.tuning import Tuned, tune
from harness.config.config import Config
from harness.errors import UserError
from harness.jobs import (
    Advanced,
    Base,
    Benched,
    BenchJob,
    EnvironmentJob,
    Event,
    Item,
    Recipe,
    Request,
    ScoreJob,
    ScoreVariant,
    TaskRequests,
)
from harness.prepare.checks import check
from harness.prepare.overlap import overlap_summary
from harness.prepare.prepare import prepare
from harness.prepare.trainings import Training
from harness.report.progress import Progress
from harness.results import Run
from harness.runs.folder import RunFolder
from harness.runs.reuse import adopt, delete_weights, find_trained
from harness.sandbox.run import protections
from harness.storage import key, write_whole
from harness.worker.server import JobFailed, Server


def run(config: Config, *, progress: Progress | None = None, fresh: bool = False, command: str = "") -> Run:
    """Compares the variants of a configuration; continues where the same command was interrupted.

    Args:
        config: What to compare.
        progress: Told what happens.
        fresh: Start anew even where a run of the same configuration is there.
        command: For the record.

    Returns:
        The run's document, which `run.json` in its folder holds too.

    Raises:
        UserError: Something the user can mend.
    """
    with Comparison.open(config, progress or Progress(), fresh=fresh, command=command) as comparison:
        if comparison.earlier is not None:
            return comparison.earlier
        comparison.train_all()
        comparison.score_all()
        comparison.time_all()
        return comparison.conclude()


class Comparison:
    """A run at work."""

    def __init__(self, session: Session, server: Server, progress: Progress, command: str) -> None:
        self.session = session
        self.server = server
        self.progress = progress
        self.command = command
        self.created = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
        self.seconds: dict[str, float] = {}
        self.tuned: dict[str, Tuned | None] = {}
        """By variant as typed, the rates that were tried; None: not one of them could be trained with."""
        self.earlier: Run | None = None
        """The document, where the same run was finished before."""

    @classmethod
    @contextlib.contextmanager
    def open(
        cls, config: Config, progress: Progress, *, fresh: bool, command: str, purpose: Purpose = "compare"
    ) -> Iterator[Comparison]:
        """Prepares the run while the worker imports torch, and takes up what an earlier attempt left."""
        began = time.perf_counter()
        progress.start("Start", config.model)
        with Server() as server:
            prepared = prepare(config)
            check(prepared, scores=purpose == "compare")
            identity = key(purpose=purpose, prepared=prepared.identity)
            with RunFolder.open(config.output_dir, config.model, identity, fresh=fresh) as folder:
                server.hold(folder.lock)
                comparison = cls(Session(prepared, folder, identity), server, progress, command)
                before = folder.load()
                if before is not None and all(variant.status == "done" for variant in before.variants):
                    comparison.earlier = before
                    progress.finish("finished before; nothing to do")
                    yield comparison
                    return
                comparison.created = before.created if before else comparison.created
                overlaps = comparison.session.overlaps  # while the worker imports torch
                comparison.session.environment = server.run(EnvironmentJob(config.device, config.dtype))
                if any(task.task.executes_code for task in prepared.tasks):
                    comparison.session.environment["guard"] = protections()
                progress.finish()
                comparison.seconds["start"] = time.perf_counter() - began
                progress.say("Plan", f"{describe(prepared, purpose)} · {folder.path}")
                if overlaps and purpose == "compare":
                    progress.say("Overlap", overlap_summary(overlaps))
                comparison._save()
                yield comparison

    def train_all(self) -> None:
        """Trains what no earlier run has trained, each in a child of its own."""
        for training in self.session.prepared.trainings:
            states = [s for s in self.session.going() if s.row.training and s.row.training.id == training.id]
            if missing := self.session.missing(training):
                self._fail(states, JobFailed(f"it needs what `{missing}` leaves, which was not trained"), "")
                continue
            try:
                if self.session.config.tune_lr and training.tunable:
                    training = self._tuned(training, states)
                job = recipes.train_job(self.session, training)
                found = find_trained(self.session.config.output_dir, job.train_key)
                reused = found is not None and adopt(found[0], job.output)
                if found is not None and reused:
                    trained = found[1]
                else:
                    with self._stage("Train", states[0].name):
                        trained = self.server.run(job, self._on_training)
            except JobFailed as failure:
                self._fail(states, failure, f"train-{training.id}")
                continue
            for state in states:
                state.trained, state.reused, state.artifact = trained, reused, job.output
            card = model_card(self.session, states[0], job, command=self.command)
            write_whole(job.output / CARD, card)  # in a file of its own: others may be shared with the run it is from
            self._save()

    def merge(self, state: State) -> Path:
        """Leaves the base with a variant's adapter in its weights."""
        training = state.row.training
        assert training is not None and state.artifact is not None
        job = recipes.merge_job(self.session, state)
        try:
            with self._stage("Merge", state.name):
                self.server.run(job)
        except UserError as error:
            raise UserError(f"{error.message}; what was trained is in {state.artifact}", error.hint) from error
        except JobFailed as failure:
            self.session.folder.log_failure(f"merge-{training.id}", failure.child_traceback)
            raise UserError(
                f"merging failed: {failure}", hint=f"the adapter itself is in {state.artifact}"
            ) from failure
        card = model_card(
            self.session, state, recipes.train_job(self.session, training), command=self.command, merged=True
        )
        write_whole(job.output / CARD, card)
        return job.output

    def _tuned(self, training: Training, states: Sequence[State]) -> Training:
        """The training with the rate that did best on its held-out rows; replicas take that of the first one."""
        spec = states[0].row.spec
        typed = spec.replica_of or spec.name
        if typed not in self.tuned:
            self.tuned[typed] = self._sweep(training, spec.name)
        tuned = self.tuned[typed]
        if tuned is None:
            raise JobFailed("no rate that was tried could be trained with")
        for state in states:
            state.tuned = tuned
            state.row = replace(state.row, training=replace(training, lr=tuned.lr))
        return replace(training, lr=tuned.lr)

    def _sweep(self, training: Training, name: str) -> Tuned | None:
        """Trains with several rates; of all but the best, the figures are kept alone."""
        tried: dict[float, tuple[float, float, Path]] = {}

        def loss_of(lr: float) -> float | None:
            trial = replace(training, id=f"{training.id}@lr={lr:g}", lr=lr)
            job = recipes.train_job(self.session, trial)
            found = find_trained(self.session.config.output_dir, job.train_key, figures_only=True)
            try:
                with self._stage("Tune", f"{name} lr {lr:g}"):
                    trained = found[1] if found else self.server.run(job, self._on_training)
            except JobFailed as failure:
                self.session.folder.log_failure(f"tune-{trial.id}", failure.child_traceback)
                for last_good in job.output.parent.glob(f"{job.output.name}-step-*"):
                    shutil.rmtree(last_good, ignore_errors=True)
                return None
            loss: float | None = trained.validation_loss
            if loss is None or not math.isfinite(loss):
                return None
            tried[lr] = loss, lr, job.output
            for _, _, worse in sorted(tried.values())[1:]:  # as it goes: the disk need not hold all of them
                if worse.is_dir():
                    delete_weights(worse)
            return loss

        return tune(training.lr, self.session.config.tune_lr or 0, loss_of)

    def score_all(self) -> None:
        """Scores every variant on the same samples; variants that share a base share its load."""
        groups: dict[Base, list[State]] = {}
        for state in self.session.going():
            groups.setdefault(recipes.recipe(self.session, state).base, []).append(state)
        for states in groups.values():
            waiting = states
            while waiting:
                waiting = self._score_together(waiting)

    def _score_together(self, states: Sequence[State]) -> list[State]:
        """Scores variants of one base; gives back those that the crash of another left waiting."""
        config, sink = self.session.config, Sink(self.session, self.progress, self.seconds)
        shared: dict[int, list[Request]] = {}  # variants that prompt alike share a list, which is encoded once

        def requests(items: Sequence[Item]) -> list[Request]:
            if id(items) not in shared:
                shared[id(items)] = [item.request for item in items]
            return shared[id(items)]

        variants = [
            ScoreVariant(
                state.name,
                recipes.recipe(self.session, state),
                [
                    TaskRequests(task.name, requests(state.row.items[task.name]), sink.done(state, task))
                    for task in self.session.prepared.tasks
                ],
            )
            for state in states
        ]
        job = ScoreJob(
            variants, config.engine, config.numerics, self.session.token_budget, config.batch_size, config.seed
        )
        try:
            self.server.run(job, sink.take)
        except JobFailed as failure:
            culprit = sink.current or states[0]
            self._fail([culprit], failure, f"score-{culprit.row.spec.canonical}")
        finally:
            sink.close()
        self._save()
        return [state for state in states if state.status != "failed" and self.session.unscored(state)]

    def time_all(self) -> None:
        """Times every variant in a child of its own, in turn with the bare base where they share weights."""
        known: dict[Recipe, Benched] = {}
        for state in self.session.going():
            recipe, record = recipes.recipe(self.session, state), recipes.cost_record(self.session, state)
            on_bare_base = recipe.base.quant is None and recipe.method is None and not recipe.merged
            in_turn = recipe.adapter is not None and on_bare_base
            benched = known.get(recipe) or record.read()
            try:
                if benched is None:
                    with self._stage("Time", state.name):
                        self.progress.pause()
                        benched = self.server.run(BenchJob(recipe, in_turn, seed=self.session.config.seed))
                record.write(benched)
                state.benched, state.status = benched, "done"
                known[recipe] = benched
            except JobFailed as failure:
                self._fail([state], failure, f"time-{state.row.spec.canonical}")
        self._save()

    def conclude(self) -> Run:
        """Counts, and writes the document."""
        with self._stage("Count", "intervals and paired tests"):
            document = finished(self.session, created=self.created, command=self.command, seconds=self.seconds)
        document = document.model_copy(update={"seconds": dict(self.seconds)})
        self.session.folder.save(document)
        return document

    def interim(self) -> Run:
        """What is known so far, without scores."""
        return unfinished(self.session, created=self.created, command=self.command, seconds=self.seconds)

    def _save(self) -> None:
        self.session.folder.save(self.interim())

    def _fail(self, states: Sequence[State], failure: JobFailed, what: str) -> None:
        for state in states:
            state.fail(str(failure))
        if failure.child_traceback:
            self.session.folder.log_failure(what, failure.child_traceback)

    def _on_training(self, event: Event) -> None:
        if isinstance(event, Advanced):
            self.progress.advance(event.done, event.note, event.total)

    @contextlib.contextmanager
    def _stage(self, label: str, what: str) -> Iterator[None]:
        began = time.perf_counter()
        self.progress.start(label, what)
        yield
        self.progress.finish()
        self.seconds[f"{label.lower()} {what}"] = time.perf_counter() - began


@dataclass(frozen=True)
class Left:
    """Folders that a training alone leaves."""

    artifact: Path
    merged: Path | None = None
    """The base with the artifact in its weights, where that was asked for."""


def train_only(
    config: Config,
    *,
    progress: Progress | None = None,
    fresh: bool = False,
    command: str = "",
    merge: bool = False,
) -> Left:
    """Trains the one variant of a configuration and scores nothing.

    Args:
        config: What to train: once, whatever `seeds` and `folds` say of comparisons.
        progress: Told what happens.
        fresh: Start anew.
        command: For the record.
        merge: Leave the base with the trained adapter in its weights, too.

    Raises:
        UserError: The variant is no method, its training failed, or what it trains cannot be merged.
    """
    config = config.one_training()
    if suffix := config.variants[0].transforms:
        raise UserError(
            f"`{suffix}` says how a variant is scored, and `harness train` scores nothing",
            hint="leave it out" + ("; `--merge` writes the merged weights" if "@merged" in suffix else ""),
        )
    if merge:
        refuse_merge(config)
    listener = progress or Progress()
    with Comparison.open(config, listener, fresh=fresh, command=command, purpose="train") as comparison:
        folder = comparison.session.folder.path
        if not comparison.session.prepared.trainings:
            raise UserError(f"`{config.variants[0].name}` is not trained", hint="give a method: `harness ls methods`")
        comparison.train_all()
        state = next(iter(comparison.session.states.values()))
        if state.artifact is None:
            raise UserError(f"training failed: {state.error}", hint=f"see {folder / 'train'}")
        for note in training_data_notes(comparison.session):
            listener.say("Note", note)
        return Left(state.artifact, comparison.merge(state) if merge else None)


def refuse_merge(config: Config) -> None:
    """Refuses `--merge` where there would be nothing to merge, before anything is trained.

    Raises:
        UserError: The method leaves a checkpoint or changes no weights, or a reward model is trained.
    """
    spec = config.variants[0]
    if spec.entry is None:
        return
    reason = None
    if spec.entry.options["saves"] == "checkpoint":
        reason = f"what `{spec.entry.name}` leaves is a whole checkpoint already"
    elif not spec.entry.options["mergeable"]:
        reason = f"what `{spec.entry.name}` trains cannot be merged into the weights"
    elif spec.training.get("stage", config.train.stage) == "reward":
        reason = "a reward model has a head of its own, which no checkpoint of a language model has a place for"
    if reason:
        raise UserError(f"`--merge`: {reason}", hint="leave out `--merge`")


def time_only(config: Config, *, progress: Progress | None = None, fresh: bool = False, command: str = "") -> Run:
    """Trains what must be trained and times the variants of a configuration; scores nothing.

    Raises:
        UserError: Something the user can mend.
    """
    listener = progress or Progress()
    with Comparison.open(config, listener, fresh=fresh, command=command, purpose="bench") as comparison:
        if comparison.earlier is not None:
            return comparison.earlier
        comparison.train_all()
        comparison.time_all()
        return comparison.interim()
