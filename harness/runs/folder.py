"""The run folder: the files of one run on disk, from which an interrupted run continues.

    runs/<model>-<time>/
      run.json                        the results (`harness.results`)
      samples/<variant>/<task>.jsonl  scored samples: append-only, flushed after every pack; the resume log
      samples/prompts/<task>.jsonl    prompts and targets, once for all variants
      train/<variant>.jsonl           one line per training step
      costs/<variant>.json            raw timings
      adapters/<variant>/             trained artifacts (whole models: `checkpoints/<variant>/`)
      merged/<variant>/               the base with the adapter merged, if requested
      exports/<variant>-<form>/       what `harness export` wrote

Only one process writes a folder: it holds a lock, and so do its children. A line that a crash cut short is dropped.
"""

from __future__ import annotations

import contextlib
import datetime
import fcntl
import json
import os
import re
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Self

from harness.errors import UserError, did_you_mean
from harness.jobs import Benched, TimedPoint
from harness.results import Run
from harness.runs.document import read_document
from harness.storage import read_json, remove_unfinished, slug, write_whole, writing

DOCUMENT = "run.json"
LOCK = ".lock"
_STARTED_SECONDS = 2.0
"""Age from which a lock file that no process holds was left by a run that was killed."""


@dataclass
class SampleLog:
    """The samples of one variant on one task, in the order in which they were scored.

    Lines that were read once are kept in memory: a further call reads only what was added.
    """

    path: Path
    _rows: list[dict[str, Any]] = field(default_factory=list, init=False)
    _ends: list[int] = field(default_factory=lambda: [0], init=False)
    """Bytes up to the beginning of each line that was read, and up to the end of the last."""

    def rows(self) -> list[dict[str, Any]]:
        """All complete lines. Anything after them was left by a crash: it is cut off the file, and scored again.

        Raises:
            UserError: The file cannot be written.
        """
        rows = self.complete_rows()
        if self.path.is_file() and self.path.stat().st_size > self._ends[-1]:
            self._truncate(self._ends[-1])
        return rows

    def complete_rows(self) -> list[dict[str, Any]]:
        """All complete lines; the file stays as it is."""
        size = self.path.stat().st_size if self.path.is_file() else 0
        if size < self._ends[-1]:  # another one was put in its place
            self._rows, self._ends = [], [0]
        if size > self._ends[-1]:
            with self.path.open("rb") as file:
                file.seek(self._ends[-1])
                for line in file:
                    row = _complete_row(line)
                    if row is None:
                        break
                    self._rows.append(row)
                    self._ends.append(self._ends[-1] + len(line))
        return list(self._rows)

    def keep(self, count: int) -> None:
        """Keeps only the first `count` lines of the file.

        Raises:
            UserError: The file cannot be written.
        """
        if len(self.rows()) > count:
            self._truncate(self._ends[count])
            del self._rows[count:], self._ends[count + 1 :]

    def _truncate(self, size: int) -> None:
        with writing(self.path), self.path.open("r+b") as file:
            file.truncate(size)

    def append(self, rows: Sequence[dict[str, Any]]) -> None:
        """Adds the lines of one pack in one write, and waits until they are on disk.

        Raises:
            UserError: The file cannot be written.
        """
        text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
        with writing(self.path):
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with self.path.open("ab") as file:
                file.write(text.encode())
                file.flush()
                os.fsync(file.fileno())


def _complete_row(line: bytes) -> dict[str, Any] | None:
    """The row on a line of a samples file; None if a crash cut the line short, or the disk lost it."""
    try:
        row = json.loads(line) if line.endswith(b"\n") else None
    except (ValueError, RecursionError):
        return None
    return row if isinstance(row, dict) else None


