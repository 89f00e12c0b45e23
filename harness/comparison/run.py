"""The main job: train every variant, score all of them on the same samples, measure their cost, compare them.

`RunInProgress` reads from top to bottom: prepare, open the run folder, train, score, time, compute statistics. The heavy
work happens in child processes (`harness.worker.server`); this process renders prompts, writes the run folder and computes
the statistics.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from harness.comparison import recipes
from harness.comparison.card import CARD, model_card
from harness.comparison.deployment import Deployments
from harness.comparison.document import Counted, count, finished, unfinished
from harness.comparison.dry_run import Purpose, describe
from harness.comparison.prediction import Predictions
from harness.comparison.receive import Receiver
from harness.comparison.served import probe_served
from harness.comparison.state import Session, State
from harness.comparison.suitability import unsuitable
from harness.comparison.sweep import sweep
from harness.comparison.tuning import Tuned
from harness.comparison.until_decided import Decisions, Wanted, bases_fit, scored_whole
from harness.comparison.writers import choose_vllm
from harness.config.config import Config
from harness.data.gguf import is_gguf
from harness.deploy.tools import why_untimed
from harness.errors import UserError
from harness.jobs import (
    Advanced,
    Base,
    Benched,
    DescribeJob,
    EnvironmentJob,
    Event,
    Job,
    Recipe,
    Request,
    RowLengthsJob,
    ScoreJob,
    ScoreVariant,
    SourcesJob,
    TaskRequests,
    Trained,
    TrainJob,
)
from harness.prepare.overlap import overlap_summary
from harness.prepare.prepare import Prepared, prepare
from harness.prepare.tasks import ScoredTask
from harness.prepare.trainings import Training
from harness.registry.sources import note_loaded
from harness.report.price import priced
from harness.report.progress import Progress
from harness.report.summary import headline_lines
from harness.results import Run
from harness.runs.folder import RunFolder
from harness.runs.prompts import write_prompts
from harness.runs.reuse import adopt, find_trained
from harness.sandbox.run import protections
from harness.storage import DiskFull, key, write_whole
from harness.worker.server import JobFailed, Server


def run(config: Config, *, progress: Progress | None = None, fresh: bool = False, command: str = "") -> Run:
    """Compares the variants of a configuration, or continues an interrupted run of the same configuration.

    Args:
        config: The configuration.
        progress: Receives progress events.
        fresh: Start again even if there is an earlier run of the same configuration.
        command: The command line, for the record.

    Returns:
        The run's document, which is also saved as `run.json` in its folder.

    Raises:
        UserError: The configuration, a file or a plugin has a mistake that the user can fix.
    """
    with RunInProgress.open(config, progress or Progress(), fresh=fresh, command=command) as work:
        if work.earlier is not None:
            return work.earlier
        work.check_all()
        work.train_all()
        work.deploy_all()
        work.score_all()
        work.count()
        work.time_all()
        return work.conclude()


def time_only(
    config: Config, *, progress: Progress | None = None, fresh: bool = False, command: str = "", **lengths: Any
) -> Run:
    """Times the variants of a configuration, after training those that need it, and scores nothing: `harness bench`.

    Args:
        config: The configuration.
        progress: Receives progress events.
        fresh: Start again even if there is an earlier run of the same configuration.
        command: The command line, for the record.
        **lengths: `grid`, the pairs of prompt tokens and batch size to time, and `new_tokens`.

    Raises:
        UserError: The configuration, a file or a plugin has a mistake that the user can fix.
    """
    shown = progress or Progress()
    for spec in config.variants:
        if reason := why_untimed(spec.form):
            hint = "time it on the server that loads it; `@torchao:int8wo` can be timed here"
            raise UserError(f"`{spec.name}` cannot be timed: {reason}", hint)
    with RunInProgress.open(config, shown, fresh=fresh, command=command, purpose="bench", lengths=lengths) as work:
        if work.earlier is not None:
            return work.earlier
        work.check_all()
        work.train_all()
        work.deploy_all()
        work.time_all(in_full=True, **lengths)
        return unfinished(work.session)


TIMING_SHARE = 0.1
"""Largest share of a run that timing takes, unless each variant's first repeat alone takes longer."""


