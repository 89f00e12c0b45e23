"""Times one variant in a child process: load, prefill and decode seconds, memory, and how busy the machine was.

A variant that shares its weights with the bare base is timed in turn with it (base, variant; variant, base; …): a change
of the machine's speed affects both, so a few repeats tell their ratio. Repeats end when the ratio is known precisely
enough, or when the time for them is over. `harness bench` measures a grid of prompt lengths and batch sizes in every repeat,
and loads the bare base beside a variant that has weights of its own, if both fit. Where memory runs out at a point of the grid,
the others are timed.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch

from harness.errors import is_out_of_memory
from harness.jobs import Advanced, Base, Benched, BenchJob, Recipe, Stopped, TimedPoint
from harness.models.load import Resident, context_length, count_parameters, method_function
from harness.models.measure import (
    Latency,
    MemoryMeter,
    Stopwatch,
    free_bytes,
    give_memory_back,
    latency,
    matmul_probe,
    rss_bytes,
    synchroniser,
)
from harness.models.processor import ProcessorMeter
from harness.models.reward_head import has_reward_head
from harness.stats.quantiles import percentile
from harness.stats.ratios import paired_ratio, spread_of
from harness.tokens.tokenizer import load_tokenizer
from harness.worker.child import Send, import_architecture, threads

_FEWEST = 3
"""Repeats before the width of an interval may end the timing."""
_SHARE = 0.9
"""Share of the free memory that the base may take beside a variant."""
_SECONDS_BETWEEN_EVENTS = 1.0
_SECONDS_TO_DRAW = 0.02
"""Pause after an event: the parent draws the progress, and the next repeat is not disturbed."""


def time_variant(
    job: BenchJob, send: Send = lambda event: None, clock: Callable[[], float] = time.monotonic
) -> Benched:
    """Times one variant; with `job.with_base`, in turn with the bare base.

    Args:
        job: The job.
        send: Receives the progress, at most once a second.
        clock: Seconds of the budget.
    """
    began = clock()

    def left() -> float:
        return math.inf if job.budget_seconds is None else job.budget_seconds - (clock() - began)

    torch.set_num_threads(threads())
    base = job.recipe.base
    import_architecture(base)
    memory, watch = MemoryMeter(rss_bytes(), base.device), Stopwatch(synchronise=synchroniser(base.device))
    tokenizer = load_tokenizer(base.folder, trust_remote_code=base.trust_remote_code)
    bench = _Bench(job, watch, clock)
    with memory:
        load_seconds = watch.time(lambda: bench.use(job.recipe))
        bench.make_prompts(tokenizer)
        if job.beside is None:
            stopped, drift = bench.run(left, send)
        else:
            bench.measure(job.recipe, bench.new_tokens)  # the peak is that of the variant alone
    if job.beside is not None:
        bench.add_base(job.beside, memory)
        stopped, drift = bench.run(left, send)
    points = bench.timed()
    first = next(point for point in points if point.error is None)
    return Benched(
        load_seconds,
        first.prompt_tokens,
        bench.new_tokens,
        first.prefill_seconds,
        first.decode_seconds,
        first.base_prefill_seconds,
        first.base_decode_seconds,
        bench.grid_throughput() if job.grid else bench.throughput(left),
        drift,
        job.warmup,
        len(bench.ours),
        vars(memory.peaks()),
        stopped,
        bench.processor.use.cpu_seconds,
        bench.processor.use.waited_share,
        points if job.grid else (),
        tuple(bench.notes),
    )


Point = tuple[int, int]
"""Tokens of a prompt, and rows of a batch."""


@dataclass
class _Bench:
    """A variant at work: its model, its random prompts, and the latencies of the repeats so far."""

    job: BenchJob
    watch: Stopwatch
    clock: Callable[[], float]
    ours: list[dict[Point, Latency]] = field(default_factory=list)
    bases: list[dict[Point, Latency]] = field(default_factory=list)
    """Latencies of the bare base, one for each of `ours`; empty if the variant is timed alone."""
    processor: ProcessorMeter = field(default_factory=ProcessorMeter)
    new_tokens: int = 0
    points: tuple[Point, ...] = ()
    """The points that every repeat measures."""
    base: Recipe | None = None
    """The bare base, if it is timed in turn."""
    out_of_memory: set[tuple[Recipe, Point]] = field(default_factory=set)
    """Where memory ran out: these points are not measured again."""
    notes: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._residents: dict[bool, Resident] = {}
        self._attached: dict[bool, tuple[Recipe, Any]] = {}
        self.base = Recipe(self.job.recipe.base) if self.job.with_base else None

    def use(self, recipe: Recipe) -> Any:
        """Attaches a recipe's variant if another one is attached, and returns its model."""
        is_beside = self.job.beside is not None and recipe == self.base  # in weights of its own
        if is_beside not in self._residents:
            self._residents[is_beside] = Resident(recipe.base, method_function)
        attached = self._attached.pop(is_beside, None)
        if attached is None or attached[0] != recipe:
            attached = None  # a merged model would be in memory twice
            attached = recipe, self._residents[is_beside].attach(recipe)
        self._attached[is_beside] = attached
        return attached[1]

    def add_base(self, beside: Base, memory: MemoryMeter) -> None:
        """Loads the bare base in weights of its own, if it fits beside the variant; a note says why it does not.

        Args:
            beside: The bare base.
            memory: Has measured the variant alone.
        """
        needed = count_parameters(self.use(self.job.recipe))[0] * getattr(torch, beside.dtype).itemsize
        free = free_bytes(beside.device) - memory.working_bytes()
        if needed <= _SHARE * free:
            self.base = Recipe(beside)
            try:
                self.use(self.base)
                return
            except (RuntimeError, MemoryError) as error:
                if not is_out_of_memory(error):
                    raise
            del self._residents[True]
            self.base = None
        self.notes.append(
            f"timed alone, not in turn with the base: its weights need {needed / 1e9:.1f} GB, and {max(0, free) / 1e9:.1f} GB are"
            " free beside this variant"
        )

    def make_prompts(self, tokenizer: Any) -> None:
        """Draws the prompts; they and the generated tokens fit into the model's context."""
        job, model = self.job, self.use(self.job.recipe)
        context = context_length(model, tokenizer)
        self.new_tokens = 0 if has_reward_head(model) else min(job.new_tokens, max(1, context // 4))
        room = context - self.new_tokens
        asked = job.grid or [(job.prompt_tokens, 1)]
        self.points = tuple(dict.fromkeys((min(tokens, room), rows) for tokens, rows in asked))
        if job.grid and (longest := max(tokens for tokens, _ in asked)) > room:
            self.notes.append(
                f"a prompt of {longest:,} tokens and {self.new_tokens} new ones do not fit into the context of {context:,}:"
                f" prompts of {room:,} tokens were timed"
            )
        vocabulary = model.config.get_text_config().vocab_size
        rows = max(*(rows for _, rows in self.points), *(() if job.grid else job.batch_sizes), 1)
        shape = (rows, max(tokens for tokens, _ in self.points))
        generator = torch.Generator().manual_seed(job.seed)
        self._ids = torch.randint(0, vocabulary, shape, generator=generator).to(job.recipe.base.device)

    def run(self, left: Callable[[], float], send: Send) -> tuple[Stopped, float]:
        """Measures repeats between two probes of the machine; returns why they ended, and the drift of its speed."""
        device = self.job.recipe.base.device
        before = matmul_probe(device, self.watch)
        stopped = self.repeat(left, send)
        return stopped, abs(matmul_probe(device, self.watch) / before - 1)

    def repeat(self, left: Callable[[], float], send: Send) -> Stopped:
        """Measures repeats, after short ones that warm up, until they are precise, all made, or out of time."""
        turns = [self.base, self.job.recipe] if self.base is not None else [self.job.recipe]
        for _ in range(self.job.warmup):
            for recipe in turns:
                self.measure(recipe, min(self.new_tokens, 4))
        longest = told = 0.0
        while len(self.ours) < self.job.repeats:
            if self.ours and left() < longest:
                return "budget"
            self.processor.begin()
            began = self.clock()
            measured = {recipe: self.measure(recipe, self.new_tokens) for recipe in turns}
            longest = max(longest, self.clock() - began)
            self.processor.end()
            self.ours.append(measured[self.job.recipe])
            if self.base is not None:
                self.bases.append(measured[self.base])
            turns.reverse()
            precision = self._precision()
            if self.job.precision is not None and precision <= self.job.precision:
                return "precise"
            if self.clock() - told >= _SECONDS_BETWEEN_EVENTS:
                note = "" if math.isinf(precision) else f"±{precision:.0%}"
                send(Advanced(len(self.ours), self.job.repeats, note))
                time.sleep(_SECONDS_TO_DRAW)
                told = self.clock()
        return "repeats"

    def timed(self) -> tuple[TimedPoint, ...]:
        """Collects the measured seconds by point, in the order of the repeats."""
        return tuple(self._timed(point) for point in self.points)

    def _timed(self, point: Point) -> TimedPoint:
        if (self.job.recipe, point) in self.out_of_memory:
            return TimedPoint(*point, (), (), error="out of memory")
        return TimedPoint(*point, *_seconds(self.ours, point), *_seconds(self._bases(point), point))

    def _bases(self, point: Point) -> list[dict[Point, Latency]]:
        """The repeats of the base at a point: none if it is not timed in turn, or if memory ran out."""
        return [] if (self.base, point) in self.out_of_memory else self.bases

    def grid_throughput(self) -> tuple[tuple[int, float], ...]:
        """Computes (batch size, generated tokens per second) from the repeats, at the prompt length of the first point."""
        if not self.new_tokens:
            return ()
        alive = self._alive(self.job.recipe)
        at_first = [point for point in alive if point[0] == alive[0][0]]
        return tuple(
            (point[1], point[1] * self.new_tokens / percentile([sum(r[point].decode_seconds) for r in self.ours], 0.5))
            for point in at_first
        )

    def throughput(self, left: Callable[[], float]) -> tuple[tuple[int, float], ...]:
        """Measures (batch size, generated tokens per second), for the batch sizes for which there is time left."""
        found: list[tuple[int, float]] = []
        if not self.new_tokens:
            return ()
        (point,) = self.points
        one = percentile([each[point].prefill_seconds + sum(each[point].decode_seconds) for each in self.ours], 0.5)
        for size in self.job.batch_sizes:
            if left() < 2 * size * one:  # at most: a batch is faster than its rows one by one
                break
            warm = self._latency(self.job.recipe, (point[0], size), 1)
            timed = warm and self._latency(self.job.recipe, (point[0], size), self.new_tokens)
            if timed is None:
                self.notes.append(f"{size} prompts at a time ran out of memory")
                break
            found.append((size, size * self.new_tokens / sum(timed.decode_seconds)))
        return tuple(found)

    def measure(self, recipe: Recipe, new_tokens: int) -> dict[Point, Latency]:
        """Measures every point once, but those where memory runs out; attaching a variant is not timed.

        Raises:
            MemoryError: It runs out at every point.
        """
        measured = {}
        for point in self._alive(recipe):
            found = self._latency(recipe, point, new_tokens)
            if found is not None:
                measured[point] = found
            elif recipe == self.base:
                self.notes.append(f"the base ran out of memory at {point[0]:,}×{point[1]}: there is no ratio")
        if not measured and recipe == self.job.recipe:
            raise MemoryError("out of memory")
        return measured

    def _alive(self, recipe: Recipe) -> list[Point]:
        """The points at which memory has run out neither for the variant nor for `recipe`."""
        return [point for point in self.points if not {(recipe, point), (self.job.recipe, point)} & self.out_of_memory]

    def _latency(self, recipe: Recipe, point: Point, new_tokens: int) -> Latency | None:
        """Measures a point once; None if memory runs out."""
        tokens, rows = point
        try:
            return latency(self.use(recipe), self._ids[:rows, :tokens], new_tokens, self.watch)
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
        self.out_of_memory.add((recipe, point))
        give_memory_back()  # after the exception, which holds tensors
        if self.job.recipe.base.device.startswith("cuda"):
            torch.cuda.empty_cache()
        return None

    def _precision(self) -> float:
        """Half the width of the widest 95 % interval, as a share of the value: of the ratios, or of the times alone."""
        if len(self.ours) < _FEWEST:
            return math.inf
        pairs = [
            [[read(each[point]) for each in side] for side in (self.ours, self._bases(point))]
            for point in self._alive(self.job.recipe)
            for read in ((_prefill, _decode) if self.new_tokens else (_prefill,))
        ]
        return max(paired_ratio(ours, bases).precision if bases else spread_of(ours) for ours, bases in pairs)


def _seconds(side: Sequence[dict[Point, Latency]], point: Point) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """The seconds of the prefills, and of all decode steps, at a point."""
    measured = [each[point] for each in side]
    return (
        tuple(each.prefill_seconds for each in measured),
        tuple(step for each in measured for step in each.decode_seconds),
    )


def _prefill(measured: Latency) -> float:
    return measured.prefill_seconds


def _decode(measured: Latency) -> float:
    return percentile(measured.decode_seconds, 0.5)