@dataclass(frozen=True)
class CostRecord:
    """The timing of one variant, saved so that a continued run need not repeat it."""

    path: Path
    cost_key: str

    def read(self) -> Benched | None:
        """The saved timing if it has the same key, else None."""
        if not self.path.is_file():
            return None
        try:
            record = read_json(self.path)
            if record["cost_key"] != self.cost_key:
                return None
            points = tuple(TimedPoint(**point) for point in record["benched"].pop("points", ()))
            return Benched(**record["benched"], points=points)
        except (OSError, ValueError, LookupError, TypeError):  # of another version, or damaged: measure again
            return None

    def write(self, benched: Benched) -> None:
        """Saves a timing.

        Raises:
            UserError: The file cannot be written.
        """
        write_whole(self.path, json.dumps({"cost_key": self.cost_key, "benched": asdict(benched)}))


@dataclass
class RunFolder:
    """A run on disk, locked by this process.

    Example:
        >>> with RunFolder.open(Path("runs"), "tiny", "abc…") as folder:  # doctest: +SKIP
        ...     folder.samples("lora", "gsm8k").rows()
    """

    path: Path
    lock: int
    skipped: list[UserError] = field(default_factory=list)
    """Errors of other runs in the same folder that cannot be read."""

    @classmethod
    def open(cls, output: Path, model: str, config_sha256: str, *, fresh: bool = False) -> Self:
        """Opens the newest run of the same configuration, or creates a new one.

        Args:
            output: The folder of all runs.
            model: Name of the model, for the name of a new folder.
            config_sha256: Digest of the configuration; runs with equal digests are the same run.
            fresh: Whether to create a new run in any case.

        Raises:
            UserError: The folder cannot be written, or another process is writing it.
        """
        skipped: list[UserError] = []
        with writing(output):
            _remove_empty(output)
            found = None if fresh else _newest(output, config_sha256, skipped)
        path = found or _new_folder(output, model)
        with writing(path):
            lock = os.open(path / LOCK, os.O_RDWR | os.O_CREAT, 0o644)
            os.set_inheritable(lock, True)
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                os.close(lock)
                raise UserError(
                    f"another process is writing `{path}`",
                    hint="wait until it has finished, or start a separate run with `--fresh`",
                ) from error
            remove_unfinished(path)
        return cls(path, lock, skipped)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if [entry.name for entry in self.path.iterdir()] == [LOCK]:  # the run wrote nothing
            (self.path / LOCK).unlink()
            self.path.rmdir()
        os.close(self.lock)

    def samples(self, variant: str, task: str) -> SampleLog:
        """The samples of a variant (`stored_as`) on a task (spec as typed)."""
        return sample_log(self.path, variant, task)

    def costs(self, variant: str, cost_key: str) -> CostRecord:
        """The timing of a variant (canonical spec)."""
        return CostRecord(self.path / "costs" / f"{slug(variant)}.json", cost_key)

    def train_log(self, training: str) -> Path:
        """The file to which a training run writes one line per step."""
        return self.path / "train" / f"{slug(training)}.jsonl"

    def train_state(self, training: str) -> Path:
        """The state from which an interrupted training run continues."""
        return self.path / "train" / f"{slug(training)}.state"

    def artifact(self, training: str, saves: str) -> Path:
        """The folder of the adapter or checkpoint that a training run saves."""
        return self.path / ("checkpoints" if saves == "checkpoint" else "adapters") / slug(training)

    def merged(self, training: str) -> Path:
        """The folder of the base with a training run's adapter merged."""
        return self.path / "merged" / slug(training)

    def load(self) -> Run | None:
        """The results, or None if they have not been written."""
        return load_run(self.path) if (self.path / DOCUMENT).is_file() else None

    def save(self, run: Run) -> None:
        """Writes the results atomically.

        Raises:
            UserError: The file cannot be written.
        """
        write_whole(self.path / DOCUMENT, run.to_json() + "\n")

    def log_failure(self, job: str, traceback: str) -> None:
        """Saves a child's traceback for a bug report.

        Raises:
            UserError: The file cannot be written.
        """
        write_whole(self.path / "train" / f"{slug(job)}.error.txt", traceback)


