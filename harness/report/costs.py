"""What a variant costs, measure by measure: the columns of the cost table and the axes of the Pareto plot.

Every measure reads one number from a `Variant`, and lower is better for all of them.

Example:
    >>> from harness.costs import measures
    >>> [measure.name for measure in measures(run)]  # doctest: +SKIP
    ['train', 'peak GPU', 'trainable', 'adapter', 'weights', 'load', 'prefill 512', 'decode/token']
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from harness.report import numbers
from harness.results import Inference, Run, Variant


@dataclass(frozen=True)
class Measure:
    """One cost, how it is read from a variant and how it is written."""

    name: str
    """Heads the column."""
    words: str
    """In a sentence: `training time`."""
    read: Callable[[Variant], float | None]
    write: Callable[[float | None], str]
    floor: float = 0.0
    """A smaller value is noise: shown, but compared with nothing."""
    ratio: Callable[[Variant], float | None] = lambda variant: None
    """The cost beside the baseline's, where the table shows it."""

    def comparable(self, variant: Variant) -> float | None:
        """The value, where it is known and not below the floor."""
        value = self.read(variant)
        return None if value is None or value < self.floor else value


def measures(run: Run) -> list[Measure]:
    """The costs of a run in the order of the table: training, what it leaves, then inference.

    Peaks are those of GPU memory where any was measured, else the rise of resident memory. What no variant has (training
    costs, where nothing was trained) is left out. Prefill and decode carry the ratio to the baseline.
    """
    gpu = any(variant.train and variant.train.peak_gpu_allocated_bytes is not None for variant in run.variants)
    prompt_tokens = {variant.inference.prompt_tokens for variant in run.variants if variant.inference}
    prefill = f"prefill {prompt_tokens.pop()}" if len(prompt_tokens) == 1 else "prefill"

    def trained(read: Callable[..., float | None]) -> Callable[[Variant], float | None]:
        return lambda variant: None if variant.train is None else read(variant.train)

    def timed(read: Callable[[Inference], float | None]) -> Callable[[Variant], float | None]:
        return lambda variant: None if variant.inference is None else read(variant.inference)

    def beside_baseline(
        read: Callable[[Inference], float | None], in_turn: Callable[[Inference], float | None]
    ) -> Callable[[Variant], float | None]:
        baseline = _baseline(run)

        def ratio(variant: Variant) -> float | None:
            if baseline is None or variant.name == baseline.name or variant.inference is None:
                return None
            # Timed in turn with the bare base in one process: drift of the machine cancels.
            reference = in_turn(variant.inference) if _is_bare_base(baseline) else None
            if reference is None and baseline.inference is not None:
                reference = read(baseline.inference)
            own = read(variant.inference)
            return own / reference if own is not None and reference else None

        return ratio

    known = [
        Measure("train", "training time", trained(lambda train: train.train_seconds), numbers.seconds),
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
        Measure("weights", "memory for weights", lambda variant: variant.model_bytes, numbers.memory),
        Measure("load", "time to load", timed(lambda inference: inference.load_seconds), numbers.seconds),
        Measure(
            prefill,
            "time of prefill",
            timed(lambda inference: inference.prefill_seconds_p50),
            numbers.seconds,
            ratio=beside_baseline(
                lambda inference: inference.prefill_seconds_p50,
                lambda inference: inference.base_prefill_seconds_p50,
            ),
        ),
        Measure(
            "decode/token",
            "time per token",
            timed(lambda inference: inference.decode_seconds_per_token_p50),
            numbers.seconds,
            ratio=beside_baseline(
                lambda inference: inference.decode_seconds_per_token_p50,
                lambda inference: inference.base_decode_seconds_per_token_p50,
            ),
        ),
    ]
    return [measure for measure in known if any(measure.read(variant) is not None for variant in run.variants)]


def _trainable(variant: Variant) -> float | None:
    """Trainable parameters of a variant that was trained; an untrained one has none to speak of."""
    return None if variant.parameters is None or variant.train is None else variant.parameters.trainable


def _baseline(run: Run) -> Variant | None:
    return next((variant for variant in run.variants if variant.name == run.baseline), None)


def _is_bare_base(variant: Variant) -> bool:
    """Whether the variant runs the untouched base (prompts may differ): `base`, `base:shots=5`, not `base@4bit`."""
    return variant.method is None and variant.spec.partition(":")[0] == "base" and "@" not in variant.spec
