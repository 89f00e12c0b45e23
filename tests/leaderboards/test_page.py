"""The page: one small file that can be read without JavaScript, and works in a browser at three widths."""

from __future__ import annotations

import html
import html.parser
import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest
from example_run import example_run
from hand_made_run import hand_made_run
from large_run import large_run

from harness.leaderboards import drawing
from harness.leaderboards.page import render
from harness.results import Run

EVIL = '<script>alert("x")</script>|_a_%&{}\u202e'
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
needs_drawing = pytest.mark.skipif(not drawing.can_draw(), reason=f"`{drawing.PACKAGE}` is not installed")


class Page(html.parser.HTMLParser):
    """Collects the tags of a page, its ids and the addresses that it would fetch."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.ids: list[str] = []
        self.links: list[str] = []
        self.fetched: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        for key, value in attrs:
            if key == "id":
                self.ids.append(value or "")
            if key == "href" and (value or "").startswith("#"):
                self.links.append((value or "")[1:])
            elif key in ("src", "href", "srcset", "action", "poster", "data"):
                self.fetched.append(value or "")


def readable(text: str) -> str:
    """The page as a reader without JavaScript has it."""
    return html.unescape(re.sub(r"<script.*?</script>", "", text, flags=re.DOTALL))


def test_the_page_is_one_file_that_fetches_nothing() -> None:
    text = render([large_run(6, 7)])
    page = Page(text)
    assert set(page.fetched) <= {"data:,"}
    assert "@import" not in text and "url(" not in text
    assert "default-src 'none'" in text, "a browser refuses what a mistake would fetch"
    assert len(set(page.ids)) == len(page.ids)
    assert set(page.links) <= set(page.ids)


def test_the_page_can_be_read_without_javascript() -> None:
    text = readable(render([example_run()]))
    for words in ("+91.0 ±1.4 ▲", "better than base on", "33.5 ms (1.84×)", "harness compare base lora qlora", "2.125"):
        assert words in text
    assert 'scope="row"' in text and 'aria-sort="none"' in text
    everything = readable(render([large_run(6, 7)]))
    for words in ("Take <b>", "Question 0 of gsm8k?", "answer 1", "seeds: 1", "failed: out of memory", "law", "≈"):
        assert words in everything


@pytest.fixture(scope="module")
def largest() -> str:
    return render([large_run(60, 60)])


def test_a_large_page_has_each_number_once(largest: str) -> None:
    text = readable(largest)
    table = text[text.index('id="quality"') : text.index('id="cost"')]
    assert 'class="dif"' not in table and 'class="i"' not in table and 'class="tie"' in table
    assert text.count("±") > 58 * 60, "differences are in the table of every score"


def test_a_page_of_60_variants_and_60_tasks_stays_below_one_and_a_half_megabytes(largest: str) -> None:
    assert len(largest.encode()) < 1_500_000 and 'id="packed"' not in largest
    assert len(Page(largest).ids) >= 59 * 60
    assert largest.count("<svg") >= 8 or not drawing.can_draw()


@needs_drawing
def test_a_page_of_25_variants_has_a_choice_of_axes() -> None:
    text = render([large_run(25, 7)])
    assert len(text.encode()) < 1_000_000 and 'id="packed"' in text and text.count("<svg") >= 8


def test_without_the_package_that_draws_a_page_has_all_but_plots(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(drawing, "can_draw", lambda: False)
    text = render([large_run(6, 7)])
    assert "<svg" not in text and 'id="packed"' not in text and "pip install vl-convert-python" in text
    shown = readable(text)
    assert "Quality against cost" not in shown and "mmlu" in shown and "Question 0 of gsm8k?" in shown
    assert set(Page(text).links) <= set(Page(text).ids)


def test_names_on_the_page_are_plain_text() -> None:
    run = large_run(4, 3)
    document = json.loads(run.to_json().replace('"lora"', json.dumps(EVIL)).replace('"gsm8k"', json.dumps(EVIL)))
    document["samples_shown"][0]["prompts"][0]["prompt"] = document["variants"][0]["error"] = EVIL
    document["variants"][2]["scores"][1]["groups"][0]["name"] = EVIL
    text = render([Run.model_validate(document)])
    plain, evil = Page(render([run])), Page(text)
    assert evil.tags.count("script") == plain.tags.count("script")
    assert "<script>alert" not in text and "\u202e" not in text
    assert text.count("&lt;script&gt;alert") > 20


@pytest.mark.parametrize(
    "run",
    [
        example_run("base"),
        example_run("base", "lora", tasks=1),
        example_run("base", "lora", fail="base"),
        example_run("base", "lora", fail="lora"),
        hand_made_run({"base": (0.5,), "lora": (0.5,)}, tasks={"t": "acc"}, half=0.0),
        large_run(1, 1),
        large_run(12, 1),
    ],
    ids=["base alone", "one task", "base failed", "lora failed", "no difference", "one number", "many variants"],
)
def test_small_and_failed_runs_have_pages(run: Run) -> None:
    page = Page(render([run]))
    assert page.tags.count("main") == 1 and set(page.links) <= set(page.ids)


def test_an_unfinished_run_and_one_without_scores_have_pages() -> None:
    document = example_run("base", "lora").model_dump(mode="json", by_alias=True)
    for variant in document["variants"]:
        variant |= {
            "status": "pending",
            "scores": [],
            "train": None,
            "inference": None,
            "artifact": None,
            "model_bytes": None,
        }
        variant["parameters"] = None
    run = Run.model_validate(document | {"comparisons": []})
    text = readable(render([run]))
    assert "No variant has scores yet." in text and text.count("not run yet") >= 2


def test_several_runs_are_one_table_and_the_rest_of_each() -> None:
    page = Page(render([large_run(3, 7), large_run(4, 7, seed=1, model="x/y")]))
    assert page.tags.count("main") == 1 and page.tags.count("article") == 2
    assert len(set(page.ids)) == len(page.ids)


# In a browser

PROBE = """
<script>
  const problems = [], check = (holds, what) => { if (!holds) problems.push(`${innerWidth} px: ${what}`); };
  const all = (selector) => [...document.querySelectorAll(selector)];
  const seen = (selector) => all(selector).filter((e) => e.checkVisibility({ visibilityProperty: true }) && e.textContent.trim()).length;
  const tell = () => parent.postMessage(problems.join("; "), "*");
  const later = (test) => new Promise((done) => { const wait = (left) => test() || !left ? done() : setTimeout(wait, 50, left - 1); wait(60); });
  (async () => {
    for (const fold of all("details.sec, details.rest, details.fold, details.model")) fold.open = true;
    check(document.documentElement.scrollWidth <= innerWidth, "the page scrolls sideways");
    check(seen("svg.plot.wide") > 0 === innerWidth > 640 && seen("svg.plot.narrow") > 0 === innerWidth <= 640, "one width of each plot");
    const table = document.querySelector(".quality"), heads = [...table.querySelectorAll("th[aria-sort]")];
    const order = () => [...table.tBodies[0].rows].map((row) => row.cells[0].querySelector("bdi").textContent).join(" ");
    const click = (title) => heads.find((head) => head.textContent.startsWith(title)).querySelector("button").click();
    click("mini_gsm8k"); check(order() === "lora qlora base full", "best first, failed last: " + order());
    click("mini_gsm8k"); check(order() === "base qlora lora full", "worst first, failed last: " + order());
    click("mini_text"); check(order() === "base lora qlora full", "lower is better: " + order());
    check(heads.filter((head) => head.getAttribute("aria-sort") !== "none").length === 1, "aria-sort of the others");
    const cells = (kind) => seen(`.quality ${kind}`);
    document.querySelector('[data-m="diff"]').click(); check(cells(".v") === 0 && cells(".dif") === 14, "only differences");
    document.querySelector('[data-m="score"]').click(); check(cells(".v") === 21 && cells(".dif") === 0, "only scores");
    document.querySelector('[data-m="rank"]').click(); check(cells(".rk") === 21 && cells(".v") === 0, "only ranks");
    const find = document.querySelector(".q input[type=search]");
    find.value = "QLO"; find.dispatchEvent(new Event("input"));
    check(seen(".quality tbody tr") === 1 && seen(".cost tbody tr") === 1, "filtered");
    check(document.querySelector(".q .count").textContent === "1 of 4", "counted");
    find.value = ""; find.dispatchEvent(new Event("input"));
    document.querySelector(".q .pop").open = true;
    document.querySelector(".pop input[value='0']").click(); check(cells("thead th") === 7, "a column is hidden");
    document.querySelector(".q .pop").open = false;
    const link = document.querySelector('a[href="#s0-1-1"]'), dialog = document.querySelector("#cell");
    link.focus(); link.click();
    const said = dialog.textContent;
    check(dialog.open && said.includes("lora on ") && said.includes("shots") && said.includes("Holm p"), "dialog: " + said);
    check(location.hash.includes("cell=s0-1-1") && location.hash.includes("show=rank") && location.hash.includes("off=0"), "address: " + location.hash);
    check(dialog.getBoundingClientRect().right <= innerWidth, "the dialog is wider than the page");
    dialog.close(); await later(() => document.activeElement === link);
    check(document.activeElement === link, "focus returns to the cell");
    const [quality, cost] = document.querySelectorAll(".axes select"), drawn = () => document.querySelector(".draw").textContent;
    cost.value = [...cost.options].findIndex((o) => o.text.startsWith("peak GPU")); cost.dispatchEvent(new Event("change"));
    await later(() => drawn().includes("peak GPU"));
    check(drawn().includes("peak GPU memory in training, GiB") && drawn().includes("qlora") && !drawn().includes("full"), "other axes: " + drawn());
    check(!document.querySelector(".draw").innerHTML.includes("#0072b1"), "colours are variables");
    check(document.documentElement.scrollWidth <= innerWidth, "the page scrolls sideways at the end");
    tell();
  })().catch((error) => { problems.push(String(error)); tell(); });
