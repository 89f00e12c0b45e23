"""The main job: train every variant, score all of them on the same samples, measure what each costs, say what differs.

`run` reads top to bottom: prepare, open the run folder, train, score, time, count. The heavy work happens in child processes
(`harness.worker`); this one renders, keeps the books and does the statistics.
"""

from __future__ import annotations

import contextlib
import datetime
import json
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from harness import __version__
from harness.errors import UserError
from harness.jobs import (
    Advanced,
    Base,
    Benched,
    BenchJob,
    EnvironmentJob,
    Event,
    Method,
    Packed,
    Recipe,
    Resumed,
    ScoreJob,
    ScoreVariant,
    TaskRequests,
    Trained,
    TrainJob,
    VariantFailed,
    VariantStarted,
)
from harness.jobs import Training as TrainingSettings
from harness.preparation import Prepared, Row, ScoredTask, Training, prepare
from harness.progress import Progress
from harness.records import fairness, inference_record, train_record
from harness.registry import find
from harness.results import Artifact, MetricInfo, Parameters, Protocol, Run, Score, TaskInfo, Variant
from harness.runs import RunFolder, SampleLog, adopt, find_trained, folder_bytes, key
from harness.snapshot import Snapshot
from harness.spec import Config, configure
from harness.tally import running_value, sample_row, tally
from harness.worker import JobFailed, Server

_BUDGETS = {"cpu": 2048, "cuda": 16384}
"""Tokens a pack may hold: recorded with every score, so that equal plans give equal bytes."""


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
        if not comparison.finished:
            comparison.train()
            comparison.score()
            comparison.time()
        return comparison.conclude()


@dataclass
class State:
    """What is known of one variant so far."""

    row: Row
    status: Literal["pending", "running", "done", "failed"] = "pending"
    error: str | None = None
    trained: Trained | None = None
    reused: bool = False
    artifact: Path | None = None
    model_bytes: int | None = None
    parameters: int | None = None
    benched: Benched | None = None

    def fail(self, error: str) -> None:
        """The row says why; the others go on."""
        self.status, self.error = "failed", error


