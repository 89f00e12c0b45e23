"""Measures time, memory, latency and energy: small tools, each testable against a fake.

Seconds come from an injected clock, after an injected synchronisation; memory from the peak counters of the kernel and of
the CUDA allocator, which are reset when a phase begins.
"""

from __future__ import annotations

import ctypes
import gc
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import torch

from harness.models.soft_prompts import learned_tokens
from harness.sandbox.memory import memory_left
from harness.stats.quantiles import percentile

Clock = Callable[[], float]
Synchronise = Callable[[], None]

_PROC = Path("/proc/self")


def synchroniser(device: str) -> Synchronise:
    """Returns a function that waits until the device has finished its queued work; on CPU it returns at once."""
    if not device.startswith("cuda"):
        return lambda: None
    return lambda: torch.cuda.synchronize(device)


@dataclass
class Stopwatch:
    """Measures wall seconds.

    Example:
        >>> ticks = iter([1.0, 3.5])
        >>> Stopwatch(clock=lambda: next(ticks)).time(lambda: None)
        2.5
    """

    clock: Clock = time.perf_counter
    synchronise: Synchronise = lambda: None

    def time(self, work: Callable[[], object]) -> float:
        """Runs `work` and returns its seconds, including the work it queued on the device."""
        self.synchronise()
        start = self.clock()
        work()
        self.synchronise()
        return self.clock() - start


@dataclass(frozen=True)
class Peaks:
    """Peak memory of a phase; None where the machine has no such memory."""

    peak_rss_bytes: int | None
    """Rise over the baseline, which is the memory of the process after imports and before weights."""
    peak_gpu_allocated_bytes: int | None = None
    peak_gpu_reserved_bytes: int | None = None


def rss_bytes(proc: Path = _PROC) -> int:
    """Resident memory of this process at the moment, read from `/proc`."""
    return _status(proc, "VmRSS")


def free_bytes(device: str | torch.device, proc: Path = Path("/proc")) -> int:
    """Free memory of a device, with what torch keeps of it for later; for the host, what Linux and a container leave to us."""
    if str(device).startswith("cuda"):
        kept = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return int(torch.cuda.mem_get_info(device)[0]) + kept
    try:
        available = _status(proc, "MemAvailable", "meminfo")
    except (OSError, KeyError, ValueError):
        available = 1 << 32
    left = memory_left(proc.parent)
    return available if left is None else min(available, left)


def give_memory_back() -> None:
    """Returns freed memory to the system, so that it does not count as resident; does nothing without glibc."""
    gc.collect()
    with suppress(OSError, AttributeError):
        ctypes.CDLL(None).malloc_trim(0)


class _Meter(ABC):
    """Context manager that measures the work inside it, except for pauses."""

    def __enter__(self) -> Self:
        self._begin()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._end()

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Leaves out the work inside, such as an evaluation."""
        self._end()
        try:
            yield
        finally:
            self._resume()

    @abstractmethod
    def _begin(self) -> None: ...

    @abstractmethod
    def _end(self) -> None: ...

    def _resume(self) -> None:
        self._begin()


class MemoryMeter(_Meter):
    """Context manager that measures the peak memory of the work inside it.

    The kernel's peak counter is reset on entry (`clear_refs`); where that is forbidden, a thread samples resident memory
    every 5 ms.

    Args:
        baseline_bytes: Resident memory after imports and before weights; subtracted.
        device: `cpu` or `cuda…`.
        proc: Folder of the kernel's counters; tests give a fake.

    Example:
        >>> with MemoryMeter(rss_bytes(), "cpu") as meter:
        ...     block = bytearray(64 << 20)
        >>> meter.peaks().peak_rss_bytes > 60 << 20
        True
    """

    def __init__(self, baseline_bytes: int, device: str, proc: Path = _PROC) -> None:
        self._baseline = baseline_bytes
        self._device = device
        self._proc = proc
        self._sampled = self._allocated = self._reserved = 0
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None

    def _resume(self) -> None:
        """Gives back the memory that the work in the pause has freed, so that it does not count."""
        give_memory_back()
        self._begin()

    def _begin(self) -> None:
        if self._device.startswith("cuda"):
            torch.cuda.init()  # type: ignore[no-untyped-call]  # before it there are no counters to reset
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats(self._device)
        try:
            (self._proc / "clear_refs").write_text("5")
        except OSError:
            self._stop.clear()
            self._thread = threading.Thread(target=self._sample, daemon=True)
            self._thread.start()

    def _end(self) -> None:
        if self._device.startswith("cuda"):
            self._allocated = max(self._allocated, torch.cuda.max_memory_allocated(self._device))
            self._reserved = max(self._reserved, torch.cuda.max_memory_reserved(self._device))
        if self._thread is not None:
            self._stop.set()
            self._thread.join()
            self._thread = None
        else:
            self._sampled = max(self._sampled, _status(self._proc, "VmHWM"))

    def peaks(self) -> Peaks:
        """Peak memory of the phase; call it afterwards."""
        rise = max(0, self._sampled - self._baseline)
        on_gpu = self._device.startswith("cuda")
        return Peaks(rise, self._allocated, self._reserved) if on_gpu else Peaks(rise)

    def working_bytes(self) -> int:
        """Bytes by which the peak is above the memory that is in use at the moment."""
        on_gpu = self._device.startswith("cuda")
        peak, now = (
            (self._allocated, torch.cuda.memory_allocated(self._device))
            if on_gpu
            else (self._sampled, rss_bytes(self._proc))
        )
        return max(0, peak - now)

    def _sample(self) -> None:
        while True:
            self._sampled = max(self._sampled, rss_bytes(self._proc))
            if self._stop.wait(0.005):
                return


class EnergyMeter(_Meter):
    """Context manager that reads the joules used inside it from the GPU's driver; None where the driver has no counter."""

    def __init__(self, device: str, read_millijoules: Callable[[], int] | None = None) -> None:
        self._read = read_millijoules or _nvml_reader(device)
        self._start = 0
        self.joules: float | None = None

    def _begin(self) -> None:
        if self._read is not None:
            self._start = self._read()

    def _end(self) -> None:
        if self._read is not None:
            self.joules = (self.joules or 0.0) + (self._read() - self._start) / 1000


