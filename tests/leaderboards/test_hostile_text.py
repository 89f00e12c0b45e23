"""Names and texts of others do nothing where they are shown: terminal, Markdown, LaTeX, HTML, CSV."""

import csv
import io
import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from example_run import example_run
from rich.console import Console

from harness.cli import main
from harness.errors import printable
from harness.leaderboards.files import FORMATS
from harness.report.progress import TerminalProgress
from harness.report.screen import print_run
from harness.results import Run

HOSTILE = (
    "\x1b]0;owned\x07\x1b[2J\x1b[31mx",
    "a\u202egnp.exe\u2066b\u200fc\u2028d",
    "<img src=x onerror=alert(1)><script>alert(2)</script>",
    "![x](http://evil/y.png) [x](javascript:alert(1)) | --- | `a``<b>`",
    "=cmd|'/c calc'!A1",
    "-2+3+cmd|' /C calc'!A0",
    "\\input{/etc/passwd} $x$ %y #1 ~ ^ & {",
    "}\\write18{id}",
    "a\r\nb\tc\x00d\x9be",
)
CONTROLS = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u200e\u200f\u2028-\u202e\u2066-\u2069]")


def hostile(text: str) -> Run:
    """A run in which everything that others name is `text`."""
    document = json.loads(example_run("base", "lora", tasks=1).to_json())
    old_task, old_metric = document["tasks"][0]["name"], document["tasks"][0]["headline"]

    def renamed(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: renamed(each) for key, each in value.items()}
        if isinstance(value, list):
            return [renamed(each) for each in value]
        return {"lora": text, old_task: text, old_metric: text}.get(value, value) if isinstance(value, str) else value

    document = renamed(document)
    document["notes"] = [text, f"`{text}`"]
    document["command"] = f"harness {text}"
    document["environment"] = {
        "model": {"name": text, "digest": text},
        "device_name": text,
        "packages": {"torch": text},
    }
    document["config"] = {text: text}
    document["variants"][0]["error"] = text
    document["variants"][1]["spec"] = document["variants"][1]["method"] = text
    document["created"] = text
    return Run.model_validate(document)


@pytest.mark.parametrize("text", HOSTILE)
def test_no_report_has_control_characters_or_markup_of_others(text: str) -> None:
    run = hostile(text)
    reports = {name: str(FORMATS[name]([run])) for name in FORMATS if name not in ("svg", "png", "parquet")}
    shown = io.StringIO()
    print_run(run, console=Console(file=shown, width=100))
    reports["screen"] = shown.getvalue()
    for name, report in reports.items():
        assert not CONTROLS.search(report), name
    assert "<img" not in reports["html"] and "<script>alert" not in reports["html"]
    assert not re.search(r"(?<!\\)<(img|script)", outside_code(reports["md"]))
    assert not re.search(r"(?<!\\)\]\(", outside_code(reports["md"]))
    assert not re.search(r"\\(input|write18)", reports["tex"])
    for row in csv.reader(io.StringIO(reports["csv"])):
        assert not any(cell.startswith(("=", "@", "+")) or re.match(r"-\D|-\d+\+", cell) for cell in row)
    assert json.loads(reports["json"]) == json.loads(run.to_json())


def outside_code(markdown: str) -> str:
    """Markdown without its code: fenced blocks, and spans in backticks as CommonMark pairs them."""
    text = re.sub(r"```sh\n.*?\n```", "", markdown, flags=re.DOTALL)
    return re.sub(r"(?<![`\\])(`+)(?!`)(.*?)(?<!`)\1(?!`)", "", text)


def test_every_line_of_markdown_is_one_that_we_wrote() -> None:
    plain, evil = (FORMATS["md"]([hostile(text)]).splitlines() for text in ("lora", "x\n\n# y\n```\nz"))
    assert len(plain) == len(evil)


@pytest.mark.parametrize("text", HOSTILE)
def test_an_error_shows_its_text_as_escapes(text: str, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert main(["compare", f"x={text}", "-o", str(tmp_path)]) == 2
    out, err = capsys.readouterr()
    assert not out and "error: " in err and not CONTROLS.search(err)


def test_json_on_stdout_reads_back_to_the_same_text(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = hostile(HOSTILE[1])
    (tmp_path / "run.json").write_text(run.to_json())
    assert main(["show", str(tmp_path), "--format", "json"]) == 0
    out = capsys.readouterr().out
    assert not CONTROLS.search(out) and json.loads(out) == json.loads(run.to_json())


def test_progress_shows_no_control_characters(capsys: pytest.CaptureFixture[str]) -> None:
    with TerminalProgress() as progress:
        for text in HOSTILE:
            progress.start("Eval", text, 3)
            progress.advance(1, text)
            progress.say("Note", text)
            progress.finish(text)
    assert not CONTROLS.search(capsys.readouterr().err)


def test_a_bug_shows_its_text_as_escapes(tmp_path: Path) -> None:
    code = (
        "import harness.cli as c, sys\n"
        "def broken(**_): raise RuntimeError('\\x1b[2J\\u202e')\n"
        "c.app = broken\nsys.exit(c.main([]))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 3 and "RuntimeError" in done.stderr and not CONTROLS.search(done.stderr)


def test_half_characters_and_letters_with_joiners() -> None:
    assert printable("\ud83d!") == "\\ud83d!"
    assert printable("👩\u200d🔬 می\u200cخواهم é 数\t\n") == "👩\u200d🔬 می\u200cخواهم é 数\t\n"
