"""CSV and TSV as people write them: quotes told apart by trying both readings, and errors that name the line."""

import csv
from pathlib import Path

import pytest

from harness import UserError
from harness.data.sources import rows

ROWS = [{"text": 'say "hi"', "label": "0"}, {"text": "tab\there\nand a line", "label": "1"}]


def read(folder: Path, name: str, content: str) -> list[list[str]]:
    (folder / name).write_bytes(content.encode())
    return [list(row.values()) for row in rows(str(folder / name))]


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ('n\ttext\n1\ta\n2\t"12" pipe\n', [["1", "a"], ["2", '"12" pipe']]),
        ('text\tn\nplain\t0\n"Why?" she asked\t1\n', [["plain", "0"], ['"Why?" she asked', "1"]]),
        ('a\tb\nx\t"open\ny\tclose"\nz\t1\n', [["x", '"open'], ["y", 'close"'], ["z", "1"]]),
        ('a\tb\nx\t"never closed\ny\t1\n', [["x", '"never closed'], ["y", "1"]]),
        ('a\tb\n"x, y"\t1\n', [["x, y", "1"]]),  # as Excel writes a field with a comma
        ('a\tb\n"say ""hi"""\t1\n', [['say "hi"', "1"]]),
        ('a\tb\n"two\nlines"\t1\n', [["two\nlines", "1"]]),
        ('a\tb\n"a\ttab"\t1\n', [["a\ttab", "1"]]),
        ('a\tb\n5" pipe\t1\n', [['5" pipe', "1"]]),
        ("\ufeffa\tb\r\n\r\nx\t1\r\n\r\n", [["x", "1"]]),
        ('a\tb\r\n"12" pipe\t1\r\n', [['"12" pipe', "1"]]),
        ("a\tb\rx\t1\r", [["x", "1"]]),
        ("a\tb\nx\t\n\t\n", [["x", ""], ["", ""]]),
        ("a\tb\nx\u2028y\x0b\t1\n", [["x\u2028y\x0b", "1"]]),
    ],
)
def test_tsv_is_read_with_the_quotes_that_it_has(tmp_path: Path, content: str, expected: list[list[str]]) -> None:
    assert read(tmp_path, "x.tsv", content) == expected


@pytest.mark.parametrize(("name", "delimiter"), [("x.csv", ","), ("x.tsv", "\t")])
@pytest.mark.parametrize("quoting", [csv.QUOTE_MINIMAL, csv.QUOTE_ALL])
def test_what_pythons_csv_module_writes_comes_back(tmp_path: Path, name: str, delimiter: str, quoting: int) -> None:
    with (tmp_path / name).open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, ["text", "label"], delimiter=delimiter, quoting=quoting)  # type: ignore[arg-type]
        writer.writeheader()
        writer.writerows(ROWS)
    assert rows(str(tmp_path / name)) == ROWS


@pytest.mark.parametrize(
    ("name", "content", "expected"),
    [
        ("x.tsv", "a\tb\nx\t1\ny\n", "line 3 has 1 field, and the header has 2"),
        (
            "x.tsv",
            'a\tb\n"12" pipe\t1\ny\n',
            "line 3 has 1 field, and the header has 2; with quotes around fields, line 2 has",
        ),
        (
            "x.tsv",
            'a\tb\nx\t"1\ny\n',
            "line 3 has 1 field, and the header has 2; with quotes around fields, line 2 opens",
        ),
        ("x.tsv", 'a\n"open\nclose"\n', "line 2 opens a quote that is closed on a later line"),
        ("x.tsv", "a\tb\nx\t1\ny\t\x002\n", "line 3 has a NUL character"),
        ("x.csv", "a,b\r\nx,1\r\ny,\x002\r\n", "line 3 has a NUL character"),
        ("x.csv", 'a,b\nx,1\n"12" pipe,1\n', "line 3 has a quote inside a quoted field, or text behind it"),
        ("x.csv", 'a,b\n"two\nlines",1\n\ny,"2\n', "line 5 opens a quote that is never closed"),
        ("x.csv", 'a,b\n"two\nlines",1\n\ny\n', "line 5 has 1 field, and the header has 2"),
        ("x.csv", "a,b,a\n1,2,3\n", r"has the column `a` twice \(columns 1 and 3\)"),
        ("x.tsv", "a\t\t\n1\t2\t3\n", r"has columns without a name \(columns 2 and 3\)"),
    ],
)
def test_an_error_names_the_file_and_the_line(tmp_path: Path, name: str, content: str, expected: str) -> None:
    with pytest.raises(UserError, match=expected) as error:
        read(tmp_path, name, content)
    assert name in error.value.message and error.value.hint and "\n" not in error.value.message


@pytest.mark.parametrize("content", ["", "a\tb\n", "\n\n", "\ufeff"])
def test_a_file_without_rows_says_so(tmp_path: Path, content: str) -> None:
    with pytest.raises(UserError, match="has no rows"):
        read(tmp_path, "x.tsv", content)
