"""Fetched copies of Hub datasets: a folder in Hub layout with a manifest of its files.

`harness data fetch TASK --to DIR` writes `DIR/datasets/OWNER/NAME/…` and `DIR/manifest.json`. With `HARNESS_DATA=DIR`,
datasets are read only from that folder and nothing is requested from the network. Without the variable,
`$HARNESS_HOME/data` is searched first, then the Hub.
"""

from __future__ import annotations

import functools
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from harness.api import Row
from harness.data.arrow import decoded
from harness.data.digests import file_sha256, state_of
from harness.data.files import File, expand, one_line
from harness.errors import UserError
from harness.storage import home, inside, read_json

VARIABLE = "HARNESS_DATA"
MANIFEST = "manifest.json"


@dataclass(frozen=True)
class FetchedFile:
    """One file of a fetched copy: one line of the manifest."""

    repo: str
    config: str | None
    split: str
    file: str
    """Path relative to the folder."""
    rows: int
    sha256: str
    revision: str | None
    """The commit that was copied; None for made-up rows."""
    asked: str | None = None
    """The revision that was requested; None: the newest commit at that time."""
    license: str | None = None


@dataclass(frozen=True)
class Copy:
    """The fetched copy of a split: its files, in order."""

    folder: Path
    files: tuple[FetchedFile, ...]

    def load(self) -> Sequence[Row]:
        """The rows, as `datasets` would give them.

        Raises:
            UserError: A file is missing, has changed since it was fetched, or cannot be read.
        """
        for file in self.files:
            check(self.folder, file)
        rows = [_rows(self.folder / file.file) for file in self.files]
        return rows[0] if len(rows) == 1 else [row for each in rows for row in each]

    @property
    def sha256s(self) -> list[str]:
        """The SHA-256 of each file, from the manifest."""
        return [file.sha256 for file in self.files]


def folder() -> Path:
    """The folder of fetched copies: `$HARNESS_DATA`, else `$HARNESS_HOME/data`."""
    return expand(Path(os.environ[VARIABLE])) if os.environ.get(VARIABLE) else home() / "data"


def find_copy(address: str, repo: str, config: str | None, split: str, revision: str | None) -> Copy | None:
    """Finds the fetched copy of a split.

    Args:
        address: The split in the form that `harness data fetch` accepts, for messages.
        repo: Owner and name.
        config: The configuration; None: the default one.
        split: The name of the split, such as `test`.
        revision: A commit, branch or tag; None: the newest commit at the time of fetching.

    Returns:
        The copy; None if there is none and the Hub may be used instead.

    Raises:
        UserError: HARNESS_DATA is set, and its folder does not have the split.
    """
    root = folder()
    if not os.environ.get(VARIABLE) and not (root / MANIFEST).is_file():
        return None
    files = read_manifest(root)
    found = [file for file in files if (file.repo, file.split) == (repo, split) and _same_revision(file, revision)]
    names = {file.config for file in found}
    wanted = (
        next((name for name in (None, "default") if name in names), None) if config in (None, "default") else config
    )
    if config is None and wanted not in names and len(names) == 1:
        wanted = names.pop()
    found = [file for file in found if file.config == wanted]
    if found:
        return Copy(root, tuple(found))
    if not os.environ.get(VARIABLE):
        return None
    present = sorted({f"{file.config or 'default'}:{file.split}" for file in files if file.repo == repo})
    raise UserError(
        f"{address} is not in `{root}` ({VARIABLE})"
        + (f"; of {repo}, the folder has: {', '.join(present[:8])}" if present else ""),
        hint=f"on a machine with a network, run `harness data fetch {address} --to {root}`",
    )


def read_manifest(root: Path) -> list[FetchedFile]:
    """Reads the manifest of a folder of copies.

    Raises:
        UserError: The manifest is missing, or cannot be read.
    """
    path = root / MANIFEST
    try:
        return _manifest_files(path, state_of(path))
    except FileNotFoundError as error:
        raise UserError(
            f"no `{path}`: the folder `{root}` has no fetched data",
            hint=f"run `harness data fetch TASK --to {root}` to create both",
        ) from error
    except (OSError, ValueError, TypeError, AttributeError) as error:
        raise UserError(
            f"could not read `{path}`: {one_line(error)}", hint="delete it and fetch the data again"
        ) from error


@functools.lru_cache
def _manifest_files(path: Path, _state: tuple[int, ...]) -> list[FetchedFile]:
    content = read_json(path)
    known = FetchedFile.__dataclass_fields__
    files = [FetchedFile(**{key: value for key, value in entry.items() if key in known}) for entry in content]
    for file in files:
        inside(path.parent, str(file.file))
    return files


def check(root: Path, file: FetchedFile) -> None:
    """Makes sure that a file exists and is unchanged since it was fetched.

    Raises:
        UserError: The file is missing or has changed.
    """
    path = root / file.file
    hint = f"run `harness data fetch TASK --to {root}` to fetch it again"
    if not path.is_file():
        raise UserError(f"`{path}` is missing, but `{root / MANIFEST}` lists it", hint=hint)
    if file_sha256(path) != file.sha256:
        raise UserError(f"`{path}` has changed: its SHA-256 differs from that in `{root / MANIFEST}`", hint=hint)


def _same_revision(file: FetchedFile, asked: str | None) -> bool:
    if asked is None:
        return file.asked is None
    return file.asked == asked or (file.revision or "").startswith(asked)


def _rows(path: Path) -> Sequence[Row]:
    """The rows of a file as `datasets` gives them: a column that only some rows have is None in the others."""
    if path.suffix == ".parquet":
        return decoded(File(path).load())
    rows = File(path).load()
    columns = list(dict.fromkeys(column for row in rows for column in row))
    return [{column: row.get(column) for column in columns} for row in rows]
