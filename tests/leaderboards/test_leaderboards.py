"""Exports: the same numbers in every format, escaped names, a page that works in a browser without a server."""

from __future__ import annotations

import csv
import html.parser
import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest
from example_run import SAMPLES, TASKS, VALUES, example_run

from harness.comparison.replicas import HELD_OUT
from harness.errors import UserError
from harness.leaderboards import FORMATS, export
from harness.leaderboards.latex import escaped as latex_escaped
from harness.leaderboards.markdown import escaped as markdown_escaped
from harness.leaderboards.page import plot, render
from harness.leaderboards.rows import COLUMNS, tidy
from harness.report.tables import cost, quality
from harness.results import Run

EVIL = '<script>alert("x")</script>|_a_%&{}'
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")


def named(name: str) -> Run:
    """Returns the example run with one variant called `name`."""
    run = example_run("base", "lora", "qlora", "full")
    return run.model_copy(
        update={"variants": (*run.variants[:-1], run.variants[-1].model_copy(update={"name": name})), "notes": (name,)}
    )


def test_every_format_is_written_once_as_report(tmp_path: Path) -> None:
    paths = export([example_run()], [*FORMATS, "md"], tmp_path / "new")
    assert [path.name for path in paths] == ["report.md", "report.csv", "report.json", "report.tex", "report.html"]
    assert sorted(tmp_path.glob("new/*")) == sorted(paths)


def test_an_unknown_format_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="htm") as caught:
        export([example_run()], ["md", "htm"], tmp_path)
    assert caught.value.hint == "did you mean `html`?"
    assert not list(tmp_path.iterdir())


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
    write = {"md": markdown_escaped, "tex": latex_escaped, "html": lambda text: text}[name]
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
    assert r"50\%\_a\&b\#\{x\}\textbackslash{}" in text
    assert text.count(r"\begin{tabular}") == text.count(r"\end{tabular}") == text.count(r"\bottomrule")
    assert "▲" not in text
    assert r"$\blacktriangle$" in text


def test_a_failed_variant_says_why_in_every_report() -> None:
    run = example_run("base", "lora", "full", fail="full")
    for name in ("md", "tex", "html"):
        assert "failed: out of memory (needs" in FORMATS[name]([run])


