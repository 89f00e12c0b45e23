"""Products with oneDNN, the greedy head in bfloat16 and the search for the most likely token, against torch's own."""

from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest
import tiny_models as tiny
import torch
from architectures import random_model
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional

from harness.engine import greedy_head, products
from harness.engine.greedy_head import GreedyHead
from harness.engine.likeliest import likeliest, near_top
from harness.engine.oracle import generate_plainly
from harness.engine.prefix_cache import Prefixes
from harness.engine.products import Product, Products, works
from harness.engine.slot_cache import _groups
from harness.engine.slot_generation import generate_slots
from harness.tokens.encode import Encoder
from harness.tokens.packs import Pack

onednn = pytest.mark.skipif(not works(torch.float32), reason="oneDNN")
bf16 = pytest.mark.skipif(not works(torch.bfloat16), reason="oneDNN in bfloat16")

# Products


@onednn
@settings(max_examples=40, deadline=None)
@given(st.integers(1, 140), st.integers(1, 90), st.integers(1, 90), st.booleans(), st.booleans(), st.booleans())
def test_a_product_is_torchs_for_all_rows_and_shapes(
    rows: int, outputs: int, inputs: int, bias: bool, roomy: bool, half: bool
) -> None:
    dtype = torch.bfloat16 if half and works(torch.bfloat16) else torch.float32
    torch.manual_seed(rows)
    layer = nn.Linear(inputs, outputs, bias=bias, dtype=dtype)
    x = torch.randn(2, rows, inputs, dtype=dtype)[:1]
    with torch.inference_mode():
        ours = Product(layer.weight, layer.bias, roomy=roomy)(x)
        theirs = functional.linear(
            x.double(), layer.weight.double(), None if layer.bias is None else layer.bias.double()
        )
    tolerance = 2e-2 if dtype == torch.bfloat16 else 5e-6
    assert ours.dtype == dtype and ours.shape == theirs.shape
    assert torch.allclose(ours.double(), theirs, rtol=tolerance, atol=tolerance)


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(products, "_SMALLEST", 1)


@onednn
def test_only_plain_large_layers_are_computed_with_onednn(small: None, monkeypatch: pytest.MonkeyPatch) -> None:
    class Own(nn.Linear):
        pass

    layers = nn.ModuleList([nn.Linear(8, 8), Own(8, 8), nn.Linear(8, 8), nn.Linear(8, 8, dtype=torch.float64)])
    layers[2].forward = lambda x: x  # type: ignore[method-assign, assignment]
    ours = Products(layers)
    with pytest.raises(KeyError), ours:
        replaced = [vars(layer).get("forward") for layer in layers]
        raise KeyError
    assert [isinstance(each, Product) for each in replaced] == [True, False, False, False]
    assert ["forward" in vars(layer) for layer in layers] == [False, False, True, False]
    monkeypatch.setattr(products, "_SMALLEST", 65)
    with Products(layers):
        assert "forward" not in vars(layers[0])


@pytest.mark.parametrize("fault", [AttributeError("no such operator"), RuntimeError("not compiled"), None])
def test_a_torch_without_the_operators_or_with_wrong_results_uses_its_own(
    monkeypatch: pytest.MonkeyPatch, small: None, fault: Exception | None
) -> None:
    def product(x: Any, *rest: Any) -> Any:
        if fault is not None:
            raise fault
        return torch.zeros(3, 48)

    works.cache_clear()
    monkeypatch.setattr(products, "_linear", product)
    try:
        layer = nn.Linear(8, 8)
        with Products(layer):
            assert "forward" not in vars(layer)
    finally:
        works.cache_clear()


