"""What task files say of themselves, read without importing them."""

import json
from pathlib import Path

import pytest

from harness.authoring.docstrings import design_of, doc_of, facts, lines_of_code, parse
from harness.cli import main
from harness.registry.find import find, list_entries

FILE = '''"""Toy: small, it is.

Dataset: https://x.org/datasets/toy (test 3 rows), CC BY 4.0 licence.
Paper: nobody,
on two lines.
Protocol: none.

More words that belong to no field.

Example:
    a
      b
"""

from harness import Metric, Task, acc, task

own = Metric("mine", score=lambda prediction, target: 0.0)


def _made(metric, shots=2) -> Task:
    return Task(data=[], sample=print, metrics=[metric, own], shots=shots)


@task
def toy(*, k: list[int] = [1, 10]) -> Task:
    """A toy."""
    return Task([], print, [f"pass@{each}" for each in k], train=[])  # a comment


@task
def helped() -> Task:
    return _made(acc)


@task
def strange() -> Task:
    return Task(data=[], sample=print, metrics=pick())
'''


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "toy.py"
    path.write_text(FILE, encoding="utf-8")
    return path


def test_fields_end_at_an_empty_line_or_the_next_field(file: Path) -> None:
    doc = doc_of(find("task", f"{file}@toy"))
    assert (doc.name, doc.summary, doc.paper, doc.protocol) == (
        "Toy",
        "Small, it is.",
        "nobody, on two lines.",
        "none.",
    )
    assert (doc.url, doc.licence, doc.example) == ("https://x.org/datasets/toy", "CC BY 4.0", "a\n  b")
    assert doc.missing == ()


def test_a_docstring_without_fields_is_only_a_sentence() -> None:
    assert parse("what it is").summary == "What it is"
    assert parse("").missing == ("name", "summary", "dataset", "paper", "protocol", "example")


def test_metrics_and_shots_are_read_off_the_call_of_task(file: Path) -> None:
    toy = design_of(find("task", f"{file}@toy"))
    assert (toy.metrics, toy.shots, toy.has_train) == (("pass@1", "pass@10"), "0", True)
    helped = design_of(find("task", f"{file}@helped"))
    assert helped.metrics == ("acc", "mine") and not helped.has_train
    assert design_of(find("task", f"{file}@strange")).metrics == ("pick(…)",)


def test_lines_of_code_leave_out_docstrings_comments_and_blanks(file: Path) -> None:
    assert lines_of_code(file) == 13


BUILT_IN = [entry for entry in list_entries("task") if entry.distribution is None]


@pytest.mark.parametrize("name", [entry.name for entry in BUILT_IN])
def test_every_task_file_has_the_fields(name: str) -> None:
    """The `mini_*` twins are made up here: no dataset, paper or protocol of anybody else's."""
    doc = doc_of(find("task", name))
    exempt = {"dataset", "paper", "protocol"} if name.startswith("mini_") else set()
    assert set(doc.missing) <= exempt
    known = facts(find("task", name))
    assert known["summary"] and known["metrics"]
    if "huggingface.co" in doc.dataset:
        assert doc.licence, "`Dataset:` ends `, NAME licence.`"


def test_a_listing_fits_the_terminal(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    for width in (80, 120):
        monkeypatch.setenv("COLUMNS", str(width))
        assert main(["ls", "tasks"]) == 0
        lines = capsys.readouterr().out.splitlines()
        assert max(map(len, lines)) <= width
        assert lines[0].split() == ["task", "headline", "shots", "what", "it", "measures"]
        assert any(line.split()[:3] == ["gsm8k", "strict", "5"] for line in lines)


def test_json_has_every_field(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["ls", "tasks", "--format", "json"]) == 0
    row = next(row for row in json.loads(capsys.readouterr().out) if row["name"] == "gsm8k")
    assert row["licence"] == "MIT" and row["metrics"] == ["strict", "flexible"] and "Cobbe" in row["paper"]
    assert main(["show", "gsm8k", "--format", "json"]) == 0
    assert json.loads(capsys.readouterr().out)["shots"] == 5
