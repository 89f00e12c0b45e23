r"""Rows of CSV and TSV files.

CSV fields may be in double quotes (RFC 4180). TSV is written in two ways: with quotes as in CSV, or with quotes as
ordinary characters, as most corpora of language data are. Both readings of the whole file are tried:

- only one gives every row as many fields as the header: that one;
- both do, with the same number of rows: the quoted one (only the quotes around whole fields differ);
- both do, and quoted fields would span lines: the quoted one if the header is in quotes or a field in
  quotes has doubled quotes inside, as only CSV writers produce; else the unquoted one, because lines that each have the
  header's number of fields are rows. In a file of one column nothing tells the readings apart, so it is refused.

Example:
    >>> [fields for _, fields in _tsv(Path("x.tsv"), 'text\tlabel\n"Why?" she asked\t1\n')]
    [['text', 'label'], ['"Why?" she asked', '1']]
"""

from __future__ import annotations

import csv
import io
import re
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from harness.api import Row
from harness.errors import UserError

Lines = list[tuple[int, list[str]]]
"""The header and the rows: the number of the line on which each begins, from 1, and its fields."""


_DOUBLED = re.compile(r'"(?:[^"]|"")*""(?:[^"]|"")*"')
"""A field in quotes with doubled quotes inside."""


class _Malformed(Exception):
    """A reading of the file fails at a line."""

    def __init__(self, line: int, reason: str) -> None:
        super().__init__(f"line {line} {reason}")


def delimited_rows(path: Path) -> list[Row]:
    """Reads the rows of a .csv or .tsv file; empty lines are ignored.

    Raises:
        UserError: A row has more or fewer fields than the header, a quoted field is malformed, the header repeats or
            lacks a name, or the file has NUL characters.
    """
    with path.open(encoding="utf-8-sig", newline="") as file:
        text = file.read()
    if "\0" in text:
        raise UserError(
            f"`{path}` line {_line_of(text.partition(chr(0))[0])} has a NUL character",
            hint="the file is damaged, or it is not text: save it again as UTF-8",
        )
    lines = _tsv(path, text) if path.suffix == ".tsv" else _csv(path, text)
    if not lines:
        return []
    (_, header), *rows = lines
    _check_header(path, header)
    return [dict(zip(header, fields, strict=True)) for _, fields in rows]


def _csv(path: Path, text: str) -> Lines:
    try:
        return _quoted(text, ",")
    except _Malformed as error:
        raise UserError(
            f"`{path}` {error}",
            hint="a field with commas, quotes or line breaks needs double quotes around it, and quotes inside it"
            ' doubled: `"the 5"" pipe"`; the file may also be truncated',
        ) from error


def _tsv(path: Path, text: str) -> Lines:
    found: dict[str, Lines] = {}
    faults: dict[str, str] = {}
    for name in ("unquoted", "quoted") if '"' in text else ("unquoted",):
        try:
            found[name] = _unquoted(text) if name == "unquoted" else _quoted(text, "\t")
        except _Malformed as error:
            faults[name] = str(error)
    if not found:
        reasons = dict.fromkeys(faults.values())
        raise UserError(
            f"`{path}` " + "; with quotes around fields, ".join(reasons),
            hint="every line needs as many tabs as the header; text with tabs or line breaks is safer in a .jsonl file",
        )
    if len(found) == 1:
        return next(iter(found.values()))
    unquoted, quoted = found["unquoted"], found["quoted"]
    if len(unquoted) == len(quoted) or _shows_csv_quotes(unquoted):
        return quoted
    if len(unquoted[0][1]) > 1:
        return unquoted
    first = next(line for line, fields in quoted if "\n" in fields[0] or "\r" in fields[0])
    raise UserError(
        f"`{path}` line {first} opens a quote that is closed on a later line: one row, or several with quotes in the text",
        hint="write it as .csv if it is one row, or as .jsonl or .txt if each line is a row",
    )


def _shows_csv_quotes(unquoted: Lines) -> bool:
    in_quotes = all(len(name) > 1 and name[0] == name[-1] == '"' for name in unquoted[0][1])
    return in_quotes or any(_DOUBLED.fullmatch(field) for _, fields in unquoted for field in fields)


def _unquoted(text: str) -> Lines:
    """Splits at line ends and tabs.

    Raises:
        _Malformed: A line has more or fewer fields than the first.
    """
    lines = ((number, line.rstrip("\n")) for number, line in enumerate(io.StringIO(text, newline=None), 1))
    return list(_of_equal_width((number, line.split("\t")) for number, line in lines if line))


def _quoted(text: str, delimiter: str) -> Lines:
    """Reads fields with quotes, as in RFC 4180.

    Raises:
        _Malformed: A row has more or fewer fields than the header, or a quoted field is malformed.
    """
    csv.field_size_limit(sys.maxsize)  # documents can be longer than the default limit of 128 KiB
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)

    def numbered() -> Iterator[tuple[int, list[str]]]:
        while True:
            start = reader.line_num + 1
            try:
                fields = next(reader)
            except StopIteration:
                return
            except csv.Error as error:
                if "unexpected end" in str(error):
                    raise _Malformed(start, "opens a quote that is never closed") from error
                raise _Malformed(reader.line_num, "has a quote inside a quoted field, or text behind it") from error
            if fields:
                yield start, fields

    return list(_of_equal_width(numbered()))


def _of_equal_width(lines: Iterator[tuple[int, list[str]]]) -> Iterator[tuple[int, list[str]]]:
    width = None
    for number, fields in lines:
        width = width or len(fields)
        if len(fields) != width:
            s = "" if len(fields) == 1 else "s"
            raise _Malformed(number, f"has {len(fields)} field{s}, and the header has {width}")
        yield number, fields


def _check_header(path: Path, header: list[str]) -> None:
    """Refuses two columns of the same name: a row could keep only one of them."""
    name, count = Counter(header).most_common(1)[0]
    if count > 1:
        places = " and ".join(str(place) for place, each in enumerate(header, 1) if each == name)
        problem = f"has the column `{name}` twice" if name else "has columns without a name"
        raise UserError(f"`{path}` {problem} (columns {places})", hint="give each column a name of its own")


def _line_of(before: str) -> int:
    return io.StringIO(before, newline=None).read().count("\n") + 1
