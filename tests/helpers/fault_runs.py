"""Comparisons in processes of their own, which tests kill, signal and cut off, and what such a run leaves."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

from in_process import command

from harness.results import Run

ASKED = ("base", "lora", "--tasks", "mini_mmlu,mini_gsm8k", "--limit", "12", "--steps", "4")


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
        # a background job of a script ignores Ctrl-C, and so do its children
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )


def finish(folder: Path, *asked: str, **environment: str) -> tuple[int, Run | None, str]:
    """Runs the comparison to its end: the exit code, the document, and stderr."""
    done = subprocess.run(
        command("compare", *(asked or ASKED), "--format", "json"),
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
        timeout=600,
        env={**os.environ, **environment},
    )
    run = Run.model_validate(json.loads(done.stdout)) if done.stdout.startswith("{") else None
    return done.returncode, run, done.stderr


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


def scores(run: Run | None) -> dict[tuple[str, str, str], Any]:
    """Every score of a run."""
    assert run is not None
    return {(each.name, score.task, score.metric): score.value for each in run.variants for score in each.scores}


def leftovers(folder: Path) -> list[str]:
    """Files and folders that only a broken run leaves: partial artifacts, temporary files, training states."""
    return [
        str(path.relative_to(folder))
        for path in (folder / "runs").rglob("*")
        if path.suffix in (".partial", ".state") or (path.name.startswith(".") and path.name != ".lock")
    ]
