"""`--shared-shots` is another protocol: its scores say so and never mix with those of drawn shots."""

import json
from pathlib import Path
from typing import Any

import pytest
import tiny_models as tiny

from harness.cli import main

TASK = """
from harness import Generate, Task, exact_match, task

POOL = [{"q": f"{n} + 1?", "a": str(n + 1)} for n in range(9)]
ROWS = [{"q": f"1 + {n}?", "a": str(n + 1)} for n in range(3)]

def made(order):
    return Task(data=ROWS, shots=2, shots_from=POOL, shots_order=order, metrics=[exact_match],
                sample=lambda row: Generate(row["q"], row["a"], max_tokens=2))

@task
def drawn() -> Task:
    return made("lm-eval")

@task
def fixed() -> Task:
    return made("first")
"""


def protocols(capsys: pytest.CaptureFixture[str], *flags: str) -> dict[str, dict[str, Any]]:
    assert main(["eval", "base", "--model", "./model", "--tasks", "./x.py", "--format", "json", *flags]) == 0
    (row,) = json.loads(capsys.readouterr().out)["variants"]
    return {score["task"].partition("@")[2]: score["protocol"] for score in row["scores"]}


def test_the_protocol_says_that_shots_are_shared(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    in_process: None,
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("x.py").write_text(TASK)
    tiny.save_tiny(Path("model"), hidden=32)
    own, shared = protocols(capsys), protocols(capsys, "--shared-shots")
    assert not own["drawn"]["shared_shots"] and shared["drawn"]["shared_shots"]
    assert own["drawn"]["prompt_sha256"] != shared["drawn"]["prompt_sha256"]
    assert own["fixed"] == shared["fixed"], "a task whose examples are always the same has one protocol"
    assert len([*Path("runs").glob("*/run.json")]) == 2, "another run, not the finished one"


@pytest.mark.parametrize("flags", [["--tasks", "./x.py@fixed"], ["-f", "0"]])
def test_a_flag_that_changes_nothing_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], flags: list[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("x.py").write_text(TASK)
    tiny.save_tiny(Path("model"), hidden=32)
    assert main(["eval", "base", "--model", "./model", "--tasks", "./x.py", *flags, "--shared-shots"]) == 2
    assert "so `--shared-shots` changes nothing" in " ".join(capsys.readouterr().err.split())
