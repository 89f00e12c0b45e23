"""Times one variant in a child process: load, prefill and decode seconds, memory, and how busy the machine was.

A variant that shares its weights with the bare base is timed in turn with it (base, variant; variant, base; …): a change
of the machine's speed affects both, so a few repeats tell their ratio. Repeats end when the ratio is known precisely
enough, or when the time for them is over. `harness bench` measures a grid of prompt lengths and batch sizes in every repeat.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch

from harness.jobs import Advanced, Benched, BenchJob, Recipe, Stopped, TimedPoint
from harness.models.load import Resident, context_length, method_function
from harness.models.measure import Latency, MemoryMeter, Stopwatch, latency, matmul_probe, rss_bytes, synchroniser
from harness.models.processor import ProcessorMeter
from harness.models.reward_head import has_reward_head
from harness.stats.quantiles import percentile
from harness.stats.ratios import paired_ratio, spread_of
from harness.tokens.tokenizer import load_tokenizer
from harness.worker.child import Send, import_architecture, threads

_FEWEST = 3
"""Repeats before the width of an interval may end the timing."""
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
        before = matmul_probe(base.device, watch)
        stopped = bench.repeat(left, send)
        drift = abs(matmul_probe(base.device, watch) / before - 1)
    first = bench.timed()[0]
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
        bench.timed() if job.grid else (),
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
    notes: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._resident = Resident(self.job.recipe.base, method_function)
        self._attached: Recipe | None = None
        self._model: Any = None

    def use(self, recipe: Recipe) -> Any:
        """Attaches a recipe's variant if another one is attached, and returns its model."""
        if self._attached != recipe:
            self._model = None  # a merged model would be in memory twice
            self._model, self._attached = self._resident.attach(recipe), recipe
        return self._model

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

    def repeat(self, left: Callable[[], float], send: Send) -> Stopped:
        """Measures repeats, after short ones that warm up, until they are precise, all made, or out of time."""
        base = Recipe(self.job.recipe.base)
        turns = [base, self.job.recipe] if self.job.with_base else [self.job.recipe]
        for _ in range(self.job.warmup):
            for recipe in turns:
                self._measure(recipe, min(self.new_tokens, 4))
        longest = told = 0.0
        while len(self.ours) < self.job.repeats:
            if self.ours and left() < longest:
                return "budget"
            self.processor.begin()
            began = self.clock()
            measured = {recipe: self._measure(recipe, self.new_tokens) for recipe in turns}
            longest = max(longest, self.clock() - began)
            self.processor.end()
            self.ours.append(measured[self.job.recipe])
            if self.job.with_base:
                self.bases.append(measured[base])
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
        return tuple(
            TimedPoint(
                *point,
                *(
                    tuple(seconds)
                    for side in (self.ours, self.bases)
                    for seconds in (
                        [each[point].prefill_seconds for each in side],
                        [step for each in side for step in each[point].decode_seconds],
                    )
                ),
            )
            for point in self.points
        )

    def grid_throughput(self) -> tuple[tuple[int, float], ...]:
        """Computes (batch size, generated tokens per second) from the repeats, at the prompt length of the first point."""
        if not self.new_tokens:
            return ()
        at_first = [point for point in self.points if point[0] == self.points[0][0]]
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
            self._latency(self.job.recipe, (point[0], size), 1)  # warms up
            timed = self._latency(self.job.recipe, (point[0], size), self.new_tokens)
            found.append((size, size * self.new_tokens / sum(timed.decode_seconds)))
        return tuple(found)

    def _measure(self, recipe: Recipe, new_tokens: int) -> dict[Point, Latency]:
        """Measures every point once; attaching a variant is not timed."""
        return {point: self._latency(recipe, point, new_tokens) for point in self.points}

    def _latency(self, recipe: Recipe, point: Point, new_tokens: int) -> Latency:
        tokens, rows = point
        return latency(self.use(recipe), self._ids[:rows, :tokens], new_tokens, self.watch)

    def _precision(self) -> float:
        """Half the width of the widest 95 % interval, as a share of the value: of the ratios, or of the times alone."""
        if len(self.ours) < _FEWEST:
            return math.inf
        pairs = [
            [[read(each[point]) for each in side] for side in (self.ours, self.bases)]
            for point in self.points
            for read in ((_prefill, _decode) if self.new_tokens else (_prefill,))
        ]
        return max(paired_ratio(ours, bases).precision if bases else spread_of(ours) for ours, bases in pairs)


def _prefill(measured: Latency) -> float:
    return measured.prefill_seconds


def _decode(measured: Latency) -> float:
    return percentile(measured.decode_seconds, 0.5)
