"""The grid of `harness bench`: known delays of a fake model come back as TTFT, percentiles and tokens per second."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from harness.comparison.latency_record import inference_record, latency_point
from harness.jobs import BenchJob, Recipe, TimedPoint
from harness.models.measure import Latency, Stopwatch, latency
from harness.report.tables import latency as latency_table
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
    assert point.ttft_seconds is not None
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
    assert point.ttft_seconds is not None and point.ttft_seconds.value == 0.4
    assert point.decode_seconds_per_token_p99 is point.tokens_per_second is None


def bench(
    recipe: Recipe, monkeypatch: pytest.MonkeyPatch, too_large: Any = lambda ours, tokens, rows: False, **settings: Any
) -> tuple[Any, list[Any]]:
    """Times a grid with a fake latency: 1 ms for each token of the prompts and 10 ms for a step; the variant takes twice that.

    Args:
        recipe: The variant.
        monkeypatch: Of the test.
        too_large: Whether memory runs out, for the variant or the base, at a prompt length and batch size.
        **settings: Of the job.
    """
    measured: list[Any] = []
    variants: list[Any] = []

    def fake(model: Any, ids: Any, new_tokens: int, watch: Any) -> Latency:
        if "beside" in settings and not variants:
            variants.append(model)  # it is measured alone before the base is loaded
        ours = model in variants or hasattr(model, "peft_config")
        measured.append((ours, *ids.shape[::-1], new_tokens))
        if too_large(ours, *ids.shape[::-1]):
            raise RuntimeError("CUDA out of memory. Tried to allocate 9 GiB")
        return Latency(0.001 * ids.numel() * (1 + ours), (0.01 * (1 + ours),) * new_tokens)

    monkeypatch.setattr(timing, "latency", fake)
    with_base = "beside" not in settings
    return time_variant(BenchJob(recipe, with_base, **({"new_tokens": 5, "repeats": 3} | settings))), measured


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


GRID = ((4, 1), (4, 2), (16, 2))


def test_a_point_that_runs_out_of_memory_leaves_the_others(adapted: Recipe, monkeypatch: pytest.MonkeyPatch) -> None:
    found, measured = bench(adapted, monkeypatch, lambda ours, *point: ours and point == (4, 1), grid=GRID)
    assert [point.error for point in found.points] == ["out of memory", None, None]
    assert measured.count((True, 4, 1, 5)) + measured.count((True, 4, 1, 4)) == 1  # it is not tried again
    assert found.prefill_seconds == found.points[1].prefill_seconds == pytest.approx([0.016] * 3)
    assert dict(found.throughput) == pytest.approx({2: 100})
    record = inference_record(found)
    assert record.batch_size == 2 and record.points[0].ttft_seconds is None
    inference = SimpleNamespace(inference=record, name="lora", train=None)
    table = latency_table(SimpleNamespace(variants=[inference]))  # type: ignore[arg-type]
    assert table.rows[0].cells[0].text == "out of memory" and "ms" in table.rows[1].cells[0].text


def test_where_the_base_runs_out_of_memory_there_is_no_ratio(adapted: Recipe, monkeypatch: pytest.MonkeyPatch) -> None:
    found, _ = bench(adapted, monkeypatch, lambda ours, *point: not ours and point == (16, 2), grid=GRID)
    assert [point.error for point in found.points] == [None] * 3
    assert [len(point.base_prefill_seconds) for point in found.points] == [3, 3, 0]
    assert len(found.points[2].prefill_seconds) == 3
    assert found.notes == ("the base ran out of memory at 16×2: there is no ratio",)


def test_a_variant_without_any_point_fails(adapted: Recipe, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(MemoryError):
        bench(adapted, monkeypatch, lambda ours, *point: ours, grid=GRID)
    found, _ = bench(adapted, monkeypatch, lambda ours, tokens, rows: rows == 8)  # `compare`: a batch size alone
    assert dict(found.throughput) == pytest.approx({1: 50}) and found.notes == (
        "8 prompts at a time ran out of memory",
    )


def test_a_variant_with_weights_of_its_own_is_timed_in_turn_with_the_base(
    adapted: Recipe, monkeypatch: pytest.MonkeyPatch
) -> None:
    merged = replace(adapted, merged=True)
    found, measured = bench(merged, monkeypatch, grid=GRID, beside=adapted.base)
    turns = [ours for ours, *point in measured if point == [16, 2, 5]]
    assert turns == [True, False, True, True, False, False, True]  # first alone, for its memory
    last = found.points[-1]
    assert last.prefill_seconds == pytest.approx([0.064] * 3) and last.base_prefill_seconds == pytest.approx(
        [0.032] * 3
    )
    assert found.notes == () and found.peaks["peak_rss_bytes"] is not None


def test_where_both_do_not_fit_the_variant_is_timed_alone_and_it_is_said(
    adapted: Recipe, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(timing, "free_bytes", lambda device: 1_000)
    found, measured = bench(replace(adapted, merged=True), monkeypatch, grid=GRID, beside=adapted.base)
    assert all(ours for ours, *_ in measured) and found.points[0].base_prefill_seconds == ()
    (note,) = found.notes
    assert note.startswith("timed alone, not in turn with the base: its weights need") and "are free" in note
