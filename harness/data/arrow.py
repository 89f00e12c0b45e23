"""Rows of Arrow tables: Parquet files, and `.arrow` files as `datasets` and pyarrow write them."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, overload

from harness.api import Row
from harness.errors import UserError, one_line

_AS_STORED = {"Value", "ClassLabel", "List", "LargeList", "Sequence"}
"""Column types of `datasets` whose Arrow values need no decoding."""

_NEXT = b"\xff\xff\xff\xff"
"""Begins every message of an Arrow stream; the last message has the length 0."""


class ArrowTable(Sequence[Row]):
    """The rows of an Arrow table, converted to dictionaries on access, so that a large file stays compact in memory."""

    BATCH_ROWS = 1000

    def __init__(self, table: Any) -> None:
        self.table = table

    @property
    def column_types(self) -> set[str]:
        """Names of the column types that `datasets` stores in its files; empty if `datasets` did not write the file."""
        features = (self.table.schema.metadata or {}).get(b"huggingface", b"").decode("utf-8", "replace")
        return set(re.findall(r'"_type": "(\w+)"', features))

    @property
    def class_names(self) -> dict[str, list[str]]:
        """The names of the classes of each column whose numbers `datasets` stores for names (`ClassLabel`)."""
        try:
            features = json.loads((self.table.schema.metadata or {})[b"huggingface"])["info"]["features"]
            return {
                column: [str(name) for name in feature["names"]]
                for column, feature in features.items()
                if feature.get("_type") == "ClassLabel"
            }
        except (KeyError, ValueError, TypeError, AttributeError, RecursionError):  # `datasets` did not write the file
            return {}

    def __len__(self) -> int:
        return int(self.table.num_rows)

    @overload
    def __getitem__(self, index: int) -> Row: ...
    @overload
    def __getitem__(self, index: slice) -> list[Row]: ...
    def __getitem__(self, index: int | slice) -> Row | list[Row]:
        if isinstance(index, slice):
            return [self[position] for position in range(*index.indices(len(self)))]
        if not -len(self) <= index < len(self):
            raise IndexError(index)
        return self._rows(index % len(self), 1)[0]

    def __iter__(self) -> Iterator[Row]:
        for start in range(0, len(self), self.BATCH_ROWS):
            yield from self._rows(start, self.BATCH_ROWS)

    def _rows(self, start: int, count: int) -> list[Row]:
        """Converts some rows.

        Raises:
            UserError: A value has no form in Python, such as a date after the year 9999.
        """
        try:
            rows: list[Row] = self.table.slice(start, count).to_pylist()
        except (ValueError, OverflowError) as error:  # of pyarrow, too
            last = min(start + count, len(self))
            where = f"row {last}" if count == 1 else f"one of the rows {start + 1} to {last}"
            raise UserError(
                f"{where} has a value that cannot be read: {one_line(error)}",
                hint="remove the column, or write it as text",
            ) from error
        return rows


MOST_BYTES = 16_000_000_000
"""The largest Parquet file that is read, unpacked; its rows are kept in memory."""


def read_table(path: Path) -> Any:
    """Reads a Parquet file, or a `.arrow` file (memory-mapped: its rows are read from the disk when they are used).

    All values are checked once: a text that would begin outside of the file ends the process when its row is read.

    Raises:
        UserError: The file is truncated, damaged or not of this format.
    """
    import pyarrow

    kind = "Parquet" if path.suffix == ".parquet" else "Arrow"
    try:
        table = _parquet(path) if kind == "Parquet" else _arrow(path)
        table.validate(full=True)
    except pyarrow.ArrowException as error:
        raise UserError(
            f"`{path}` is not a complete {kind} file: {one_line(error)}", hint="write or download the file again"
        ) from error
    except OSError as error:
        raise UserError(
            f"could not read `{path}`: {one_line(error)}", hint="check that the file is complete and readable"
        ) from error
    return table


def decoded(rows: Sequence[Row]) -> Sequence[Row]:
    """The same rows; `datasets` decodes columns whose stored form differs from their values (JSON, images)."""
    if not isinstance(rows, ArrowTable) or rows.column_types <= _AS_STORED:
        return rows
    import datasets

    converted: Sequence[Row] = datasets.Dataset(rows.table)
    return converted


def _parquet(path: Path) -> Any:
    import pyarrow.parquet

    file = pyarrow.parquet.ParquetFile(path)
    groups = (file.metadata.row_group(number) for number in range(file.metadata.num_row_groups))
    needed = sum(group.total_byte_size for group in groups)
    if needed > MOST_BYTES:  # a few KB can hold many GB of one text
        raise UserError(
            f"`{path}` holds {needed / 1e9:.0f} GB of values; at most {MOST_BYTES / 1e9:.0f} GB are read",
            hint="write the rows that you need to a file of their own",
        )
    return file.read()


def _arrow(path: Path) -> Any:
    import pyarrow

    file = pyarrow.memory_map(str(path))
    start = file.read(6)
    if start == b"ARROW1":  # the file format (Feather); `datasets` writes the stream format
        return pyarrow.ipc.open_file(file).read_all()
    # pyarrow reads a stream that was cut between two batches without an error, and the rest of the rows is missing
    if start[:4] == _NEXT and file.size() >= 8:
        file.seek(file.size() - 8)
        if file.read(8) != _NEXT + bytes(4):
            raise pyarrow.ArrowInvalid("the mark at the end of the stream is missing")
    file.seek(0)
    return pyarrow.ipc.open_stream(file).read_all()