class Comparison:
    """A run at work: its folder, its worker, and what is known of each variant."""

    def __init__(self, prepared: Prepared, folder: RunFolder, server: Server, progress: Progress, command: str) -> None:
        self.prepared = prepared
        self.config = prepared.config
        self.folder = folder
        self.server = server
        self.progress = progress
        self.command = command
        self.created = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
        self.seconds: dict[str, float] = {}
        self.notes: list[str] = []
        self.states = {row.spec.name: State(row) for row in prepared.rows}
        self.environment: dict[str, Any] = {}
        self.finished: Run | None = None

    @classmethod
    @contextlib.contextmanager
    def open(cls, config: Config, progress: Progress, *, fresh: bool, command: str) -> Iterator[Comparison]:
        """Prepares the run while the worker imports torch, and takes up what an earlier attempt left."""
        began = time.perf_counter()
        progress.start("Start", config.model)
        with Server() as server:
            prepared = prepare(config)
            with RunFolder.open(config.output_dir, config.model, prepared.identity, fresh=fresh) as folder:
                server.hold(folder.lock)
                comparison = cls(prepared, folder, server, progress, command)
                earlier = folder.load()
                if earlier is not None:
                    comparison.created = earlier.created
                    if all(variant.status == "done" for variant in earlier.variants):
                        comparison.finished = earlier
                        progress.finish("nothing left to do")
                        yield comparison
                        return
                comparison.environment = server.run(EnvironmentJob(config.device, config.dtype))
                progress.finish()
                comparison.seconds["start"] = time.perf_counter() - began
                comparison._announce()
                yield comparison

    # ── train ────────────────────────────────────────────────────────────────────────────────────────────────────

    def train(self) -> None:
        """Trains what no earlier run has trained, each in a child of its own."""
        for training in self.prepared.trainings:
            states = [s for s in self.states.values() if s.row.training and s.row.training.id == training.id]
            label = states[0].row.spec.name
            output = self.folder.artifact(training.id, training.saves)
            job = self._train_job(training, output)
            found = find_trained(self.config.output_dir, job.train_key)
            try:
                if found is not None:
                    adopt(found[0], output)
                    trained = found[1]
                else:
                    with self._stage("Train", label):
                        trained = self.server.run(job, self._on_progress)
                        self.progress.finish(f"{trained.steps} steps, loss {trained.final_loss:.2f}")
            except JobFailed as failure:
                self.folder.log_failure(training.id, failure.child_traceback)
                for state in states:
                    state.fail(str(failure))
                continue
            for state in states:
                state.trained, state.reused, state.artifact = trained, found is not None, output
            self.folder.save(self.document())

    def _train_job(self, training: Training, output: Path) -> TrainJob:
        environment = self.environment
        base = self._base(bits={"nf4": 4, "int8": 8, None: None}[training.entry.options["load"]])
        settings = TrainingSettings(
            lr=training.lr,
            steps=training.steps,
            epochs=training.epochs,
            batch_size=training.batch_size,
            micro_batch_size=training.batch_size,
            max_length=training.max_length,
            seed=training.seed,
            bf16=environment["mixed_precision"],
        )
        method = _method(training)
        return TrainJob(
            base=base,
            method=method,
            training=settings,
            examples=training.data.examples,
            saves=training.saves,
            output=output,
            log=self.folder.train_log(training.id),
            state=self.folder.train_state(training.id),
            train_key=key(
                model=self.prepared.model.digest,
                method=training.entry.name,
                method_source=training.entry.path.read_text(encoding="utf-8"),
                hyperparameters=training.hyperparameters,
                settings=vars(settings),
                data=training.data.digest,
                dtype=base.dtype,
                device=base.device.split(":")[0],
                packages={name: environment["packages"][name] for name in ("torch", "peft", "bitsandbytes")},
            ),
        )

    # ── score ────────────────────────────────────────────────────────────────────────────────────────────────────

    def score(self) -> None:
        """Scores every variant on the same samples; variants that share a base share its load."""
        groups: dict[Base, list[State]] = {}
        for state in self.states.values():
            if state.status != "failed":
                groups.setdefault(self._recipe(state).base, []).append(state)
        for states in groups.values():
            waiting = list(states)
            while waiting:
                waiting = self._score_together(waiting)

    def _score_together(self, states: list[State]) -> list[State]:
        """Scores states that share a base; gives back those that a crash of another left waiting."""
        wanted = [state for state in states if self._unscored(state) or state.model_bytes is None]
        if not wanted:
            return []
        sink = _Sink(self, {state.row.spec.name: state for state in wanted})
        variants = [
            ScoreVariant(
                state.row.spec.name,
                self._recipe(state),
                [
                    TaskRequests(
                        task.name, [item.request for item in state.row.items[task.name]], sink.done(state, task)
                    )
                    for task in self.prepared.tasks
                ],
            )
            for state in wanted
        ]
        job = ScoreJob(
            variants,
            self.config.engine,
            self.config.numerics,
            self._token_budget,
            self.config.batch_size,
            self.config.seed,
        )
        try:
            self.server.run(job, sink.take)
        except JobFailed as failure:
            culprit = sink.current or wanted[0]
            culprit.fail(str(failure))
            self.folder.log_failure(f"score-{culprit.row.spec.canonical}", failure.child_traceback)
        sink.close()
        self.folder.save(self.document())
        return [state for state in wanted if state.status != "failed" and self._unscored(state)]

    def _unscored(self, state: State) -> bool:
        return any(len(self._log(state, task).rows()) < len(state.row.items[task.name]) for task in self.prepared.tasks)

    # ── time ─────────────────────────────────────────────────────────────────────────────────────────────────────

    def time(self) -> None:
        """Times every variant in a child of its own, in turn with the bare base where they share weights."""
        known: dict[Recipe, Benched] = {}
        for state in self.states.values():
            if state.status == "failed":
                continue
            recipe = self._recipe(state)
            in_turn = recipe.adapter is not None and not recipe.merged and recipe.method is None
            try:
                if recipe not in known:
                    with self._stage("Time", state.row.spec.name):
                        self.progress.pause()
                        known[recipe] = self.server.run(BenchJob(recipe, with_base=in_turn, seed=self.config.seed))
                        self.progress.finish()
                state.benched = known[recipe]
                state.status = "done"
            except JobFailed as failure:
                state.fail(str(failure))
                self.folder.log_failure(f"time-{state.row.spec.canonical}", failure.child_traceback)

    # ── conclude ─────────────────────────────────────────────────────────────────────────────────────────────────

    def conclude(self) -> Run:
        """The document: scores, differences and verdicts from the samples on disk."""
        if self.finished is not None:
            return self.finished
        with self._stage("Count", "statistics"):
            document = self.document(final=True)
            self.progress.finish()
        document = document.model_copy(update={"seconds": dict(self.seconds)})
        self.folder.save(document)
        return document

    def document(self, *, final: bool = False) -> Run:
        """What is known now; with `final`, scores and comparisons too."""
        tasks = self.prepared.tasks
        counted = None
        if final:
            scored = [s for s in self.states.values() if s.status == "done"]
            rows = {s.row.spec.name: {t.name: self._ordered_rows(s, t) for t in tasks} for s in scored}
            protocols = {s.row.spec.name: {t.name: self._protocol(s, t) for t in tasks} for s in scored}
            counted = tally(tasks, rows, protocols, self.baseline, self.config.seed)
            self.notes += counted.warnings
            self._note_truncated(rows)
        trained_on = {name for t in self.prepared.trainings for name in t.data.tasks}
        return Run(
            harness=__version__,
            created=self.created,
            command=self.command,
            config=self.config.model_dump(mode="json"),
            config_sha256=self.prepared.identity,
            environment={
                **self.environment,
                "model": {"name": self.config.model, "digest": self.prepared.model.digest},
            },
            baseline=self.baseline,
            seed=self.config.seed,
            notes=(*fairness(self.prepared), *self.notes),
            tasks=tuple(
                TaskInfo(
                    name=task.name,
                    n=len(self.prepared.rows[0].items[task.name]),
                    trained_on=task.name in trained_on,
                    headline=task.task.metrics[0].name,
                    metrics=tuple(
                        MetricInfo(name=m.name, higher_is_better=m.higher_is_better) for m in task.task.metrics
                    ),
                    smallest_difference=counted.smallest[task.name] if counted else None,
                )
                for task in tasks
            ),
            variants=tuple(
                self._variant(state, counted.scores.get(state.row.spec.name, []) if counted else [])
                for state in self.states.values()
            ),
            comparisons=tuple(counted.comparisons) if counted else (),
            seconds=self.seconds,
        )

    @property
    def baseline(self) -> str:
        """The variant that differences are from."""
        return self.config.baseline or self.prepared.rows[0].spec.name

    def _variant(self, state: State, scores: Sequence[Score]) -> Variant:
        spec, trained = state.row.spec, state.trained
        return Variant(
            name=spec.name,
            spec=spec.canonical,
            method=spec.entry.name if spec.entry else None,
            status=state.status,
            error=state.error,
            hyperparameters=spec.hyperparameters,
            parameters=Parameters(total=state.parameters, trainable=trained.parameters_trainable if trained else 0)
            if state.parameters
            else None,
            model_bytes=state.model_bytes,
            train=train_record(trained, state.row.training, state.reused) if trained and state.row.training else None,
            artifact=Artifact(
                path=str(state.artifact.relative_to(self.folder.path)), bytes=folder_bytes(state.artifact)
            )
            if state.artifact
            else None,
            inference=inference_record(state.benched) if state.benched else None,
            scores=tuple(scores),
        )

    def _protocol(self, state: State, task: ScoredTask) -> Protocol:
        items, prompting = state.row.items[task.name], state.row.prompting
        return Protocol(
            version=task.task.version,
            shots=task.task.shots if prompting.shots is None else prompting.shots,
            mode="generate" if items[0].request.mode == "generate" else "loglikelihood",
            numerics=self.config.numerics,
            engine=self.config.engine,
            dtype=self.environment["dtype"],
            chat_template=prompting.template.text if prompting.template else None,
            system=prompting.system,
            token_budget=self._token_budget,
            prompt_sha256=key(prompts=[item.request.sha256 for item in items]),
        )

    def _ordered_rows(self, state: State, task: ScoredTask) -> list[dict[str, Any]]:
        by_id = {row["id"]: row for row in self._log(state, task).rows()}
        return [by_id[item.request.id] for item in state.row.items[task.name]]

    def _note_truncated(self, rows: dict[str, dict[str, list[dict[str, Any]]]]) -> None:
        for task in self.prepared.tasks:
            count = max((sum(row["truncated"] for row in rows[name][task.name]) for name in rows), default=0)
            if count:
                self.notes.append(
                    f"{task.name}: {count} prompts did not fit the model's context and were cut on the left"
                )
        for training in self.prepared.trainings:
            trained = next((s.trained for s in self.states.values() if s.row.training is training), None)
            if trained and trained.truncated:
                self.notes.append(
                    f"{trained.truncated} of {trained.samples} training rows of {training.data.name} were cut to"
                    f" {training.max_length} tokens or the model's context"
                )

    # ── small things ─────────────────────────────────────────────────────────────────────────────────────────────

    @property
    def _token_budget(self) -> int:
        return _BUDGETS[self.environment["device"].split(":")[0]]

    def _base(self, bits: Literal[4, 8] | None = None, snapshot: Snapshot | None = None) -> Base:
        return Base(
            (snapshot or self.prepared.model).folder,
            self.environment["device"],
            self.environment["dtype"],
            bits,
            self.config.trust_remote_code,
        )

    def _recipe(self, state: State) -> Recipe:
        """How the variant's model is made for scoring; see `harness.models`."""
        row, spec = state.row, state.row.spec
        load: Literal[4, 8] | None = {"nf4": 4, "int8": 8, None: None}[spec.load]  # type: ignore[assignment]
        if spec.kind == "base":
            return Recipe(self._base(spec.bits))
        if row.adapter is not None and not row.adapter.is_adapter:
            return Recipe(self._base(spec.bits, row.adapter))
        if row.adapter is not None:
            base = self._base(None if spec.merged else spec.bits)
            return Recipe(
                base, row.adapter.folder, spec.merged, spec.bits if spec.merged else None, _given(row.adapter)
            )
        assert row.training is not None and state.artifact is not None
        if row.training.saves == "checkpoint":
            return Recipe(self._base(spec.bits, Snapshot(spec.name, state.artifact)))
        method = None if (state.artifact / "adapter_config.json").is_file() else _method(row.training)
        if spec.merged:
            return Recipe(self._base(load), state.artifact, True, spec.bits, method)
        return Recipe(self._base(spec.bits or load), state.artifact, method=method)

    def _log(self, state: State, task: ScoredTask) -> SampleLog:
        seed = state.row.training.seed if state.row.training else self.config.seed
        return self.folder.samples(f"{state.row.spec.canonical}#{seed}", task.name)

    @contextlib.contextmanager
    def _stage(self, label: str, what: str) -> Iterator[None]:
        began = time.perf_counter()
        self.progress.start(label, what)
        yield
        self.seconds[f"{label.lower()} {what}"] = time.perf_counter() - began

    def _on_progress(self, event: Event) -> None:
        if isinstance(event, Advanced):
            self.progress.advance(event.done, event.note, event.total)

    def _announce(self) -> None:
        rows, tasks = len(self.prepared.rows), len(self.prepared.tasks)
        trainings = ", ".join(training.entry.name for training in self.prepared.trainings)
        train = f"train {trainings}, " if trainings else ""
        self.progress.say("Plan", f"{train}score {rows} variants × {tasks} tasks, time each · {self.folder.path}")
        self.folder.save(self.document())


