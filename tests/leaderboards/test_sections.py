"""Several runs as one table: common columns, other protocols, machines."""

from __future__ import annotations

from typing import Any

import pytest
from example_run import example_run
from hand_made_run import hand_made_run
from large_run import large_run

from harness.leaderboards.cost_tables import cost_tables, joined
from harness.leaderboards.heats import STRONGEST, heats
from harness.leaderboards.page import render
from harness.leaderboards.protocols import described, differences
from harness.leaderboards.sample_browser import sample_browser
from harness.leaderboards.sections import other_metrics, page_columns, page_rows
from harness.results import Run


def changed(run: Run, **protocol: Any) -> Run:
    """The run with another protocol of all scores."""
    document = run.model_dump(mode="json", by_alias=True)
    for variant in document["variants"]:
        for score in variant["scores"]:
            score["protocol"] |= protocol
    return Run.model_validate(document)


def test_runs_share_columns_and_each_has_its_own_order() -> None:
    first, second = large_run(5, 7), large_run(4, 9, seed=1, model="meta/Llama")
    columns = page_columns([first, second])
    assert len(columns) == 9 and [column.trained for column in columns] == [True] * 4 + [False] * 5
    one, other = page_rows([first, second], columns)
    assert (one.label, other.label) == ("Qwen/Qwen3-0.6B", "meta/Llama")
    assert [cell is None for cell in one.rows[0].cells] == [False] * 7 + [True] * 2
    assert all(cell is not None and not cell.unlike for cell in other.rows[0].cells)
    ids = [cell.id for rows in (one, other) for row in rows.rows for cell in row.cells if cell]
    assert len(set(ids)) == len(ids)


def test_a_cell_of_another_protocol_says_so() -> None:
    first, second = example_run(), changed(example_run(), shots=5, chat_template="x")
    columns = page_columns([first, second])
    one, other = page_rows([first, second], columns)
    assert not any(cell.unlike for row in one.rows for cell in row.cells if cell)
    assert {cell.unlike for row in other.rows for cell in row.cells if cell} == {("5 shots", "chat template")}
    text = render([first, second])
    assert text.count("≠ 5 shots, chat template") == 21 and 'class="unlike">≠ 5 shots<' in text


@pytest.mark.parametrize(
    ("protocol", "words"),
    [
        ({"version": 2}, ["version 2"]),
        ({"mode": "loglikelihood"}, ["log-likelihood"]),
        ({"numerics": "lm-eval", "dtype": "float32"}, ["lm-eval numerics", "fp32 weights"]),
        ({"system": "Be brief."}, ["another system prompt"]),
        ({"think": "off"}, ["thinking off"]),
        ({"template_options": {"a": 1}}, ["other template options"]),
        ({"prompt_sha256": "cd"}, ["other prompts"]),
        ({"prompt_sha256": "cd", "shots": 1}, ["1 shot"]),
        ({"token_budget": 1, "engine": "plain"}, []),
    ],
)
def test_only_what_decides_a_score_makes_protocols_differ(protocol: dict[str, Any], words: list[str]) -> None:
    run = example_run("base", "lora")
    score, other = run.variants[0].scores[2], changed(run, **protocol).variants[0].scores[2]
    assert differences(other, score) == words and differences(score, score) == []
    assert described(score).startswith("200 samples, 0 shots, generated")


def test_two_runs_of_one_model_are_told_apart() -> None:
    runs = [large_run(2, 1), large_run(2, 1, seed=1), large_run(2, 1, seed=1)]
    labels = [[rows.label for rows in page_rows(given, page_columns(given))] for given in (runs[:1], runs[:2], runs)]
    assert labels[0] == ["Qwen/Qwen3-0.6B"]
    assert labels[1] == ["Qwen/Qwen3-0.6B, 2026-11-20", "Qwen/Qwen3-0.6B, 2026-11-21"]
    assert labels[2] == [f"Qwen/Qwen3-0.6B, run {number}" for number in (1, 2, 3)]


