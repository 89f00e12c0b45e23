"""Makes the records of measured latencies: percentiles, ranges over the repeats, and the raw times."""

from __future__ import annotations

from collections.abc import Sequence

from harness.jobs import Benched, TimedPoint
from harness.results import Inference, LatencyPoint, Ranged, Throughput
from harness.stats.quantiles import percentile, quantiles


def inference_record(benched: Benched) -> Inference:
    """Makes the record of inference costs, with the raw times."""
    prefill, decode = benched.prefill_seconds, benched.decode_seconds
    bases = benched.base_prefill_seconds, benched.base_decode_seconds
    raw = {"prefill": list(prefill), "decode": list(decode)}
    if bases[0]:
        raw |= {"base_prefill": list(bases[0]), "base_decode": list(bases[1])}
    return Inference(
        load_seconds=benched.load_seconds,
        prompt_tokens=benched.prompt_tokens,
        new_tokens=benched.new_tokens,
        batch_size=next((point.batch_size for point in benched.points if point.error is None), 1),
        warmup=benched.warmup,
        repeats=benched.repeats,
        prefill_seconds_p50=percentile(prefill, 0.5),
        prefill_seconds_p90=percentile(prefill, 0.9),
        prefill_seconds_p99=percentile(prefill, 0.99),
        decode_seconds_per_token_p50=percentile(decode, 0.5) if decode else None,
        decode_seconds_per_token_p90=percentile(decode, 0.9) if decode else None,
        decode_seconds_per_token_p99=percentile(decode, 0.99) if decode else None,
        raw_seconds=raw,
        raw_summary={name: quantiles(times) for name, times in raw.items() if times},
        base_prefill_seconds_p50=percentile(bases[0], 0.5) if bases[0] else None,
        base_decode_seconds_per_token_p50=percentile(bases[1], 0.5) if bases[1] else None,
        throughput=tuple(Throughput(batch_size=size, tokens_per_second=rate) for size, rate in benched.throughput),
        points=tuple(latency_point(point, benched.new_tokens) for point in benched.points),
        probe_drift=benched.probe_drift,
        stopped=benched.stopped,
        cpu_seconds=benched.cpu_seconds,
        waited_share=benched.waited_share,
        **benched.peaks,
    )


def latency_point(timed: TimedPoint, new_tokens: int) -> LatencyPoint:
    """Computes percentiles and their range over the repeats; the raw times are kept.

    Args:
        timed: The measured seconds.
        new_tokens: Decode steps of a repeat.

    Example:
        >>> point = latency_point(TimedPoint(8, 2, (0.3, 0.5, 0.4), (0.1, 0.3, 0.2, 0.2, 0.1, 0.1)), new_tokens=2)
        >>> point.ttft_seconds
        Ranged(value=0.4, low=0.3, high=0.5)
        >>> point.tokens_per_second.low, point.tokens_per_second.high
        (10.0, 20.0)
    """
    if timed.error is not None:
        return LatencyPoint(prompt_tokens=timed.prompt_tokens, batch_size=timed.batch_size, error=timed.error)
    decode = timed.decode_seconds
    repeats = [decode[start : start + new_tokens] for start in range(0, len(decode), new_tokens)] if new_tokens else []
    raw = {"prefill": list(timed.prefill_seconds), "decode": list(decode)}
    if timed.base_prefill_seconds:
        raw |= {"base_prefill": list(timed.base_prefill_seconds), "base_decode": list(timed.base_decode_seconds)}

    def steps(share: float) -> Ranged | None:
        if not repeats:
            return None
        return _ranged(percentile(decode, share), [percentile(each, share) for each in repeats])

    speeds = [timed.batch_size * new_tokens / sum(each) for each in repeats]
    return LatencyPoint(
        prompt_tokens=timed.prompt_tokens,
        batch_size=timed.batch_size,
        ttft_seconds=_ranged(percentile(timed.prefill_seconds, 0.5), timed.prefill_seconds),
        decode_seconds_per_token_p50=steps(0.5),
        decode_seconds_per_token_p90=steps(0.9),
        decode_seconds_per_token_p99=steps(0.99),
        tokens_per_second=_ranged(percentile(speeds, 0.5), speeds) if speeds else None,
        raw_seconds=raw,
    )


def _ranged(value: float, by_repeat: Sequence[float]) -> Ranged:
    return Ranged(value=value, low=min(by_repeat), high=max(by_repeat))
