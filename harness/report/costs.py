"""The costs of a variant: the columns of the cost table and the axes of the Pareto plot.

Every measure reads one number from a `Variant`; lower is always better.

Example:
    >>> [measure.name for measure in measures(run)]  # doctest: +SKIP
    ['train', 'peak GPU', 'trainable', 'adapter', 'weights', 'load', 'prefill 512', 'decode/token']
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

from harness.report import numbers
from harness.results import Inference, LatencyPoint, Money, Run, Train, Variant
from harness.stats.quantiles import percentile
from harness.stats.ratios import Ratio, paired_ratio, unpaired_ratio

_WAITED = 0.05
"""Share of waiting for a processor above which a time is marked and not compared."""
_DRIFT = 0.1
"""The same for the change of the machine's speed while a variant is timed alone, without the base in turn."""


@dataclass(frozen=True)
class Measure:
    """One cost: how it is read from a variant and how it is formatted."""

    name: str
    """Column heading."""
    words: str
    """Name within a sentence: `training time`."""
    read: Callable[[Variant], float | None]
    write: Callable[[float | None], str]
    floor: float = 0.0
    """A smaller value is noise: it is shown, but not compared."""
    ratio: Callable[[Variant], Ratio | None] = lambda variant: None
    """Cost relative to the baseline's, with its interval, for measures whose column shows it."""
    busy: Callable[[Variant], bool] = lambda variant: False
    """Whether it is a time that was measured on a busy machine."""

    def comparable(self, variant: Variant) -> float | None:
        """Returns the value, or None if it is unknown, below the floor, or a time measured on a busy machine."""
        value = self.read(variant)
        return None if value is None or value < self.floor or self.busy(variant) else value


def measures(run: Run) -> list[Measure]:
    """Lists the costs of a run in the order of the table: training, the artifact, then inference.

    Peaks are of GPU memory if any was measured, else the increase in resident memory. A measure that no variant has is
    omitted, such as training costs if nothing was trained. Prefill and decode have a ratio to the baseline.
    """
    gpu = any(variant.train and variant.train.peak_gpu_allocated_bytes is not None for variant in run.variants)
    prompt_tokens = {variant.inference.prompt_tokens for variant in run.variants if variant.inference}
    prefill = f"prefill {prompt_tokens.pop()}" if len(prompt_tokens) == 1 else "prefill"

    def trained(read: Callable[..., float | None]) -> Callable[[Variant], float | None]:
        return lambda variant: None if variant.train is None else read(variant.train)

    def timed(read: Callable[[Inference], float | None]) -> Callable[[Variant], float | None]:
        return lambda variant: None if variant.inference is None else read(variant.inference)

    def relative_to_baseline(
        times: Callable[[Inference], list[float]], in_turn: Callable[[Inference], list[float]]
    ) -> Callable[[Variant], Ratio | None]:
        baseline = _baseline(run)

        def ratio(variant: Variant) -> Ratio | None:
            if baseline is None or variant.name == baseline.name or variant.inference is None or timed_busy(variant):
                return None
            own = times(variant.inference)
            # The bare base was timed alternately with the variant in one process, so the machine's drift cancels.
            if own and _is_bare_base(baseline) and (bases := in_turn(variant.inference)):
                return paired_ratio(own, bases)
            if own and baseline.inference and not timed_busy(baseline) and (theirs := times(baseline.inference)):
                return unpaired_ratio(own, theirs)
            return None

        return ratio

    known = [
        Measure(
            "train",
            "training time",
            trained(lambda train: train.train_seconds),
            numbers.seconds,
            busy=lambda variant: variant.train is not None and _is_busy(variant.train),
        ),
        Measure(
            "peak GPU" if gpu else "peak RSS",
            "peak GPU memory in training" if gpu else "peak memory in training",
            trained(lambda train: train.peak_gpu_allocated_bytes if gpu else train.peak_rss_bytes),
            numbers.peak,
            floor=numbers.SMALLEST_PEAK_BYTES,
        ),
        Measure("trainable", "trainable parameters", _trainable, numbers.count),
        Measure(
            "adapter",
            "size on disk",
            lambda variant: None if variant.artifact is None else variant.artifact.bytes,
            numbers.file_size,
        ),
        Measure("weights", "memory of the weights", lambda variant: variant.model_bytes, numbers.memory),
        Measure("load", "load time", timed(lambda inference: inference.load_seconds), numbers.seconds, busy=timed_busy),
        Measure(
            prefill,
            "prefill time",
            timed(lambda inference: inference.prefill_seconds_p50),
            numbers.seconds,
            ratio=relative_to_baseline(
                lambda inference: inference.raw_seconds.get("prefill", []),
                lambda inference: inference.raw_seconds.get("base_prefill", []),
            ),
            busy=timed_busy,
        ),
        Measure(
            "decode/token",
            "time per token",
            timed(lambda inference: inference.decode_seconds_per_token_p50),
            numbers.seconds,
            ratio=relative_to_baseline(
                lambda inference: _by_repeat(inference.raw_seconds.get("decode", []), inference.new_tokens),
                lambda inference: _by_repeat(inference.raw_seconds.get("base_decode", []), inference.new_tokens),
            ),
            busy=timed_busy,
        ),
    ]
    known[1:1] = _money_of_training(run)
    known += _money_of_tokens(run)
    return [measure for measure in known if any(measure.read(variant) is not None for variant in run.variants)]


