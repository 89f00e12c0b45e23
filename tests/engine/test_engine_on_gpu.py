"""The fast path on a GPU against whole rows on the same GPU, and both against the CPU, in float32."""

import math
from collections.abc import Sequence
from typing import Any

import pytest
import tiny_models as tiny
import torch
from architectures import SHAPES, random_model

from harness.engine.runner import Runner
from harness.jobs import Raw, Request
from harness.tokens.encode import Encoder

pytestmark = pytest.mark.gpu

SCORED = [
    tiny.choose("Question: what is one plus one? Answer:", [" one", " two", " three", " four"], "letters"),
    tiny.choose(tiny.words(30, 1) + ".", [" " + tiny.words(count, 5 + count) for count in (1, 9, 4)], "endings"),
    *[tiny.choose(tiny.words(24, 7) + f" {number}", [" one", " two"], str(number)) for number in range(12)],
]
TEXTS = [tiny.text(tiny.words(count, count), str(count)) for count in (3, 70)]
GENERATED = [
    *[tiny.generate(tiny.words(30, 9) + f" {number}:", str(number), max_tokens=4 + number) for number in range(10)],
    tiny.generate("hello", "sampled", max_tokens=9, samples=3, temperature=0.9),
    tiny.generate("The capital of", "stops", max_tokens=20, stop=(" the", "e")),
]


def results(model: Any, requests: Sequence[Request], engine: str, **options: Any) -> tuple[list[Raw], Runner]:
    """Runs requests on a model; results in the order of the requests."""
    settings: dict[str, Any] = {"numerics": "fp32", "token_budget": 256, "max_rows": None, "seed": 0}
    runner = Runner(model, tiny.tiny_tokenizer(), engine=engine, **(settings | options))
    items = Encoder(tiny.tiny_tokenizer(), 128).encode(tiny.task(*requests))
    found = [raw for pack in runner.plan(items) for raw in runner.run(pack)]
    return sorted(found, key=lambda raw: raw.index), runner


def assert_equal(ours: Sequence[Raw], plain: Sequence[Raw], within: float = 1e-4) -> None:
    for a, b in zip(ours, plain, strict=True):
        assert a.texts == b.texts
        assert all(math.isclose(x, y, rel_tol=within) for x, y in zip(a.loglikelihoods, b.loglikelihoods, strict=True))


@pytest.mark.parametrize("shape", SHAPES)
def test_every_architecture_gives_the_plain_results_of_gpu_and_cpu(shape: str) -> None:
    model = random_model(shape)
    for requests in (SCORED, TEXTS, GENERATED):
        on_cpu, _ = results(model.cpu(), requests, "plain")
        plain, _ = results(model.cuda(), requests, "plain")
        assert_equal(plain, on_cpu)
        fast, runner = results(model, requests, "auto")
        assert_equal(fast, plain)
        _, _, trees, slots = SHAPES[shape]
        wanted = "slots" if slots and requests is GENERATED else "tree" if trees and requests is not GENERATED else None
        if wanted:
            assert (runner.generation if requests is GENERATED else runner.scoring) == wanted, runner.notes


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_runs_in_trees_and_slots(dtype: torch.dtype) -> None:
    model = random_model("llama").to(dtype).cuda()
    plain, _ = results(model, SCORED, "plain")
    fast, runner = results(model, SCORED, "auto")
    assert (runner.scoring, runner.generation) == ("tree", "slots"), runner.notes
    assert_equal(fast, plain, within=0.02)


@pytest.mark.parametrize("kind", ["LORA", "IA3", "PROMPT_TUNING", "PREFIX_TUNING", "P_TUNING"])
def test_adapters_give_the_plain_results(kind: str) -> None:
    import peft

    base = random_model("llama")
    options: dict[str, Any] = {"task_type": "CAUSAL_LM"}
    options |= {"target_modules": "all-linear"} if kind == "LORA" else {}
    options |= {"num_virtual_tokens": 4} if "TUNING" in kind else {}
    torch.manual_seed(1)
    model = peft.get_peft_model(base, peft.get_peft_config({"peft_type": kind} | options))
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            parameter.data.normal_(std=0.3, mean=1.0 if "ia3" in name else 0.0)
    model = model.cuda().eval()
    for requests in (SCORED, GENERATED):
        plain, _ = results(model, requests, "plain")
        fast, _ = results(model, requests, "auto")
        assert_equal(fast, plain)


def test_no_memory_left_halves_the_budget_and_goes_on() -> None:
    model = random_model("llama").cuda()
    plain, _ = results(model, SCORED, "plain")
    runner = Runner(
        model, tiny.tiny_tokenizer(), engine="auto", numerics="fp32", token_budget=256, max_rows=None, seed=0
    )
    items = Encoder(tiny.tiny_tokenizer(), 128).encode(tiny.task(*SCORED))
    run, calls = runner._run, 0

    def fails_once(pack: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == 1:
            torch.empty(1 << 50, dtype=torch.uint8, device="cuda")
        return run(pack)

    runner._run = fails_once  # type: ignore[method-assign]
    found = [raw for pack in runner.plan(items) for raw in runner.run(pack)]
    assert_equal(sorted(found, key=lambda raw: raw.index), plain)
    assert any("out of memory" in note for note in runner.notes)
