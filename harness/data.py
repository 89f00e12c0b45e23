"""Where rows come from: the Hub, local files, files shipped in a package, or a list.

Every source gives its rows in a fixed order and a digest that changes when they do. What cannot be read fails here, with
the name of the file and line, before any model is loaded.

Example:
    >>> list(rows([{"a": 1}]))
    [{'a': 1}]
    >>> hub("openai/gsm8k", "main", split="test").name
    'main'
"""

from __future__ import annotations

import csv
import functools
import hashlib
import importlib.resources
import json
import os
import re
import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import cast

from harness.api import Data, Row, Source
from harness.errors import UserError, did_you_mean

FORMATS = (".jsonl", ".json", ".csv", ".tsv", ".parquet", ".txt")


@dataclass(frozen=True)
class Hub:
    """A split of a dataset on the Hugging Face Hub (or of a local folder in Hub layout)."""

    repo: str
    name: str | None
    split: str
    revision: str | None = None

    def load(self) -> Sequence[Row]:
        """The split's rows, through `datasets.load_dataset`.

        Raises:
            UserError: The dataset, its configuration or its split is missing, gated or unreachable.
        """
        return _load_split(self)

    def digest(self) -> str:
        """The commit that `load` read, as the Hub cache recorded it; else a hash of the rows."""
        from huggingface_hub import constants

        rows = self.load()  # first: it may fetch a newer commit than the cache had
        folder = Path(constants.HF_HUB_CACHE) / ("datasets--" + self.repo.replace("/", "--"))
        reference = folder / "refs" / (self.revision or "main")
        if reference.is_file():
            return _sha256(f"{self}@{reference.read_text().strip()}")
        return _sha256_rows(rows)

    def __str__(self) -> str:
        return "hub:" + ":".join(part for part in (self.repo, self.name, self.split) if part)


def hub(repo: str, name: str | None = None, *, split: str = "train", revision: str | None = None) -> Hub:
    """A split of a dataset on the Hub; read when it is first needed.

    Example:
        >>> str(hub("openai/gsm8k", "main", split="test"))
        'hub:openai/gsm8k:main:test'
    """
    return Hub(repo, name, split, revision)


@functools.cache
def _load_split(split: Hub) -> Sequence[Row]:
    """Read once a process: a task may use a split for its rows, its solved examples and its digest."""
    import datasets

    datasets.disable_progress_bars()
    try:
        loaded: Sequence[Row] = datasets.load_dataset(
            split.repo, split.name, split=split.split, revision=split.revision
        )
    except Exception as error:  # the library raises a dozen kinds, from its own to those of the network
        raise UserError(f"could not read {split}: {_summary(error)}", hint=_hub_hint(split.repo, error)) from error
    return loaded


def _hub_hint(repo: str, error: Exception) -> str:
    text = f"{type(error).__name__} {error}".lower()
    if "reach" in text or "offline" in text or "connection" in text:
        return f"offline? fetch it first: `hf download --repo-type dataset {repo}`, or give a local file"
    if "gated" in text or "401" in text or "403" in text:
        return f"ask for access on https://huggingface.co/datasets/{repo}, then `hf auth login`"
    if "builderconfig" in text or "config name" in text:
        return "name one of the configurations listed above: `hub:OWNER/NAME:CONFIG`"
    if "split" in text:
        return "name one of the splits listed above: `hub:OWNER/NAME:CONFIG:SPLIT`"
    if "notfound" in text or "doesn't exist" in text or "404" in text or "repo id" in text:
        return "check the owner and the name; a private dataset needs `hf auth login`"
    return f"to see it in full: `hf download --repo-type dataset {repo}`; or give a local file"


@dataclass(frozen=True)
class File:
    """A local .jsonl, .json, .csv, .tsv, .parquet or .txt file (one row a line, column `text`)."""

    path: Path

    def load(self) -> Sequence[Row]:
        """The file's rows.

        Raises:
            UserError: The file is missing, empty, truncated, of an unknown format, or not UTF-8.
        """
        self._find()
        if self.path.suffix not in FORMATS:
            raise UserError(f"`{self.path}` is of an unknown format", hint="known: " + " ".join(FORMATS))
        try:
            rows = _read(self.path)
        except UnicodeDecodeError as error:
            raise UserError(f"`{self.path}` is not UTF-8: {error.reason} at byte {error.start}") from error
        except (csv.Error, OSError) as error:
            raise UserError(f"could not read `{self.path}`: {_summary(error)}") from error
        if not rows:
            raise UserError(f"`{self.path}` has no rows", hint="one JSON object a line, or a header and lines of CSV")
        return rows

    def digest(self) -> str:
        """SHA-256 of the file's bytes.

        Raises:
            UserError: The file is missing.
        """
        self._find()
        return file_sha256(self.path)

    def _find(self) -> None:
        try:
            found = self.path.is_file()
        except OSError as error:  # a name too long for any file
            raise UserError(f"no file `{self.path}`: {error.strerror}", hint="check the path") from error
        if not found:
            nearby = [p.name for p in self.path.parent.glob("*")] if self.path.parent.is_dir() else []
            raise UserError(
                f"no file `{self.path}`", hint=did_you_mean(self.path.name, nearby) if nearby else "check the path"
            )

    def __str__(self) -> str:
        return str(self.path)


def packaged(package: str, path: str) -> File:
    """A file shipped inside an installed package.

    Example:
        >>> packaged("harness.tiny", "data/mini_mmlu.test.jsonl").path.name
        'mini_mmlu.test.jsonl'
    """
    return File(Path(str(importlib.resources.files(package) / path)))


@dataclass(frozen=True)
class _Rows:
    """Rows given as they are."""

    values: Sequence[Row]

    def load(self) -> Sequence[Row]:
        return self.values

    def digest(self) -> str:
        return _sha256_rows(self.values)


