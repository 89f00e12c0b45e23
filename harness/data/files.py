"""Rows of local files and folders: JSON lines, JSON, CSV, TSV, Parquet, Arrow and plain text.

Example:
    >>> len(packaged("harness.tiny", "data/mini_text.test.jsonl").load()) > 10
    True
"""

from __future__ import annotations

import importlib.resources
import json
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness.api import Row
from harness.data.arrow import ArrowTable, read_table
from harness.data.delimited import delimited_rows
from harness.data.digests import file_sha256, files_sha256
from harness.errors import UserError, did_you_mean
from harness.errors import one_line as one_line
from harness.storage import refuse_links_out

LONGEST_LINE = 64 << 20
"""Characters of a line of .jsonl and .txt; a row of a million tokens has about 4 MB."""
LARGEST_WHOLE = 512 << 20
"""Bytes of a .json, .csv or .tsv file; reading one takes up to ten times its size in memory."""
_SPLIT = re.compile(r"(?<![a-z])(train|test|valid|validation|val|dev|eval)(?![a-z])", re.IGNORECASE)
"""A split in a file's name, as in `train-00000-of-00002.parquet`."""
FORMATS = (".jsonl", ".json", ".csv", ".tsv", ".parquet", ".arrow", ".txt")


@dataclass(frozen=True)
class File:
    """A local .jsonl, .json, .csv, .tsv, .parquet, .arrow or .txt file (one row a line, column `text`)."""

    path: Path

    def load(self) -> Sequence[Row]:
        """The file's rows.

        Raises:
            UserError: The file is missing, empty, truncated, of an unknown format, or not UTF-8.
        """
        self._find()
        if self.path.suffix not in FORMATS:
            raise UserError(
                f"`{self.path}` has an unknown format", hint=f"the name must end in one of {', '.join(FORMATS)}"
            )
        try:
            rows = _read(self.path)
        except UnicodeDecodeError as error:
            raise UserError(
                f"`{self.path}` is not UTF-8: {error.reason} at byte {error.start}", hint="save it again as UTF-8"
            ) from error
        except OSError as error:
            raise UserError(
                f"could not read `{self.path}`: {one_line(error)}", hint="check that the file is complete and readable"
            ) from error
        if not rows:
            raise UserError(
                f"`{self.path}` has no rows", hint="write one JSON object per line, or CSV with a header and data lines"
            )
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
        except OSError as error:  # a name too long for the file system
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
    """A local folder of files that have one format; their rows are concatenated in the order of the file names."""

    path: Path

    def load(self) -> Sequence[Row]:
        """The rows of all files in the folder.

        Raises:
            UserError: The folder has no file of a known format, files of several formats, or a file that cannot be read.
        """
        return [row for file in self.files for row in file.load()]

    def digest(self) -> str:
        """SHA-256 of the files' names and bytes."""
        return files_sha256([file.path for file in self.files])

    @property
    def files(self) -> list[File]:
        """The files, sorted by name.

        Raises:
            UserError: The folder has no file of a known format, files of several formats or splits, or a link to a file
                outside.
        """
        refuse_links_out(self.path)
        found = sorted(path for path in self.path.iterdir() if path.suffix in FORMATS and path.is_file())
        formats = sorted({path.suffix for path in found})
        if len(formats) > 1:
            raise UserError(
                f"the folder `{self.path}` has files of several formats: {' '.join(formats)}",
                hint=f"give one of the files, such as `{_likely_data(found)}`, or keep only one format in the folder",
            )
        splits = {split[0].lower(): path for path in reversed(found) if (split := _SPLIT.search(path.stem))}
        if len(splits) > 1:
            raise UserError(
                f"the folder `{self.path}` has files of several splits: {', '.join(sorted(splits))}",
                hint=f"give the file of one split, such as `{splits.get('train', found[0])}`, or keep the files of one split"
                " in a folder",
            )
        if not found:
            hub_layout = (self.path / "README.md").is_file() or any(path.is_dir() for path in self.path.iterdir())
            raise UserError(
                f"the folder `{self.path}` has no data file",
                hint=f'to read a folder in Hub layout, write `hub("{self.path}", "CONFIG", split="SPLIT")`'
                if hub_layout
                else f"file names must end in one of {', '.join(FORMATS)}",
            )
        return [File(path) for path in found]

    def __str__(self) -> str:
        return str(self.path)


def _likely_data(paths: Sequence[Path]) -> Path:
    """The first file that is not named like a description of a data set; else the first."""
    return next((path for path in paths if not path.name.startswith(("dataset_info", "state."))), paths[0])


def packaged(package: str, path: str) -> File:
    """A file shipped inside an installed package.

    Example:
        >>> packaged("harness.tiny", "data/mini_mmlu.test.jsonl").path.name
        'mini_mmlu.test.jsonl'
    """
    return File(Path(str(importlib.resources.files(package) / path)))


