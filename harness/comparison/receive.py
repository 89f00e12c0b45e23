"""Receives the events of a scoring child process: writes samples to their files and updates the progress display."""

from __future__ import annotations

import math
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from harness.comparison import recipes
from harness.comparison.document import in_order, protocol, unfinished
from harness.comparison.samples import RunningScore, sample_row
from harness.comparison.scores import single_scores
from harness.comparison.state import Session, State
from harness.jobs import (
    Advanced,
    Event,
    Noted,
    Packed,
    Raw,
    Resumed,
    VariantFailed,
    VariantLoading,
    VariantStarted,
    Writer,
)
from harness.prepare.tasks import ScoredTask
from harness.report.progress import Progress
from harness.runs.folder import SampleLog
from harness.sandbox.processors import processors


class Receiver:
    """Receives the events of one scoring child process.

    Args:
        session: The run.
        progress: Receives progress events.
    """

    def __init__(self, session: Session, progress: Progress) -> None:
        self.session = session
        self.progress = progress
        self.current: State | None = None
        """The variant that the child process is scoring."""
        self._tasks = {task.name: task for task in session.prepared.tasks}
        self._task: ScoredTask | None = None
        self._log: SampleLog | None = None
        self._keys: dict[Writer, list[str]] = {}
        self._running: RunningScore | None = None
        self._threads = ThreadPoolExecutor(processors())
        self._began = time.perf_counter()

    def done(self, state: State, task: ScoredTask) -> list[int]:
        """Returns the indices of the samples on disk, up to the first whose key is out of date."""
        accepted = [set(keys) for keys in zip(*self._all_keys(state, task).values(), strict=True)]
        index = {item.request.id: number for number, item in enumerate(state.variant.items[task.name])}
        done = []
        for row in self.session.log(state, task).rows():
            number = index.get(row["id"])
            if number is None or row["key"] not in accepted[number]:
                break
            done.append(number)
        return done

    def by_vllm(self, state: State, task: ScoredTask) -> bool:
        """Whether vLLM has generated some of the samples on disk."""
        return self.session.vllm is not None and any("writer" in row for row in self.session.log(state, task).rows())

    def _all_keys(self, state: State, task: ScoredTask) -> dict[Writer, list[str]]:
        """The keys of the samples, by the writers that may have generated them."""
        generates = state.variant.items[task.name][0].request.mode == "generate"
        writers: tuple[Writer, ...] = ("slots", "vllm") if self.session.vllm and generates else ("slots",)
        return {writer: recipes.sample_keys(self.session, state, task, writer) for writer in writers}

    def take(self, event: Event) -> None:
        """Handles one event."""
        if isinstance(event, VariantLoading):
            self._finish_variant()
            self.current = self.session.states[event.variant]
            self.current.status = "running"
        elif isinstance(event, VariantStarted):
            assert self.current is not None
            deployed = self.current.deployed
            self.current.model_bytes = deployed.bytes if deployed else event.model_bytes
            self.current.memory_bytes = event.model_bytes
            self.current.parameters = event.parameters
        elif isinstance(event, Noted):
            self.session.states[event.variant].notes.append(event.note)
        elif isinstance(event, VariantFailed):
            self.session.states[event.variant].fail(event.error)
        elif isinstance(event, Resumed):
            self._start_task(event)
        elif isinstance(event, Packed):
            self._keep(event)
        elif isinstance(event, Advanced):
            assert self._running is not None
            value = self._running.value
            note = f"{self._running.metric.name} {value:.2f}" if math.isfinite(value) else ""
            self.progress.advance(event.done, note, event.total, event.share)

    def close(self) -> None:
        """Finishes the last variant, after the child process has ended."""
        self._threads.shutdown()
        self._finish_variant()

    def _start_task(self, event: Resumed) -> None:
        assert self.current is not None
        self._finish_task()
        self._task = self._tasks[event.task]
        self._log = self.session.log(self.current, self._task)
        self._keys = self._all_keys(self.current, self._task)
        if event.kept != self.session.ends.get((event.variant, event.task)):  # else later packs may follow
            self._log.keep(event.kept)
        self._running = RunningScore(self._task.metrics[0])
        self._running.add(self._log.rows())
        if event.kept > event.first:
            total = len(self.current.variant.items[event.task])
            self.progress.say(
                "Reuse", f"{event.variant}  {event.task}: {event.kept} of {total} samples scored before in this run"
            )
        self.progress.start("Eval", f"{event.variant}  {event.task}", len(self.current.variant.items[event.task]))

    def _keep(self, event: Packed) -> None:
        assert self.current is not None and self._task is not None
        assert self._log is not None and self._running is not None
        items, keys = self.current.variant.items[event.task], self._keys[event.writer]
        task = self._task
        writer = str(self.session.vllm) if event.writer == "vllm" else None

        def measured(raw: Raw) -> dict[str, Any]:
            return sample_row(task, items[raw.index], raw, keys[raw.index], writer)

        # generated code runs in processes of its own, so threads wait for several of them at the same time
        rows = list((self._threads.map if task.task.executes_code else map)(measured, event.raws))
        self._log.append(rows)
        self._running.add(rows)

    def _finish_task(self) -> None:
        """Computes the scores of a task whose samples are all on disk, so that an interrupted run can show them."""
        self.progress.finish()
        state, task, session = self.current, self._task, self.session
        self._task = None
        if state is None or task is None or state.status == "failed":
            return
        if len(session.log(state, task).rows()) == len(state.variant.items[task.name]):
            rows, found = in_order(session, state, task), protocol(session, state, task)
            state.scores = [score for score in state.scores if score.task != task.name]
            state.scores += single_scores(task, rows, found)

    def _finish_variant(self) -> None:
        self._finish_task()
        if self.current is not None:
            self.session.folder.save(unfinished(self.session))
            stage = f"score {self.current.name}"  # with `--until-decided`, once for every pack
            self.session.seconds[stage] = self.session.seconds.get(stage, 0.0) + time.perf_counter() - self._began
        self._began = time.perf_counter()
