"""Comparisons in processes of their own, which tests kill, signal and cut off, and what such a run leaves."""

from __future__ import annotations

import fcntl
import itertools
import os
import signal
import subprocess
import threading
import time
from pathlib import Path
from typing import Any, Self

from in_process import command

from harness.results import Run

ASKED = ("base", "lora", "--tasks", "mini_mmlu,mini_gsm8k", "--limit", "12", "--steps", "4")
STAGES = ("Start", "Train", "Eval", "Count", "Time")


def start(folder: Path, *asked: str, **environment: str) -> subprocess.Popen[str]:
    """Starts a comparison in a session of its own; its stderr is read by the caller."""
    return subprocess.Popen(
        command("compare", *(asked or ASKED)),
        cwd=folder,
        start_new_session=True,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, **environment},
        preexec_fn=_heed_signals,
    )


def _heed_signals() -> None:
    """A background job of a script ignores Ctrl-C, one under `nohup` hang-ups, and so would the processes that they start."""
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGHUP, signal.SIG_DFL)


class Watched:
    """A comparison whose stages are known as they begin, from its stderr."""

    def __init__(self, folder: Path, *asked: str, **environment: str) -> None:
        self.process = start(folder, *asked, **environment)
        self.said = ""
        self._began: dict[str, float] = {}
        self._reader = threading.Thread(target=self._read)

    def __enter__(self) -> Self:
        self._reader.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self.process.wait()
        self._reader.join()

    def _read(self) -> None:
        assert self.process.stderr is not None
        for line in self.process.stderr:
            self.said += line
            label = line.split(" ", 1)[0]
            if label in STAGES:
                self._began.setdefault(label, time.monotonic())
        self._began["end"] = time.monotonic()

    @property
    def stage(self) -> str:
        """The stage that began last."""
        return next(reversed(self._began), "none")

    def wait_for(self, stage: str) -> None:
        """Waits until a stage begins, or the run ends."""
        while stage not in self._began and self.process.poll() is None:
            time.sleep(0.01)

    def seconds(self) -> dict[str, float]:
        """How long each stage took, after the run has ended; what lies between two stages belongs to the first."""
        self._reader.join()
        begins = list(self._began.items())
        return {stage: end - begin for (stage, begin), (_, end) in itertools.pairwise(begins)}


def finish(folder: Path, *asked: str, **environment: str) -> tuple[int, Run | None, str]:
    """Runs the comparison to its end: the exit code, the document, and stderr."""
    ended = done(folder, *command("compare", *(asked or ASKED), "--format", "json"), **environment)
    run = Run.model_validate_json(ended.stdout) if ended.returncode in (0, 1) else None
    return ended.returncode, run, ended.stderr


def done(folder: Path, *words: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Runs a command to its end."""
    return subprocess.run(
        words,
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
        timeout=1200,
        env={**os.environ, **environment},
    )


def processes(session: int) -> dict[int, int]:
    """The living processes of a session, each with its parent."""
    found = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text().rsplit(")", 1)[1].split()
        except OSError:
            continue
        if int(fields[3]) == session and fields[0] != "Z":
            found[int(stat.parent.name)] = int(fields[1])
    return found


def wait_until_gone(session: int, seconds: float = 10.0) -> None:
    """Waits until no process of a session is left."""
    deadline = time.monotonic() + seconds
    while left := processes(session):
        assert time.monotonic() < deadline, f"processes were left behind: {left}"
        time.sleep(0.05)


def samples(folder: Path) -> dict[str, bytes]:
    """The samples files of the one run in a folder, by their path in it."""
    (document,) = (folder / "runs").glob("*/run.json")
    run = document.parent
    return {str(path.relative_to(run)): path.read_bytes() for path in sorted((run / "samples").rglob("*.jsonl"))}


def artifacts(folder: Path) -> dict[str, bytes]:
    """The trained weights of the one run in a folder, by their path in it."""
    (document,) = (folder / "runs").glob("*/run.json")
    run = document.parent
    return {str(path.relative_to(run)): path.read_bytes() for path in sorted(run.rglob("*.safetensors"))}


def scores(folder: Path) -> dict[tuple[str, str, str], Any]:
    """Every score of the one run in a folder."""
    (document,) = (folder / "runs").glob("*/run.json")
    run = Run.model_validate_json(document.read_text())
    return {(each.name, score.task, score.metric): score.value for each in run.variants for score in each.scores}


def leftovers(folder: Path) -> list[str]:
    """Files and folders that only a broken run leaves: partial artifacts, temporary files, training states."""
    return [
        str(path.relative_to(folder))
        for path in (folder / "runs").rglob("*")
        if path.suffix in (".partial", ".state") or (path.name.startswith(".") and path.name != ".lock")
    ]


def refuse_held_lock(folder: Path) -> None:
    """Fails if a process still holds the lock of a run in a folder."""
    for lock in (folder / "runs").glob("*/.lock"):
        with lock.open("r+") as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
