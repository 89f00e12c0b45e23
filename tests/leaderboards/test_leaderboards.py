"""Exports: the same numbers and escaped names in every format."""

from __future__ import annotations

import csv
import html
import json
import re
from pathlib import Path

import pytest
from example_run import SAMPLES, VALUES, example_run
from large_run import large_run

from harness.comparison.replicas import HELD_OUT
from harness.errors import UserError
from harness.leaderboards import FORMATS, drawing, export
from harness.leaderboards.latex import escaped as latex_escaped
from harness.leaderboards.markdown import escaped as markdown_escaped
from harness.leaderboards.rows import COLUMNS, tidy
from harness.report.tables import cost, quality
from harness.results import Run

EVIL = '<script>alert("x")</script>|_a_%&{}'


def named(name: str) -> Run:
    """Returns the example run with one variant called `name`."""
    run = example_run("base", "lora", "qlora", "full")
    return run.model_copy(
        update={"variants": (*run.variants[:-1], run.variants[-1].model_copy(update={"name": name})), "notes": (name,)}
    )


def test_every_format_is_written_once_as_report(tmp_path: Path) -> None:
    names = [name for name in FORMATS if drawing.can_draw() or name not in ("svg", "png")]
    paths = export([example_run()], [*names, "md"], tmp_path / "new")
    assert [path.name for path in paths] == [f"report.{name}" for name in names]
    assert sorted(tmp_path.glob("new/*")) == sorted(paths)


def test_an_unknown_format_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="htm") as caught:
        export([example_run()], ["md", "htm"], tmp_path)
    assert caught.value.hint == "did you mean `html`?"
    assert not list(tmp_path.iterdir())


@pytest.mark.skipif(not drawing.can_draw(), reason=f"`{drawing.PACKAGE}` is not installed")
def test_pictures_have_the_plots_of_all_runs(tmp_path: Path) -> None:
    svg, png = export([large_run(4, 7), large_run(3, 7, seed=1, model="x/y")], ["svg", "png"], tmp_path)
    text = svg.read_text()
    assert text.startswith("<svg") and png.read_bytes().startswith(b"\x89PNG") and "var(--" not in text
    assert text.count(">samples won on trained tasks ↑ learned</text>") == 2 and ">x/y</text>" in text
    assert all(text.lower().count(drawing.LIGHT[verdict]) >= 3 for verdict in ("better", "worse")), "as on the page"
    with pytest.raises(UserError, match="no run has a score and a cost"):
        export([example_run("base").model_copy(update={"variants": ()})], ["svg"], tmp_path)


def test_a_picture_without_the_package_that_draws_is_an_error_with_the_way_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(drawing, "can_draw", lambda: False)
    with pytest.raises(UserError, match="needs the package `vl-convert-python`") as caught:
        export([large_run(4, 7)], ["png"], tmp_path)
    assert caught.value.hint == "`pip install vl-convert-python`" and not list(tmp_path.iterdir())


def test_no_run_and_an_unwritable_folder_are_user_errors(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no run"):
        export([], ["md"], tmp_path)
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match="could not write"):
        export([example_run()], ["md"], tmp_path / "file")


def test_json_is_the_document_and_can_be_read_back(tmp_path: Path) -> None:
    run = example_run()
    [path] = export([run], ["json"], tmp_path)
    assert Run.model_validate_json(path.read_text()) == run
    [path] = export([run, run], ["json"], tmp_path)
    assert len(json.loads(path.read_text())) == 2


def test_csv_has_one_row_for_each_variant_task_and_metric(tmp_path: Path) -> None:
    [path] = export([example_run("base", "lora", "full", fail="full")], ["csv"], tmp_path)
    with path.open(newline="") as file:
        rows = list(csv.DictReader(file))
    scored = [row for row in rows if row["task"]]
    assert len({(row["variant"], row["task"], row["metric"]) for row in scored}) == len(scored) == 2 * 7 * 2
    lora = next(
        row for row in scored if (row["variant"], row["task"], row["headline"]) == ("lora", "mini_gsm8k", "True")
    )
    assert float(lora["value"]) == VALUES["lora"][1]
    assert float(lora["delta"]) == pytest.approx(0.91)
    assert (lora["verdict"], lora["n"], lora["seed"]) == ("better", str(SAMPLES), "0")
    assert float(lora["train_seconds"]) == 124.0
    [failed] = [row for row in rows if not row["task"]]
    assert (failed["variant"], failed["error"]) == ("full", "out of memory (needs > 79 GiB)")


def test_parquet_has_the_rows_of_the_csv_with_types(tmp_path: Path) -> None:
    import pyarrow
    from pyarrow.parquet import read_table

    runs = [example_run("base", "lora", "full", fail="full"), large_run(3, 2)]
    table_file, text = export(runs, ["parquet", "csv"], tmp_path)
    table = read_table(table_file)
    expected = [row for run in runs for row in tidy(run)]
    assert table.column_names == list(COLUMNS)
    assert [{name: value for name, value in row.items() if value is not None} for row in table.to_pylist()] == [
        {name: value for name, value in row.items() if value is not None} for row in expected
    ]
    kinds = {pyarrow.int64(): int, pyarrow.bool_(): bool, pyarrow.string(): str, pyarrow.float64(): (int, float)}
    for row in expected:
        for name, value in row.items():
            assert value is None or isinstance(value, kinds[table.schema.field(name).type]), name
    assert len(text.read_text().splitlines()) == table.num_rows + 1