@onednn
def test_weights_are_copied_only_where_the_machine_has_memory_for_them(
    monkeypatch: pytest.MonkeyPatch, small: None
) -> None:
    copied: list[int] = []
    real = torch.ops.mkldnn
    fake = SimpleNamespace(
        _reorder_linear_weight=lambda weight: copied.append(1) or real._reorder_linear_weight(weight),
        _linear_pointwise=real._linear_pointwise,
    )
    layer, x = nn.Linear(8, 8), torch.randn(3, 8)
    works(torch.float32)
    monkeypatch.setattr(torch.ops, "mkldnn", fake)
    for copies, expected in ((4, [1]), (1 << 60, [])):
        monkeypatch.setattr(products, "_COPIES", copies)
        copied.clear()
        ours = Products(layer)
        with torch.inference_mode(), ours:
            layer(x), layer(x)
        assert copied == expected
        ours.forget(layer)
        with torch.inference_mode(), ours:
            layer(x)
        assert copied == 2 * expected, "freed, and made again"


# The most likely token


def rows_with_ties() -> st.SearchStrategy[torch.Tensor]:
    return st.builds(
        lambda seed, rows, size, kinds: torch.randint(0, kinds, (rows, size), generator=generator(seed)).float(),
        st.integers(0, 99),
        st.integers(1, 4),
        st.sampled_from([1, 5, 127, 128, 129, 256, 300, 1000]),
        st.sampled_from([1, 2, 400]),
    )


def generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@settings(max_examples=80, deadline=None)
@given(rows_with_ties(), st.sampled_from([0.0, 1.0, 30.0]))
def test_the_most_likely_tokens_are_those_of_a_search_through_all(logits: torch.Tensor, distance: float) -> None:
    most, ids = likeliest(logits)
    assert torch.equal(most, logits.amax(-1))
    assert torch.equal(ids, (logits == most[:, None]).long().argmax(-1)), "the first of several"
    found = set(zip(*(each.tolist() for each in near_top(logits, torch.full((len(logits), 1), distance))), strict=True))
    assert found == {tuple(at) for at in (logits >= most[:, None] - distance).nonzero().tolist()}


def test_a_row_with_nan_has_no_most_likely_token() -> None:
    logits = torch.zeros(2, 300)
    logits[1, 299] = float("nan")
    assert likeliest(logits)[0].isnan().tolist() == [False, True]


def heads() -> Iterator[tuple[str, nn.Linear, torch.dtype]]:
    for dtype in (torch.float32, torch.bfloat16):
        for bias in (False, True):
            torch.manual_seed(bias)
            head = nn.Linear(32, 700, bias=bias, dtype=dtype)
            yield f"{dtype}-{bias}", head, dtype


@bf16
@pytest.mark.parametrize(("head", "dtype"), [pytest.param(h, d, id=name) for name, h, d in heads()])
@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10_000), st.sampled_from([1e-6, 1e-3, 1.0]), st.sampled_from([0.01, 1.0, 100.0]))
def test_the_greedy_head_finds_the_token_of_float32(
    head: nn.Linear, dtype: torch.dtype, seed: int, apart: float, scale: float
) -> None:
    with torch.inference_mode():  # tokens in groups of seven that differ by little
        weight = torch.randn(100, 32, generator=generator(seed)).repeat_interleave(7, 0)
        weight = (weight + apart * torch.randn(700, 32, generator=generator(seed + 1))).to(dtype)
        made = nn.Linear(32, 700, bias=head.bias is not None, dtype=dtype)
        made.weight.copy_(weight)
        if head.bias is not None:
            made.bias.copy_(head.bias)
        hidden = scale * torch.randn(5, 1, 32, generator=generator(seed + 2)).to(dtype)
        exact = functional.linear(
            hidden.double(), made.weight.double(), None if made.bias is None else made.bias.double()
        )[:, 0]
        with GreedyHead(made).used():
            ours = made(hidden)[:, 0]
        assert "forward" not in vars(made)
    best, found = exact.amax(-1), exact.gather(-1, ours.argmax(-1, keepdim=True))[:, 0]
    assert ours.dtype == torch.float32
    assert torch.allclose(found, best, rtol=1e-6, atol=1e-5 * scale), "the best token, or one that float32 cannot tell"
    assert torch.allclose(ours.double().amax(-1), best, rtol=1e-5, atol=1e-5 * scale)


