"""Prompts and targets beside the samples of a run."""

from __future__ import annotations

from pathlib import Path

import pytest

from harness.api import Choose, Generate, Sample, Text
from harness.jobs import Item, Request
from harness.runs.prompts import GAP, LONGEST, prompt_of, read_prompts, shortened, write_prompts


def item(sample: Sample, id: str = "0") -> Item:
    return Item(Request(id, "generate", ("shots and question",)), sample, None, None)


def test_prompts_are_read_back_as_they_were_written(tmp_path: Path) -> None:
    samples = [
        Generate("2 + 2 =", ["4", "four"]),
        Choose("red or\u2028blue?", ["red", "blue"], 1),
        Choose(["a ", "b "], ["x", "y"], [0, 1]),
        Generate([{"role": "user", "content": "你好"}], "您好"),
        Text("a page"),
    ]
    items = [item(sample, str(number)) for number, sample in enumerate(samples)]
    write_prompts(tmp_path, "./t.py@a", items)
    found = read_prompts(tmp_path, "./t.py@a")
    assert found == {each.request.id: prompt_of(each) for each in items}
    assert [each.target for each in found.values()] == ["4 | four", "blue", "x | y", "您好", None]
    assert found["3"].prompt == "user: 你好" and found["2"].prompt == "a "
    assert read_prompts(tmp_path, "another") == {}


def test_a_book_keeps_its_beginning_and_the_question_at_its_end() -> None:
    long = "Once" + "x" * 10 * LONGEST + "Who?"
    prompt = prompt_of(item(Generate(long, "nobody"))).prompt
    assert len(prompt) <= LONGEST and prompt.startswith("Once") and prompt.endswith("Who?") and GAP in prompt
    assert shortened("short") == "short"


def test_outputs_and_margins_of_choices() -> None:
    prompt = prompt_of(item(Choose("?", ["red", "blue", "green"], 1)))
    row = {"outputs": [], "loglikelihoods": [-3.0, -1.0, -2.5]}
    assert (prompt.output(row), prompt.margin(row)) == ("blue", 1.5)
    assert prompt.margin(row | {"loglikelihoods": [-1.0, float("nan"), -2.0]}) is None
    assert prompt.output({"outputs": [" 4"], "loglikelihoods": []}) == " 4"


@pytest.mark.parametrize("line", ["{", "[]", '{"id": 1, "prompt": "x"}', '{"id": "1", "prompt": null}'])
def test_lines_of_others_are_left_out(line: str, tmp_path: Path) -> None:
    write_prompts(tmp_path, "t", [item(Generate("a", "b"))])
    [file] = tmp_path.glob("samples/prompts/*.jsonl")
    file.write_text(file.read_text() + line + "\n")
    assert list(read_prompts(tmp_path, "t")) == ["0"]
    odd = '{"id": "1", "prompt": "x", "target": 3, "choices": 4, "right": "no"}\n'
    file.write_text(odd)
    assert read_prompts(tmp_path, "t")["1"].to_dict() == {"id": "1", "prompt": "x"}