class _Sink:
    """Takes what a scoring child sends: writes packs to their logs, and moves the progress line."""

    def __init__(self, comparison: Comparison, states: dict[str, State]) -> None:
        self.comparison = comparison
        self.states = states
        self.current: State | None = None
        self._tasks = {task.name: task for task in comparison.prepared.tasks}
        self._rows: list[dict[str, Any]] = []
        self._log: SampleLog | None = None
        self._task: ScoredTask | None = None
        self._keys: dict[str, list[str]] = {}
        self._began = time.perf_counter()

    def done(self, state: State, task: ScoredTask) -> list[int]:
        """Indices of the samples on disk whose keys are those that scoring now would give."""
        keys = self._sample_keys(state, task)
        index = {item.request.id: number for number, item in enumerate(state.row.items[task.name])}
        done = []
        for row in self.comparison._log(state, task).rows():
            number = index.get(row["id"])
            if number is None or row["key"] != keys[number]:
                break
            done.append(number)
        return done

    def take(self, event: Event) -> None:
        """One event of the child."""
        progress = self.comparison.progress
        if isinstance(event, VariantStarted):
            self._finish_variant()
            self.current = self.states[event.variant]
            self.current.model_bytes, self.current.parameters = event.model_bytes, event.parameters
        elif isinstance(event, VariantFailed):
            self.states[event.variant].fail(event.error)
        elif isinstance(event, Resumed):
            assert self.current is not None
            progress.finish()
            self._task = self._tasks[event.task]
            self._log = self.comparison._log(self.current, self._task)
            self._log.keep(event.kept)
            self._rows = self._log.rows()
            progress.start("Eval", f"{event.variant}  {event.task}", len(self.current.row.items[event.task]))
        elif isinstance(event, Packed):
            assert self.current is not None and self._task is not None and self._log is not None
            items, keys = self.current.row.items[event.task], self._sample_keys(self.current, self._task)
            rows = [sample_row(self._task, items[raw.index], raw, keys[raw.index]) for raw in event.raws]
            self._log.append(rows)
            self._rows += rows
        elif isinstance(event, Advanced):
            assert self._task is not None
            metric = self._task.task.metrics[0]
            progress.advance(event.done, f"{metric.name} {running_value(metric, self._rows):.2f}", event.total)

    def close(self) -> None:
        """The child is gone."""
        self._finish_variant()
        self.comparison.progress.finish()

    def _finish_variant(self) -> None:
        if self.current is not None:
            seconds = time.perf_counter() - self._began
            self.comparison.seconds[f"score {self.current.row.spec.name}"] = seconds
        self._began = time.perf_counter()

    def _sample_keys(self, state: State, task: ScoredTask) -> list[str]:
        """The key of each sample: whatever decides what the model gives for it. Neither metrics nor `--limit`."""
        where = f"{state.row.spec.name}/{task.name}"
        if where not in self._keys:
            comparison, training = self.comparison, state.row.training
            shared = key(
                model=comparison.prepared.model.digest,
                artifact=_artifact_digest(state),
                training=training.id if training else None,
                adapter=state.row.adapter.digest if state.row.adapter else None,
                transforms=state.row.spec.transforms,
                dtype=comparison.environment["dtype"],
                numerics=comparison.config.numerics,
                engine=comparison.config.engine,
                seed=comparison.config.seed,
            )
            items = state.row.items[task.name]
            self._keys[where] = [key(shared=shared, request=item.request.sha256)[:32] for item in items]
        return self._keys[where]