def latency_ratios(variant: Variant, point: LatencyPoint) -> tuple[Ratio | None, Ratio | None]:
    """Computes the ratios to the bare base, timed in turn: of the first token, and of the median further token."""
    raw, size = point.raw_seconds, variant.inference.new_tokens if variant.inference else 0
    if not raw.get("base_prefill"):
        return None, None
    ours, bases = (_by_repeat(raw.get(name, []), size) for name in ("decode", "base_decode"))
    return paired_ratio(raw["prefill"], raw["base_prefill"]), paired_ratio(ours, bases) if ours else None


def _money_of_training(run: Run) -> list[Measure]:
    unit = run.price.currency if run.price else ""
    return [
        Measure(
            f"train, {unit}",
            f"cost of training ({unit})",
            lambda variant: variant.money.training if variant.money else None,
            numbers.money,
            busy=lambda variant: variant.train is not None and _is_busy(variant.train),
        )
    ]


def _money_of_tokens(run: Run) -> list[Measure]:
    unit = run.price.currency if run.price else ""

    def per_million(what: str, words: str, read: Callable[[Money], float | None]) -> Measure:
        return Measure(
            f"{unit}/M {what}",
            f"cost of a million {words} tokens ({unit})",
            lambda variant: read(variant.money) if variant.money else None,
            numbers.money,
            busy=timed_busy,
        )

    return [
        per_million("in", "prompt", lambda money: money.million_prompt_tokens),
        per_million("out", "generated", lambda money: money.million_generated_tokens),
    ]


def meanings(run: Run) -> Iterator[str]:
    """Says what the columns of the cost table measure, and of which tokens and bytes."""
    trained = [variant.train for variant in run.variants if variant.train]
    timed = [variant.inference for variant in run.variants if variant.inference]
    if any(train.precision for train in trained):
        yield (
            "cost of training: seconds of the steps alone, peak memory during them, trained parameters, bytes of the saved"
            " result on disk; weights: the model's memory while it is scored"
        )
    if any(train.precision for train in trained) and timed:
        longest = max(inference.prompt_tokens for inference in timed)
        in_turn = any(inference.raw_seconds.get("base_prefill") for inference in timed)
        yield (
            f"cost of use: one random prompt of {longest:,} tokens at a time; prefill reads it up to the first new token,"
            " decode/token generates one further token"
            + ("; × is the ratio to the base, timed again in turn with each adapter" if in_turn else "")
        )
    compared = [(variant.name, both) for variant in run.variants if variant.train and (both := _peaks(variant.train))]
    if compared:
        listed = "; ".join(f"{name} {numbers.memory(p)} and {numbers.memory(m)}" for name, (p, m) in compared)
        on_gpu = any(train.peak_gpu_allocated_bytes is not None for train in trained)
        libraries = "" if on_gpu else " (of tensors alone; on a CPU, libraries take some hundred MB besides)"
        yield f"peak memory in training, predicted and measured: {listed}{libraries}"
    times = [(v.name, v.train.predicted_seconds, v.train.train_seconds) for v in run.variants if v.train]
    if listed := "; ".join(
        f"{name} {numbers.seconds(predicted)} and {numbers.seconds(measured)}"
        for name, predicted, measured in times
        if predicted is not None
    ):
        yield (
            f"training time, predicted and measured: {listed} (the prediction is operations divided by this machine's speed in"
            " steps of a copy with one layer, measured after training)"
        )
    if any(inference.points for inference in timed):
        repeats = max(inference.repeats for inference in timed)
        yield (
            "latency: tokens of a random prompt × rows of the batch; seconds to the first token, percentiles of those to each"
            " next one, generated tokens of all rows per second; in brackets the lowest and the highest of"
            f" {numbers.counted(repeats, 'repeat')}"
        )
    if run.price is not None:
        size = next((v.money.batch_size for v in run.variants if v.money and v.money.batch_size), None)
        rows = next((inference.batch_size for inference in timed), 1)
        out = f", tokens generated for {size} at a time" if size else ""
        yield (
            f"money: {run.price.per_hour:g} {run.price.currency} for an hour of the machine, times measured seconds: of the"
            f" training steps alone; M in, M out: a million tokens of prompts read {rows} at a time{out}"
        )


