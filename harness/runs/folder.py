"""The run folder: samples as they come, artifacts made whole, one document at the end; and how a run continues.

    runs/<model>-<time>/
      run.json                      the document (`harness.results`)
      samples/<variant>/<task>.jsonl  append-only, flushed a pack at a time: the resume log
      train/<variant>.jsonl         one line a training step
      costs/<variant>.json          timings, raw
      adapters/<variant>/           what training left (`checkpoints/<variant>/` for whole models)
      merged/<variant>/             the base with an adapter in its weights, where that was asked for

One process writes a folder (a lock that its children hold too). A line torn by a crash is dropped.
"""

from __future__ import annotations

import datetime
import fcntl
import json
import os
import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Self

from harness.errors import UserError, did_you_mean
from harness.jobs import Benched
from harness.results import SCHEMA, Run
from harness.storage import slug, write_whole, writing

DOCUMENT = "run.json"
LOCK = ".lock"


@dataclass
class SampleLog:
    """The samples of one variant on one task, in the order in which they were scored."""

    path: Path

    def rows(self) -> list[dict[str, Any]]:
        """All whole lines; what a crash tore is cut off the file, and scored again."""
        if not self.path.is_file():
            return []
        rows, whole = [], 0
        lines = self.path.read_bytes().splitlines(keepends=True)
        for line in lines:
            row = _whole_row(line)
            if row is None:
                break
            rows.append(row)
            whole += len(line)
        if len(rows) < len(lines):
            with writing(self.path), self.path.open("r+b") as file:
                file.truncate(whole)
        return rows

    def keep(self, count: int) -> None:
        """Cuts the file after its first `count` lines."""
        if not self.path.is_file():
            return
        lines = self.path.read_bytes().splitlines(keepends=True)
        if len(lines) > count:
            with writing(self.path), self.path.open("r+b") as file:
                file.truncate(sum(map(len, lines[:count])))

    def append(self, rows: Sequence[dict[str, Any]]) -> None:
        """Adds the lines of one pack, in one write, and waits until they are on disk."""
        text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
        with writing(self.path):
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with self.path.open("ab") as file:
                file.write(text.encode())
                file.flush()
                os.fsync(file.fileno())


def _whole_row(line: bytes) -> dict[str, Any] | None:
    """A line of a samples file; None when it was torn, or the disk lost what was written."""
    try:
        row = json.loads(line) if line.endswith(b"\n") else None
    except ValueError:
        return None
    return row if isinstance(row, dict) else None


@dataclass(frozen=True)
class CostRecord:
    """The timing of one variant, kept so that a continued run does not time again."""

    path: Path
    cost_key: str

    def read(self) -> Benched | None:
        """The timing, if it is there and was taken under the same key."""
        if not self.path.is_file():
            return None
        record = json.loads(self.path.read_text(encoding="utf-8"))
        return Benched(**record["benched"]) if record["cost_key"] == self.cost_key else None

    def write(self, benched: Benched) -> None:
        """Keeps a timing."""
        write_whole(self.path, json.dumps({"cost_key": self.cost_key, "benched": asdict(benched)}))