def source(data: Data) -> Source:
    """Any `Data` as a source.

    Raises:
        UserError: `data` is none of the things that rows can come from.
    """
    if isinstance(data, str | Path):
        return File(expand(Path(data)))
    if isinstance(data, Source):
        return data
    if isinstance(data, Sequence):
        return _Rows(cast("Sequence[Row]", data))
    raise UserError(
        f"data cannot be a {type(data).__name__}", hint="give a list of rows, `hub(…)`, or the path of a file"
    )


def rows(data: Data) -> Sequence[Row]:
    """The rows of any `Data`."""
    return source(data).load()


def file_sha256(path: Path) -> str:
    """SHA-256 of a file, remembered by path, size, modification time and inode.

    The memory lives in `$HARNESS_HOME` (default `~/.cache/harness`); where it cannot be written, the file is hashed anew.
    """
    status = path.stat()
    key = _sha256(f"{path.resolve()}:{status.st_size}:{status.st_mtime_ns}:{status.st_ino}")
    memory = home() / "digests" / key
    if memory.is_file():
        return memory.read_text()
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    if status.st_size > 1 << 20:  # small files are hashed sooner than looked up
        try:
            memory.parent.mkdir(parents=True, exist_ok=True)
            aside = memory.with_suffix(f".{os.getpid()}")
            aside.write_text(digest)
            aside.rename(memory)
        except OSError:
            pass
    return digest


def expand(path: Path) -> Path:
    """`~` written out, where it names a user there is."""
    try:
        return path.expanduser()
    except RuntimeError:
        return path


def home() -> Path:
    """The folder for what is worth keeping between runs: `$HARNESS_HOME`, else `~/.cache/harness`."""
    return Path(os.environ.get("HARNESS_HOME") or Path.home() / ".cache" / "harness")


def _read(path: Path) -> list[Row]:
    if path.suffix == ".parquet":
        import pyarrow

        try:
            import pyarrow.parquet

            table: list[Row] = pyarrow.parquet.read_table(path).to_pylist()
        except pyarrow.ArrowException as error:
            raise UserError(f"`{path}` is not a whole Parquet file: {_summary(error)}") from error
        return table
    if path.suffix == ".json":
        return _json_rows(path)
    with path.open(encoding="utf-8-sig", newline="" if path.suffix in (".csv", ".tsv") else None) as file:
        if path.suffix in (".csv", ".tsv"):
            return list(_csv_rows(path, file))
        if path.suffix == ".txt":
            return [{"text": line.rstrip("\n")} for line in file if line.strip()]
        return [_json_line(path, number, line) for number, line in enumerate(file, 1) if line.strip()]


def _csv_rows(path: Path, file: Iterable[str]) -> Iterator[Row]:
    csv.field_size_limit(sys.maxsize)  # a document may well be longer than the 128 KiB that are the default
    reader = csv.DictReader(file, delimiter="\t" if path.suffix == ".tsv" else ",", strict=True)
    for row in reader:
        if None in row or None in row.values():
            raise UserError(
                f"`{path}` line {reader.line_num} has more or fewer fields than the header",
                hint="the file may be truncated; a field that holds commas or line ends stands in double quotes",
            )
        yield row


def _json_line(path: Path, number: int, line: str) -> Row:
    try:
        row = json.loads(line)
    except json.JSONDecodeError as error:
        raise UserError(
            f"`{path}` line {number} is not JSON: {error.msg} at column {error.colno}",
            hint="the file may be truncated; every line must be one JSON object",
        ) from error
    except (ValueError, RecursionError) as error:  # a number of thousands of digits, or endless nesting
        raise UserError(f"`{path}` line {number} cannot be read: {_summary(error)}") from error
    if not isinstance(row, dict):
        raise UserError(f"`{path}` line {number} is not a JSON object but {type(row).__name__}")
    _refuse_half_characters(f"`{path}` line {number}", line, row)
    return row


def _json_rows(path: Path) -> list[Row]:
    text = path.read_text(encoding="utf-8-sig")
    try:
        content = json.loads(text)
    except json.JSONDecodeError as error:
        raise UserError(
            f"`{path}` is not JSON: {error.msg} at line {error.lineno}",
            hint="the file may be truncated; for one object a line, name it .jsonl",
        ) from error
    except (ValueError, RecursionError) as error:
        raise UserError(f"`{path}` cannot be read: {_summary(error)}") from error
    if isinstance(content, dict) and isinstance(content.get("data"), list):
        content = content["data"]
    if not isinstance(content, list) or not all(isinstance(row, dict) for row in content):
        raise UserError(f"`{path}` must hold a list of objects (or have one under `data`)")
    for number, row in enumerate(content):
        _refuse_half_characters(f"`{path}`, object {number}", text, row)
    return content


def _refuse_half_characters(where: str, text: str, row: Row) -> None:
    r"""Text cut in the middle of an emoji leaves `\ud83d` alone, which no tokenizer and no file takes."""
    if re.search(r"\\ud[89a-f]", text, re.IGNORECASE):
        try:
            json.dumps(row, ensure_ascii=False).encode()
        except UnicodeEncodeError as error:
            half = ascii(error.object[error.start])[1:-1]
            raise UserError(
                f"{where} holds half of a character ({half})", hint="drop it, or restore the text"
            ) from error


def _summary(error: Exception) -> str:
    """The first lines of an error, which may list what there is."""
    return " ".join(str(error).split())[:300] or type(error).__name__


def _sha256(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def _sha256_rows(rows: Sequence[Row]) -> str:
    hasher = hashlib.sha256()
    for row in rows:
        hasher.update(json.dumps(row, sort_keys=True, default=repr).encode())
    return hasher.hexdigest()