def _artifact_digest(state: State) -> str | None:
    """Of the weights that training left: a variant that was trained anew is scored anew."""
    return Snapshot(state.row.spec.name, state.artifact).digest if state.artifact else None


def _method(training: Training) -> Method:
    entry = training.entry
    return Method(entry.name, entry.path, entry.module, training.hyperparameters)


def _given(adapter: Snapshot) -> Method | None:
    """What made a delta given by path, as its own record says; None for PEFT adapters."""
    record = adapter.folder / "method.json"
    if not record.is_file():
        return None
    content = json.loads(record.read_text(encoding="utf-8"))
    entry = find("method", content["method"])
    return Method(entry.name, entry.path, entry.module, content["hyperparameters"])


def compare(
    *variants: str,
    model: str = "tiny",
    tasks: Sequence[str] | None = None,
    progress: Progress | None = None,
    fresh: bool = False,
    **settings: Any,
) -> Run:
    """Compares variants, as `harness compare` does.

    Args:
        *variants: Specs: `"base"`, `"lora:rank=8"`, `"mine=./x.py@rslora@4bit"`.
        model: `tiny`, a folder, or a Hub id.
        tasks: Names or paths; the `mini_*` tasks when the model is `tiny`.
        progress: Told what happens; silent when None.
        fresh: Start anew.
        **settings: Fields of `harness.spec.Config`; `train` is a mapping.

    Raises:
        UserError: Something the user can mend.

    Example:
        >>> run = compare("base", "lora", limit=20, train={"steps": 20})  # doctest: +SKIP
        >>> run.variant("lora").scores[0].delta.verdict  # doctest: +SKIP
        'better'
    """
    config = configure(variants, model=model, tasks=tasks, **settings)
    return run(config, progress=progress, fresh=fresh, command=f"harness.compare({', '.join(map(repr, variants))}, …)")