@dataclass
class RunFolder:
    """A run on disk, locked by us.

    Example:
        >>> with RunFolder.open(Path("runs"), "tiny", "abc…") as folder:  # doctest: +SKIP
        ...     folder.samples("lora", "gsm8k").rows()
    """

    path: Path
    lock: int

    @classmethod
    def open(cls, output: Path, model: str, config_sha256: str, *, fresh: bool = False) -> Self:
        """The newest run of the same configuration, or a new one.

        Args:
            output: The folder of all runs.
            model: For the name of a new folder.
            config_sha256: What makes two runs the same.
            fresh: Always a new one.

        Raises:
            UserError: The folder cannot be written, or another process writes it.
        """
        with writing(output):
            found = None if fresh else _newest(output, config_sha256)
        path = found or _new_folder(output, model)
        with writing(path):
            lock = os.open(path / LOCK, os.O_RDWR | os.O_CREAT, 0o644)
            os.set_inheritable(lock, True)
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                os.close(lock)
                raise UserError(
                    f"another process is writing `{path}`", hint="wait for it, or start a run of its own with `--fresh`"
                ) from error
        return cls(path, lock)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if [entry.name for entry in self.path.iterdir()] == [LOCK]:  # nothing came of it
            (self.path / LOCK).unlink()
            self.path.rmdir()
        os.close(self.lock)

    def samples(self, variant: str, task: str) -> SampleLog:
        """The log of a variant (by canonical spec) on a task (by spec as typed)."""
        return SampleLog(self.path / "samples" / slug(variant) / f"{slug(task)}.jsonl")

    def costs(self, variant: str, cost_key: str) -> CostRecord:
        """The timing of a variant (by canonical spec)."""
        return CostRecord(self.path / "costs" / f"{slug(variant)}.json", cost_key)

    def train_log(self, training: str) -> Path:
        """Where a training writes a line a step."""
        return self.path / "train" / f"{slug(training)}.jsonl"

    def train_state(self, training: str) -> Path:
        """Where an interrupted training continues from."""
        return self.path / "train" / f"{slug(training)}.state"

    def artifact(self, training: str, saves: str) -> Path:
        """Where a training leaves what it made."""
        return self.path / ("checkpoints" if saves == "checkpoint" else "adapters") / slug(training)

    def merged(self, training: str) -> Path:
        """Where the base with a training's adapter in its weights is left."""
        return self.path / "merged" / slug(training)

    def load(self) -> Run | None:
        """The document, if it was written."""
        return load_run(self.path) if (self.path / DOCUMENT).is_file() else None

    def save(self, run: Run) -> None:
        """Writes the document: aside, synced, renamed."""
        write_whole(self.path / DOCUMENT, run.to_json() + "\n")

    def log_failure(self, what: str, traceback: str) -> None:
        """Keeps a child's traceback for a bug report."""
        write_whole(self.path / "train" / f"{slug(what)}.error.txt", traceback)


def load_run(path: Path) -> Run:
    """The document of a run, from its folder or from the file itself.

    Raises:
        UserError: There is none, it is torn, or it is of another schema.
    """
    file = path / DOCUMENT if path.is_dir() else path
    if not file.is_file():
        folder = path if path.is_dir() else path.parent  # `runs` itself was given, or a misspelt run in it
        known = [str(p.parent.relative_to(folder)) for p in folder.glob(f"*/{DOCUMENT}")]
        hint = did_you_mean(path.name, known) if known else "`harness ls runs` lists those there are"
        raise UserError(f"no run at `{path}`", hint=hint)
    try:
        document = json.loads(file.read_text(encoding="utf-8"))
        if document.get("schema") != SCHEMA:
            raise UserError(
                f"`{file}` has schema {document.get('schema')}, this version reads {SCHEMA}",
                hint="use the version of harness that wrote it, or run the comparison again",
            )
        return Run.model_validate(document)
    except (ValueError, AttributeError) as error:  # not UTF-8, not JSON, not an object, not of the schema
        raise UserError(
            f"`{file}` is not a run: {str(error).splitlines()[0]}", hint="was the file edited, or cut short?"
        ) from error
    except OSError as error:
        raise UserError(f"could not read `{file}`: {error.strerror}") from error


def list_runs(output: Path) -> list[tuple[Path, Run]]:
    """The runs in a folder, newest first; what cannot be read is left out."""
    found = []
    for file in output.glob(f"*/{DOCUMENT}"):
        try:
            found.append((file.parent, load_run(file.parent)))
        except UserError:
            continue
    return sorted(found, key=lambda entry: (entry[1].created, entry[0].name), reverse=True)


def _newest(output: Path, config_sha256: str) -> Path | None:
    for path, run in list_runs(output):
        if run.config_sha256 == config_sha256:
            return path
    return None


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
            except FileExistsError:  # another run that began in the same second
                path = output / f"{stem}-{number}"
                number += 1