def stored_as(spec: str, seed: int, fold: int | None = None) -> str:
    """The name of a variant's files: each replica and fold of a variant has its own.

    Args:
        spec: The variant's canonical spec.
        seed: Seed of its training run, or of the run.
        fold: The fold that its training run leaves out.
    """
    return f"{spec}#{seed}" + (f"/{fold}" if fold is not None else "")


def sample_log(folder: Path, variant: str, task: str) -> SampleLog:
    """The samples of a variant (`stored_as`) on a task (spec as typed) in a run's folder."""
    return SampleLog(folder / "samples" / slug(variant) / f"{slug(task)}.jsonl")


def load_run(path: Path) -> Run:
    """Loads the results of a run, from its folder or from the file itself.

    Raises:
        UserError: The file is missing, has another schema, or a field of it is wrong.
    """
    file = path / DOCUMENT if path.is_dir() else path
    if not file.is_file():
        folder = path if path.is_dir() else path.parent  # the folder of all runs, or a misspelt run in it
        known = [str(p.parent.relative_to(folder)) for p in folder.glob(f"*/{DOCUMENT}")]
        hint = did_you_mean(path.name, known) if known else "list the runs with `harness ls runs`"
        raise UserError(f"no run at `{path}`", hint=hint)
    return read_document(file)


def is_live(path: Path) -> bool:
    """Whether a process is writing a run folder: it, or a child, holds the lock."""
    try:
        with (path / LOCK).open("rb") as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:  # no lock file, or no permission to read it
        return False
    return False


def load_shown(path: Path) -> Run:
    """Loads a run to show it: variants that were unfinished when its process ended are `interrupted`.

    Raises:
        UserError: See `load_run`.
    """
    run, folder = load_run(path), path if path.is_dir() else path.parent
    if all(variant.status in ("done", "failed") for variant in run.variants) or is_live(folder):
        return run
    variants = tuple(
        each if each.status in ("done", "failed") else each.model_copy(update={"status": "interrupted"})
        for each in run.variants
    )
    return run.model_copy(update={"variants": variants})


def list_runs(output: Path, skipped: list[UserError] | None = None) -> list[tuple[Path, Run]]:
    """The runs in a folder, newest first.

    Args:
        output: The folder.
        skipped: Receives an error for each run that cannot be read, and that is left out.
    """
    found = []
    for file in output.glob(f"*/{DOCUMENT}"):
        try:
            found.append((file.parent, load_run(file.parent)))
        except UserError as error:
            if skipped is not None:
                skipped.append(error)
    return sorted(found, key=lambda entry: (entry[1].created, entry[0].name), reverse=True)


def _newest(output: Path, config_sha256: str, skipped: list[UserError]) -> Path | None:
    for path, run in list_runs(output, skipped):
        if run.config_sha256 == config_sha256:
            return path
    return None


def _remove_empty(output: Path) -> None:
    """Removes the folders of runs that were killed before they wrote anything."""
    for lock in output.glob(f"*/{LOCK}"):
        folder = lock.parent
        with contextlib.suppress(OSError):
            old = time.time() - lock.stat().st_ctime > _STARTED_SECONDS  # a run that starts now has no lock yet
            if old and [entry.name for entry in folder.iterdir()] == [LOCK] and not is_live(folder):
                lock.unlink()
                folder.rmdir()


def _new_folder(output: Path, model: str) -> Path:
    readable = re.sub(r"[^A-Za-z0-9._]+", "-", model.rstrip("/").rsplit("/", 1)[-1]).strip("-.").lower() or "model"
    stem = f"{readable}-{datetime.datetime.now().astimezone():%Y%m%d-%H%M%S}"
    path = output / stem
    number = 2
    with writing(path):
        output.mkdir(parents=True, exist_ok=True)
        while True:
            try:
                path.mkdir()
                return path
            except FileExistsError:  # another run that started in the same second
                path = output / f"{stem}-{number}"
                number += 1