def test_csv_has_the_means_over_training_runs() -> None:
    seen = {"variant": "lora", "trainings": ("lora", "lora.fold1"), "deviation": 0.05, "low": 0.3, "high": 0.5}
    delta = {"value": 0.2, "low": 0.1, "high": 0.3, "p": 0.001, "p_holm": 0.002, "verdict": "better"}
    of_task = {"task": "mini_gsm8k", "metric": "strict", "value": 0.4, "delta": delta}
    held_out = {"task": HELD_OUT, "metric": "loss", "value": 1.25}
    rows = list(tidy(example_run(replicated=[seen | of_task, seen | held_out])))
    assert set().union(*rows) <= set(COLUMNS)
    first, second = (row for row in rows if row.get("trainings"))
    assert (first["value"], first["deviation"], first["trainings"], first["delta"]) == (0.4, 0.05, 2, 0.2)
    assert (first["verdict"], first["higher_is_better"], first["n"]) == ("better", True, SAMPLES)
    assert (second["task"], second["value"], second["higher_is_better"], second["n"]) == (HELD_OUT, 1.25, False, None)
    assert [row["trainings"] for row in rows[-2:]] == [2, 2]


def test_rows_say_how_the_chat_template_was_used() -> None:
    document = example_run("base", "lora").model_dump(mode="json", by_alias=True)
    document["variants"][1]["scores"][0]["protocol"] |= {
        "system": "Answer briefly.",
        "think": "off",
        "template_options": {"effort": "low"},
    }
    rows = [row for row in tidy(Run.model_validate(document)) if row["task"] == "mini_mmlu" and row["headline"]]
    base, lora = rows
    assert [lora[name] for name in ("system", "think", "template_options")] == [
        "Answer briefly.",
        "off",
        '{"effort": "low"}',
    ]
    assert [base[name] for name in ("system", "think", "template_options")] == [None, None, None]


def test_tidy_rows_use_only_the_columns_of_the_table() -> None:
    rows = list(tidy(example_run("base", "lora", "qlora", "full")))
    assert set().union(*rows) <= set(COLUMNS)
    assert len(set(COLUMNS)) == len(COLUMNS)
    assert {row["rank"] for row in rows if row["headline"]} <= {1, 2, 3, 4}
    assert all(row["rank"] is None for row in rows if not row["headline"])


@pytest.mark.parametrize("name", ["md", "tex", "html"])
def test_every_cell_of_the_screen_is_in_every_report(name: str) -> None:
    run = example_run("base", "lora", "qlora", "full")
    text = FORMATS[name]([run])
    write = {"md": markdown_escaped, "tex": latex_escaped, "html": html.escape}[name]
    for table in (quality(run), cost(run)):
        for row in table.rows:
            for cell in row.cells:
                assert write(cell.text) in text


def test_markdown_tables_are_rectangular_whatever_the_names() -> None:
    text = FORMATS["md"]([named(EVIL)])
    for block in text.split("\n\n"):
        rows = [line for line in block.splitlines() if line.startswith("|")]
        assert len({len(re.findall(r"(?<!\\)\|", row)) for row in rows}) <= 1
    assert "<script" not in text.replace("\\<script", "")


def test_markdown_does_not_escape_code_and_inner_underscores() -> None:
    assert markdown_escaped("`--seeds 3` of mini_mmlu p < .05") == "`--seeds 3` of mini_mmlu p < .05"
    assert markdown_escaped("_a_ | *b*") == r"\_a\_ \| \*b\*"


def test_latex_escapes_its_special_characters_and_balances_rows() -> None:
    text = FORMATS["tex"]([named("50%_a&b#{x}\\")])
    assert isinstance(text, str)
    assert r"50\%\_a\&b\#\{x\}\textbackslash{}" in text
    assert text.count(r"\begin{longtable}") == text.count(r"\end{longtable}") == text.count(r"\endhead") > 1
    assert "▲" not in text
    assert r"$\blacktriangle$" in text
    labels = re.findall(r"\\label\{(.*?)\}", text)
    assert len(set(labels)) == len(labels) == text.count(r"\caption")


def test_latex_of_many_rows_has_whole_rows_bold_scores_and_ties() -> None:
    run = large_run(25, 7)
    text = FORMATS["tex"]([run])
    assert isinstance(text, str)
    for table in re.findall(r"\\begin\{longtable\}\{(l r*|lr*)\}(.*?)\\end\{longtable\}", text, flags=re.DOTALL):
        columns, body = len(table[0]), table[1]
        rows = [line for line in body.splitlines() if line.endswith(r"\\") and "caption" not in line]
        assert len(rows) >= 25
        for row in rows:
            spans = [int(n) - 1 for n in re.findall(r"\\multicolumn\{(\d+)\}", row)]
            assert len(re.findall(r"(?<!\\)&", row)) + 1 + sum(spans) == columns
    best = max(v.scores[0].value or 0 for v in run.variants if v.scores)
    assert f"\\textbf{{{100 * best:.1f}}}\\textsuperscript{{a" in text
    assert 7 <= text.count(r"\textbf") < text.count(r"\num{")
    opened, closed = (len(re.findall(rf"(?<!\\){brace}", text)) for brace in (r"\{", r"\}"))
    assert opened == closed


def test_a_failed_variant_says_why_in_every_report() -> None:
    run = example_run("base", "lora", "full", fail="full")
    for name in ("md", "tex", "html"):
        assert "failed: out of memory (needs" in FORMATS[name]([run])
