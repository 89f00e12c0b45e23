"""Where rows come from: the Hub, local files and folders, files shipped in a package, or a list.

Every source gives its rows in a fixed order and a digest that changes when they do. What cannot be read fails here, with
the name of the file and line, before any model is loaded.

Example:
    >>> list(rows([{"a": 1}]))
    [{'a': 1}]
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import cast

from harness.api import Data, Row, Source
from harness.data.files import FORMATS as FORMATS
from harness.data.files import File as File
from harness.data.files import Folder, expand
from harness.data.files import packaged as packaged
from harness.data.hub import Hub as Hub
from harness.data.hub import hub as hub
from harness.data.hub import parse_hub, rows_sha256
from harness.errors import UserError


@dataclass(frozen=True)
class _Rows:
    """Rows given as they are."""

    values: Sequence[Row]

    def load(self) -> Sequence[Row]:
        return self.values

    def digest(self) -> str:
        return rows_sha256(self.values)


def source(data: Data) -> Source:
    """Any `Data` as a source.

    Raises:
        UserError: `data` is none of the things that rows can come from.
    """
    if isinstance(data, str) and data.startswith("hub:"):
        return parse_hub(data)
    if isinstance(data, str | Path):
        path = expand(Path(data))
        return Folder(path) if str(data) and _is_folder(path) else File(path)
    if isinstance(data, Source):
        return data
    if isinstance(data, Sequence):
        return _Rows(cast("Sequence[Row]", data))
    raise UserError(
        f"data cannot be a {type(data).__name__}", hint="give a list of rows, `hub(…)`, or the path of a file"
    )


def rows(data: Data) -> Sequence[Row]:
    """The rows of any `Data`: for a task that must know them all, such as the labels there are.

    Example:
        >>> sorted({row["label"] for row in rows([{"label": "b"}, {"label": "a"}])})
        ['a', 'b']
    """
    return source(data).load()


def provenance(data: Data) -> str | None:
    """A source and the very content it had, in a line; None for rows that were given as they are.

    Example:
        >>> provenance(hub("openai/gsm8k", "main", split="test"))  # doctest: +SKIP
        'hub:openai/gsm8k:main:test@e53f048856ff4f594e959d75785d2c2d37b678ee'
    """
    where = source(data)
    if isinstance(where, Hub):
        where.load()
        return f"{hub(where.repo, where.name, split=where.split)}@{where.commit or 'sha256:' + where.digest()}"
    if isinstance(where, File | Folder):
        return f"{where.path.name}@sha256:{where.digest()}"
    return None


def _is_folder(path: Path) -> bool:
    try:
        return path.is_dir()
    except (OSError, ValueError):  # a name too long, or with a null byte, for any file
        return False
