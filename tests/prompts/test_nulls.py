"""Empty cells never become the words None or nan in a prompt or an answer, and tasks that handle them are left alone."""

import json
import math
from collections.abc import Callable
from typing import Any

import pytest

from harness import Choose, Generate, Metric, Sample, Task, Text, UserError
from harness.prompts.render import render, render_examples

ONE = Metric("one", score=lambda output, sample: 1.0)
NAN = math.nan


def a_task(row: dict[str, Any], sample: Callable[[Any], Sample], **options: Any) -> Task:
    return Task([{**row, "q": "fine", "n": 1}, row], sample, [ONE], **options)


@pytest.mark.parametrize(
    ("row", "sample", "column"),
    [
        ({"q": None}, lambda row: Generate(f"Text: {row['q']}", "x"), "q"),
        ({"q": NAN}, lambda row: Generate(f"Text: {row['q']}", "x"), "q"),
        ({"q": NAN, "n": NAN}, lambda row: Generate(f"{row['n']:8.2f}", "x"), "n"),
        ({"q": None}, lambda row: Generate("{}?".format(row["q"]), "x"), "q"),
        ({"q": None}, lambda row: Generate(str(row["q"]).strip().upper(), "x"), "q"),
        ({"q": None}, lambda row: Generate(f"{row['q']!r}", "x"), "q"),
        ({"q": None}, lambda row: Generate([{"role": "user", "content": f"{row['q']}"}], "x"), "q"),
        ({"q": None}, lambda row: Generate("x", str(row["q"])), "q"),
        ({"q": None}, lambda row: Generate("x", ["y", str(row["q"])]), "q"),
        ({"q": None}, lambda row: Choose("x", ["a", str(row["q"])], 0), "q"),
        ({"q": None}, lambda row: Choose([f"{row['q']}", "b"], ["a", "b"], 0), "q"),
        ({"q": None}, lambda row: Text(f"{row['q']}"), "q"),
        ({"q": None, "hint": None}, lambda row: Generate(f"{row['hint'] or ''}{row['q']}", "x"), "q"),
        ({"q": "x", "t": {"de": None}}, lambda row: Generate(f"{row['t']['de']}", "x"), "t.de"),
        ({"q": "x", "c": ["a", None]}, lambda row: Generate(", ".join(map(str, row["c"])), "x"), r"c\[1\]"),
        ({"q": "x", "c": ["a", None]}, lambda row: Generate(str(row["c"]), "x"), r"c\[1\]"),
    ],
)
def test_an_empty_cell_that_is_written_is_refused_with_row_and_column(
    row: dict[str, Any], sample: Callable[[Any], Sample], column: str
) -> None:
    task = a_task(row, sample, train=[row])
    with pytest.raises(UserError, match=rf"task `t`, row [01]: the column `{column}` is empty"):
        render("t", task)
    with pytest.raises(UserError, match=rf"row 0: the column `{column}` is empty"):
        render_examples("t", task)


@pytest.mark.parametrize(
    ("row", "sample"),
    [
        ({"q": "none of them, nan", "x": None}, lambda row: Generate(row["q"], "None")),
        ({"q": "Banana", "x": NAN}, lambda row: Generate(row["q"], "nan")),
        ({"q": None}, lambda row: Generate(row["q"] or "None", "x")),
        ({"q": None}, lambda row: Generate("none" if row["q"] is None else f"none {row['q']}", "x")),
        ({"q": None}, lambda row: Generate("none" + (f" {row['q']}" if row["q"] else ""), "x")),
        ({"q": None}, lambda row: Generate("none" if row["q"] == None else row["q"], "x")),  # noqa: E711
        ({"q": NAN, "n": NAN}, lambda row: Generate("nan" if math.isnan(row["n"]) else "x", "x")),
        ({"q": None}, lambda row: Generate("none", json.dumps({"value": row["q"]}))),
        ({"q": None, "x": object()}, lambda row: Generate("none", "x")),
    ],
)
def test_an_empty_cell_that_the_task_handles_or_ignores_is_no_fault(
    row: dict[str, Any], sample: Callable[[Any], Sample]
) -> None:
    assert len(render("t", Task([row], sample, [ONE]))) == 1


def test_empty_cells_of_pandas_are_found() -> None:
    pandas = pytest.importorskip("pandas")
    rows = pandas.DataFrame({"q": ["a", None], "day": [pandas.Timestamp("2020-01-01"), pandas.NaT]}).to_dict("records")
    for column in ("q", "day"):
        with pytest.raises(UserError, match=f"row 1: the column `{column}` is empty"):
            render("t", Task(rows, lambda row, column=column: Generate(f"{row[column]}", "x"), [ONE]))  # type: ignore[misc]


def test_an_empty_cell_in_the_description_or_in_a_solved_example_is_refused() -> None:
    row = {"q": "x", "topic": None}
    described = a_task(row, lambda row: Generate("x", "x"), description=lambda row: f"About {row['topic']}. ")
    shots = a_task(
        row, lambda row: Generate(row["q"], str(row.get("a", ""))), shots=1, shots_from=[{"q": "y", "a": None}]
    )
    for task, column in ((described, "topic"), (shots, "a")):
        with pytest.raises(UserError, match=f"the column `{column}` is empty"):
            render("t", task)


def test_a_function_that_fails_on_an_empty_cell_is_told_which_one() -> None:
    with pytest.raises(UserError, match="'NoneType' object has no attribute 'strip'") as error:
        render("t", Task([{"q": None}], lambda row: Generate(row["q"].strip(), "x"), [ONE]))
    assert error.value.hint == "task `t` failed on row 0, which has no value in `q`"
    with pytest.raises(UserError, match="`target` is the NoneType") as error:
        render("t", Task([{"a": None}], lambda row: Generate("x", row["a"]), [ONE]))
    assert "has no value there" in str(error.value.hint)
