"""Our engine beside its own oracle: the same scores, and how much faster. `make bench` prints the table.

Peers come in with the engine's own benchmarks; nothing here asserts a time.
"""

import random
import time

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from harness.engine.encode import Encoder
from harness.engine.generate import generate_pack
from harness.engine.plain import generate_plainly, score_plainly
from harness.engine.plan import plan_packs
from harness.engine.score import score_pack
from harness.jobs import TaskRequests
from harness.models import load_tokenizer
from harness.render import Request
from harness.tiny import MODEL

pytestmark = pytest.mark.slow

WORDS = [
    "the",
    "cat",
    "sat",
    "on",
    "a",
    "mat",
    "and",
    "red",
    "apples",
    "were",
    "sold",
    "in",
    "Paris",
    "for",
    "three",
    "coins",
]


@pytest.fixture(scope="module")
def model() -> LlamaForCausalLM:
    torch.manual_seed(0)
    shape = LlamaConfig(
        vocab_size=8192,
        hidden_size=256,
        intermediate_size=704,
        num_hidden_layers=4,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=1024,
    )
    return LlamaForCausalLM(shape).eval()


def prompts(count: int, words: int) -> list[str]:
    draw = random.Random(0)
    return [" ".join(draw.choice(WORDS) for _ in range(draw.randint(words // 2, words))) for _ in range(count)]


def test_letters(model: LlamaForCausalLM) -> None:
    requests = [Request(str(i), "choose", (p,), (" A", " B", " C", " D")) for i, p in enumerate(prompts(60, 80))]
    encoded = Encoder(load_tokenizer(MODEL), 1024).encode(TaskRequests("letters", requests))
    began = time.perf_counter()
    plain = [score_plainly(model, item, numerics="fp32") for item in encoded]
    plain_seconds = time.perf_counter() - began
    began = time.perf_counter()
    auto = [
        raw for pack in plan_packs(encoded, 2048) for raw in score_pack(model, pack, token_budget=2048, numerics="fp32")
    ]
    auto_seconds = time.perf_counter() - began
    for ours, oracle in zip(sorted(auto, key=lambda raw: raw.index), plain, strict=True):
        assert ours.loglikelihoods == pytest.approx(oracle.loglikelihoods, rel=1e-5)
    print(
        f"\nletters, 60 questions: plain {plain_seconds:.2f} s, auto {auto_seconds:.2f} s, ×{plain_seconds / auto_seconds:.1f}"
    )


def test_generation(model: LlamaForCausalLM) -> None:
    tokenizer = load_tokenizer(MODEL)
    requests = [Request(str(i), "generate", (p,), max_tokens=24) for i, p in enumerate(prompts(24, 60))]
    encoded = Encoder(tokenizer, 1024).encode(TaskRequests("generation", requests))
    began = time.perf_counter()
    plain = [generate_plainly(model, tokenizer, item, seed=0, numerics="fp32") for item in encoded]
    plain_seconds = time.perf_counter() - began
    began = time.perf_counter()
    auto = [
        raw
        for pack in plan_packs(encoded, 2048)
        for raw in generate_pack(model, tokenizer, pack, seed=0, numerics="fp32")
    ]
    auto_seconds = time.perf_counter() - began
    for ours, oracle in zip(sorted(auto, key=lambda raw: raw.index), plain, strict=True):
        assert ours.texts == oracle.texts
    print(
        f"\n24 texts of 24 tokens: plain {plain_seconds:.2f} s, auto {auto_seconds:.2f} s, ×{plain_seconds / auto_seconds:.1f}"
    )