@dataclass(frozen=True)
class Latency:
    """Measured seconds of one prefill and the decode steps after it."""

    prefill_seconds: float
    decode_seconds: tuple[float, ...]


@torch.inference_mode()
def latency(model: Any, ids: torch.Tensor, new_tokens: int, watch: Stopwatch) -> Latency:
    """Times one forward pass over the prompt and a decode loop, token by token.

    Args:
        model: A causal language model.
        ids: `[batch, prompt]`.
        new_tokens: Decode steps after the prefill.
        watch: The clock, synchronised with the model's device.
    """
    state: dict[str, Any] = {"model": model, "ids": ids, "cache": None}

    def step() -> None:
        output = state["model"](
            input_ids=state["ids"], past_key_values=state["cache"], use_cache=True, logits_to_keep=1
        )
        state["ids"] = output.logits[:, -1:].argmax(-1)
        state["cache"] = output.past_key_values
        if learned_tokens(model):  # they are in the cache now; peft would add them again before every new token
            state["model"] = model.get_base_model()

    prefill = watch.time(step)
    return Latency(prefill, tuple(watch.time(step) for _ in range(new_tokens)))


def matmul_probe(device: str, watch: Stopwatch, *, size: int = 512, repeats: int = 7) -> float:
    """Median seconds of a fixed matrix product and copy: the current speed of the machine."""
    a = torch.ones(size, size, device=device)
    b = torch.empty_like(a)

    def work() -> None:
        for _ in range(4):
            torch.mm(a, a, out=b)
            b.copy_(a)

    work()
    return percentile([watch.time(work) for _ in range(repeats)], 0.5)


def fast_bfloat16() -> bool:
    """Whether the processor multiplies bfloat16 natively; without that, mixed precision is slower than float32."""
    cpuinfo = Path("/proc/cpuinfo")
    flags = cpuinfo.read_text() if cpuinfo.is_file() else ""
    return "avx512_bf16" in flags or "amx_bf16" in flags


def _status(proc: Path, key: str, file: str = "status") -> int:
    for line in (proc / file).read_text().splitlines():
        if line.startswith(key + ":"):
            return int(line.split()[1]) * 1024
    raise KeyError(f"{key} is not in {proc / file}")


def _nvml_reader(device: str) -> Callable[[], int] | None:
    if not device.startswith("cuda"):
        return None
    with suppress(Exception):  # no driver library, or a GPU without an energy counter
        import pynvml

        pynvml.nvmlInit()
        # not by its number, which CUDA_VISIBLE_DEVICES and the order of CUDA change
        handle = pynvml.nvmlDeviceGetHandleByUUID(
            f"GPU-{str(torch.cuda.get_device_properties(device).uuid).removeprefix('GPU-')}"
        )
        pynvml.nvmlDeviceGetTotalEnergyConsumption(handle)
        return lambda: int(pynvml.nvmlDeviceGetTotalEnergyConsumption(handle))
    return None
