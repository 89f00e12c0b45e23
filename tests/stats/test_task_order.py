"""Places over tasks: against a computation by hand."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from harness.stats.task_order import FEWEST_TASKS, borda_points, places

NAMES = ["full", "lora", "base"]


def test_borda_points_count_worse_variants_and_half_of_equal_ones() -> None:
    scores = np.array([[3.0, 1.0, np.nan], [2.0, 1.0, 5.0], [1.0, 0.0, 4.0]])
    np.testing.assert_array_equal(borda_points(scores), [[2, 1.5, np.nan], [1, 1.5, 1], [0, 0, 0]])


def test_win_rate_and_borda_by_hand() -> None:
    found = places(NAMES, np.array([[3.0, 1.0, 1.0], [2.0, 1.0, 2.0], [1.0, 0.0, 3.0]]))
    full, base = found["full"], found["base"]
    assert full.win_rate and base.win_rate and full.borda
    assert full.win_rate.value == pytest.approx((2 / 2 + 1.5 / 2 + 0) / 3) and full.borda.value == pytest.approx(
        3.5 / 3
    )
    assert base.win_rate.value == pytest.approx(1 / 3)
    assert full.win_rate.low is None, "three tasks have no interval"
    assert found["full"].rank == (1, 3), "and show no order"


def test_ranks_are_those_of_an_exact_sign_flip_test() -> None:
    generator = np.random.default_rng(1)
    scores = generator.normal(size=(4, 8)) + np.array([2.5, 1.0, 0.0, -1.0])[:, None]
    names = list("abcd")
    shares = borda_points(scores) / 3

    def p(a: int, b: int) -> float:
        found = shares[a] - shares[b]
        sums = [
            abs(sum(s * d for s, d in zip(signs, found, strict=True))) for signs in itertools.product((1, -1), repeat=8)
        ]
        return sum(each >= abs(found.sum()) - 1e-9 for each in sums) / len(sums)

    shown = {(a, b): p(a, b) < 0.05 and shares[a].sum() > shares[b].sum() for a in range(4) for b in range(4) if a != b}
    assert 0 < sum(shown.values()) < 6, "the example has both kinds of pairs"
    for index, place in enumerate(places(names, scores).values()):
        better = sum(shown[other, index] for other in range(4) if other != index)
        worse = sum(shown[index, other] for other in range(4) if other != index)
        assert place.rank == (1 + better, 4 - worse)


def test_an_order_is_shown_from_six_tasks_on() -> None:
    for tasks in (FEWEST_TASKS - 1, FEWEST_TASKS, 20):
        found = places(["a", "b"], np.array([[1.0] * tasks, [0.0] * tasks]))
        assert found["a"].rank == ((1, 2) if tasks < FEWEST_TASKS else (1, 1))


def test_intervals_resample_the_tasks_and_are_reproducible() -> None:
    scores = np.array([[1.0, 0.0] * 8, [0.5] * 16])
    rate = places(["a", "b"], scores)["a"].win_rate
    assert rate and rate.low is not None and rate.high is not None
    assert (
        rate.value == 0.5 and rate.low == pytest.approx(0.25, abs=0.03) and rate.high == pytest.approx(0.75, abs=0.03)
    )
    assert places(["a", "b"], scores) == places(["a", "b"], scores)


def test_missing_scores() -> None:
    found = places(NAMES, np.array([[3.0, np.nan], [2.0, 1.0], [np.nan, np.nan]]))
    assert found["full"].rank is None and found["full"].tasks == 1 and found["full"].win_rate
    assert found["full"].win_rate.value == 1.0
    assert found["lora"].rank == (1, 1), "the only one with all scores"
    assert found["base"].win_rate is None and found["base"].tasks == 0
    alone = places(["base"], np.array([[0.5] * 7]))["base"]
    assert alone.win_rate is None and alone.rank == (1, 1)
