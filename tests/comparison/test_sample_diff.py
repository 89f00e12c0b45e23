"""`harness diff`: samples won and lost, from samples files written by the test."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from example_run import example_run

from harness.cli import main
from harness.comparison.sample_diff import Side, sample_diff
from harness.comparison.sample_diff_text import as_markdown, as_text
from harness.errors import UserError
from harness.jobs import Item
from harness.prepare.tasks import scored_task
from harness.prompts.render import render
from harness.registry.task_spec import parse_task
from harness.results import Run
from harness.runs.folder import sample_log

TASK = "mini_mmlu"


@pytest.fixture(scope="module")
def items() -> list[Item]:
    return render(TASK, scored_task(parse_task(TASK, {})).task)[:12]


def lines(items: list[Item], margins: list[float]) -> list[dict[str, Any]]:
    """Lines of a samples file: the right choice is this much likelier than the others."""
    found = []
    for item, margin in zip(items, margins, strict=True):
        answer = item.sample.answer  # type: ignore[union-attr]
        likelihoods = [-5.0 + margin * (index == answer) for index in range(len(item.sample.choices))]  # type: ignore[union-attr]
        found.append({
            "key": "k", "id": item.request.id, "group": item.group, "cluster": None, "prompt_tokens": 3, "outputs": [],
            "prompt_sha256": item.request.sha256, "loglikelihoods": likelihoods, "metrics": {"acc": float(margin > 0)},
        })  # fmt: skip
    return found


MARGINS = {
    "base": [1.0] * 6 + [-1.0] * 6,
    "lora": [1.0] * 5 + [-4.0] + [2.0, 0.5, 3.0] + [-1.0] * 3,
    "qlora": [1.0] * 6 + [1.0, -1.0, -1.0] + [-1.0] * 3,
}


def written(folder: Path, items: list[Item], *names: str) -> Run:
    run = example_run(*names, tasks=1)
    folder.mkdir()
    (folder / "run.json").write_text(run.to_json(), encoding="utf-8")
    for variant in run.variants:
        sample_log(folder, Side(run, folder, variant.name).stored_as(), TASK).append(
            lines(items, MARGINS[variant.name])
        )
    return run


def side(folder: Path, run: Run, name: str) -> Side:
    return Side(run, folder, name)


def test_samples_are_won_and_lost_and_the_most_surprising_come_first(tmp_path: Path, items: list[Item]) -> None:
    run = written(tmp_path / "run", items, "base", "lora", "qlora")
    found = sample_diff(side(tmp_path / "run", run, "lora"), side(tmp_path / "run", run, "base"), TASK)
    assert (found.n, found.won, found.lost) == (12, 3, 1)
    assert [each.outcome for each in found.samples] == ["lost", "won", "won", "won"]
    assert [each.margin for each in found.samples] == [-5.0, 4.0, 3.0, 1.5]
    first = found.samples[0]
    assert first.id == items[5].request.id and (first.a.score, first.b.score, first.others) == (0.0, 1.0, 1.0)
    sample = items[5].sample
    assert first.target == sample.choices[sample.answer]  # type: ignore[union-attr, index]
    assert first.b.text == first.target != first.a.text
    assert first.prompt and first.prompt.endswith(items[5].request.contexts[0][-20:])
    assert found.value == run.comparisons[0].value and found.notes == ()
    assert sum(group.won for group in found.groups) == 3 and sum(group.n for group in found.groups) == 12
    back = sample_diff(side(tmp_path / "run", run, "base"), side(tmp_path / "run", run, "lora"), TASK)
    assert (back.won, back.lost, back.value) == (1, 3, -(found.value or 0))


def test_two_runs_share_the_samples_with_equal_prompts(tmp_path: Path, items: list[Item]) -> None:
    one, two = written(tmp_path / "one", items, "base", "lora"), written(tmp_path / "two", items, "base", "qlora")
    log = sample_log(tmp_path / "two", f"{two.variant('qlora').spec}#0", TASK)
    rows = log.rows()
    rows[0]["prompt_sha256"] = "other"
    log.path.unlink()
    log.append(rows[:9])
    found = sample_diff(side(tmp_path / "one", one, "lora"), side(tmp_path / "two", two, "qlora"), TASK)
    assert found.n == 8 and "left out" in found.notes[0] and found.notes[0].startswith("5 samples")
    assert (found.won, found.lost) == (2, 1) and found.value == pytest.approx(1 / 8) and found.p is not None
    log.path.unlink()
    log.append([row | {"prompt_sha256": "other"} for row in rows])
    with pytest.raises(UserError, match="share no sample"):
        sample_diff(side(tmp_path / "one", one, "lora"), side(tmp_path / "two", two, "qlora"), TASK)


def test_unknown_variants_and_tasks_get_the_nearest_names(tmp_path: Path, items: list[Item]) -> None:
    run = written(tmp_path / "run", items, "base", "lora")
    with pytest.raises(UserError, match="no variant `lara`") as error:
        sample_diff(side(tmp_path / "run", run, "lara"), side(tmp_path / "run", run, "base"), TASK)
    assert "did you mean `lora`" in str(error.value.hint)
    with pytest.raises(UserError, match="no task `mini_mmul`") as error:
        sample_diff(side(tmp_path / "run", run, "lora"), side(tmp_path / "run", run, "base"), "mini_mmul")
    assert "did you mean `mini_mmlu`" in str(error.value.hint)


def test_a_run_cannot_start_the_code_of_a_task_that_the_user_has_not_named(tmp_path: Path, items: list[Item]) -> None:
    evil = f"{tmp_path}/evil.py"
    Path(evil).write_text("raise SystemExit('started')\n", encoding="utf-8")
    run = written(tmp_path / "run", items, "base", "lora")
    document = json.loads(run.to_json().replace('"mini_mmlu"', json.dumps(evil)))
    run = Run.model_validate(document)
    for variant in run.variants:
        sample_log(tmp_path / "run", f"{variant.spec}#0", evil).append(lines(items, MARGINS[variant.name]))
    found = sample_diff(side(tmp_path / "run", run, "lora"), side(tmp_path / "run", run, "base"), evil)
    assert (found.won, found.lost) == (3, 1) and found.samples[0].prompt is None
    assert "prompts and targets are left out" in found.notes[0]


def test_text_and_markdown_show_counts_groups_and_samples(tmp_path: Path, items: list[Item]) -> None:
    run = written(tmp_path / "run", items, "base", "lora")
    log = sample_log(tmp_path / "run", f"{run.variant('lora').spec}#0", TASK)
    rows = log.rows()
    rows[5]["outputs"] = ["before\x1b[2J\n```\nafter"]
    log.path.unlink()
    log.append(rows)
    found = sample_diff(side(tmp_path / "run", run, "lora"), side(tmp_path / "run", run, "base"), TASK)
    text, markdown = as_text(found, 2), as_markdown(found, 2)
    for form in (text, markdown):
        assert "mini_mmlu acc: lora against base: 3 won, 1 lost, 8 equal of 12; -7.0 ±4.7 (95 %)" in form
        assert "\x1b" not in form and "2 further samples: `--show 4`" in form
        assert f"({items[5].group})" in form
    assert "````text\nbefore\\u001b[2J\n```\nafter\n````" in markdown
    assert f"lost {items[5].request.id}" in text and "margin -5.00 nats" in text


def test_the_command_prints_json_and_markdown(
    tmp_path: Path, items: list[Item], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    written(tmp_path / "run", items, "base", "lora")
    assert main(["diff", "run", "lora", "base", "--format", "json"]) == 0
    [found] = json.loads(capsys.readouterr().out)
    assert (found["won"], found["lost"], len(found["samples"])) == (3, 1, 4)
    assert main(["diff", "run", "lora", "base", "--task", TASK, "--format", "md", "--show", "1"]) == 0
    assert capsys.readouterr().out.startswith("## mini_mmlu acc: lora against base")
    assert main(["diff", "run", "lora", "qlora"]) == 2
    assert "no variant `qlora`" in capsys.readouterr().err
    assert main(["diff", "run", "lora", "base", "--other", "nowhere"]) == 2
