"""The two tasks that need no data: facts in long texts, and function calls. Also the grid that shows the first one."""

import json
import re
from typing import Any

import pytest
from example_run import example_run
from hypothesis import given
from hypothesis import strategies as st

from harness import Generate, Output, UserError
from harness.api import Metric, Task
from harness.jobs import Item
from harness.leaderboards.page import render as page
from harness.metrics.function_call import arguments, call, function, read_call, same
from harness.prompts.render import render
from harness.registry.find import find
from harness.registry.load import find_metric, load_task
from harness.report.heatmap import grid_lines, grids, parts
from harness.report.screen import screen
from harness.results import Run


def task_of(name: str, **parameters: Any) -> Task:
    return load_task(find("task", name), parameters)


def items_of(name: str, **parameters: Any) -> list[Item]:
    return render(name, task_of(name, **parameters))


def prompts(items: list[Item]) -> list[str]:
    return [item.request.contexts[0] for item in items]


SMALL = {"lengths": [60, 200], "depths": [0, 50, 100], "samples": 3}


def test_the_same_seed_makes_the_same_texts_and_another_one_others() -> None:
    first = prompts(items_of("long_context", **SMALL))
    assert first == prompts(items_of("long_context", **SMALL)) and len(set(first)) == 18
    assert not set(first) & set(prompts(items_of("long_context", **SMALL, seed=1)))


def test_a_cell_does_not_depend_on_which_others_are_asked() -> None:
    one = prompts(items_of("long_context", lengths=[200], depths=[50], samples=1))[0]
    assert one in prompts(items_of("long_context", **SMALL))


@pytest.mark.parametrize("length", [60, 200, 1000])
def test_a_text_has_its_length_and_the_fact_its_depth(length: int) -> None:
    for depth in (0, 50, 100):
        for item in items_of("long_context", lengths=[length], depths=[depth], samples=3):
            text = item.request.contexts[0].split("\n\n")[1]
            assert abs(len(text.split()) - length) <= 12
            assert isinstance(item.sample, Generate)
            sentences = text.split(". ")
            (place,) = [index for index, each in enumerate(sentences) if str(item.sample.target) in each]
            assert abs(place / (len(sentences) - 1) - depth / 100) < 0.15
            assert item.group == f"{length} words × {depth} %"


@pytest.mark.parametrize("hops", [1, 2, 4])
def test_the_steps_lead_to_the_code_and_to_one_only(hops: int) -> None:
    for item in items_of("long_context", **SMALL, needles=5, hops=hops):
        text, question = item.request.contexts[0].split("\n\n")[1:]
        codes = dict(re.findall(r"The code of (\w+) is (\d+)", text))
        handed = dict(re.findall(r"(\w+) hands the letter to (\w+)", text))
        assert len(codes) == 5 == len(set(codes.values())) and len(handed) == hops - 1
        who = re.findall(r"(?:code of|Question:) ([A-Z]\w+)(?= has|\?)", question)[0]
        for _ in range(hops - 1):
            who = handed[who]
        assert isinstance(item.sample, Generate) and codes[who] == item.sample.target


@pytest.mark.parametrize(
    "wrong", [{"lengths": []}, {"depths": [101]}, {"samples": 0}, {"hops": 0}, {"needles": 1000}, {"lengths": [0]}]
)
def test_impossible_texts_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(UserError, match="long_context"):
        task_of("long_context", **wrong)


@pytest.mark.parametrize(
    ("text", "score"), [(" 48213", 1), ("48213.", 1), ("It is 48213", 1), ("48214, no: 48213", 0), ("4821", 0), ("", 0)]
)
def test_the_first_number_must_be_the_code(text: str, score: float) -> None:
    (metric,) = task_of("long_context", **SMALL).metrics
    assert isinstance(metric, Metric)
    assert metric.measure(Output(texts=(text,)), Generate("x", "48213")) == score


def test_requests_are_many_right_and_not_those_trained_on() -> None:
    task = task_of("function_call", samples=200)
    items = render("function_call", task)
    assert len(set(prompts(items))) == 200 and len({item.group for item in items}) == 12
    for item in items:
        assert isinstance(item.sample, Generate)
        schemas = [json.loads(line) for line in item.request.contexts[0].split("\n") if line.startswith('{"name": "')]
        wanted = json.loads(str(item.sample.target))
        (schema,) = [each for each in schemas if each["name"] == wanted["name"]]
        assert len(schemas) == 4 and list(wanted["arguments"]) == schema["parameters"]["required"]
        types = {"integer": int, "number": int, "string": str}
        for name, value in wanted["arguments"].items():
            assert isinstance(value, types[schema["parameters"]["properties"][name]["type"]])
            request = item.request.contexts[0].rpartition("Request: ")[2]
            assert str(value) in request
    asked = {prompt.rpartition("Request: ")[2] for prompt in prompts(items)}
    assert isinstance(task.train, list) and not asked & {row["request"] for row in task.train}


