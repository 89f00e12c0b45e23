"""Steps of generation recorded as CUDA graphs: a step is one launch instead of a thousand.

A model's step on a GPU takes the host longer than the device, whatever the number of rows: at 1B parameters, 1,100 kernels in 15 ms.
A graph replays them without the host. Its shapes are fixed, so it is recorded for a few numbers of rows and widths of the cache, and
used with the next larger ones; rows that are not in use compute something that nobody reads. A model whose step cannot be recorded,
because it decides something on the host, runs step by step as before.
"""

from __future__ import annotations

import gc
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress

import torch
from torch import Tensor

from harness.engine.attention import use_attention
from harness.engine.prefix_cache import Prefixes
from harness.engine.self_check import TOLERANCE
from harness.engine.slot_cache import NAME, SlotCache

StepWork = Callable[[], Tensor]
Record = Callable[[StepWork], StepWork]
"""Records some work that is done in the same memory each time, and returns what does it again."""

_ROWS = (1, 4, 8, 16, 32, 64, 96, 128, 192, 256, 384, 512)
_WIDTH = 128
"""Widths of the cache are rounded up to multiples of this."""
_USES = 5
"""A step of new shapes is recorded when it is made for the fifth time: recording takes as long as four steps."""


class StepGraphs:
    """Makes the steps of one slot cache.

    Args:
        prefixes: The model, with the prefix of the slots entered.
        slot_cache: The rows.
        record: Records a step.
    """

    def __init__(self, prefixes: Prefixes, slot_cache: SlotCache, record: Record) -> None:
        self._prefixes, self._cache, self._record = prefixes, slot_cache, record
        self._ids = torch.zeros(slot_cache.slots, 1, dtype=torch.long, device=prefixes.device)
        self._steps: dict[tuple[int, int], StepWork] = {}
        self._made: Counter[tuple[int, int]] = Counter()
        self._logits = torch.empty(0)
        """`[slots, vocabulary]`, into which all recorded steps write, so that none keeps memory of its own for them."""
        self._works = True

    def step(self, ids: Sequence[int]) -> Tensor:
        """Feeds each row one more token.

        Args:
            ids: The token of each row.

        Returns:
            `[rows, vocabulary]` float32 logits after it; the next step overwrites them.
        """
        cache, rows = self._cache, self._cache.rows
        self._ids[:rows] = torch.tensor(ids)[:, None].to(self._ids.device, non_blocking=True)
        shape = self._shape(rows)
        self._made[shape] += 1
        if self._works and shape not in self._steps and self._made[shape] >= _USES:
            self._add(shape)
        logits = self._steps.get(shape, lambda: self._forward(*shape))()[:rows]
        cache.advance()
        return logits

    def _shape(self, rows: int) -> tuple[int, int]:
        """Numbers of rows and of tokens in the cache with which a step of some rows is made."""
        width = -(-(max(self._cache.filled) + 1) // _WIDTH) * _WIDTH
        fitting = next((count for count in _ROWS if count >= rows), rows)
        return min(fitting, self._cache.slots), min(width, self._cache.length)

    def _forward(self, rows: int, width: int) -> Tensor:
        self._cache.prepare(rows, width)
        with use_attention(self._prefixes.config, NAME, self._cache):
            output = self._prefixes.model(
                input_ids=self._ids[:rows],
                position_ids=self._cache.at[:, None] + self._prefixes.length,
                attention_mask=self._prefixes.unmasked(),
                use_cache=False,
            )
        logits: Tensor = output.logits[:, -1].float()
        return logits

    def _add(self, shape: tuple[int, int]) -> None:
        """Records the step of a shape, and checks that it gives what the step itself gives.

        A step that cannot be recorded, or not for lack of memory, is made as before, and no further ones are recorded.
        """
        expected = self._forward(*shape)
        if not len(self._logits):
            self._logits = expected.new_empty(self._cache.slots, expected.shape[-1])
        expected, kept = expected[: self._cache.rows], self._logits[: len(expected)]
        try:
            recorded = self._record(lambda: kept.copy_(self._forward(*shape)))
            logits = recorded()[: self._cache.rows]
            apart = float((logits - expected).norm() / (expected - expected.mean(-1, keepdim=True)).norm())
        except (RuntimeError, ValueError, TypeError):
            self._works = False
            return
        self._works = apart <= TOLERANCE.get(self._prefixes.model.dtype, TOLERANCE[torch.bfloat16])
        if self._works:
            self._steps[shape] = recorded


def cuda_recorder(device: torch.device) -> Record | None:
    """Returns a recorder of steps for a device; None where there is nothing to record with."""
    if device.type != "cuda":
        return None
    pool = torch.cuda.graph_pool_handle()
    # one for all steps: memory of the pool, and the workspaces of libraries, belong to a stream
    stream = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]

    def record(work: StepWork) -> StepWork:
        stream.wait_stream(torch.cuda.current_stream(device))
        with torch.cuda.stream(stream), _refusing_to_wait():
            work()  # libraries set up their workspaces for a stream at its first use
        torch.cuda.current_stream(device).wait_stream(stream)
        torch.cuda.synchronize(device)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.stream(stream), _without_collections():
            graph.capture_begin(pool=pool)
            try:
                logits = work()
            finally:
                _end(graph, pool, device)

        def replay() -> Tensor:
            graph.replay()
            return logits

        return replay

    return record


@contextmanager
def _refusing_to_wait() -> Iterator[None]:
    """Context manager inside which a step fails that makes the host wait for the GPU.

    It could not be recorded either; but a recording that fails leaves torch's generator of random numbers, and until torch 2.12
    its allocator, in a state in which dropout and `empty_cache` fail later in the process.
    """
    before = torch.cuda.get_sync_debug_mode()
    torch.cuda.set_sync_debug_mode("error")
    try:
        yield
    finally:
        torch.cuda.set_sync_debug_mode(before)


@contextmanager
def _without_collections() -> Iterator[None]:
    """Context manager inside which no garbage is collected by itself: freeing another graph would end the recording.

    `torch.cuda.graph` would collect it before each recording, which takes half a second of the host.
    """
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


def _end(graph: torch.cuda.CUDAGraph, pool: tuple[int, int], device: torch.device) -> None:
    """Ends a recording; after one that failed, torch before 2.12 would count it as running for ever."""
    try:
        graph.capture_end()
    except RuntimeError:
        with suppress(RuntimeError, AttributeError):  # newer versions have done it
            torch._C._cuda_endAllocateToPool(torch.cuda._utils._get_device_index(device, optional=True), pool)
        raise