class RunInProgress:
    """A run in progress: its session, the server that runs jobs in child processes, and the progress display."""

    def __init__(self, session: Session, server: Server, progress: Progress, began: float | None = None) -> None:
        self.session = session
        self.server = server
        self.progress = progress
        self.began = time.perf_counter() if began is None else began
        """When it began on the performance counter, minus the seconds that earlier attempts took."""
        self.earlier: Run | None = None
        """The document, if an earlier run of the same configuration is complete."""
        self._counted: Counted | None = None
        self._tuned: dict[str, Tuned | None] = {}
        """Results of learning-rate sweeps by variant as typed; None if every trial failed."""
        self._predictions = Predictions(server.run)
        self._deployments = Deployments(session, server, progress)

    @classmethod
    @contextlib.contextmanager
    def open(
        cls,
        config: Config,
        progress: Progress,
        *,
        fresh: bool,
        command: str,
        purpose: Purpose = "compare",
        lengths: Mapping[str, Any] | None = None,
    ) -> Iterator[RunInProgress]:
        """Prepares a run and opens its folder, while the worker imports torch; `lengths` tell runs of `bench` apart."""
        began = time.perf_counter()
        progress.start("Start", config.model)
        with contextlib.ExitStack() as closing, Server() as server:
            prepared = prepare(
                config,
                scores=purpose == "compare",
                describe=lambda path: _asked(server, DescribeJob(path, config.trust_remote_code)),
                count=lambda path, examples, answered: _asked(
                    server, RowLengthsJob(path, examples, answered, config.trust_remote_code)
                ),
            )
            if prepared.user_files:
                for path, files in _asked(server, SourcesJob(prepared.user_files)).items():
                    note_loaded(path, files)
            identity = key(purpose=purpose, prepared=prepared.identity, **(lengths or {}))
            with RunFolder.open(config.output_dir, config.model, identity, fresh=fresh) as folder:
                server.hold(folder.lock)
                for problem in folder.skipped:
                    progress.say("Skip", problem.message)
                session = Session(prepared, folder, identity, command=command)
                earlier = folder.load()
                before = sum(earlier.seconds.values()) if earlier else 0.0
                work = cls(session, server, progress, began - before)
                closing.callback(work._deployments.close)
                if earlier is not None and purpose != "train" and _is_complete(earlier, untimed=_untimed(prepared)):
                    work.earlier = priced(earlier, config.price)
                    if config.price:
                        folder.save(work.earlier)
                    progress.finish(f"already finished on {earlier.created[:16].replace('T', ' ')}: {folder.path}")
                    yield work
                    return
                session.created = earlier.created if earlier else session.created
                session.vllm = choose_vllm(session) if purpose == "compare" else None
                overlaps = session.overlaps  # computed here, while the worker imports torch
                session.environment = _asked(server, EnvironmentJob(config.device, config.dtype))
                work._unpack()
                if any(task.task.executes_code for task in prepared.tasks):
                    session.environment["guard"] = protections()
                progress.finish()
                session.seconds["start"] = time.perf_counter() - began
                progress.say("Plan", f"{describe(prepared, purpose)} · {folder.path}")
                if overlaps and purpose == "compare":
                    progress.say("Overlap", overlap_summary(overlaps))
                work._save()
                yield work

    def _unpack(self) -> None:
        """Unpacks the GGUF files that this run was given."""
        for snapshot in self.session.prepared.given:
            if is_gguf(snapshot.folder):
                try:
                    self._deployments.unpack(snapshot.folder, snapshot.name)
                except JobFailed as failure:
                    raise UserError(f"`{snapshot.name}` could not be unpacked: {failure}") from failure

    def check_all(self) -> None:
        """Probes the servers, and fails the variants whose training run cannot work, before anything is trained.

        Raises:
            UserError: A server cannot be used for one of the tasks.
        """
        session, output = self.session, self.session.config.output_dir
        for model in session.prepared.served:
            self.progress.start("Probe", model.name)
            found = probe_served(session, model, lambda job: _asked(self.server, job))
            self.progress.finish()
            self.progress.say("Server", f"{model.name}: {found}")
        waiting = [
            training
            for training in session.prepared.trainings
            if find_trained(output, recipes.train_job(session, training).train_key) is None
        ]
        if not waiting:
            return
        self.progress.start("Check", "whether the methods fit the model")
        problems = unsuitable(session, self.server.run, waiting)
        self.progress.finish()
        for state in session.states.values():
            if state.variant.training and (problem := problems.get(state.variant.training.id)):
                state.fail(problem.sentence)
                self.progress.say("Fail", f"{state.name}: {problem.sentence}")
        self._save()

    def train_all(self) -> None:
        """Trains every variant that no earlier run has trained, each in its own child process."""
        for training in self.session.prepared.trainings:
            states = [s for s in self.session.active() if s.variant.training and s.variant.training.id == training.id]
            if not states:
                continue
            try:
                self._train(training, states)
            except JobFailed as failure:
                self._fail(states, failure, f"train-{training.id}")

    def _train(self, training: Training, states: Sequence[State]) -> None:
        """Runs one training run, which several variants may share, or takes its artifact from an earlier run."""
        if missing := self.session.missing(training):
            raise JobFailed(f"it needs the artifact of `{missing}`, which was not trained")
        if self.session.config.tune_lr and training.tunable:
            training = self._with_best_learning_rate(training, states)
        job = recipes.train_job(self.session, training)
        earlier = find_trained(self.session.config.output_dir, job.train_key)
        if earlier is not None and adopt(earlier[0], job.output):
            trained, reused = earlier[1], True
            self._say_reuse(states, "trained", earlier[0])
        else:
            with self.stage("Train", states[0].name):
                trained, reused = self._run_training(job), False
        predicted = self._predictions.of(job, trained)
        for state in states:
            state.trained, state.reused, state.artifact = trained, reused, job.output
            state.predicted = predicted
        card = model_card(self.session, states[0], job, command=self.session.command)
        write_whole(job.output / CARD, card)  # a new file: the others may be hard links into an earlier run
        self._save()

    def _run_training(self, job: TrainJob) -> Trained:
        """Runs a training job; an error that concerns it alone fails its row, whoever has to correct it."""
        try:
            trained: Trained = self.server.run(job, self._show)
        except DiskFull:
            raise
        except UserError as error:
            raise JobFailed(error.sentence) from error
        return trained

    def _with_best_learning_rate(self, training: Training, states: Sequence[State]) -> Training:
        """Sets the learning rate with the lowest held-out loss; replicas take that of the first training run."""
        spec = states[0].variant.spec
        typed = spec.replica_of or spec.name

        def train(job: TrainJob) -> Trained:
            earlier = find_trained(self.session.config.output_dir, job.train_key, figures_only=True)
            with self.stage("Tune", f"{spec.name} lr {job.training.lr:g}"):
                return earlier[1] if earlier else self._run_training(job)

        if typed not in self._tuned:
            self._tuned[typed] = sweep(self.session, training, train)
        tuned = self._tuned[typed]
        if tuned is None:
            raise JobFailed("training failed with every learning rate that was tried")
        for state in states:
            state.tuned = tuned
            state.variant = replace(state.variant, training=training.with_lr(tuned.lr))
        return training.with_lr(tuned.lr)

    def deploy_all(self) -> None:
        """Converts the variants that are scored in a deployed form; one that cannot be converted fails alone."""
        for state in self.session.active():
            try:
                self._deployments.make(state)
            except JobFailed as failure:
                self._fail([state], failure, f"deploy-{state.variant.spec.canonical}")
        self._save()

    def score_all(self) -> None:
        """Scores every variant on the same samples; variants with the same base share one load of it."""
        groups: dict[Base, list[State]] = {}
        for state in self.session.active():
            if not state.variant.scored:
                state.status = "done"
                state.notes.append("trained and not scored: a reward model generates no text, and the tasks need some")
                continue
            groups.setdefault(recipes.recipe(self.session, state).base, []).append(state)
        if self.session.config.until_decided:
            return self._score_until_decided(groups.values())
        for states in groups.values():
            self._score_group(states)

    def _score_until_decided(self, groups: Collection[Sequence[State]]) -> None:
        """Scores a pack of each task with every variant in turn, until all differences are decided."""
        decisions = Decisions(self.session)
        for note in scored_whole(self.session):
            self.progress.say("Whole", note)
        started = False
        while wanted := decisions.wanted():
            kept = bases_fit(self.session, groups)
            for states in groups:  # a continued run starts each variant once, for its size and its notes
                asked = [state for state in states if state.name in wanted]
                asked = [state for state in asked if not started or self.session.unscored(state)]
                self._score_group(asked, wanted, more=kept)
            started = True
            for line in decisions.take():
                self.progress.say("Decide", line)
        for state in self.session.active():
            state.scored = state.variant.scored
            for task in self.session.prepared.tasks:  # an attempt in which another variant failed may have gone further
                self.session.log(state, task).keep(len(self.session.asked(state, task)))

    def _score_group(self, states: Sequence[State], wanted: Wanted | None = None, *, more: bool = False) -> None:
        """Scores variants of one base, again without those that crash."""
        while states:
            states = self._score_together(states, wanted, more=more)

    def _score_together(self, states: Sequence[State], wanted: Wanted | None, *, more: bool) -> list[State]:
        """Scores variants of one base; returns those that are unfinished because another variant crashed.

        Args:
            states: The variants.
            wanted: The samples to score, by variant and task; None: all.
            more: Whether further samples follow, so that the base remains in memory.
        """
        config, receiver = self.session.config, Receiver(self.session, self.progress)
        shared: dict[Any, list[Request]] = {}  # variants with equal prompts share a list, which is encoded once

        def asked(state: State, task: ScoredTask) -> TaskRequests:
            items, done = state.variant.items[task.name], receiver.done(state, task)
            first, end = (0, len(items)) if wanted is None else wanted[state.name][task.name]
            if (id(items), first, end) not in shared:
                shared[id(items), first, end] = [item.request for item in items[first:end]]
            return TaskRequests(
                task.name,
                shared[id(items), first, end],
                [n for n in done if first <= n < end],
                first,
                receiver.by_vllm(state, task),
            )

        variants = [
            ScoreVariant(
                state.name,
                recipes.recipe(self.session, state),
                [
                    asked(state, task)
                    for task in self.session.prepared.tasks
                    if wanted is None or task.name in wanted[state.name]
                ],
                self.session.capabilities[state.variant.served.served] if state.variant.served else None,
            )
            for state in states
        ]
        job = ScoreJob(
            variants,
            config.engine,
            config.numerics,
            self.session.token_budget,
            config.batch_size,
            config.seed,
            config.allow_cut,
            more,
            self.session.vllm,
            config.writer == "vllm",
        )
        try:
            self.server.run(job, receiver.take)
        except JobFailed as failure:
            culprit = receiver.current or states[0]
            self._fail([culprit], failure, f"score-{culprit.variant.spec.canonical}")
        finally:
            receiver.close()
        for state in states:
            state.scored = state.status != "failed" and not self.session.unscored(state)
        self._save()
        return [state for state in states if state.status != "failed" and not state.scored]

    def time_all(self, *, in_full: bool = False, **lengths: Any) -> None:
        """Times every variant in its own child process, alternately with the bare base if they share weights.

        Args:
            in_full: Make all repeats, whatever time they take; otherwise timing has a budget.
            **lengths: See `time_only`.
        """
        states = []
        for state in self.session.active():
            if not state.variant.scored:
                continue
            if state.variant.served:
                state.status = "done" if state.scored else state.status
                state.notes.append(
                    "a server has answered: precision and engine are its own, and it is not timed, as the time would be that of"
                    " its machine, the network and other users"
                )
            elif why_untimed(state.variant.spec.form) is None:
                states.append(state)
            else:
                state.status = "done"
        if self.session.config.no_timing and not in_full:
            for state in states:
                state.status = "done"
            self._save()
            return
        known: dict[Recipe, Benched] = {}
        seconds_left = None if in_full else self._timing_seconds()
        for index, state in enumerate(states):
            share = None if seconds_left is None else seconds_left / (len(states) - index)
            job = recipes.bench_job(self.session, state, share, **lengths)
            record = recipes.cost_record(self.session, state, job)
            benched, began = known.get(job.recipe) or record.read(), time.perf_counter()
            try:
                if benched is None:
                    with self.stage("Time", state.name):
                        benched = self.server.run(job, self._show)
                record.write(benched)
                state.benched, state.status = benched, "done"
                known[job.recipe] = benched
                self._save()
            except JobFailed as failure:
                self._fail([state], failure, f"time-{state.variant.spec.canonical}")
            if seconds_left is not None:
                seconds_left = max(0.0, seconds_left - (time.perf_counter() - began))
        self._save()

    def _timing_seconds(self) -> float:
        """Seconds for timing all variants: as configured, or so many that timing is a tenth of the whole run.

        Training runs and samples of an earlier attempt count with the seconds that they took.
        """
        if self.session.config.time_budget is not None:
            return self.session.config.time_budget
        trained = {state.artifact: state.trained.train_seconds for state in self.session.active() if state.trained}
        spent = max(time.perf_counter() - self.began, sum(trained.values()))
        return spent * TIMING_SHARE / (1 - TIMING_SHARE)

    def count(self) -> None:
        """Computes the statistics, saves them and shows the headlines: timing comes after them and takes minutes."""
        with self.stage("Count", "intervals and paired tests"):
            self._counted = count(self.session)
            for task in self.session.prepared.tasks:
                write_prompts(self.session.folder.path, task.name, self.session.prepared.variants[0].items[task.name])
        for line in headline_lines(self._save()):
            self.progress.say("Score", line)

    def conclude(self) -> Run:
        """Saves the complete document."""
        return self._save()

    @contextlib.contextmanager
    def stage(self, label: str, what: str) -> Iterator[None]:
        """Shows a stage on the progress display and records its duration."""
        began = time.perf_counter()
        self.progress.start(label, what)
        yield
        self.progress.finish()
        self.session.seconds[f"{label.lower()} {what}"] = time.perf_counter() - began

    def _say_reuse(self, states: Sequence[State], what: str, found: Path) -> None:
        """Says which results are not made again, and which run made them; the report says so of other runs."""
        run = self.session.config.output_dir / found.relative_to(self.session.config.output_dir).parts[0]
        ours = run == self.session.folder.path
        for state in states:
            where = "this run" if ours else f"{run}, whose key is equal"
            self.progress.say("Reuse", f"{state.name}: {what} in {where}")
            if not ours:
                state.notes.append(f"{what} in another run and reused: {run.name}")

    def _save(self) -> Run:
        """Saves the document as far as it is known, and returns it."""
        session, counted = self.session, self._counted
        document = finished(session, counted) if counted else unfinished(session)
        session.folder.save(document)
        return document

    def _fail(self, states: Sequence[State], failure: JobFailed, what: str) -> None:
        for state in states:
            state.fail(str(failure))
        if failure.child_traceback:
            self.session.folder.log_failure(what, failure.child_traceback)

    def _show(self, event: Event) -> None:
        """Shows the progress of a training run."""
        if isinstance(event, Advanced):
            self.progress.advance(event.done, event.note, event.total)


def _asked(server: Server, job: Job) -> Any:
    """The result of a job that a run needs before it can start.

    Raises:
        UserError: The worker died.
    """
    try:
        return server.run(job)
    except JobFailed as failure:
        raise UserError(
            f"the worker process could not start the run: {failure}",
            hint="its messages are above, if it left any; check the machine with `harness env`, then give the same"
            " command again: finished work is kept",
        ) from failure


def _untimed(prepared: Prepared) -> set[str]:
    """The variants that are not timed: with `--no-timing` all, else those that are served in another way than they run here."""
    without = prepared.config.no_timing
    return {each.spec.name for each in prepared.variants if without or each.served or why_untimed(each.spec.form)}


def _is_complete(run: Run, *, untimed: Collection[str]) -> bool:
    """Whether every variant is done, and timed if it should be: a variant that is only trained has no scores."""
    return all(
        variant.status == "done" and (variant.inference or variant.name in untimed or not variant.scores)
        for variant in run.variants
    )
