"""How long a timing lasts: precision, budget and number of repeats, with a fake model whose times are known."""

import math
from typing import Any

import pytest

from harness.jobs import Advanced, BenchJob, Recipe
from harness.models.measure import Latency
from harness.worker import timing
from harness.worker.timing import time_variant


class Machine:
    """A clock, and latencies of known seconds: the base takes 1 s per step, the adapter `ratio` s, times a drift."""

    def __init__(self, ratio: float = 1.5, drift: float = 1.0, noise: tuple[float, ...] = (1.0,)) -> None:
        self.now, self.speed = 0.0, 1.0
        self.ratio, self.drift, self.noise = ratio, drift, noise
        self.measured: list[tuple[bool, int, int]] = []

    def clock(self) -> float:
        return self.now

    def latency(self, model: Any, ids: Any, new_tokens: int, watch: Any) -> Latency:
        adapted = hasattr(model, "peft_config")
        self.measured.append((adapted, ids.shape[0], new_tokens))
        seconds = (self.ratio if adapted else 1.0) * self.speed
        seconds *= self.noise[len(self.measured) % len(self.noise)] if adapted else 1.0
        self.speed *= self.drift
        self.now += seconds * (1 + new_tokens)
        return Latency(seconds, (seconds,) * new_tokens)


def bench(
    machine: Machine, recipe: Recipe, monkeypatch: pytest.MonkeyPatch, *, with_base: bool = True, **settings: Any
) -> Any:
    monkeypatch.setattr(timing, "latency", machine.latency)
    job = BenchJob(recipe, with_base, prompt_tokens=8, new_tokens=3, batch_sizes=(1, 2), **settings)
    return time_variant(job, clock=machine.clock)


def test_a_ratio_that_is_known_precisely_ends_the_repeats(adapted: Recipe, monkeypatch: pytest.MonkeyPatch) -> None:
    found = bench(Machine(noise=(1.0, 1.01, 0.99)), adapted, monkeypatch, precision=0.05)
    assert (found.stopped, found.repeats) == ("precise", 3)
    assert len(found.base_prefill_seconds) == 3 and len(found.decode_seconds) == 9
    assert [size for size, _ in found.throughput] == [1, 2]


def test_a_drifting_machine_does_not_hide_a_ratio_that_is_measured_in_turn(
    adapted: Recipe, monkeypatch: pytest.MonkeyPatch
) -> None:
    machine = Machine(ratio=1.5, drift=1.005)
    found = bench(machine, adapted, monkeypatch, precision=0.05)
    assert found.stopped == "precise"
    ratios = [a / b for a, b in zip(found.prefill_seconds, found.base_prefill_seconds, strict=True)]
    assert math.prod(ratios) ** (1 / len(ratios)) == pytest.approx(1.5, rel=0.005)
    turns = [is_adapted for is_adapted, rows, tokens in machine.measured if (rows, tokens) == (1, 3)][
        2:6
    ]  # after the warm-up
    assert turns == [False, True, True, False]


def test_a_noisy_ratio_takes_all_repeats(adapted: Recipe, monkeypatch: pytest.MonkeyPatch) -> None:
    found = bench(Machine(noise=(1.0, 2.0, 0.5)), adapted, monkeypatch, precision=0.05, repeats=7)
    assert (found.stopped, found.repeats) == ("repeats", 7)


def test_a_budget_ends_the_repeats_before_one_that_would_exceed_it(
    adapted: Recipe, monkeypatch: pytest.MonkeyPatch
) -> None:
    machine = Machine(noise=(1.0, 2.0, 0.5))
    found = bench(machine, adapted, monkeypatch, precision=0.05, repeats=50, budget_seconds=60.0)
    assert found.stopped == "budget" and 1 < found.repeats < 50
    assert machine.now <= 60.0 + 12.0  # at most one repeat that took longer than those before


def test_one_repeat_is_measured_whatever_the_budget(adapted: Recipe, monkeypatch: pytest.MonkeyPatch) -> None:
    found = bench(Machine(), adapted, monkeypatch, budget_seconds=1e-9)
    assert (found.stopped, found.repeats, len(found.decode_seconds)) == ("budget", 1, 3)


def test_without_budget_and_precision_every_repeat_is_made(adapted: Recipe, monkeypatch: pytest.MonkeyPatch) -> None:
    found = bench(Machine(), Recipe(adapted.base), monkeypatch, with_base=False)
    assert (found.stopped, found.repeats, found.base_prefill_seconds) == ("repeats", 10, ())
    assert found.cpu_seconds is not None and found.cpu_seconds >= 0


def test_progress_is_sent_at_most_once_a_second(adapted: Recipe, monkeypatch: pytest.MonkeyPatch) -> None:
    machine, events = Machine(ratio=0.1), []
    monkeypatch.setattr(timing, "latency", machine.latency)
    time_variant(BenchJob(Recipe(adapted.base, adapted.adapter), False, new_tokens=3), events.append, machine.clock)
    assert all(isinstance(event, Advanced) for event in events)
    assert 2 <= len(events) <= 1 + machine.now
    assert events[-1].note == "±0%"
