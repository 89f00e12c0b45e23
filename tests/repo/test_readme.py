"""Examples in the READMEs work: every Python block loads, every command line has real commands and flags."""

import io
import re
from pathlib import Path

import house
import pytest
from rich.console import Console
from typer.main import get_command

from harness.cli.app import app
from harness.prompts.render import render
from harness.registry.find import find_all
from harness.registry.load import load_method, load_task
from harness.report.gains import POINTS, gains, units
from harness.report.scores import scale_of
from harness.report.screen import print_run
from harness.report.tables import cost, quality
from harness.results import Run
from harness.runs.folder import load_run
from harness.tiny.world import TASKS

ROOT = Path(__file__).parents[2]
READMES = [
    "README.md",
    "harness/README.md",
    "tasks/README.md",
    "finetune/README.md",
    "leaderboards/README.md",
    "CONTRIBUTING.md",
    "SECURITY.md",
]


def blocks(language: str) -> list[tuple[str, str]]:
    found = []
    for name in READMES:
        text = (ROOT / name).read_text(encoding="utf-8")
        found += [(name, block) for block in re.findall(rf"^```{language}\n(.*?)^```", text, re.DOTALL | re.MULTILINE)]
    return found


def command_lines() -> list[tuple[str, str]]:
    lines = []
    for name in READMES:
        text = (ROOT / name).read_text(encoding="utf-8")
        lines += [(name, line) for line in re.findall(r"^harness (.+)$", text, re.MULTILINE)]
        lines += [(name, line) for line in re.findall(r"`harness ([a-z][^`]*)`", text)]
    return lines


GUIDE = "tasks/README.md"
"""Its examples read files that the guide itself shows: tests/authoring/test_guide.py runs them."""


@pytest.mark.parametrize(
    ("name", "block"),
    [each for each in blocks("python") if each[0] != GUIDE],
    ids=lambda value: value.splitlines()[0][:40],
)
def test_python_blocks_load(name: str, block: str, tmp_path: Path) -> None:
    file = tmp_path / "example.py"
    file.write_text(block, encoding="utf-8")
    if "@task" in block:
        for entry in find_all("task", str(file)):
            assert render(entry.name, load_task(entry, {}))
    elif "@method" in block:
        for entry in find_all("method", str(file)):
            assert load_method(entry).name == entry.name
    else:
        compile(block, name, "exec")


@pytest.mark.parametrize(("name", "line"), command_lines(), ids=lambda value: value[:50])
def test_command_lines_name_real_commands_and_flags(name: str, line: str) -> None:
    commands = get_command(app).commands  # type: ignore[attr-defined]
    command, *words = line.split("#")[0].split()
    assert command in commands, f"{name}: no command {command}"
    asked = commands[command]
    if hasattr(asked, "commands"):
        assert words and words[0] in asked.commands, f"{name}: no command {command} {words[:1]}"
        asked = asked.commands[words.pop(0)]
    known = {option for parameter in asked.params for option in parameter.opts}
    for word in words:
        if re.match(r"--?[a-z]", word):
            assert word.split("=")[0] in known, f"{name}: {command} has no {word}"


def test_the_python_example_prints_a_score_and_its_verdict(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], in_process: None
) -> None:
    (block,) = [block for name, block in blocks("python") if name == "README.md" and "harness.compare(" in block]
    monkeypatch.chdir(tmp_path)
    exec(compile(block, "README.md", "exec"), {})
    assert re.fullmatch(r"strict [01]\.\d\d, [+-]\d\.\d\d against base: (better|undecided)\n", capsys.readouterr().out)


def test_every_room_is_in_the_table_of_rooms_in_order() -> None:
    text = (ROOT / "harness" / "README.md").read_text(encoding="utf-8")
    table = text[: text.index("## From the command line")]
    listed = re.findall(r"^\| `((?:finetune/)?\w+)(?:/|\.py)` \|", table, re.MULTILINE)
    assert [name.replace("/", ".") for name in listed] == [room for room in house.ORDER if not room.startswith("__")]


def test_the_screen_in_the_readme_is_that_of_the_published_run() -> None:
    """Computes the numbers of the README from the run in leaderboards/results."""
    run = load_run(ROOT / "leaderboards" / "results" / "tiny" / "run.json")
    assert shown(run) in (ROOT / "README.md").read_text(encoding="utf-8")


def test_the_published_run_is_the_default_one_and_shows_gains_a_tie_and_forgetting() -> None:
    run = load_run(ROOT / "leaderboards" / "results" / "tiny" / "run.json")
    assert [variant.name for variant in run.variants] == ["base", "lora", "qlora"]
    assert [task.name for task in run.tasks] == list(TASKS)
    lora = next(gain for gain in gains(run) if gain.variant == "lora")
    assert len(lora.trained.better) >= 3
    headlines = {(task.name, task.headline) for task in run.tasks}
    assert any(each.verdict == "undecided" for each in run.comparisons if (each.task, each.metric) in headlines)
    points = {task for task, (unit, _) in units(run).items() if unit == POINTS}
    assert points & {task for gain in gains(run) for task in gain.other.worse}, "forgetting in points"
    for task in run.tasks:
        if task.name in points:
            scale = scale_of(run, task.name, task.headline)
            found = [score.value for each in run.variants if (score := each.headline(task)) and score.value is not None]
            assert max(found) * scale.factor > 1 and min(found) * scale.factor < 99, f"{task.name}: one row has room"
    for name in ("mini_mmlu", "mini_ceval"):
        score = run.variant("base").score(name, "acc")
        assert score is not None and score.low is not None and score.low > 0.25, "better than chance"


def test_the_table_of_the_real_model_is_that_of_its_published_run() -> None:
    run = load_run(ROOT / "leaderboards" / "results" / "smollm2-135m-instruct" / "run.json")
    assert compact(run) in (ROOT / "README.md").read_text(encoding="utf-8")


def compact(run: Run) -> str:
    """One table for quality and cost: values with the mark of their difference from the baseline."""
    scores, costs = quality(run), cost(run)
    names = [column.name for column in costs.columns]
    shown = [names.index(name) for name in ("train", "peak RSS", "trainable")]
    lines = [["variant", *(f"{name} {scores.columns[members[0]].name}" for name, members in scores.groups)]]
    lines[0] += [names[index] for index in shown]
    lines.append(["---", *["---:"] * (len(lines[0]) - 1)])
    for row, cells in zip(scores.rows, costs.rows, strict=True):
        marks = [(row.cells[first].text, row.cells[second].text[-1:]) for _, (first, second, *_) in scores.groups]
        lines.append([row.name, *(f"{value} {mark}".strip() for value, mark in marks)])
        lines[-1] += [cells.cells[index].text for index in shown]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def shown(run: Run) -> str:
    console = Console(file=io.StringIO(), width=100, no_color=True)
    print_run(run, console=console)
    return "\n".join(line.rstrip() for line in console.file.getvalue().strip().splitlines())  # type: ignore[attr-defined]