def test_two_tasks_of_one_name_are_two_columns() -> None:
    first = hand_made_run({"base": (0.5,), "lora": (0.6,)}, tasks={"t": "acc"})
    second = hand_made_run({"base": (9.0,), "lora": (8.0,)}, tasks={"t": "word_ppl"}, lower_is_better=("t",))
    columns = page_columns([first, second])
    assert [(column.title, column.metric) for column in columns] == [("t", "acc"), ("t", "word_ppl")]
    text = render([first, second])
    assert 'id="s0-1-0"' in text and 'id="s1-1-1"' in text and 'id="s1-1-0"' not in text


def test_costs_of_different_machines_are_different_tables() -> None:
    here, there = large_run(3, 2), large_run(3, 2, seed=1)
    same = [rows for rows in page_rows([here, there], page_columns([here, there]))]
    [table] = cost_tables(same)
    assert len(table.groups) == 2
    elsewhere = there.model_copy(
        update={"environment": there.environment | {"device_name": "AMD EPYC", "device": "cpu", "threads": 2}}
    )
    tables = cost_tables(page_rows([here, elsewhere], page_columns([here, elsewhere])))
    assert [each.machine for each in tables] == ["NVIDIA H100 80GB HBM3, bf16", "AMD EPYC, 2 threads, bf16"]
    assert "Costs of different machines are in tables of their own" in render([here, elsewhere])


def test_joined_tables_have_the_columns_of_all() -> None:
    from harness.report.tables import Cell, Column, Table, TableRow

    a = Table("Cost", (Column("train"), Column("load")), (TableRow("x", (Cell("1 s"), Cell("2 s"))),))
    b = Table("Cost", (Column("load"), Column("energy")), (TableRow("y", (Cell("3 s"), Cell("4 J"))),))
    table = joined([("A", a), ("B", b), ("C", Table("Cost", (), ()))])
    assert table is not None and [column.name for column in table.columns] == ["train", "load", "energy"]
    assert [[cell.text for cell in row.cells] for _, rows in table.groups for row in rows] == [
        ["1 s", "2 s", "-"],
        ["-", "3 s", "4 J"],
    ]
    assert joined([]) is None


def test_tints_leave_text_readable_and_show_the_better_direction() -> None:
    [heat] = heats(large_run(6, 3))
    tiles = [tile for _, row in heat.rows for tile in row]
    assert heat.title == "mmlu" and len(heat.rows) == 4 and max(tile.tint for tile in tiles) == STRONGEST
    assert all((tile.kind == "better") == tile.text.startswith("+") for tile in tiles if tile.tint)
    assert heats(example_run()) == []


def test_samples_are_left_out_to_keep_the_page_small_and_said_so() -> None:
    run = large_run(5, 4)
    columns = page_columns([run])
    [rows] = page_rows([run], columns)
    everything, few = (sample_browser(rows, columns, room=room) for room in (10**6, 2500))
    assert everything is not None and few is not None
    assert everything.count == 3 * 6 * 4 and "left out" not in everything.words
    assert 0 < len(few.prompts) < len(everything.prompts) and f"of {len(everything.prompts)} are left out" in few.words
    assert {each.task for each in few.prompts} == {key for key, _ in few.tasks}
    assert everything.counts[0] == "gsm8k: fewshot 30 won, 12 lost, 458 alike; lora 30 won, 12 lost, 458 alike; " + (
        "qlora 30 won, 12 lost, 458 alike; full 30 won, 12 lost, 458 alike"
    )
    [without] = page_rows([example_run()], page_columns([example_run()]))
    assert sample_browser(without, page_columns([example_run()]), room=10**6) is None


def test_other_metrics_have_intervals_and_no_verdicts() -> None:
    found = other_metrics(example_run("base", "lora"))
    assert len(found) == 14 and {name for each in found.values() for name, _ in each} == {"token_ppl ↓"}
    [(_, cell)] = found["lora", "mini_mmlu"]
    assert (cell.text, cell.interval, cell.symbol) == ("2.125", "2.000–2.250", "")
