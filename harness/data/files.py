"""Rows of local files, and what tells one content of a file from another.

Example:
    >>> len(packaged("harness.tiny", "data/mini_text.test.jsonl").load()) > 10
    True
"""

from __future__ import annotations

import csv
import hashlib
import importlib.resources
import json
import os
import re
import sys
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, overload

from harness.api import Row
from harness.errors import UserError, did_you_mean

FORMATS = (".jsonl", ".json", ".csv", ".tsv", ".parquet", ".txt")


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
            raise UserError(f"could not read `{self.path}`: {summary(error)}") from error
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


@dataclass(frozen=True)
class Folder:
    """A local folder of files of one format: their rows one after another, the files by name."""

    path: Path

    def load(self) -> Sequence[Row]:
        """The rows of all its files.

        Raises:
            UserError: It holds no file of a known format, files of several, or one that cannot be read.
        """
        return [row for file in self.files for row in file.load()]

    def digest(self) -> str:
        """SHA-256 of the files' names and bytes."""
        return hashlib.sha256("".join(f"{f.path.name}:{f.digest()}\n" for f in self.files).encode()).hexdigest()

    @property
    def files(self) -> list[File]:
        """Its files, by name."""
        found = sorted(path for path in self.path.iterdir() if path.suffix in FORMATS and path.is_file())
        formats = sorted({path.suffix for path in found})
        if len(formats) > 1:
            raise UserError(
                f"folder `{self.path}` holds files of several formats: {' '.join(formats)}",
                hint=f"name one of them, such as `{found[0]}`, or keep one format to a folder",
            )
        if not found:
            hub_layout = (self.path / "README.md").is_file() or any(path.is_dir() for path in self.path.iterdir())
            raise UserError(
                f"folder `{self.path}` holds no data file",
                hint=f'a folder in Hub layout is read by `hub("{self.path}", "CONFIG", split="SPLIT")`'
                if hub_layout
                else "wanted: " + " ".join(FORMATS),
            )
        return [File(path) for path in found]

    def __str__(self) -> str:
        return str(self.path)


def packaged(package: str, path: str) -> File:
    """A file shipped inside an installed package.

    Example:
        >>> packaged("harness.tiny", "data/mini_mmlu.test.jsonl").path.name
        'mini_mmlu.test.jsonl'
    """
    return File(Path(str(importlib.resources.files(package) / path)))


class ParquetTable(Sequence[Row]):
    """The rows of an Arrow table, made when they are asked for: a large file stays as compact as it came."""

    BATCH_ROWS = 1000

    def __init__(self, table: Any) -> None:
        self.table = table

    @property
    def features(self) -> str:
        """What `datasets` wrote about the columns, as JSON; empty where it did not write the file."""
        return str((self.table.schema.metadata or {}).get(b"huggingface", b"").decode())

    def __len__(self) -> int:
        return int(self.table.num_rows)

    @overload
    def __getitem__(self, index: int) -> Row: ...
    @overload
    def __getitem__(self, index: slice) -> list[Row]: ...
    def __getitem__(self, index: int | slice) -> Row | list[Row]:
        if isinstance(index, slice):
            return [self[place] for place in range(*index.indices(len(self)))]
        if not -len(self) <= index < len(self):
            raise IndexError(index)
        row: Row = self.table.slice(index % len(self), 1).to_pylist()[0]
        return row

    def __iter__(self) -> Iterator[Row]:
        for start in range(0, len(self), self.BATCH_ROWS):
            yield from self.table.slice(start, self.BATCH_ROWS).to_pylist()


def file_sha256(path: Path) -> str:
    """SHA-256 of a file, remembered by path, size, modification time and inode.

    The memory lives in `$HARNESS_HOME` (default `~/.cache/harness`); where it cannot be written, the file is hashed anew.
    """
    status = path.stat()
    key = hashlib.sha256(f"{path.resolve()}:{status.st_size}:{status.st_mtime_ns}:{status.st_ino}".encode()).hexdigest()
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


def summary(error: Exception) -> str:
    """The first lines of an error, which may list what there is."""
    return " ".join(str(error).split())[:300] or type(error).__name__


def _read(path: Path) -> Sequence[Row]:
    if path.suffix == ".parquet":
        return ParquetTable(_parquet(path))
    if path.suffix == ".json":
        return _json_rows(path)
    with path.open(encoding="utf-8-sig", newline="" if path.suffix in (".csv", ".tsv") else None) as file:
        if path.suffix in (".csv", ".tsv"):
            return list(_csv_rows(path, file))
        if path.suffix == ".txt":
            return [{"text": line.rstrip("\n")} for line in file if line.strip()]
        return [_json_line(path, number, line) for number, line in enumerate(file, 1) if line.strip()]


def _parquet(path: Path) -> Any:
    import pyarrow

    try:
        import pyarrow.parquet

        table = pyarrow.parquet.ParquetFile(path).read()
    except pyarrow.ArrowException as error:
        raise UserError(f"`{path}` is not a whole Parquet file: {summary(error)}") from error
    _refuse_twins(path, table.column_names)
    return table


def _csv_rows(path: Path, file: Iterable[str]) -> Iterator[Row]:
    csv.field_size_limit(sys.maxsize)  # a document may well be longer than the 128 KiB that are the default
    reader = csv.DictReader(file, delimiter="\t" if path.suffix == ".tsv" else ",", strict=True)
    _refuse_twins(path, reader.fieldnames or [])
    for row in reader:
        if None in row or None in row.values():
            raise UserError(
                f"`{path}` line {reader.line_num} has more or fewer fields than the header",
                hint="the file may be truncated; a field that holds commas or line ends stands in double quotes",
            )
        yield row


def _refuse_twins(path: Path, columns: Sequence[str]) -> None:
    """A row could keep only one of two columns of the same name."""
    twins = [column for column, count in Counter(columns).items() if count > 1]
    if twins:
        raise UserError(f"`{path}` has the column `{twins[0]}` twice", hint="rename one of them")


def _json_line(path: Path, number: int, line: str) -> Row:
    try:
        row = json.loads(line)
    except json.JSONDecodeError as error:
        raise UserError(
            f"`{path}` line {number} is not JSON: {error.msg} at column {error.colno}",
            hint="the file may be truncated; every line must be one JSON object",
        ) from error
    except (ValueError, RecursionError) as error:  # a number of thousands of digits, or endless nesting
        raise UserError(f"`{path}` line {number} cannot be read: {summary(error)}") from error
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
        raise UserError(f"`{path}` cannot be read: {summary(error)}") from error
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