</script>
"""
FRAME = """<!doctype html><body style="margin:0"><script>
  const found = [], widths = [390, 768, 1440];
  addEventListener("message", (event) => { found.push(event.data); if (found.length === widths.length) document.body.dataset.probe = found.filter(Boolean).join("; ") || "passed"; });
  for (const width of widths) { const frame = document.createElement("iframe"); frame.style = `width:${width}px;height:1200px;border:0;display:block`; frame.src = "report.html"; document.body.append(frame); }
</script></body>"""


def browsed(folder: Path, page: str, *switches: str) -> tuple[str, list[str]]:
    """Opens a page in Chromium; returns its DOM and the lines of its console."""
    assert CHROMIUM is not None
    standard = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync",
                "--disable-background-networking", "--disable-component-update", "--enable-logging=stderr",
                "--window-size=1500,1200", "--virtual-time-budget=9000", f"--user-data-dir={folder / 'profile'}"]  # fmt: skip
    command = [CHROMIUM, *standard, *switches, "--dump-dom", f"{folder.as_uri()}/{page}"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    return done.stdout, [line for line in done.stderr.splitlines() if "CONSOLE" in line]


@pytest.mark.browser
@needs_drawing
@pytest.mark.skipif(CHROMIUM is None, reason="chromium is not installed (`apt-get install chromium`)")
def test_in_a_browser_the_page_fits_three_widths_and_everything_can_be_used(tmp_path: Path) -> None:
    text = render([example_run("base", "lora", "qlora", "full", fail="full")])
    (tmp_path / "report.html").write_text(text.replace("</body>", PROBE + "</body>"), encoding="utf-8")
    (tmp_path / "frame.html").write_text(FRAME, encoding="utf-8")
    dom, console = browsed(tmp_path, "frame.html")
    found = re.search(r'data-probe="([^"]*)"', dom)
    assert found is not None, console
    assert html.unescape(found[1]) == "passed"
    assert console == []


@pytest.mark.browser
@needs_drawing
@pytest.mark.skipif(CHROMIUM is None, reason="chromium is not installed (`apt-get install chromium`)")
def test_in_a_browser_the_address_restores_what_a_reader_saw(tmp_path: Path) -> None:
    run = large_run(6, 7)
    text = render([run, large_run(4, 7, seed=1, model="x/y")])
    probe = """<script>setTimeout(() => { document.body.dataset.probe = [
      document.querySelector("#quality").dataset.show, document.querySelector("#cell").open,
      [...document.querySelectorAll(".quality tbody tr:not(.g)")].filter((row) => !row.hidden).length,
      document.querySelectorAll(".quality th[data-c]:not([hidden])").length,
      document.querySelector(".run .draw").textContent.includes("training time")].join(" "); }, 3000);</script>"""
    (tmp_path / "report.html").write_text(text.replace("</body>", probe + "</body>"), encoding="utf-8")
    costs = json.loads(re.search(r'class="axes-data">(.*?)</script>', text).group(1))["costs"]  # type: ignore[union-attr]
    x = next(index for index, cost in enumerate(costs) if cost["label"].startswith("training time"))
    hash = f"#q=lora&show=rank&off=3.5&sort0=2.ascending&cell=s1-2-1&y0=0&x0={x}"
    dom, console = browsed(tmp_path, "report.html" + hash)
    found = re.search(r'data-probe="([^"]*)"', dom)
    assert found is not None and found[1] == "rank true 4 5 true"
    assert console == []
