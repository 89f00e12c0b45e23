"""Clocks, meters and probes against fakes with known results."""

import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from harness.models import measure
from harness.models.measure import EnergyMeter, Latency, MemoryMeter, Peaks, Stopwatch, latency, matmul_probe, rss_bytes
from harness.stats.quantiles import percentile

MIB = 1 << 20


class Clock:
    """A clock that stands still until a test moves it."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now

    def passes(self, seconds: float) -> None:
        self.now += seconds


def test_a_stopwatch_waits_for_the_device_before_it_starts_and_before_it_stops() -> None:
    clock, queued, log = Clock(), [3.0], []

    def synchronise() -> None:
        log.append("wait")
        while queued:
            clock.passes(queued.pop())

    def work() -> None:
        log.append("work")
        clock.passes(0.5)
        queued.append(2.0)

    assert Stopwatch(clock, synchronise).time(work) == 2.5
    assert log == ["wait", "work", "wait"]


@given(st.lists(st.floats(0, 1e6), min_size=1, max_size=40), st.floats(0, 1))
def test_a_percentile_is_numpys(values: list[float], share: float) -> None:
    import numpy

    assert percentile(values, share) == pytest.approx(float(numpy.quantile(values, share)), rel=1e-9, abs=1e-9)


# Memory


@pytest.fixture
def proc(tmp_path: Path) -> Path:
    (tmp_path / "clear_refs").write_text("")
    write_status(tmp_path, hwm=0, rss=0)
    return tmp_path


def write_status(proc: Path, **kilobytes: int) -> None:
    lines = [f"Vm{key.upper()}:\t{value:8d} kB\n" for key, value in kilobytes.items()]
    (proc / "new").write_text("Name:\tpython\n" + "".join(lines))
    (proc / "new").replace(proc / "status")


def test_the_peak_is_the_kernels_counter_above_the_baseline(proc: Path) -> None:
    meter = MemoryMeter(100 * 1024, "cpu", proc)
    with meter:
        assert (proc / "clear_refs").read_text() == "5", "the counter is reset when the phase begins"
        write_status(proc, hwm=350, rss=120)
    assert meter.peaks() == Peaks(250 * 1024)


def test_a_phase_below_the_baseline_has_no_rise(proc: Path) -> None:
    with MemoryMeter(100 * 1024, "cpu", proc) as meter:
        write_status(proc, hwm=90, rss=90)
    assert meter.peaks().peak_rss_bytes == 0


def test_memory_is_sampled_if_the_counter_cannot_be_reset_and_the_thread_ends(proc: Path) -> None:
    (proc / "clear_refs").unlink()
    (proc / "clear_refs").mkdir()  # nobody can write to a folder, not even root
    threads = threading.active_count()
    meter = MemoryMeter(100 * 1024, "cpu", proc)
    seen = rises(meter, 400 * 1024)
    with meter:
        write_status(proc, hwm=9999, rss=500)
        seen()
        write_status(proc, hwm=9999, rss=200)
    assert meter.peaks() == Peaks(400 * 1024), "the counter, which is older than the phase, is ignored"
    assert threading.active_count() == threads


def rises(meter: MemoryMeter, rise: int) -> Callable[[], None]:
    """Waits until the meter has noticed a rise."""

    def wait() -> None:
        deadline = time.monotonic() + 20
        while meter.peaks().peak_rss_bytes != rise:
            assert time.monotonic() < deadline
            time.sleep(0.002)

    return wait


def test_a_pause_is_left_out_of_the_peak(proc: Path) -> None:
    with MemoryMeter(0, "cpu", proc) as meter:
        write_status(proc, hwm=300, rss=200)
        with meter.paused():
            (proc / "clear_refs").write_text("")
            write_status(proc, hwm=900, rss=250)
        assert (proc / "clear_refs").read_text() == "5", "the counter is reset when the pause ends"
        write_status(proc, hwm=250, rss=250)
    assert meter.peaks() == Peaks(300 * 1024)


def test_memory_used_and_freed_in_a_pause_is_not_measured() -> None:
    with MemoryMeter(rss_bytes(), "cpu") as meter:
        block = b"\2" * (64 * MIB)
        del block
        with meter.paused():
            pieces = [bytes([index % 256]) * 50_000 for index in range(6000)]  # too small for pages of their own
            del pieces
    assert 60 * MIB < (meter.peaks().peak_rss_bytes or 0) < 100 * MIB


def test_a_pause_is_left_out_of_the_energy() -> None:
    counter: Iterator[int] = iter([1000, 4000, 9000, 10_000])
    with EnergyMeter("cuda:0", lambda: next(counter)) as meter, meter.paused():
        pass
    assert meter.joules == 4.0


def test_a_block_of_64_mib_is_measured_and_earlier_memory_is_not() -> None:
    before = b"\1" * (128 * MIB)
    del before
    with MemoryMeter(rss_bytes(), "cpu") as meter:
        block = b"\2" * (64 * MIB)
        time.sleep(0.1)
        del block
    assert 60 * MIB < (meter.peaks().peak_rss_bytes or 0) < 100 * MIB


def test_on_cuda_the_peaks_are_those_of_the_devices_allocator_in_the_phase(
    proc: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[tuple[str, Any]] = []
    values = {"max_memory_allocated": 7, "max_memory_reserved": 9}
    for name in ("init", "empty_cache", "synchronize", "reset_peak_memory_stats", *values):
        monkeypatch.setattr(
            torch.cuda, name, lambda device=None, name=name: calls.append((name, device)) or values.get(name)
        )
    with MemoryMeter(0, "cuda:1", proc) as meter:
        assert calls == [("init", None), ("empty_cache", None), ("reset_peak_memory_stats", "cuda:1")]
        write_status(proc, hwm=2, rss=1)
        calls.clear()
    assert meter.peaks() == Peaks(2048, 7, 9)
    assert calls == [("max_memory_allocated", "cuda:1"), ("max_memory_reserved", "cuda:1")]
    calls.clear()
    measure.synchroniser("cuda:1")()
    measure.synchroniser("cpu")()
    assert calls == [("synchronize", "cuda:1")]


def test_energy_is_that_of_the_gpu_whatever_its_number_is_for_the_driver(monkeypatch: pytest.MonkeyPatch) -> None:
    read = iter((1000, 1000, 4000))  # the first one tries whether there is a counter
    library: Any = ModuleType("pynvml")
    library.nvmlInit = lambda: None
    library.nvmlDeviceGetHandleByUUID = lambda uuid: uuid
    library.nvmlDeviceGetTotalEnergyConsumption = lambda handle: next(read) if handle == "GPU-of-cuda:1" else 0
    monkeypatch.setitem(sys.modules, "pynvml", library)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: SimpleNamespace(uuid=f"of-{device}"))
    with EnergyMeter("cuda:1") as meter:
        pass
    assert meter.joules == 3.0


@pytest.mark.gpu
def test_a_block_on_the_gpu_is_measured() -> None:
    before = torch.cuda.memory_allocated()
    with MemoryMeter(rss_bytes(), "cuda:0") as meter:
        torch.ones(64 * MIB // 4, device="cuda:0").sum().item()
    assert 64 * MIB <= (meter.peaks().peak_gpu_allocated_bytes or 0) - before < 80 * MIB


# Energy


def test_energy_is_the_difference_of_the_drivers_counter() -> None:
    counter: Iterator[int] = iter([1000, 4500])
    with EnergyMeter("cuda:0", lambda: next(counter)) as meter:
        assert meter.joules is None
    assert meter.joules == 3.5


def test_a_processor_has_no_energy_counter() -> None:
    with EnergyMeter("cpu") as meter:
        pass
    assert meter.joules is None


# Latency


class Ticking(torch.nn.Module):
    """A model whose forward pass takes `prompt` seconds for a prompt, and `token` seconds × calls for a token."""

    def __init__(self, clock: Clock, prompt: float, token: float) -> None:
        super().__init__()
        self.clock, self.prompt, self.token = clock, prompt, token
        self.calls: list[tuple[torch.Size, Any]] = []

    def forward(self, input_ids: torch.Tensor, past_key_values: Any, use_cache: bool, logits_to_keep: int) -> Any:
        self.calls.append((input_ids.shape, past_key_values))
        assert use_cache and logits_to_keep == 1
        if past_key_values is not None:
            assert (input_ids == 3).all(), "each step feeds the token of the step before"
        self.clock.passes(self.prompt if past_key_values is None else self.token * len(self.calls))
        logits = torch.zeros(*input_ids.shape, 5)
        logits[:, -1, 3] = 1.0
        return SimpleNamespace(logits=logits, past_key_values=len(self.calls))


def test_latency_is_one_prefill_and_every_decode_step() -> None:
    clock = Clock()
    model = Ticking(clock, prompt=0.5, token=0.25)
    timed = latency(model, torch.ones(2, 7, dtype=torch.long), 3, Stopwatch(clock))
    assert timed == Latency(0.5, (0.5, 0.75, 1.0))
    assert model.calls == [((2, 7), None), ((2, 1), 1), ((2, 1), 2), ((2, 1), 3)]


def test_latency_computes_no_gradients() -> None:
    model = Ticking(Clock(), 0.0, 0.0)
    model.forward = lambda **_: (
        pytest.fail("gradients are on")
        if torch.is_grad_enabled()
        else SimpleNamespace(  # type: ignore[method-assign]
            logits=torch.zeros(1, 1, 5), past_key_values=0
        )
    )
    latency(model, torch.ones(1, 2, dtype=torch.long), 1, Stopwatch())


def test_the_probe_is_the_median_of_its_repeats() -> None:
    clock, seconds = Clock(), iter([9.0, 1.0, 2.0, 3.0])
    pending: list[float] = []

    def synchronise() -> None:
        # called before and after each piece of work: time passes on the second call
        if pending:
            clock.passes(pending.pop())
        else:
            pending.append(next(seconds, 0.0))

    assert matmul_probe("cpu", Stopwatch(clock, synchronise), size=8, repeats=3) == 2.0