WANTED = '{"name": "set_alarm", "arguments": {"hour": 6, "minute": 30}}'


@pytest.mark.parametrize(
    ("text", "right"),
    [
        (WANTED, (1, 1, 1)),
        ('{"arguments": {"minute": 30.0, "hour": 6}, "name": "set_alarm"}', (1, 1, 1)),
        (f"Of course!\n```json\n{WANTED}\n```", (1, 1, 1)),
        ('{"thought": {"x": 1}} {not json} ' + WANTED, (1, 1, 1)),
        (WANTED + WANTED.replace("6", "7"), (1, 1, 1)),
        (WANTED.replace("6", "7") + WANTED, (0, 1, 0)),
        (WANTED.replace("alarm", "timer"), (0, 0, 1)),
        (WANTED.replace("6", '"6"'), (0, 1, 0)),
        (WANTED.replace("6", "true"), (0, 1, 0)),
        (WANTED.replace("}}", ', "day": "Monday"}}'), (0, 1, 0)),
        (WANTED.replace('"', "'"), (0, 0, 0)),
        (WANTED.replace("30}", "30,}"), (0, 0, 0)),
        (WANTED.replace("6", "NaN"), (0, 0, 0)),
        (WANTED.replace('"hour"', '"minute"'), (0, 0, 0)),
        ('{"name": "set_alarm"}', (0, 0, 0)),
        ('{"name": "set_alarm", "arguments": [6, 30]}', (0, 0, 0)),
        ("set_alarm(hour=6, minute=30)", (0, 0, 0)),
        ("{" * 5000, (0, 0, 0)),
        ('{"a":' * 5000, (0, 0, 0)),
        ("", (0, 0, 0)),
    ],
)
def test_the_first_call_counts_and_is_strict_json(text: str, right: tuple[int, int, int]) -> None:
    output, sample = Output(texts=(text,)), Generate("Wake me at 6:30.", WANTED)
    assert tuple(metric.measure(output, sample) for metric in (call, function, arguments)) == right
    assert find_metric("call") is call


def test_a_default_that_is_written_out_counts_as_left_out() -> None:
    sample = Generate("Wake me at 6:30.", WANTED, meta={"defaults": {"repeat": False}})
    for value, score in (("false", 1), ("true", 0)):
        text = WANTED.replace("}}", f', "repeat": {value}}}}}')
        assert call.measure(Output(texts=(text,)), sample) == score


def test_a_target_that_is_no_call_is_refused() -> None:
    with pytest.raises(UserError, match="metric `call`: the target of a sample is not a call"):
        call.measure(Output(texts=("x",)), Generate("x", "set_alarm"))


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=8,
)


@given(st.dictionaries(st.text(max_size=5), JSON, max_size=3), st.text(alphabet="ab 测{[\"'\n", max_size=20))
def test_any_call_is_found_behind_any_words(given_arguments: dict[str, Any], words: str) -> None:
    text = words.replace('"', "") + json.dumps({"name": "f", "arguments": given_arguments})
    found = read_call(text)
    assert found is not None and found.name == "f" and same(found.arguments, given_arguments)


def with_groups(run: Run, groups: dict[str, float | None]) -> Run:
    document = json.loads(run.to_json())
    for variant in document["variants"]:
        for score in variant["scores"]:
            score["groups"] = [{"name": name, "value": value, "n": 5} for name, value in groups.items()]
    return Run.model_validate(document)


GRID: dict[str, float | None] = {
    f"{length} words × {depth} %": None if (length, depth) == (250, 100) else 1 - length / 2000 - depth / 250
    for length in (1000, 250)
    for depth in (50, 0, 100)
}


def test_groups_that_cross_are_shown_as_a_grid() -> None:
    run = with_groups(example_run(tasks=1), GRID)
    found = grids(run)
    assert [grid.variant for grid in found] == ["base", "lora", "qlora"]
    assert [line.plain for line in grid_lines(found[0], 80)] == [
        "mini_mmlu acc ↑  base",
        "          250 words  1000 words",
        "    0 %     87.5 ██     50.0 ▒▒",
        "   50 %     67.5 ▓▓     30.0 ░░",
        "  100 %        -        10.0",
    ]
    lines = [line.plain for line in screen(run, width=80)]
    assert "    0 %     87.5 ██     50.0 ▒▒" in lines and max(map(len, lines)) <= 80
    assert max(len(line.plain) for line in grid_lines(found[0], 20)) <= 21
    html = page([run])
    assert '--s:37">87.5</td>' in html and html.count('<table class="heat">') == 3


def test_other_groups_are_not_a_grid() -> None:
    assert parts(["a × b", "a × c", "d × b"]) is None
    assert parts(["a × b"]) is None and parts([]) is None and parts(["a × b × c"]) is None
    run = with_groups(example_run(tasks=1), {"anatomy": 0.5, "virology": 0.5})
    assert grids(run) == []
