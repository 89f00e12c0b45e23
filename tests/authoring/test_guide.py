"""The guide in tasks/README.md: six examples of at most twelve lines, with their files. All are checked, two are run."""

import re
from pathlib import Path

import pytest

from harness import evaluate
from harness.authoring.check import check_file
from harness.authoring.docstrings import BEGIN, END, table
from harness.registry.find import list_entries

GUIDE = Path(__file__).parents[2] / "tasks" / "README.md"
NAMES = ["Letters", "Arithmetic", "Translation", "Code", "Perplexity", "Grouped CSV"]


def examples() -> dict[str, str]:
    section = GUIDE.read_text(encoding="utf-8").split("## Six examples\n")[1].split("\n## ")[0]
    return dict(re.findall(r"^\*\*([^*]+)\.\*\*.*?^```python\n(.*?)^```", section, re.DOTALL | re.MULTILINE))


@pytest.fixture(autouse=True)
def _folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Creates the files that the examples read, with the content that the guide shows."""
    monkeypatch.chdir(tmp_path)
    for name, content in re.findall(r"^```\w+ (\S+)\n(.*?)^```", GUIDE.read_text("utf-8"), re.DOTALL | re.MULTILINE):
        Path(name).write_text(content, encoding="utf-8")


def test_there_are_six_examples_of_at_most_twelve_lines() -> None:
    lines = {name: sum(bool(line.strip()) for line in code.splitlines()) for name, code in examples().items()}
    assert list(lines) == NAMES
    assert max(lines.values()) <= 12, lines


@pytest.mark.parametrize("name", NAMES)
def test_an_example_passes_check(name: str) -> None:
    Path("example.py").write_text(examples()[name], encoding="utf-8")
    (verdict,) = check_file("./example.py", run_unsafe_code=True)
    assert (verdict.problems, verdict.warnings) == ((), ()), str(verdict)
    assert "oracle" in str(verdict)


def test_two_examples_run_end_to_end(in_process: None) -> None:
    for name, file in (("Letters", "animals.py"), ("Perplexity", "notes.py")):
        Path(file).write_text(examples()[name], encoding="utf-8")
    variant = evaluate("base", tasks=["./animals.py", "./notes.py"], device="cpu")
    values = {(score.task, score.metric): score.value for score in variant.scores}
    assert values["./animals.py", "acc"] in (0, 1 / 3, 2 / 3, 1)
    assert values["./notes.py", "byte_ppl"] > 1


def test_the_table_agrees_with_the_task_files() -> None:
    shown = GUIDE.read_text(encoding="utf-8").split(BEGIN)[1].split(END)[0].strip()
    entries = [entry for entry in list_entries("task") if entry.distribution is None]
    assert shown == table(entries), "run `python -m harness.authoring.docstrings tasks/README.md`"
