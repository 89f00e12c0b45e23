"""Fetched copies of Hub datasets: a folder in Hub layout and a manifest that says what is in it.

`harness data fetch TASK --to DIR` writes `DIR/datasets/OWNER/NAME/…` and `DIR/manifest.json`; `HARNESS_DATA=DIR` makes
it all there is: nothing is then asked of the network. Without the variable, `$HARNESS_HOME/data` is looked at first.
"""

from __future__ import annotations

import functools
import json
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from harness.api import Row
from harness.data.files import File, ParquetTable, expand, file_sha256, home, summary
from harness.errors import UserError

VARIABLE = "HARNESS_DATA"
MANIFEST = "manifest.json"
_AS_STORED = {"Value", "ClassLabel", "List", "LargeList", "Sequence"}
"""Features of `datasets` that Arrow gives as they are."""


@dataclass(frozen=True)
class Part:
    """A file of a copy: one line of the manifest."""

    repo: str
    config: str | None
    split: str
    file: str
    """Below the folder."""
    rows: int
    sha256: str
    revision: str | None
    """The commit that it is a copy of; None where there is none (made-up rows)."""
    asked: str | None = None
    """The revision that was asked for; None: the newest at that time."""
    license: str | None = None


@dataclass(frozen=True)
class Copy:
    """A split that is at hand: its files in order."""

    folder: Path
    parts: tuple[Part, ...]

    def load(self) -> Sequence[Row]:
        """Its rows, as `datasets` would give them.

        Raises:
            UserError: A file is missing, was altered since, or cannot be read.
        """
        for part in self.parts:
            check(self.folder, part)
        rows = [_rows(self.folder / part.file) for part in self.parts]
        return rows[0] if len(rows) == 1 else [row for each in rows for row in each]

    @property
    def sha256s(self) -> list[str]:
        """Of the files, as the manifest has them."""
        return [part.sha256 for part in self.parts]


def folder() -> Path:
    """Where copies are: `$HARNESS_DATA`, else `$HARNESS_HOME/data`."""
    return expand(Path(os.environ[VARIABLE])) if os.environ.get(VARIABLE) else home() / "data"


def find_copy(address: str, repo: str, config: str | None, split: str, revision: str | None) -> Copy | None:
    """The copy of a split.

    Args:
        address: The split as `harness data fetch` takes it, for messages.
        repo: Owner and name.
        config: None: the default one.
        split: Such as `test`.
        revision: A commit, branch or tag; None: whichever was the newest when it was fetched.

    Returns:
        None where there is no copy and the Hub may be asked.

    Raises:
        UserError: HARNESS_DATA is set, and its folder lacks the split.
    """
    where = folder()
    if not os.environ.get(VARIABLE) and not (where / MANIFEST).is_file():
        return None
    parts = read_manifest(where)
    found = [p for p in parts if (p.repo, p.split) == (repo, split) and _same_revision(p, revision)]
    names = {p.config for p in found}
    wanted = (
        next((name for name in (None, "default") if name in names), None) if config in (None, "default") else config
    )
    if config is None and wanted not in names and len(names) == 1:
        wanted = names.pop()
    found = [p for p in found if p.config == wanted]
    if found:
        return Copy(where, tuple(found))
    if not os.environ.get(VARIABLE):
        return None
    there = sorted({f"{p.config or 'default'}:{p.split}" for p in parts if p.repo == repo})
    raise UserError(
        f"{address} is not in `{where}` ({VARIABLE})" + (f", which has of it: {', '.join(there[:8])}" if there else ""),
        hint=f"where there is a network: `harness data fetch {address} --to {where}`",
    )


def read_manifest(where: Path) -> list[Part]:
    """What a folder of copies holds.

    Raises:
        UserError: It has no manifest, or one that cannot be read.
    """
    path = where / MANIFEST
    try:
        return _parts(path, path.stat().st_mtime_ns)
    except FileNotFoundError as error:
        raise UserError(
            f"no `{path}`: `{where}` holds no fetched data", hint=f"`harness data fetch TASK --to {where}` writes both"
        ) from error
    except (OSError, ValueError, TypeError, AttributeError) as error:
        raise UserError(
            f"could not read `{path}`: {summary(error)}", hint="remove it and fetch the data again"
        ) from error


@functools.lru_cache
def _parts(path: Path, _modified: int) -> list[Part]:
    content = json.loads(path.read_text(encoding="utf-8"))
    known = Part.__dataclass_fields__
    parts = [Part(**{key: value for key, value in entry.items() if key in known}) for entry in content]
    for part in parts:
        if not isinstance(part.file, str) or Path(part.file).is_absolute() or ".." in Path(part.file).parts:
            raise ValueError(f"`{part.file}` is not below the folder")
    return parts


def check(where: Path, part: Part) -> None:
    """Makes sure that a file is there and is what was fetched.

    Raises:
        UserError: It is not.
    """
    path = where / part.file
    again = f"`harness data fetch TASK --to {where}` fetches it again"
    if not path.is_file():
        raise UserError(f"`{path}` is missing, which `{where / MANIFEST}` names", hint=again)
    if file_sha256(path) != part.sha256:
        raise UserError(f"`{path}` was altered: its SHA-256 is not that of `{where / MANIFEST}`", hint=again)


def _same_revision(part: Part, asked: str | None) -> bool:
    if asked is None:
        return part.asked is None
    return part.asked == asked or (part.revision or "").startswith(asked)


def _rows(path: Path) -> Sequence[Row]:
    """A file's rows as `datasets` gives them: a column that only some rows have is None in the others."""
    if path.suffix == ".parquet":
        return _table_rows(path)
    rows = File(path).load()
    columns = list(dict.fromkeys(column for row in rows for column in row))
    return [{column: row.get(column) for column in columns} for row in rows]


def _table_rows(path: Path) -> Sequence[Row]:
    """Columns that are stored in another form than they are given in (JSON, images) are left to `datasets`."""
    rows = File(path).load()
    if not isinstance(rows, ParquetTable) or set(re.findall(r'"_type": "(\w+)"', rows.features)) <= _AS_STORED:
        return rows
    import datasets

    decoded: Sequence[Row] = datasets.Dataset(rows.table)
    return decoded