@bf16
def test_rounding_that_adds_up_does_not_hide_the_most_likely_token() -> None:
    """Every factor of token 1 is rounded up and every one of token 0 down, each by half the distance of its neighbours."""
    half, little, count = 1 + 2**-8, 2**-20, 257
    low, high = half - little, half + little
    hidden = torch.tensor([count * [low] + count * [high] + [1.0, 2**-9]])
    weight = torch.zeros(256, hidden.shape[1])
    weight[0] = torch.tensor(count * [low] + count * [0.0] + [-0.01, 1.0])
    weight[1] = torch.tensor(count * [0.0] + count * [high] + [-0.01, 0.0])
    head = nn.Linear(hidden.shape[1], 256, bias=False)
    with torch.inference_mode():
        head.weight.copy_(weight)
        exact = hidden.double() @ head.weight.double().T
        rough = (hidden.bfloat16() @ head.weight.bfloat16().T).float()
        with GreedyHead(head).used():
            ours = head(hidden)
    assert exact.argmax() == 0 and rough.argmax() == 1 and rough[0, 1] - rough[0, 0] >= 6, "as bad as it can be"
    assert ours.argmax() == 0 and torch.allclose(ours.double()[0, :2], exact[0, :2], rtol=1e-6)


@bf16
def test_a_head_with_too_many_equal_tokens_is_computed_exactly(monkeypatch: pytest.MonkeyPatch) -> None:
    head = nn.Linear(16, 900, bias=False)
    hidden = torch.randn(2, 1, 16)
    with torch.inference_mode():
        head.weight.fill_(0.5)
        with GreedyHead(head).used():
            assert torch.equal(head(hidden), head.forward(hidden))
            monkeypatch.setattr(greedy_head, "_MOST", 900)
            assert torch.allclose(head(hidden), functional.linear(hidden, head.weight), atol=1e-5)
        head.weight[3] = float("nan")
        with GreedyHead(head).used():
            assert likeliest(head(hidden)[:, 0])[0].isnan().all(), "for the check of outputs"


# Whole texts


@onednn
@pytest.mark.parametrize("shape", ["llama", "qwen3", "gpt2", "gemma2", "phi"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_texts_are_those_of_plain(shape: str, dtype: torch.dtype, small: None, monkeypatch: pytest.MonkeyPatch) -> None:
    model = random_model(shape).to(dtype)
    tokenizer = tiny.tiny_tokenizer()
    asked = [
        tiny.generate(f"{tiny.words(3 + 9 * n)} {tiny.words(2, n)}", str(n), max_tokens=9, temperature=0.7 * (n == 4))
        for n in range(5)
    ]
    for some in (asked[:4], asked):  # with a sampled text, the head is exact
        items = Encoder(tokenizer, 200).encode(tiny.task(*some))
        prefixes = Prefixes(model)
        pack = Pack(tuple(items), "slots")
        ours = generate_slots(prefixes, tokenizer, pack, seed=0, token_budget=24, slots=3)
        theirs = [generate_plainly(model, tokenizer, item, seed=0, numerics="fp32") for item in items]
        if dtype == torch.float32:
            assert ours == theirs
        head = vars(prefixes).get("greedy_head")
        with monkeypatch.context() as patch:
            patch.setattr(GreedyHead, "suits", lambda head: False)
            exact = generate_slots(Prefixes(model), tokenizer, pack, seed=0, token_budget=24, slots=3)
        assert ours == exact
        assert (head is not None) == (len(some) == 4 and works(torch.bfloat16) and shape != "gemma2")


def test_prompts_are_grouped_in_order_and_repeated_ones_cost_nothing() -> None:
    a, b, c = (1, 2, 3), (4, 5), (6, 7, 8, 9)
    assert [*_groups([a, a, a, b, c], 5)] == [[a, a, a, b], [c]]
    assert [*_groups([c, a, b, b], 2)] == [[c], [a], [b, b]], "a longer prompt is alone"
