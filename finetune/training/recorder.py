"""What a training leaves in its log: a line a step, a line a look at held-out rows; and what it tells while it runs.

A step's seconds are those of the optimizer step alone: no data loading, no looks, no saving.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch

from harness.models.measure import Stopwatch, rss_bytes, synchroniser

OnStep = Callable[[int, int, str], None]

_SECONDS_BETWEEN_NOTES = 0.1
_STEPS_OF_PACE = 10


class Recorder:
    """The log of one training.

    Args:
        log: File of one JSON object a line.
        on_step: Told `(done, total, note)` after every step.
        device: Whose clock is waited for, and whose memory is shown.
    """

    def __init__(self, log: Path, on_step: OnStep, device: str) -> None:
        self._log = log
        self._on_step = on_step
        self._device = device
        self._watch = Stopwatch(synchronise=synchroniser(device))
        self._start = self._noted = 0.0
        self._tail = ""
        self.steps: list[dict[str, Any]] = []
        self.looks: list[dict[str, Any]] = []

    def rewind(self, step: int) -> None:
        """Keeps the lines up to `step`: those of the checkpoint that training continues from."""
        lines = []
        with suppress(OSError):
            for line in self._log.read_text(encoding="utf-8").splitlines():
                with suppress(json.JSONDecodeError):  # torn by a kill
                    lines.append(json.loads(line))
        lines = [line for line in lines if line["step"] <= step]
        self.looks = [line for line in lines if "held_out" in line]
        self.steps = [line for line in lines if "held_out" not in line]
        self._log.parent.mkdir(parents=True, exist_ok=True)
        self._log.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")

    def step_begins(self) -> None:
        """The clock starts."""
        self._watch.synchronise()
        self._start = self._watch.clock()

    def step_ends(self) -> None:
        """The clock stops."""
        self._watch.synchronise()
        self._seconds = self._watch.clock() - self._start

    def step(self, number: int, total: int, figures: dict[str, Any]) -> None:
        """A step is over; `figures` are its loss, rate, tokens and what else is known."""
        line = {"step": number, "seconds": self._seconds, **figures}
        self.steps.append(line)
        self._append(line)
        self._on_step(number, total, self._note(line))

    def look(self, step: int, figures: dict[str, float]) -> None:
        """Held-out rows were looked at."""
        line = {"step": step, "held_out": figures}
        self.looks.append(line)
        self._append(line)

    def _append(self, line: dict[str, Any]) -> None:
        with self._log.open("a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")

    def _note(self, line: dict[str, Any]) -> str:
        """Loss, tokens a second and memory; the latter two are read ten times a second at most."""
        if time.monotonic() - self._noted >= _SECONDS_BETWEEN_NOTES:
            self._noted = time.monotonic()
            recent = self.steps[-_STEPS_OF_PACE:]
            pace = sum(step["tokens"] for step in recent) / (sum(step["seconds"] for step in recent) or 1.0)
            on_gpu = self._device.startswith("cuda")
            memory = torch.cuda.memory_reserved(self._device) if on_gpu else rss_bytes()
            shown = f"{pace / 1000:.1f}k" if pace >= 1000 else f"{pace:.0f}"
            self._tail = f" · {shown} tok/s · {memory / 1e9:.1f} GB"
        return f"loss {line['loss']:.2f}{self._tail}"
