"""The recommendation at the head of a page: what was shown, and no more."""

from __future__ import annotations

from typing import Any

import pytest
from hand_made_run import hand_made_run
from large_run import large_run

from harness.leaderboards.lead import Lead, lead, lead_task
from harness.leaderboards.sections import page_columns, page_rows
from harness.results import Run


def lead_of(run: Run) -> Lead:
    [rows] = page_rows([run], page_columns([run]))
    return lead(rows)


def run_of(scores: dict[str, tuple[float, ...]], **changes: Any) -> Run:
    tasks = dict(zip(("t1", "t2", "u1"), ("acc",) * 3, strict=True))
    return hand_made_run({"base": (0.5, 0.5, 0.5), **scores}, tasks=tasks, **changes)


def test_the_best_of_most_trained_tasks_is_taken() -> None:
    found = lead_of(run_of({"lora": (0.8, 0.7, 0.4), "qlora": (0.7, 0.7, 0.5)}))
    assert found.choices == ("lora",)
    assert (
        found.sentence == "No other variant is shown to be better on the 2 trained tasks, and that holds for it alone."
    )
    assert found.more == (
        "lora gained over base: t1 +30.0 ±1.0; t2 +20.0 ±1.0.",
        "It forgot: worse on u1.",
        "One training seed: these are differences between trained models; `--seeds 3` compares methods.",
    )
    assert [(each.name, each.text, each.note) for each in found.figures[:2]] == [
        ("t1", "80.0", "+30.0 ±1.0 ▲"),
        ("u1", "40.0", "-10.0 ±1.0 ▼"),
    ]


def test_of_tied_variants_the_one_with_the_lowest_cost_is_taken() -> None:
    scores = {"lora": (0.8, 0.7, 0.5), "qlora": (0.8, 0.7, 0.5), "dora": (0.6, 0.7, 0.5)}
    found = lead_of(run_of(scores, memory={"lora": 300, "qlora": 100, "dora": 90}))
    assert found.choices == ("qlora",)
    assert "2 variants share that, and of these it has the lowest peak memory in training" in found.sentence
    both = lead_of(run_of(scores, memory={"lora": 101, "qlora": 100, "dora": 90}))
    assert both.choices == ("lora", "qlora") and "not shown to differ in peak memory" in both.sentence
    unknown = lead_of(run_of(scores, memory={"lora": 101}))
    assert unknown.choices == ("lora", "qlora") and "costs are not known" in unknown.sentence


@pytest.mark.parametrize(
    ("scores", "words"),
    [
        ({"lora": (0.505, 0.5, 0.5)}, "no variant is shown to be better than base on any of the 2 trained tasks"),
        ({"lora": (0.4, 0.3, 0.2)}, "no variant is shown to be better than base on any"),
        ({"lora": (0.8, 0.3, 0.5)}, "no variant is best or tied on more of the 2 trained tasks than base or lora"),
        ({}, "Only base has scores"),
    ],
)
def test_nothing_is_recommended_where_nothing_is_shown(scores: dict[str, tuple[float, ...]], words: str) -> None:
    found = lead_of(run_of(scores))
    assert not found.choices and words in found.sentence and not found.figures


def test_nothing_trained_is_judged_on_all_tasks() -> None:
    found = lead_of(run_of({"base-fewshot": (0.8, 0.7, 0.6)}))
    assert found.choices == ("base-fewshot",) and "on the 3 tasks" in found.sentence
    assert not any("seed" in text or "forgot" in text for text in found.more)


def test_failed_and_unfinished_variants_are_no_candidates() -> None:
    found = lead_of(run_of({"lora": (0.8, 0.7, 0.5), "qlora": (0.9, 0.9, 0.9)}, failed=("qlora",)))
    assert found.choices == ("lora",)
    assert lead_of(run_of({"lora": (0.8, 0.7, 0.5)}, failed=("base",))).choices == ()


@pytest.mark.parametrize("seed", range(6))
def test_there_are_at_most_five_sentences_and_four_figures(seed: int) -> None:
    run = large_run(25, 7, seed=seed)
    found = lead_of(run)
    assert len(found.more) <= 4 and len(found.figures) <= 4
    for name in found.choices:
        assert run.variant(name).status == "done"


def test_the_first_plot_is_of_the_task_that_tells_most_variants_apart() -> None:
    run = run_of({"lora": (0.501, 0.7, 0.1), "qlora": (0.5, 0.6, 0.9)})
    [rows] = page_rows([run], page_columns([run]))
    task = lead_task(rows)
    assert task is not None and task.name == "t2", "t1 ties all, u1 was not trained for"