class Page(html.parser.HTMLParser):
    """Collects the tags of a page and the addresses that it would fetch."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.fetched: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.fetched += [value or "" for key, value in attrs if key in ("src", "href", "srcset", "action")]


def test_the_page_is_one_file_that_fetches_nothing_and_stays_small() -> None:
    text = render([example_run("base", "lora", "qlora", "full")])
    page = Page(text)
    assert set(page.fetched) <= {"data:,"}
    assert "@import" not in text and "url(" not in text
    assert len(text.encode()) < 300_000


def test_the_page_can_be_read_without_javascript() -> None:
    text = re.sub(r"<script.*?</script>", "", render([example_run()]), flags=re.DOTALL)
    for words in ("+91.0 ±1.4 ▲", "better than base on", "33.5 ms (1.84×)", "harness compare base lora qlora"):
        assert words in text
    assert 'scope="row"' in text and 'aria-sort="none"' in text


def test_names_on_the_page_are_plain_text() -> None:
    text = render([named(EVIL)])
    assert Page(text).tags.count("script") == 2
    assert "<script>alert" not in text
    assert "&lt;script&gt;alert" in text


def test_several_runs_are_sections_of_one_page() -> None:
    page = Page(render([example_run(), example_run("base", "lora")]))
    assert page.tags.count("main") == 2


def test_the_plot_has_scores_on_the_scale_of_the_table_and_costs_with_units() -> None:
    run = example_run()
    data = plot(run)
    labels = [axis["label"] for axis in data["qualities"]]
    assert labels[: len(TASKS)] == [
        f"{task} {metric} {'↑' if higher else '↓'}" for task, (metric, higher, _) in TASKS.items()
    ]
    assert data["first"] == 1
    assert data["qualities"][1]["points"][1][0] == pytest.approx(93.0)
    peak = next(axis for axis in data["costs"] if axis["label"] == "peak GPU memory in training, GiB")
    assert peak["points"][0] is None
    assert peak["points"][1] == [pytest.approx(7.9), "7.9 GiB"]
    place = data["costs"].index(peak)
    assert (data["fronts"][1][place], data["maybe"][1][place]) == (["qlora"], ["lora"])
    second = len(
        TASKS
    )  # metrics besides headlines have no verdicts, so only the cheapest variant is surely on the front
    assert (data["fronts"][second][place], data["maybe"][second][place]) == (["qlora"], ["lora"])


# In a browser

PROBE = """
<script>
  const problems = [];
  const check = (holds, what) => { if (!holds) problems.push(what); };
  const order = (table) => [...table.tBodies[0].rows].map((row) => row.cells[0].innerText.trim()).join(" ");
  const table = document.querySelector(".quality");
  const heads = table.querySelectorAll("thead th");
  const click = (index) => heads[index].querySelector("button").click();
  click(2); check(order(table) === "lora qlora base full", "best first: " + order(table));
  check(heads[2].getAttribute("aria-sort") === "descending", "aria-sort");
  click(2); check(order(table) === "base qlora lora full", "worst first, failed last: " + order(table));
  click(7); check(order(table) === "base lora qlora full", "lower is better: " + order(table));
  check(heads[2].getAttribute("aria-sort") === "none", "aria-sort of the others");
  const seen = (selector) => [...document.querySelectorAll(selector)].filter((e) => e.offsetParent && e.innerText).length;
  document.querySelector('[data-shows="difference"]').click();
  check(seen(".quality .score") === 7 && seen(".quality .difference") === 14, "only differences");
  document.querySelector('[data-shows="score"]').click();
  check(seen(".quality .score") === 21 && seen(".quality .difference") === 0, "only scores");
  const [quality, cost] = document.querySelectorAll(".selectors select");
  const names = () => [...document.querySelectorAll("svg .point text")].map((e) => e.textContent).join(" ");
  const front = () => [...document.querySelectorAll("svg .on-front text")].map((e) => e.textContent).join(" ");
  check(names() === "base lora qlora", "shown: " + names());
  check(front() === "base lora", "front: " + front());
  cost.value = [...cost.options].findIndex((o) => o.text.startsWith("peak GPU"));
  cost.dispatchEvent(new Event("change"));
  const maybe = [...document.querySelectorAll("svg .maybe-front text")].map((e) => e.textContent).join(" ");
  check(names() === "lora qlora" && front() === "qlora" && maybe === "lora", "after choosing a cost: " + front() + "; " + maybe);
  document.body.dataset.probe = problems.join("; ") || "passed";
</script>
"""


@pytest.mark.browser
@pytest.mark.skipif(CHROMIUM is None, reason="chromium is not installed (`apt-get install chromium`)")
def test_in_a_browser_the_table_sorts_the_switch_switches_and_the_plot_draws(tmp_path: Path) -> None:
    assert CHROMIUM is not None
    text = render([example_run("base", "lora", "qlora", "full", fail="full")])
    path = tmp_path / "report.html"
    path.write_text(text.replace("</body>", PROBE + "</body>"), encoding="utf-8")
    switches = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync",
                "--disable-background-networking", "--disable-component-update", "--enable-logging=stderr",
                "--virtual-time-budget=3000", f"--user-data-dir={tmp_path / 'profile'}", "--dump-dom"]  # fmt: skip
    done = subprocess.run([CHROMIUM, *switches, path.as_uri()], capture_output=True, text=True, timeout=120, check=True)
    found = re.search(r'data-probe="([^"]*)"', done.stdout)
    assert found is not None, done.stderr[-2000:]
    assert found[1] == "passed"
    assert done.stdout.count('class="bar"') == 2
    console = [line for line in done.stderr.splitlines() if "CONSOLE" in line]
    assert console == []
