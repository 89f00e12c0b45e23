"""Finds the runs of a board in folders, and reads what a board shows of them.

Example:
    >>> runs, problems = RunReader().read([Path("runs")])  # doctest: +SKIP
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from harness.errors import UserError
from harness.results import Run
from harness.runs.folder import DOCUMENT, load_shown
from harness.storage import JSON_BYTES

_DEEPEST = 6
_MOST_FOLDERS = 200_000
MOST_RUNS = 20_000


def find_runs(folders: Sequence[Path]) -> list[Path]:
    """Lists the run folders in folders, each once, in the order of their paths; links to folders are not followed.

    Raises:
        UserError: A folder does not exist, or there are too many.
    """
    found: dict[Path, Path] = {}
    for folder in folders:
        if not folder.is_dir():
            raise UserError(f"`{folder}` is not a folder", hint="name a folder of runs, such as `runs`")
        for seen, (where, inner, files) in enumerate(os.walk(folder), 1):
            inner.sort()
            if seen > _MOST_FOLDERS or len(found) > MOST_RUNS:
                raise UserError(
                    f"`{folder}` has more than {_MOST_FOLDERS:,} folders or {MOST_RUNS:,} runs",
                    hint="name the folders of the runs",
                )
            if DOCUMENT in files:
                found.setdefault(Path(where).resolve(), Path(where))
                inner.clear()
            elif len(Path(where).relative_to(folder).parts) >= _DEEPEST:
                inner.clear()
            inner[:] = [name for name in inner if not name.startswith(".")]
    return list(found.values())


@dataclass
class RunReader:
    """Reads runs, and those again whose file has changed since."""

    known: dict[Path, tuple[tuple[int, int, bool], Run | UserError]] = field(default_factory=dict)

    def read(self, folders: Sequence[Path]) -> tuple[list[Run], list[UserError]]:
        """Reads all runs in folders.

        Returns:
            The runs, each once, newest first, and an error for each file that cannot be read.

        Raises:
            UserError: See `find_runs`.
        """
        paths = find_runs(folders)
        self.known = {path: self.known[path] for path in paths if path in self.known}
        for path in paths:
            state = _state(path)
            if path not in self.known or self.known[path][0] != state:
                self.known[path] = (state, _read(path))
        found = [each for _, each in self.known.values()]
        runs: dict[tuple[str, str, str], Run] = {}
        for run in found:
            if isinstance(run, Run):  # a copy of a run, such as a published one, is the same run
                runs.setdefault((run.created, run.config_sha256, repr(run.environment.get("model"))), run)
        problems = [each for each in found if isinstance(each, UserError)]
        return sorted(runs.values(), key=lambda run: (run.created, run.config_sha256), reverse=True), problems


def _state(path: Path) -> tuple[int, int, bool]:
    """Changes with the document, and when the process that writes it starts or ends."""
    try:
        state = (path / DOCUMENT).stat()
    except OSError:
        return 0, 0, False
    return state.st_mtime_ns, state.st_size, (path / ".lock").exists()


def _read(path: Path) -> Run | UserError:
    try:
        if (path / DOCUMENT).stat().st_size > JSON_BYTES:
            return UserError(f"`{path / DOCUMENT}` is larger than {JSON_BYTES:,} bytes", hint="")
        return _needed(load_shown(path))
    except OSError as error:
        return UserError(f"could not read `{path / DOCUMENT}`: {error.strerror}", hint="")
    except UserError as error:
        return error


def _needed(run: Run) -> Run:
    """A run without what a board does not show: samples, curves, raw times, notes."""
    variants = tuple(
        variant.model_copy(
            update={
                "train": variant.train and variant.train.model_copy(update={"curve_points": (), "evaluations": ()}),
                "inference": variant.inference and variant.inference.model_copy(update={"raw_summary": {}}),
                "scores": tuple(score.model_copy(update={"groups": ()}) for score in variant.scores),
            }
        )
        for variant in run.variants
    )
    empty: dict[str, Any] = {"samples_shown": (), "overlaps": (), "notes": (), "config": {}, "config_resolved": {}}
    return run.model_copy(update={"variants": variants, **empty})
