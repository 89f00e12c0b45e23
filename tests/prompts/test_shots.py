"""The choice of solved examples for each sample."""

import random
from collections.abc import Mapping
from typing import Any

import pytest

from harness import Generate, Metric, Task, UserError
from harness.prompts.render import Prompting, render

ONE = Metric("one", score=lambda output, sample: 1.0)
POOL = [{"q": f"q{n}", "s": "ab"[n % 2]} for n in range(7473)]


def shown(task: Task, shots: int, **options: Any) -> list[list[str]]:
    """Questions of the solved examples before each sample."""
    prompts = [item.request.contexts[0] for item in render("t", task, Prompting(shots), **options)]
    return [prompt.split("|")[:-1] for prompt in prompts]


def a_task(data: list[dict[str, Any]], pool: Any = POOL, **fields: Any) -> Task:
    def sample(row: Mapping[str, Any]) -> Generate:
        return Generate(row["q"], "", max_tokens=1)

    return Task(data, sample, [ONE], shots_from=pool, delimiter="", shot_separator="|", **fields)


ASKED = [{"q": f"asked {n}", "s": "ab"[n % 2]} for n in range(6)]


def test_the_lm_eval_order_equals_lm_evals_for_gsm8k() -> None:
    expected = [
        [6374, 3610, 957, 61, 742],  # as lm-evaluation-harness 0.4 shows them before the first three test rows
        [7462, 6610, 4769, 286, 5501],
        [5677, 687, 806, 6279, 2905],
    ]
    found = shown(a_task(ASKED, shots_order="lm-eval"), 5)
    assert found[:3] == [[f"q{n}" for n in places] for places in expected]


@pytest.mark.parametrize("order", ["first", "seeded", "lm-eval", "lm-eval-spare"])
def test_the_requested_rows_do_not_change_the_examples_of_a_row(order: Any) -> None:
    task = a_task(ASKED, shots_order=order, group="s")
    everything = shown(task, 3)
    assert shown(task, 3, limit=2) == everything[:2]
    assert shown(task, 3, groups=["b"]) == everything[1::2]
    assert all(int(q[1:]) % 2 == n % 2 for n, asked in enumerate(everything) for q in asked), "examples of its group"


@pytest.mark.parametrize("order", ["first", "seeded", "lm-eval", "lm-eval-spare"])
def test_shared_shots_are_the_first_ones_of_the_group_before_every_row(order: Any) -> None:
    task = a_task(ASKED, shots_order=order, group="s")
    items = render("t", task, Prompting(2, shared_shots=True))
    assert [item.request.contexts[0] for item in items] == [
        f"q{n % 2}|q{n % 2 + 2}|{row['q']}" for n, row in enumerate(ASKED)
    ]
    assert Prompting(2, shared_shots=True).shares_shots_of(task) == (order != "first")
    assert not Prompting(0, shared_shots=True).shares_shots_of(task) and not Prompting(2).shares_shots_of(task)


def test_a_row_is_never_its_own_shared_shot() -> None:
    rows = ASKED[:3]
    found = render("t", a_task(rows, rows, shots_order="lm-eval-spare"), Prompting(2, shared_shots=True))
    assert [item.request.contexts[0].split("|")[:-1] for item in found] == [
        ["asked 1", "asked 2"],
        ["asked 0", "asked 2"],
        ["asked 0", "asked 1"],
    ]


def test_each_group_has_its_own_generator() -> None:
    task = a_task(ASKED, shots_order="lm-eval", group="s")
    generator = random.Random(1234)
    places = [generator.sample(range(1, 7473, 2), 3) for _ in range(3)]
    assert shown(task, 3)[1::2] == [[f"q{n}" for n in drawn] for drawn in places]


def test_lm_eval_spare_drops_the_row_itself_and_keeps_the_first_n() -> None:
    rows = ASKED[:4]
    task = a_task(rows, rows, shots_order="lm-eval-spare")
    generator = random.Random(1234)
    expected = []
    for row in rows:
        drawn = [other for other in generator.sample(rows, 3) if other != row]
        expected.append([str(other["q"]) for other in drawn[:2]])
    assert shown(task, 2) == expected


def test_lm_eval_spare_draws_again_if_copies_of_the_row_leave_too_few() -> None:
    twice = [ASKED[0], ASKED[0], ASKED[1], ASKED[2]]
    found = shown(a_task(twice, twice, shots_order="lm-eval-spare"), 2)
    assert all(len(examples) == 2 for examples in found)
    assert all("asked 0" not in examples for examples in found[:2])


def test_seeded_examples_depend_on_the_sample_and_not_on_its_index() -> None:
    found = shown(a_task(ASKED, shots_order="seeded"), 4)
    backwards = shown(a_task(ASKED[::-1], shots_order="seeded"), 4)
    assert found == backwards[::-1]
    assert len({tuple(examples) for examples in found}) == len(ASKED)


@pytest.mark.parametrize("order", ["first", "seeded", "lm-eval-spare"])
def test_no_sample_is_its_own_example(order: Any) -> None:
    found = shown(a_task(ASKED, ASKED, shots_order=order), 5)
    assert all(f"asked {n}" not in examples and len(examples) == 5 for n, examples in enumerate(found))


def test_a_question_that_is_also_in_another_split_may_be_its_example() -> None:
    assert shown(a_task(ASKED[:1], ASKED[:2]), 2) == [["asked 0", "asked 1"]], "as lm-evaluation-harness has it"


@pytest.mark.parametrize("order", ["first", "seeded", "lm-eval", "lm-eval-spare"])
def test_too_few_examples_say_how_many_there_are(order: Any) -> None:
    most = 2 if order == "lm-eval-spare" else 3
    with pytest.raises(UserError, match=f"{most} solved examples, but 4 shots") as raised:
        shown(a_task(ASKED, POOL[:3], shots_order=order), 4)
    assert raised.value.hint == f"request at most {most} shots"


def test_an_unknown_order_is_refused() -> None:
    with pytest.raises(UserError, match="unknown `shots_order`: `lmeval`") as raised:
        a_task(ASKED, shots_order="lmeval")
    assert "lm-eval" in str(raised.value.hint)
