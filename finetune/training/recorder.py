"""The log of a training run: one line per step and one per evaluation, also sent to the progress display and trackers.

The seconds of a step cover the optimizer step only, without collating its rows, evaluating or saving.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch

from harness.finetune.training.trackers import Trackers
from harness.models.measure import Stopwatch, rss_bytes, synchroniser
from harness.models.processor import ProcessorMeter

OnStep = Callable[[int, int, str], None]

_SECONDS_BETWEEN_NOTES = 0.1
_STEPS_OF_PACE = 10


class Recorder:
    """Records the figures of one training run.

    Args:
        log: File of one JSON object per line.
        on_step: Called with `(done, total, note)` after every step.
        device: Synchronised before the clock is read; its memory is shown.
        trackers: Receive the same figures.
    """

    def __init__(self, log: Path, on_step: OnStep, device: str, trackers: Trackers) -> None:
        self._log = log
        self._on_step = on_step
        self._device = device
        self._trackers = trackers
        self._watch = Stopwatch(synchronise=synchroniser(device))
        self.processor = ProcessorMeter()
        """Processor time of the steps of this process; those before an interruption are not in it."""
        self._start = self._noted = 0.0
        self._tail = ""
        self.steps: list[dict[str, Any]] = []
        self.evaluations: list[dict[str, Any]] = []

    def rewind(self, step: int) -> None:
        """Drops the lines after `step`, which a resumed run makes again."""
        lines = []
        with suppress(OSError):
            for line in self._log.read_text(encoding="utf-8").splitlines():
                with suppress(json.JSONDecodeError):  # incomplete after a kill
                    lines.append(json.loads(line))
        lines = [line for line in lines if line["step"] <= step]
        self.evaluations = [line for line in lines if "held_out" in line]
        self.steps = [line for line in lines if "held_out" not in line]
        self._log.parent.mkdir(parents=True, exist_ok=True)
        self._log.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")

    def step_begins(self) -> None:
        """Starts the clock."""
        self.processor.begin()
        self._watch.synchronise()
        self._start = self._watch.clock()

    def step_ends(self) -> None:
        """Stops the clock."""
        self._watch.synchronise()
        self._seconds = self._watch.clock() - self._start
        self.processor.end()

    def step(self, number: int, total: int, figures: dict[str, Any]) -> None:
        """Records a step.

        Args:
            number: Steps made, this one included.
            total: Steps of the run.
            figures: `loss`, `lr`, `grad_norm`, `tokens` and the stage's own.
        """
        line = {"step": number, "seconds": self._seconds, **figures}
        self.steps.append(line)
        self._append(line)
        renamed = {"lr": "learning_rate"}
        self._trackers.step(number, {renamed.get(key, key): figures[key] for key in figures if key != "tokens"})
        self._on_step(number, total, self._note(line))

    def evaluation(self, step: int, figures: dict[str, float]) -> None:
        """Records an evaluation after a step."""
        line = {"step": step, "held_out": figures}
        self.evaluations.append(line)
        self._append(line)
        self._trackers.evaluation(step, figures)

    def saved(self, step: int) -> None:
        """Tells the trackers that a checkpoint was saved after a step."""
        self._trackers.saved(step)

    def _append(self, line: dict[str, Any]) -> None:
        with self._log.open("a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")

    def _note(self, line: dict[str, Any]) -> str:
        """Returns loss, tokens per second and memory; the latter two are updated at most ten times a second."""
        if time.monotonic() - self._noted >= _SECONDS_BETWEEN_NOTES:
            self._noted = time.monotonic()
            recent = self.steps[-_STEPS_OF_PACE:]
            pace = sum(step["tokens"] for step in recent) / (sum(step["seconds"] for step in recent) or 1.0)
            on_gpu = self._device.startswith("cuda")
            memory = torch.cuda.memory_reserved(self._device) if on_gpu else rss_bytes()
            shown = f"{pace / 1000:.1f}k" if pace >= 1000 else f"{pace:.0f}"
            self._tail = f" · {shown} tok/s · {memory / 1e9:.1f} GB"
        return f"loss {line['loss']:.2f}{self._tail}"
