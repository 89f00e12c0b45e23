"""The costs of a variant: the columns of the cost table and the axes of the Pareto plot.

Every measure reads one number from a `Variant`; lower is always better.

Example:
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
    """One cost: how it is read from a variant and how it is formatted."""

    name: str
    """Column heading."""
    words: str
    """Name within a sentence: `training time`."""
    read: Callable[[Variant], float | None]
    write: Callable[[float | None], str]
    floor: float = 0.0
    """A smaller value is noise: it is shown, but not compared."""
    ratio: Callable[[Variant], float | None] = lambda variant: None
    """Cost relative to the baseline's, for measures whose column shows it."""

    def comparable(self, variant: Variant) -> float | None:
        """Returns the value, or None if it is unknown or below the floor."""
        value = self.read(variant)
        return None if value is None or value < self.floor else value


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
        read: Callable[[Inference], float | None], in_turn: Callable[[Inference], float | None]
    ) -> Callable[[Variant], float | None]:
        baseline = _baseline(run)

        def ratio(variant: Variant) -> float | None:
            if baseline is None or variant.name == baseline.name or variant.inference is None:
                return None
            # The bare base was timed alternately with the variant in one process, so the machine's drift cancels.
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
        Measure("weights", "memory of the weights", lambda variant: variant.model_bytes, numbers.memory),
        Measure("load", "load time", timed(lambda inference: inference.load_seconds), numbers.seconds),
        Measure(
            prefill,
            "prefill time",
            timed(lambda inference: inference.prefill_seconds_p50),
            numbers.seconds,
            ratio=relative_to_baseline(
                lambda inference: inference.prefill_seconds_p50,
                lambda inference: inference.base_prefill_seconds_p50,
            ),
        ),
        Measure(
            "decode/token",
            "time per token",
            timed(lambda inference: inference.decode_seconds_per_token_p50),
            numbers.seconds,
            ratio=relative_to_baseline(
                lambda inference: inference.decode_seconds_per_token_p50,
                lambda inference: inference.base_decode_seconds_per_token_p50,
            ),
        ),
    ]
    return [measure for measure in known if any(measure.read(variant) is not None for variant in run.variants)]


def _trainable(variant: Variant) -> float | None:
    """Trainable parameters of a trained variant."""
    return None if variant.parameters is None or variant.train is None else variant.parameters.trainable


def _baseline(run: Run) -> Variant | None:
    return next((variant for variant in run.variants if variant.name == run.baseline), None)


def _is_bare_base(variant: Variant) -> bool:
    """Whether the variant is the unchanged base, perhaps with other prompts: `base`, `base:shots=5`, not `base@4bit`."""
    return variant.method is None and variant.spec.partition(":")[0] == "base" and "@" not in variant.spec