def expand(path: Path) -> Path:
    """A path with `~` replaced by the home folder; unchanged if there is no such user."""
    try:
        return path.expanduser()
    except RuntimeError:
        return path


def _read(path: Path) -> Sequence[Row]:
    if path.suffix in (".parquet", ".arrow"):
        table = read_table(path)
        _refuse_duplicates(path, table.column_names)
        return ArrowTable(table)
    if path.suffix in (".json", ".csv", ".tsv"):
        _refuse_large(path)
    if path.suffix == ".json":
        return _json_rows(path)
    if path.suffix in (".csv", ".tsv"):
        return delimited_rows(path)
    if path.suffix == ".txt":
        return [{"text": line.rstrip("\n")} for _, line in _lines(path)]
    return [_json_line(path, number, line) for number, line in _lines(path)]


def _lines(path: Path) -> Iterator[tuple[int, str]]:
    """The lines of a file that are not empty, with their numbers.

    Raises:
        UserError: A line is longer than a row can be; it is not read into memory.
    """
    with path.open(encoding="utf-8-sig") as file:
        number = 0
        while line := file.readline(LONGEST_LINE):
            number += 1
            if len(line) == LONGEST_LINE:
                raise UserError(
                    f"`{path}` line {number} has {LONGEST_LINE:,} characters or more",
                    hint="one line is one row: are line breaks missing, or is it another kind of file?",
                )
            if line.strip():
                yield number, line


def _refuse_large(path: Path) -> None:
    """Refuses a file that is too large to be read whole, as its format demands."""
    size = path.stat().st_size
    if size > LARGEST_WHOLE:
        raise UserError(
            f"`{path}` has {size:,} bytes; a {path.suffix} file is read whole, and at most {LARGEST_WHOLE:,} bytes are",
            hint="write it as .jsonl (one object per line) or .parquet",
        )


def _refuse_duplicates(path: Path, columns: Sequence[str]) -> None:
    """Refuses two columns of the same name: a row could keep only one of them."""
    duplicates = [column for column, count in Counter(columns).items() if count > 1]
    if duplicates:
        raise UserError(f"`{path}` has the column `{duplicates[0]}` twice", hint="rename one of the two columns")


def _json_line(path: Path, number: int, line: str) -> Row:
    try:
        row = json.loads(line, object_pairs_hook=_distinct)
    except json.JSONDecodeError as error:
        raise UserError(
            f"`{path}` line {number} is not JSON: {error.msg} at column {error.colno}",
            hint="the file may be truncated; every line must be one JSON object",
        ) from error
    except (ValueError, RecursionError) as error:  # a number of thousands of digits, or extreme nesting
        raise UserError(
            f"`{path}` line {number} cannot be read: {one_line(error)}", hint="fix the line, or remove it"
        ) from error
    if not isinstance(row, dict):
        raise UserError(
            f"`{path}` line {number} is not a JSON object but {type(row).__name__}",
            hint='every line must be one JSON object, such as `{"question": "…", "answer": "…"}`',
        )
    _refuse_half_characters(f"`{path}` line {number}", line, row)
    return row


def _json_rows(path: Path) -> list[Row]:
    text = path.read_text(encoding="utf-8-sig")
    try:
        content = json.loads(text, object_pairs_hook=_distinct)
    except json.JSONDecodeError as error:
        raise UserError(
            f"`{path}` is not JSON: {error.msg} at line {error.lineno}",
            hint="the file may be truncated; if it has one object per line, rename it to end in .jsonl",
        ) from error
    except (ValueError, RecursionError) as error:
        raise UserError(f"`{path}` cannot be read: {one_line(error)}", hint="correct it, or write it again") from error
    if isinstance(content, dict) and isinstance(content.get("data"), list):
        content = content["data"]
    if not isinstance(content, list) or not all(isinstance(row, dict) for row in content):
        raise UserError(
            f"`{path}` is not a list of JSON objects",
            hint="write a list of objects, or put that list under the key `data`",
        )
    for number, row in enumerate(content):
        _refuse_half_characters(f"`{path}`, object {number}", text, row)
    return content


def _distinct(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Makes an object of JSON; refuses two values under one key, of which Python would keep the last."""
    made = dict(pairs)
    if len(made) < len(pairs):
        (key, _), *_ = Counter(key for key, _ in pairs).most_common(1)
        raise ValueError(f"an object has the key `{key}` twice")
    return made


def _refuse_half_characters(where: str, text: str, row: Row) -> None:
    r"""Refuses a lone surrogate such as `\ud83d` (text cut inside an emoji): no tokenizer and no UTF-8 file accepts it."""
    if re.search(r"\\ud[89a-f]", text, re.IGNORECASE):
        try:
            json.dumps(row, ensure_ascii=False).encode()
        except UnicodeEncodeError as error:
            half = ascii(error.object[error.start])[1:-1]
            raise UserError(
                f"{where} has half of a character ({half})", hint="remove it, or restore the text"
            ) from error