def evaluate(variant: str = "base", **settings: Any) -> Variant:
    """Scores one variant, as `harness eval` does; its results are those of its row.

    Raises:
        UserError: Something the user can mend.

    Example:
        >>> evaluate("base", tasks=["mini_mmlu"], limit=20).scores[0].value  # doctest: +SKIP
        0.85
    """
    return compare(variant, **settings).variants[0]


def train(variant: str, *, progress: Progress | None = None, **settings: Any) -> Path:
    """Trains one variant, as `harness train` does, and gives the folder of its artifact.

    Raises:
        UserError: Something the user can mend, or the training failed.

    Example:
        >>> train("lora:rank=8", train={"data": "data.jsonl"})  # doctest: +SKIP
        PosixPath('runs/tiny-20261120-235501/adapters/lora-rank-8-1a2b3c')
    """
    return train_only(configure([variant], **settings), progress=progress)


def train_only(config: Config, *, progress: Progress | None = None, fresh: bool = False, command: str = "") -> Path:
    """Trains the one variant of a configuration, scores nothing, and gives the folder of its artifact.

    Raises:
        UserError: The variant is no method, or its training failed.
    """
    with Comparison.open(config, progress or Progress(), fresh=fresh, command=command) as comparison:
        if not comparison.prepared.trainings:
            name = comparison.prepared.rows[0].spec.name
            raise UserError(f"`{name}` is not trained", hint="give a method: `harness ls methods`")
        if not comparison.finished:
            comparison.train()
        state = next(iter(comparison.states.values()))
        if comparison.finished is not None:
            artifact = comparison.finished.variants[0].artifact
            assert artifact is not None
            return comparison.folder.path / artifact.path
        if state.artifact is None:
            raise UserError(f"training failed: {state.error}", hint=f"see {comparison.folder.path / 'train'}")
        return state.artifact


def time_only(config: Config, *, progress: Progress | None = None, fresh: bool = False, command: str = "") -> Run:
    """Trains what must be trained and times the variants of a configuration; scores nothing."""
    with Comparison.open(config, progress or Progress(), fresh=fresh, command=command) as comparison:
        if comparison.finished is not None:
            return comparison.finished
        comparison.train()
        comparison.time()
        return comparison.document()
