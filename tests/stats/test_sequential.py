"""Tests of decisions that may be taken after every pack of samples."""

from __future__ import annotations

import itertools
import math
from fractions import Fraction

import numpy as np
import pytest

from harness.stats.alpha_spending import WinWalk
from harness.stats.betting import Bets
from harness.stats.sequential import SequentialTest, evaluation_points, step_down
from tests.stats.many_walks import passed
from tests.stats.until_decided import _stops, false_positives, family, graded_nulls, power


def packs(total: int, rng: np.random.Generator, better: float, worse: float) -> list[np.ndarray]:
    drawn = rng.choice([1.0, -1.0, 0.0], size=total, p=[better, worse, 1 - better - worse])
    return np.split(drawn, evaluation_points(total)[:-1])


@pytest.mark.parametrize("chance", [Fraction(1, 2), Fraction(3, 4)])
def test_boundaries_are_those_of_all_sequences_of_wins(chance: Fraction) -> None:
    differing, shares, level = (4, 6, 6, 11, 13), (0.3, 0.5, 0.6, 0.8, 1.0), 0.4
    alive = {
        wins: math.prod(chance if win else 1 - chance for win in wins) for wins in itertools.product((0, 1), repeat=13)
    }
    walk, spent = WinWalk(level, float(chance)), Fraction(0)
    for count, share in zip(differing, shares, strict=True):
        critical = walk.critical(count, share)
        stopped = [wins for wins in alive if sum(wins[:count]) >= critical]
        lower = [wins for wins in alive if sum(wins[:count]) >= critical - 1]
        assert spent + sum(alive[wins] for wins in stopped) <= level * share**2 + 1e-9
        assert spent + sum(alive[wins] for wins in lower) > level * share**2 - 1e-9  # one win fewer is too few
        spent += sum(alive.pop(wins) for wins in stopped)
        assert walk.spent == pytest.approx(float(spent))


def test_the_last_boundary_alone_is_that_of_the_exact_sign_test() -> None:
    from scipy.stats import binom

    walk = WinWalk(0.025)
    assert walk.critical(0, 0.0) == 1  # nothing can be rejected before the first sample
    assert walk.critical(50, 1.0) == binom.isf(0.025, 50, 0.5) + 1


def test_a_strict_level_counts_only_after_the_laxer_ones() -> None:
    rng = np.random.default_rng(5)
    for _ in range(20):
        test = SequentialTest(320, binary=True, tests=6)
        before = 0
        for pack in packs(320, rng, 0.15, 0.05):
            test.add(pack)
            assert test.passed >= before
            before = test.passed
            assert (test.direction != 0) == (test.passed > 0)


def test_the_interval_excludes_zero_exactly_when_the_test_decides() -> None:
    rng, decided = np.random.default_rng(1), 0
    for better, binary in itertools.product((0.05, 0.1, 0.2), (True, False)):
        for _ in range(4):
            test = SequentialTest(256, binary=binary)
            for pack in packs(256, rng, better, 0.05):
                test.add(pack)
                if test.passed:
                    break
            low, high = test.interval()
            assert low <= test.value <= high
            assert (low > 0 or high < 0) == (test.passed > 0)
            decided += test.passed > 0
    assert 0 < decided < 24


def test_a_reversed_difference_gives_the_reversed_result() -> None:
    a, b = (SequentialTest(256, binary=True, smallest=0.2) for _ in range(2))
    for pack in packs(256, np.random.default_rng(3), 0.25, 0.05):
        a.add(pack)
        b.add(-pack)
    assert a.direction == -b.direction == 1 and a.passed == b.passed and a.excluded == b.excluded
    assert a.interval() == pytest.approx([-end for end in reversed(b.interval())])


def test_scores_without_any_difference_exclude_one_that_matters() -> None:
    test = SequentialTest(1000, binary=True, smallest=0.05)
    while not test.excluded:
        test.add(np.zeros(32))
    assert test.n < 300 and test.passed == 0
    low, high = test.interval()
    assert -0.05 < low < 0 < high < 0.05


