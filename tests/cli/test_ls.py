"""`harness ls methods` shows every method in full at any width, and all fields as JSON."""

import json
import re
from pathlib import Path

import in_process
import pytest

from harness.authoring.templates import write
from harness.cli import main
from harness.comparison import memory_plan
from harness.registry.find import find, list_entries
from harness.registry.load import load_method

METHODS = list_entries("method")


@pytest.mark.parametrize("width", [80, 120])
def test_methods_fit_the_terminal_with_their_formulas_whole(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, width: int
) -> None:
    monkeypatch.setenv("COLUMNS", str(width))
    assert main(["ls", "methods"]) == 0
    head, *lines = capsys.readouterr().out.splitlines()
    assert head.split() == ["method", "lr", "merge", "ckpt", "pad", "what", "it", "does"]
    assert max(map(len, lines)) <= width
    shown = dict(re.findall(r"^(\w+) .*\n((?:    .*\n?)+)", "\n".join(lines), re.MULTILINE))
    assert {name: " ".join(text.split()) for name, text in shown.items()} == {
        entry.name: f"trains {entry.options['parameters']}" for entry in METHODS
    }
    rows = {line.split()[0]: line.split()[1:5] for line in lines if not line.startswith(" ")}
    assert rows["lora"] == ["0.0002", "yes", "yes", "any"]
    assert rows["prefix"][1:] == ["no", "no", "right"]


def test_in_a_pipe_a_method_is_two_whole_lines(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("COLUMNS", raising=False)
    assert main(["ls", "methods"]) == 0
    out = capsys.readouterr().out
    assert len(out.splitlines()) == 1 + 2 * len(METHODS)
    assert all(entry.summary in out for entry in METHODS)


def test_json_holds_all_that_a_method_declares(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["ls", "methods", "--format", "json"]) == 0
    rows = {row["name"]: row for row in json.loads(capsys.readouterr().out)}
    assert rows.keys() == {entry.name for entry in METHODS}
    lora = rows["lora"]
    assert (lora["lr"], lora["mergeable"], lora["checkpointing"], lora["padding"]) == (2e-4, True, True, "any")
    assert lora["parameters"] == "rank * (in + out) for each linear layer"
    assert lora["hyperparameters"]["rank"] == 16
    assert rows["full"]["saves"] == "checkpoint"


def test_every_method_says_what_it_trains() -> None:
    assert [entry.name for entry in METHODS if not entry.options["parameters"]] == []


def test_a_method_to_start_from_declares_its_formula(tmp_path: Path) -> None:
    entry = find("method", str(write("method", "mine", tmp_path)))
    assert entry.options["parameters"] == "rank * (in + out) for each linear layer"
    assert load_method(entry).parameters == entry.options["parameters"]


def test_methods_show_the_share_of_a_model_that_they_reach(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(memory_plan, "Server", in_process.InProcess)
    monkeypatch.setenv("COLUMNS", "120")
    assert main(["ls", "methods", "-m", "tiny"]) == 0
    head, *lines = capsys.readouterr().out.splitlines()
    assert head.split()[:2] == ["method", "reaches"]
    rows = {line.split()[0]: line.split()[1:3] for line in lines if not line.startswith(" ")}
    assert (rows["lora"], rows["full"], rows["freeze"]) == (["100", "%"], ["100", "%"], ["50", "%"])
    assert (rows["ln"], rows["prompt"][0]) == (["<1", "%"], "-")
    assert "    no share: `LlamaForCausalLM` has no biases to train" in lines

    assert main(["ls", "methods", "-m", "tiny", "--format", "json"]) == 0
    found = {row["name"]: row for row in json.loads(capsys.readouterr().out)}
    assert found["lora"]["reaches"] > 0.99 and found["lora"]["reaches_reason"] is None
    assert found["prompt"]["reaches"] is None and "weights of its own" in found["prompt"]["reaches_reason"]
    assert main(["ls", "methods", "-m", "./nowhere"]) == 2
