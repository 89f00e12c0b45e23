"""The grid of `harness bench`: known delays of a fake model come back as TTFT, percentiles and tokens per second."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch

from harness.comparison.latency_record import latency_point
from harness.jobs import BenchJob, Recipe, TimedPoint
from harness.models.measure import Latency, Stopwatch, latency
from harness.worker import timing
from harness.worker.timing import time_variant

STEPS = tuple((index + 1) / 1000 for index in range(100))
"""Seconds of the decode steps of the fake model: 1 ms to 100 ms."""


class FakeModel:
    """A model whose forward pass takes 2 ms for each token of a prompt, and a step of `STEPS` for each new token."""

    def __init__(self) -> None:
        self.now, self.steps = 0.0, iter(STEPS)

    def clock(self) -> float:
        return self.now

    def __call__(self, input_ids: Any, past_key_values: Any, use_cache: bool, logits_to_keep: int) -> Any:
        rows, tokens = input_ids.shape
        self.now += 0.002 * rows * tokens if past_key_values is None else next(self.steps)
        return SimpleNamespace(logits=torch.zeros(rows, 1, 4), past_key_values="cache")


def test_known_delays_come_back() -> None:
    model = FakeModel()
    found = latency(model, torch.zeros(3, 50, dtype=torch.long), len(STEPS), Stopwatch(model.clock))
    assert found.prefill_seconds == pytest.approx(0.3)
    assert found.decode_seconds == pytest.approx(STEPS)
    point = latency_point(TimedPoint(50, 3, (found.prefill_seconds,), found.decode_seconds), len(STEPS))
    assert point.ttft_seconds.value == pytest.approx(0.3)
    p50, p90, p99 = (getattr(point, f"decode_seconds_per_token_p{share}") for share in (50, 90, 99))
    assert [each.value for each in (p50, p90, p99)] == pytest.approx([0.0505, 0.0901, 0.09901])
    assert point.tokens_per_second is not None
    assert point.tokens_per_second.value == pytest.approx(3 * 100 / 5.05)  # the steps take 5.05 s together


def test_figures_have_the_range_of_the_repeats() -> None:
    point = latency_point(TimedPoint(8, 4, (0.4, 0.2, 0.3), (0.1, 0.1, 0.2, 0.2, 0.1, 0.3)), 2)
    assert vars(point.ttft_seconds) == {"value": 0.3, "low": 0.2, "high": 0.4}
    half, speed = point.decode_seconds_per_token_p50, point.tokens_per_second
    assert half is not None and (half.low, half.value, half.high) == pytest.approx((0.1, 0.15, 0.2))
    assert speed is not None and (speed.low, speed.value, speed.high) == pytest.approx((20, 20, 40))


def test_a_reward_model_has_a_first_token_and_no_next_ones() -> None:
    point = latency_point(TimedPoint(8, 1, (0.4,), ()), 0)
    assert point.ttft_seconds.value == 0.4
    assert point.decode_seconds_per_token_p99 is point.tokens_per_second is None


def bench(recipe: Recipe, monkeypatch: pytest.MonkeyPatch, **settings: Any) -> tuple[Any, list[Any]]:
    """Times a grid with a fake latency: 1 ms for each token of the prompts and 10 ms for a step; the adapter takes twice that."""
    measured: list[Any] = []

    def fake(model: Any, ids: Any, new_tokens: int, watch: Any) -> Latency:
        factor = 2 if hasattr(model, "peft_config") else 1
        measured.append((factor == 2, *ids.shape[::-1], new_tokens))
        return Latency(0.001 * ids.numel() * factor, (0.01 * factor,) * new_tokens)

    monkeypatch.setattr(timing, "latency", fake)
    return time_variant(BenchJob(recipe, True, **({"new_tokens": 5, "repeats": 3} | settings))), measured


def test_every_repeat_measures_the_grid_in_turn_with_the_base(adapted: Recipe, monkeypatch: pytest.MonkeyPatch) -> None:
    grid = ((4, 1), (4, 2), (16, 1), (16, 2))
    found, measured = bench(adapted, monkeypatch, grid=grid)
    blocks = [measured[start : start + 4] for start in range(8, len(measured), 4)]  # after the warm-up
    assert [block[0][0] for block in blocks] == [False, True, True, False, False, True]
    assert all([(tokens, rows) for _, tokens, rows, _ in block] == list(grid) for block in blocks)
    assert [(point.prompt_tokens, point.batch_size) for point in found.points] == list(grid)
    last = found.points[-1]
    assert last.prefill_seconds == pytest.approx([0.064] * 3) and last.base_prefill_seconds == pytest.approx(
        [0.032] * 3
    )
    assert last.decode_seconds == pytest.approx([0.02] * 15) and last.base_decode_seconds == pytest.approx([0.01] * 15)
    assert (found.prompt_tokens, found.prefill_seconds) == (4, found.points[0].prefill_seconds)
    assert dict(found.throughput) == pytest.approx({1: 50, 2: 100}) and found.notes == ()


def test_prompts_that_do_not_fit_are_shortened_and_it_is_said(adapted: Recipe, monkeypatch: pytest.MonkeyPatch) -> None:
    found, _ = bench(adapted, monkeypatch, grid=((8, 1), (100_000, 1), (200_000, 1)))
    short, longest = found.points
    assert short.prompt_tokens == 8 < longest.prompt_tokens < 100_000
    (note,) = found.notes
    assert note.startswith("a prompt of 200,000 tokens and 5 new ones do not fit into the context of")
    assert note.endswith(f"prompts of {longest.prompt_tokens:,} tokens were timed")
