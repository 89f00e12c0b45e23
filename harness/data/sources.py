"""Sources of rows: the Hub, local files and folders, saved datasets, files shipped in a package, or a list.

Every source gives its rows in a fixed order, and a digest that changes when the rows change. Data that cannot be read are
reported here, with the file and line, before any model is loaded.

Example:
    >>> list(rows([{"a": 1}]))
    [{'a': 1}]
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import cast

from harness.api import Data, Row, Source
from harness.data.digests import rows_sha256
from harness.data.files import FORMATS as FORMATS
from harness.data.files import File as File
from harness.data.files import Folder, expand
from harness.data.files import packaged as packaged
from harness.data.hub import Hub as Hub
from harness.data.hub import hub as hub
from harness.data.hub import parse_hub
from harness.data.saved import Saved, is_saved, saved
from harness.errors import UserError
from harness.user_code import calling, code_file


@dataclass(frozen=True)
class _Rows:
    """Rows given directly, as a list."""

    values: Sequence[Row]

    def load(self) -> Sequence[Row]:
        return self.values

    def digest(self) -> str:
        return rows_sha256(self.values)


@dataclass(frozen=True)
class _UsersSource:
    """A source that a user's file defines."""

    source: Source

    def load(self) -> Sequence[Row]:
        with calling(type(self.source).load, "`load` of its data"):
            return self.source.load()

    def digest(self) -> str:
        with calling(type(self.source).digest, "`digest` of its data"):
            return self.source.digest()


def source(data: Data) -> Source:
    """Converts any `Data` to a source.

    Raises:
        UserError: `data` has a type that rows cannot be read from.
    """
    if isinstance(data, str) and data.startswith("hub:"):
        return parse_hub(data)
    if isinstance(data, str | Path):
        path = expand(Path(data))
        if str(data) and is_saved(path):
            return saved(path)
        return Folder(path) if str(data) and _is_folder(path) else File(path)
    if isinstance(data, Source):
        return data if code_file(type(data).load) is None else _UsersSource(data)
    if isinstance(data, Sequence):
        return _Rows(cast("Sequence[Row]", data))
    raise UserError(
        f"`data` cannot be a {type(data).__name__}", hint="give a list of rows, `hub(…)`, or the path of a file"
    )


def rows(data: Data) -> Sequence[Row]:
    """The rows of any `Data`, for a task that needs all of them in advance, for example to collect the labels.

    Example:
        >>> sorted({row["label"] for row in rows([{"label": "b"}, {"label": "a"}])})
        ['a', 'b']
    """
    return source(data).load()


def configurations(data: Data, names: Sequence[str]) -> Data:
    """Data with some of its configurations on the Hub alone, so that the others are not read.

    Args:
        data: Any data.
        names: Configurations to keep.

    Returns:
        The data as it is, unless it has a list of configurations that holds all of `names`.

    Example:
        >>> str(configurations(hub("cais/mmlu", ["anatomy", "virology"], split="test"), ["virology"]))
        'hub:cais/mmlu:virology:test'
    """
    origin = source(data)
    if not isinstance(origin, Hub) or not isinstance(origin.name, tuple) or not set(names) <= set(origin.name):
        return data
    return replace(origin, name=tuple(name for name in origin.name if name in names))


def provenance(data: Data) -> str | None:
    """A source and the exact version of its content, on one line; None for rows given as a list.

    Example:
        >>> provenance(hub("openai/gsm8k", "main", split="test"))  # doctest: +SKIP
        'hub:openai/gsm8k:main:test@e53f048856ff4f594e959d75785d2c2d37b678ee'
    """
    origin = source(data)
    if isinstance(origin, Hub):
        origin.load()
        return f"{hub(origin.repo, origin.name, split=origin.split)}@{origin.commit or 'sha256:' + origin.digest()}"
    if isinstance(origin, File | Folder | Saved):
        return f"{origin.path.name}@sha256:{origin.digest()}"
    return None


def _is_folder(path: Path) -> bool:
    try:
        return path.is_dir()
    except (OSError, ValueError):  # a name too long for the file system, or with a null byte
        return False