def _peaks(train: Train) -> tuple[int, int] | None:
    """The predicted and the measured peak; None unless both are known."""
    measured = train.peak_rss_bytes if train.peak_gpu_allocated_bytes is None else train.peak_gpu_allocated_bytes
    if train.predicted_peak_bytes is None or measured is None:
        return None
    return train.predicted_peak_bytes, measured


def training_time_ratio(variant: Variant, reference: Variant) -> Ratio | None:
    """Computes the ratio of two training times with its interval, from their blocks of steps.

    None if one was measured on a busy machine or has fewer than two blocks.
    """
    mine, theirs = variant.train, reference.train
    if mine is None or theirs is None or _is_busy(mine) or _is_busy(theirs):
        return None
    if min(len(mine.block_seconds), len(theirs.block_seconds)) < 2:
        return None
    same_rows = (mine.steps, mine.batch_size, mine.seed) == (theirs.steps, theirs.batch_size, theirs.seed)
    if same_rows and len(mine.block_seconds) == len(theirs.block_seconds):
        found = paired_ratio(mine.block_seconds, theirs.block_seconds)
    else:
        found = unpaired_ratio(_per_step(mine), _per_step(theirs))
    assert found.low is not None and found.high is not None
    whole = mine.train_seconds / theirs.train_seconds  # of the times in the table
    return Ratio(whole, whole * found.low / found.value, whole * found.high / found.value)


def busy_notes(run: Run) -> Iterator[str]:
    """Says which times were measured on a busy machine."""
    trained = [(variant.name, _how_busy(variant.train)) for variant in run.variants if variant.train]
    timed = [(variant.name, _how_busy(variant.inference)) for variant in run.variants if variant.inference]
    for what, found in (("training", trained), ("timing", timed)):
        if listed := [f"{name} ({how})" for name, how in found if how]:
            yield (
                f"~ the machine was busy during the {what} of {numbers.listing(listed)}: these times are too long, and no"
                " ratio is given"
            )


def _is_busy(record: Train | Inference) -> bool:
    return bool(_how_busy(record))


def timed_busy(variant: Variant) -> bool:
    """Whether a variant was timed on a busy machine."""
    return variant.inference is not None and _is_busy(variant.inference)


def _how_busy(record: Train | Inference) -> str:
    """Describes how busy the machine was; empty if it was quiet, or if nothing is known about it."""
    if record.waited_share is not None and record.waited_share > _WAITED:
        return f"{record.waited_share:.0%} of the time without a processor"
    if isinstance(record, Train) or record.raw_seconds.get("base_prefill") or record.probe_drift is None:
        return ""
    return f"its speed changed by {record.probe_drift:.0%}" if record.probe_drift > _DRIFT else ""


def _by_repeat(times: Sequence[float], size: int) -> list[float]:
    """Median seconds per token of each repeat, which has `size` tokens."""
    return [percentile(times[start : start + size], 0.5) for start in range(0, len(times), size)] if size else []


def _per_step(train: Train) -> list[float]:
    """Mean seconds per step of each block."""
    count = len(train.block_seconds)
    edges = [train.steps * index // count for index in range(count + 1)]
    return [seconds / (b - a) for seconds, (a, b) in zip(train.block_seconds, pairwise(edges), strict=True)]


def _trainable(variant: Variant) -> float | None:
    """Trainable parameters of a trained variant."""
    return None if variant.parameters is None or variant.train is None else variant.parameters.trainable


def _baseline(run: Run) -> Variant | None:
    return next((variant for variant in run.variants if variant.name == run.baseline), None)


def _is_bare_base(variant: Variant) -> bool:
    """Whether the variant is the unchanged base, perhaps with other prompts: `base`, `base:shots=5`, not `base@4bit`."""
    return variant.method is None and variant.spec.partition(":")[0] == "base" and "@" not in variant.spec