def test_the_width_scales_differences_and_the_smallest_one() -> None:
    one, five = (
        SequentialTest(256, binary=False, smallest=0.1),
        SequentialTest(256, binary=False, width=5, smallest=0.5),
    )
    for _ in range(8):
        pack = np.random.default_rng(2).uniform(-0.1, 0.3, 32)
        one.add(pack)
        five.add(5 * pack)
    assert (one.passed, one.excluded) == (five.passed, five.excluded)
    assert five.value == pytest.approx(5 * one.value)
    assert five.interval() == pytest.approx([5 * end for end in one.interval()])


def test_too_many_samples_and_too_large_differences_are_refused() -> None:
    test = SequentialTest(40, binary=False)
    with pytest.raises(ValueError, match="larger than 1"):
        test.add(np.array([1.5]))
    with pytest.raises(ValueError, match="fixed in advance"):
        SequentialTest(40, binary=False).add(np.zeros(41))


def test_wealth_of_one_fair_bet_is_one_on_average() -> None:
    for margin in (0.0, -0.25, 0.25):
        wealth = []
        for sample, chance in ((1.0, (1 + margin) / 2), (-1.0, (1 - margin) / 2)):
            bets = Bets(margin)
            bets.add(np.array([sample]))
            wealth.append(chance * math.exp(bets.log_wealth))
        assert sum(wealth) == pytest.approx(1.0)


def test_rejections_relax_the_level_of_the_others() -> None:
    class Passed(SequentialTest):
        def __init__(self, passed: int) -> None:
            self._passed = passed

        @property
        def passed(self) -> int:
            return self._passed

    tests = [Passed(each) for each in (4, 3, 1, 2)]
    assert step_down(tests, set(), 4) == {0, 1, 2, 3}
    assert step_down(tests, set(), 5) == set()  # another member of the family takes a part of the level
    assert step_down([Passed(1), Passed(4), Passed(2), Passed(0)], set(), 4) == {1}
    assert step_down([Passed(0), Passed(0)], {0}, 2) == {0}


@pytest.mark.parametrize("differing", [0.02, 0.3])
def test_false_positives_are_rare_at_any_stopping_time(differing: float) -> None:
    found = false_positives(differing, runs=300, total=512, seed=7)
    assert found.sequential <= 0.05 + 2 * math.sqrt(0.05 * 0.95 / 300)
    if differing == 0.3:
        assert found.peeking > 0.12


def test_rare_large_losses_of_graded_scores_give_no_false_positives() -> None:
    assert graded_nulls("rare large losses", runs=200, total=512, seed=4) <= 0.05


def test_power_and_samples_at_ten_points() -> None:
    found = power(0.2, 0.1, runs=60, total=1000, seed=6)
    assert found.decided == 1.0 and found.samples < 290 and found.covered > 0.9


def test_simulated_families_are_those_of_the_tests_themselves() -> None:
    rng, total, tests = np.random.default_rng(8), 300, 4
    for _ in range(25):
        drawn = [packs(total, rng, better, 0.1) for better in (0.1, 0.2, 0.25, 0.3)]
        wins, losses = (
            np.array([[int(np.sum(sign * pack > 0)) for pack in each] for each in drawn]) for sign in (1, -1)
        )
        found, rejected = [SequentialTest(total, binary=True, tests=tests) for _ in drawn], set[int]()
        levels, stops = passed(wins, losses, total, tests), [len(drawn[0])] * tests
        for number in range(len(drawn[0])):
            for test, each in zip(found, drawn, strict=True):
                test.add(each[number])
            assert [test.passed for test in found] == levels[:, number].tolist()
            rejected = step_down(found, rejected, tests)
            stops = [number if i in rejected and stop == len(drawn[0]) else stop for i, stop in enumerate(stops)]
        assert _stops(levels[None])[0].tolist() == stops


def test_false_positives_of_families_are_rare() -> None:
    found = family((0.1, 0.1, 0.0, 0.0, 0.0), runs=300, total=256, seed=3)
    assert found.familywise <= 0.05 + 2 * math.sqrt(0.05 * 0.95 / 300)
    assert found.power[0.1] > 0.5 and found.samples[0.1] < 256
