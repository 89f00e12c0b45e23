"""Runs of one model become one, where their scores can stand side by side."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import pytest
from example_run import example_run
from large_run import large_run

from harness.leaderboards import export
from harness.leaderboards.joined_runs import can_join, joined_runs
from harness.leaderboards.page import render
from harness.results import Run


def with_environment(run: Run, **changes: Any) -> Run:
    return run.model_copy(update={"environment": run.environment | changes})


def test_two_runs_with_one_baseline_are_one_table() -> None:
    first, second = example_run("base", "lora"), example_run("base", "qlora", "full")
    [run] = joined_runs([first, second])
    assert [variant.name for variant in run.variants] == ["base", "lora", "qlora", "full"]
    assert run.tests == len(run.comparisons) == 7 * (1 + 3)
    assert any(note.startswith("lora, and qlora and full, are of different runs") for note in run.notes)
    for variant in run.variants:
        for task in run.tasks:
            score = variant.headline(task)
            assert score is not None
            found = run.comparison(task, variant.name, "base")
            assert (score.delta is None) == (variant.name == "base")
            if score.delta and found:
                assert (score.delta.p_holm, score.delta.verdict) == (found.p_holm, found.verdict)
    assert run.comparison(run.tasks[0], "lora", "qlora") is None
    assert Run.model_validate_json(run.to_json()) == run
    assert "Take <b>" in render([run])


def test_verdicts_are_adjusted_over_the_tests_of_both() -> None:
    first, second = example_run("base", "lora"), example_run("base", "full")
    weak = [c.model_copy(update={"p": 0.006, "p_holm": 0.042, "verdict": "better"}) for c in first.comparisons[:1]]
    others = tuple(
        c.model_copy(update={"p": 0.5, "p_holm": 1.0, "verdict": "undecided"}) for c in (*first.comparisons[1:],)
    )
    changed = first.model_copy(update={"comparisons": (*weak, *others)})
    noisy = second.model_copy(
        update={"comparisons": tuple(c.model_copy(update={"p": 0.5}) for c in second.comparisons)}
    )
    [run] = joined_runs([changed, noisy])
    found = run.comparison(run.tasks[0], "lora", "base")
    assert found is not None and found.p_holm == pytest.approx(0.006 * 14) and found.verdict == "undecided"


def test_tasks_are_added_to_a_variant_of_both_runs() -> None:
    first, second = example_run("base", "lora", tasks=3), example_run("base", "lora", tasks=7)
    [run] = joined_runs([first, second])
    assert [variant.name for variant in run.variants] == ["base", "lora"] and len(run.tasks) == 7
    assert all(variant.headline(task) for variant in run.variants for task in run.tasks)
    [again] = joined_runs([second, second])
    assert [variant.name for variant in again.variants] == ["base", "lora"] and again.notes == second.notes
    assert len(again.comparisons) == len(second.comparisons) and again.config == second.config


def test_another_variant_of_the_same_name_gets_a_number() -> None:
    first = example_run("base", "lora")
    document = first.model_dump(mode="json", by_alias=True)
    document["variants"][1]["train"]["seed"] = 7
    [run] = joined_runs([first, Run.model_validate(document), Run.model_validate(document)])
    assert [variant.name for variant in run.variants] == ["base", "lora", "lora (2)"]


@pytest.mark.parametrize(
    "other",
    [
        with_environment(example_run("base", "qlora"), device_name="AMD EPYC"),
        with_environment(example_run("base", "qlora"), dtype="float32"),
        with_environment(example_run("base", "qlora"), model={"name": "Qwen/Qwen3-0.6B", "digest": "other"}),
        with_environment(example_run("base", "qlora"), model={"name": "Qwen/Qwen3-0.6B"}),
        example_run("lora", "qlora"),
        example_run("base", "qlora", seed=1, tasks=0),
        large_run(3, 7),
    ],
    ids=["machine", "dtype", "digest", "no digest", "baseline", "no common task", "other tasks"],
)
def test_what_cannot_stand_side_by_side_stays_apart(other: Run) -> None:
    first = example_run("base", "lora")
    assert not can_join(first, other) and joined_runs([first, other]) == [first, other]


@pytest.mark.parametrize("change", [{"shots": 5}, {"prompt_sha256": "cd"}, {"numerics": "lm-eval"}])
def test_another_protocol_of_one_task_keeps_runs_apart(change: dict[str, Any]) -> None:
    first = example_run("base", "lora")
    document = example_run("base", "qlora").model_dump(mode="json", by_alias=True)
    document["variants"][0]["scores"][4]["protocol"] |= change
    assert len(joined_runs([first, Run.model_validate(document)])) == 2


def test_reports_for_readers_are_joined_and_data_is_not(tmp_path: Path) -> None:
    runs = [example_run("base", "lora"), example_run("base", "qlora")]
    md, html, data = export(runs, ["md", "html", "csv"], tmp_path)
    assert md.read_text().count("## Qwen") == 1 and html.read_text().count("<article") == 1
    rows = list(csv.DictReader(data.read_text().splitlines()))
    assert sum((row["variant"], row["task"], row["headline"]) == ("base", "mini_gsm8k", "True") for row in rows) == 2
