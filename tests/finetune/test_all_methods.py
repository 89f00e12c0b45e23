"""Every fine-tuning method is tested for what all of them promise. Methods come from the registry, so a new one is tested too.

Exceptions of single methods are in the tables below, with the reason.
"""

import functools
import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import tiny_models as tiny
import torch
from torch import Tensor

from harness.engine.runner import Runner
from harness.errors import UserError
from harness.jobs import Base, Method, Recipe
from harness.models.artifacts import save_artifact
from harness.models.load import Resident, context_length, count_parameters, load_base, method_function
from harness.registry.find import list_entries
from harness.tokens.encode import Encoder

METHODS = {entry.name: entry for entry in list_entries("method") if entry.module}

OPTIONS: dict[str, dict[str, Any]] = {
    "adalora": {"rank": 2, "init_rank": 4},
    "adapter": {"size": 4},
    "bitfit": {"add": True},  # Llama and Qwen3 have no biases
    "freeze": {"layers": 1},
    "miss": {"rank": 4},
    "oft": {"block_size": 8},
    "prefix": {"tokens": 4, "width": 8},
    "prompt": {"tokens": 4},
    "ptuning": {"tokens": 4},
    "ptuning_v2": {"tokens": 4},
    "vera": {"rank": 8},
    **{name: {"rank": 8} for name in ("lily", "randlora")},
    **{
        name: {"rank": 4}
        for name in ("dora", "lora", "lora_fa", "lora_plus", "olora", "pissa", "qlora", "rslora", "shira")
    },
    "peft": {"type": "LORA", "r": 4, "target_modules": "all-linear"},
}
"""Hyperparameters for models of toy size; a method without an entry uses its defaults."""

RATES = {"randlora": 1e-2}
"""Learning rates of methods for which the usual one of these tests is too high."""

NO_IDENTITY = {
    "prefix": "learned tokens precede the text from the start",
    "prompt": "learned tokens precede the text from the start",
    "ptuning": "learned tokens precede the text from the start",
    "ptuning_v2": "learned tokens precede the text from the start",
}
"""Methods that change the model's outputs before any training."""

UNSUITED: dict[tuple[str, tiny.Shape], str] = {(name, "gpt2"): "Conv1D" for name in ("miss", "oft", "shira")}
"""Methods that refuse an architecture, and a word of the error message."""

ROUNDED = dict.fromkeys(["olora", "pissa"], "two LoRAs are saved as one, which adds up in another order")
"""Methods whose saved artifact gives the same outputs only up to float32 rounding."""

HIDDEN, LAYERS, INNER = 64, 2, {"llama": 128, "qwen3": 128, "gpt2": 256}
KEYS = {"llama": 32, "qwen3": 32, "gpt2": 64}
"""Total width of the keys (or values) of a token."""
LINEARS: dict[str, list[tuple[int, int]]] = {
    "llama": [(64, 64), (64, 32), (64, 32), (64, 64), (64, 128), (64, 128), (128, 64)],
    "qwen3": [(64, 64), (64, 32), (64, 32), (64, 64), (64, 128), (64, 128), (128, 64)],
    "gpt2": [(64, 192), (64, 64), (64, 256), (256, 64)],
}
"""Input and output widths of the linear layers in a decoder layer, written by hand."""


def low_rank(shape: str, rank: int = 4) -> int:
    return LAYERS * sum(rank * (i + o) for i, o in LINEARS[shape])


def norms(shape: str) -> int:
    in_a_layer = {"llama": 2 * 64, "qwen3": 2 * 64 + 2 * 16, "gpt2": 2 * 2 * 64}[shape]
    return LAYERS * in_a_layer + (128 if shape == "gpt2" else 64)


def decoder_layer(shape: str) -> int:
    weights = sum(i * o for i, o in LINEARS[shape])
    biases = sum(o for _, o in LINEARS[shape]) if shape == "gpt2" else 0
    return weights + biases + (norms(shape) - final_norm(shape)) // LAYERS


def final_norm(shape: str) -> int:
    return 128 if shape == "gpt2" else 64


def outputs(shape: str) -> int:
    return LAYERS * sum(o for _, o in LINEARS[shape])


COUNTS: dict[str, Callable[[str], int]] = {
    "adalora": lambda shape: low_rank(shape) + LAYERS * 4 * len(LINEARS[shape]),
    "adapter": lambda shape: 2 * LAYERS * (2 * 4 * HIDDEN + 4 + HIDDEN),
    "bitfit": lambda shape: outputs(shape) + (norms(shape) // 2 if shape == "gpt2" else 0),
    "dora": lambda shape: low_rank(shape) + outputs(shape),
    "freeze": lambda shape: decoder_layer(shape) + final_norm(shape),
    "lily": lambda shape: sum(8 * i + 2 * 8 * o + 2 * 2 * 8 for i, o in LINEARS[shape]),
    "ia3": lambda shape: LAYERS * (INNER[shape] + (3 * HIDDEN if shape == "gpt2" else 2 * KEYS[shape])),
    "ln": norms,
    "lora_fa": lambda shape: 4 * outputs(shape),
    "miss": lambda shape: 4 * outputs(shape),
    "oft": lambda shape: LAYERS * sum(i * 7 // 2 for i, _ in LINEARS[shape]),
    "prompt": lambda shape: 4 * HIDDEN,
    "ptuning_v2": lambda shape: 2 * 4 * KEYS[shape] * LAYERS,
    "vera": lambda shape: outputs(shape) + LAYERS * 8 * len(LINEARS[shape]),
    **dict.fromkeys(["lora", "lora_plus", "olora", "peft", "pissa", "qlora", "rslora", "shira"], low_rank),
}
"""Trainable parameters by the method's formula, for the methods that have one here."""

ROWS = [tiny.words(count, seed=count) for count in (4, 9, 15)]
ASKED = tiny.task(
    *(tiny.choose(tiny.words(4 + n, seed=n % 3), [" Paris", " 42", " two words"], id=str(n)) for n in range(6))
)
WRITTEN = tiny.task(*(tiny.generate(tiny.words(3 + n, seed=n), id=str(n), max_tokens=6) for n in range(4)))


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("methods")
    for shape in tiny.SHAPES:
        tiny.save_tiny(root / shape, shape)
    return root


@dataclass(frozen=True)
class Taught:
    """A method's model after a few steps on three rows, and its saved artifact."""

    base: Base
    losses: list[float]
    logits: Tensor
    recipe: Recipe


@pytest.fixture(scope="module")
def teach(root: Path) -> Callable[[str, tiny.Shape], Taught]:
    """Trains a method once for each architecture."""

    @functools.cache
    def teach(name: str, shape: tiny.Shape) -> Taught:
        base, method = base_of(name, root / shape), method_of(name)
        model = made(name, root / shape)
        model.train()
        trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
        optimizer = torch.optim.AdamW(trained, RATES.get(name, 3e-2))
        losses = []
        for _ in range(5):
            loss = loss_of(model)
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            optimizer.zero_grad()
            losses.append(loss.item())
        folder = root / f"{name}-{shape}"
        folder.mkdir()
        tokenizer = tiny.tiny_tokenizer()
        save_artifact(model, tokenizer, folder, saves=METHODS[name].options["saves"], method=method)
        if METHODS[name].options["saves"] == "checkpoint":
            recipe = Recipe(tiny.tiny_base(folder))
        else:
            recipe = Recipe(base, folder, method=None if (folder / "adapter_config.json").is_file() else method)
        return Taught(base, losses, logits(model), recipe)

    return teach


@pytest.fixture(scope="module")
def resident() -> Callable[[Base], Resident]:
    """Keeps one base in memory, to which all methods attach in turn."""
    return functools.cache(lambda base: Resident(base, method_function))


def base_of(name: str, folder: Path) -> Base:
    return Base(folder, "cpu", "float32", METHODS[name].quantization(method_of(name).hyperparameters))


def method_of(name: str) -> Method:
    defaults = {parameter.name: parameter.default for parameter in METHODS[name].parameters}
    return tiny.built_in(name, **(defaults | OPTIONS.get(name, {})))


def made(name: str, folder: Path) -> Any:
    """Applies the method to a newly loaded base, as training does."""
    torch.manual_seed(1)
    method = method_of(name)
    return method_function(method)(load_base(base_of(name, folder)), **method.hyperparameters)


def batch() -> tuple[Tensor, Tensor]:
    """Returns `[rows, width]` ids padded on the right, and their mask."""
    rows = [tiny.tiny_tokenizer()(row)["input_ids"] for row in ROWS]
    width = max(map(len, rows))
    padded = torch.tensor([row + [tiny.PAD] * (width - len(row)) for row in rows])
    return padded, torch.tensor([[1] * len(row) + [0] * (width - len(row)) for row in rows])


def loss_of(model: Any) -> Tensor:
    ids, mask = batch()
    logits = model(input_ids=ids, attention_mask=mask).logits[:, -ids.shape[1] :]
    targets = ids.masked_fill(mask == 0, -100)[:, 1:]
    return torch.nn.functional.cross_entropy(logits[:, :-1].float().flatten(0, 1), targets.flatten())


@torch.inference_mode()
def logits(model: Any) -> Tensor:
    """Returns `[rows, width, vocabulary]` logits, 0 at padding; learned tokens are left out."""
    ids, mask = batch()
    model.eval()
    found: Tensor = model(input_ids=ids, attention_mask=mask, use_cache=True).logits[:, -ids.shape[1] :]
    return found * mask[..., None]


def difference(ours: Tensor, theirs: Tensor) -> float:
    """Returns the largest difference, relative to the largest logit."""
    return float((ours - theirs).abs().max() / theirs.abs().max())


def cases(
    shapes: tuple[tiny.Shape, ...] = tiny.SHAPES, saves: tuple[str, ...] = ("delta", "checkpoint")
) -> pytest.MarkDecorator:
    """Lists every method with every architecture that it supports."""
    names = [name for name, entry in METHODS.items() if entry.options["saves"] in saves]
    suited = [(name, shape) for name in names for shape in shapes if (name, shape) not in UNSUITED]
    return pytest.mark.parametrize(("name", "shape"), suited)


Teach = Callable[[str, tiny.Shape], Taught]
Residents = Callable[[Base], Resident]


# The model after a method is applied


@pytest.mark.parametrize(("name", "shape"), UNSUITED)
def test_an_unsupported_model_is_refused(root: Path, name: str, shape: tiny.Shape) -> None:
    with pytest.raises((UserError, TypeError, ValueError, NotImplementedError), match=UNSUITED[name, shape]):
        made(name, root / shape)


@cases(("llama", "gpt2"))
def test_outputs_are_those_of_the_base_before_training(root: Path, name: str, shape: tiny.Shape) -> None:
    untouched = logits(load_base(base_of(name, root / shape)))
    changed = difference(logits(made(name, root / shape)), untouched)
    assert (changed > 1e-3) if name in NO_IDENTITY else (changed < 1e-5)


@cases()
def test_the_loss_falls(teach: Teach, name: str, shape: tiny.Shape) -> None:
    losses = teach(name, shape).losses
    assert all(map(math.isfinite, losses))
    assert losses[-1] < 0.995 * losses[0]


@cases(("llama", "gpt2"))
def test_the_formula_counts_the_trained_parameters(root: Path, name: str, shape: tiny.Shape) -> None:
    model = made(name, root / shape)
    total, trainable = count_parameters(model)
    assert METHODS[name].options["parameters"]
    assert 0 < trainable <= total
    if name == "full":
        assert trainable == total
    if name in COUNTS:
        assert trainable == COUNTS[name](shape)


@cases(("llama",))
def test_activation_checkpointing_gives_the_same_gradients_or_is_refused(
    root: Path, name: str, shape: tiny.Shape
) -> None:
    def gradients(checkpointing: bool) -> list[Tensor]:
        model = made(name, root / shape).train()
        if checkpointing:
            model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
        loss_of(model).backward()  # type: ignore[no-untyped-call]
        return [parameter.grad for parameter in model.parameters() if parameter.requires_grad]

    if not METHODS[name].options["checkpointing"]:
        with pytest.raises(RuntimeError):
            gradients(True)
        return
    for ours, theirs in zip(gradients(True), gradients(False), strict=True):
        assert torch.allclose(ours, theirs, rtol=1e-6, atol=1e-6)


# Artifacts


@cases()
def test_a_saved_artifact_gives_exactly_the_same_outputs(
    teach: Teach, resident: Residents, name: str, shape: tiny.Shape
) -> None:
    taught = teach(name, shape)
    one = resident(taught.recipe.base)
    found = difference(logits(one.attach(taught.recipe)), taught.logits)
    assert (found < 5e-6) if name in ROUNDED else (found == 0.0)
    one.detach()


@cases(("llama", "gpt2"), saves=("delta",))
def test_detaching_leaves_the_base_bit_equal_in_one_load(
    root: Path, teach: Teach, resident: Residents, name: str, shape: tiny.Shape
) -> None:
    taught = teach(name, shape)
    one = resident(taught.base)
    bare = one.bare
    said = logits(bare)
    weights = {key: value.clone() for key, value in bare.state_dict().items()}
    assert difference(logits(one.attach(taught.recipe)), said) > 1e-4
    one.detach()
    assert one.bare is bare
    assert torch.equal(logits(bare), said)
    assert bare.state_dict().keys() == weights.keys()
    assert all(torch.equal(value, weights[key]) for key, value in bare.state_dict().items())
    assert torch.equal(said, logits(load_base(taught.base)))


@cases(("llama", "gpt2"), saves=("delta",))
def test_merged_outputs_are_the_same_or_the_method_is_declared_not_mergeable(
    teach: Teach, name: str, shape: tiny.Shape
) -> None:
    taught = teach(name, shape)
    recipe = replace(taught.recipe, merged=True)
    if not METHODS[name].options["mergeable"]:
        return
    merged = Resident(taught.base, method_function).attach(recipe)
    assert not hasattr(merged, "peft_config")
    assert difference(logits(merged), taught.logits) < (1e-5 if taught.base.quant is None else 1e-4)


# Scoring and generation


@cases(("qwen3", "gpt2"))
def test_scores_and_texts_do_not_depend_on_the_batch(
    root: Path, teach: Teach, resident: Residents, name: str, shape: tiny.Shape
) -> None:
    taught = teach(name, shape)
    one = resident(taught.recipe.base)
    model = one.attach(taught.recipe)
    tokenizer = tiny.tiny_tokenizer()
    encoder = Encoder(tokenizer, context_length(model, tokenizer))

    def run(engine: str, task: Any) -> list[Any]:
        options: dict[str, Any] = {"token_budget": 500, "max_rows": None, "seed": 0}
        runner = Runner(model, tokenizer, engine=engine, numerics="fp32", **options)
        raws = [raw for pack in runner.plan(encoder.encode(task)) for raw in runner.run(pack)]
        return sorted(raws, key=lambda raw: raw.index)

    for together, alone in zip(run("auto", ASKED), run("plain", ASKED), strict=True):
        assert together.loglikelihoods == pytest.approx(alone.loglikelihoods, rel=1e-5)
    assert [raw.texts for raw in run("auto", WRITTEN)] == [raw.texts for raw in run("plain", WRITTEN)]
    one.detach()
