"""Learned prompts: initial values, saved artifacts, and exact results on every path of the engine."""

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import architectures
import pytest
import tiny_models as tiny
import torch
from safetensors.torch import load_file
from torch import Tensor
from torch.nn import functional

from harness.config.variants import parse_variant
from harness.engine.oracle import forward
from harness.engine.runner import Runner
from harness.errors import UserError
from harness.finetune.training.loss import label_loss
from harness.jobs import Base, Method, Packed, Raw, Recipe, ScoreJob, ScoreVariant, TaskRequests, VariantFailed
from harness.models.artifacts import save_artifact
from harness.models.load import Resident, context_length, load_base, method_function
from harness.models.measure import Stopwatch, latency
from harness.runs.reuse import folder_numbers
from harness.tokens.encode import Encoded, Encoder
from harness.worker import scoring

TEXT = "Question: the capital of France?"
WAYS: dict[str, tuple[str, dict[str, Any]]] = {
    "prompt": ("prompt", {}),
    "prompt-text": ("prompt", {"init": "text", "text": TEXT, "tokens": 24}),
    "prompt-random": ("prompt", {"init": "random"}),
    "ptuning": ("ptuning", {}),
    "ptuning-lstm": ("ptuning", {"encoder": "lstm", "width": 16}),
    "prefix": ("prefix", {"width": 24}),
    "prefix-bare": ("prefix", {"projection": False}),
    "ptuning_v2": ("ptuning_v2", {}),
    "ptuning_v2-text": ("ptuning_v2", {"init": "text", "text": TEXT, "tokens": 24}),
}
TOKENS = 6
SHAPES = ("llama", "qwen3", "gpt2", "gemma3")
ROWS = [tiny.words(count, seed=count) for count in (4, 9, 15)]
CHOICES = tuple(
    tiny.choose(tiny.words(5 + number, seed=number % 3), [" Paris", " 42", " two words"], id=str(number))
    for number in range(6)
)
PROMPTS = tuple(tiny.generate(tiny.words(3 + number, seed=number), id=str(number), max_tokens=5) for number in range(5))


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Returns the folder of a random model by architecture; each is made at its first use."""
    root = tmp_path_factory.mktemp("prompts")

    def folder(shape: str) -> Path:
        if not (root / shape).is_dir():
            model = architectures.random_model(shape)
            for parameter in model.parameters():
                parameter.data *= 3.0  # larger weights, so that logits differ and texts vary
            model.save_pretrained(root / shape)
            tiny.tiny_tokenizer().save_pretrained(root / shape)
        return root / shape

    return folder


def method(way: str, **more: Any) -> Method:
    name, options = WAYS[way]
    return tiny.built_in(name, **{"tokens": TOKENS, **options, **more})


def made(base: Base, way: str, **more: Any) -> Any:
    """The method's model on a fresh base, as training gets it."""
    torch.manual_seed(1)
    chosen = method(way, **more)
    return method_function(chosen)(load_base(base), **chosen.hyperparameters)


def batch() -> tuple[Tensor, Tensor]:
    """`[rows, width]` ids padded on the right, and their mask."""
    rows = [tiny.tiny_tokenizer()(row)["input_ids"] for row in ROWS]
    width = max(map(len, rows))
    ids = torch.tensor([row + [tiny.PAD] * (width - len(row)) for row in rows])
    return ids, torch.tensor([[1] * len(row) + [0] * (width - len(row)) for row in rows])


def losses(model: Any, steps: int, rate: float) -> list[float]:
    """Trains for a few steps on three rows and returns the losses."""
    ids, mask = batch()
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], rate)
    found = []
    for _ in range(steps):
        logits = model(input_ids=ids, attention_mask=mask).logits[:, -ids.shape[1] :]
        targets = ids.masked_fill(mask == 0, -100)[:, 1:]
        loss = functional.cross_entropy(logits[:, :-1].float().flatten(0, 1), targets.flatten())
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        optimizer.zero_grad()
        found.append(float(loss.detach()))
    return found


def saved(model: Any, folder: Path, way: str) -> Path:
    folder.mkdir()
    save_artifact(model, None, folder, saves="delta", method=method(way))
    return folder


def logits(model: Any, ids: Tensor) -> Tensor:
    with torch.inference_mode():
        return forward(model, ids.tolist())


def relative(ours: Tensor, theirs: Tensor) -> float:
    """Returns the largest difference, relative to the largest logit."""
    return float((ours - theirs).abs().max() / theirs.abs().max())


# From initial values to the saved artifact


@pytest.mark.parametrize(
    ("way", "shape"), [*((way, "llama") for way in WAYS), ("prefix", "gpt2"), ("ptuning_v2", "gemma3")]
)
def test_a_prompt_learns_is_saved_alone_reloads_exactly_and_detaches_completely(
    folders: Callable[[str], Path], tmp_path: Path, way: str, shape: str
) -> None:
    base = tiny.tiny_base(folders(shape))
    model = made(base, way)
    first, *_, last = losses(model.train(), 8, 0.02)
    assert last < first
    artifact = saved(model.eval(), tmp_path / "artifact", way)
    (shipped,) = load_file(artifact / "adapter_model.safetensors").values()
    config = model.config
    deep = way.startswith(("prefix", "ptuning_v2"))
    heads = getattr(config, "num_key_value_heads", config.num_attention_heads)
    dimension = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    wide = dimension * heads * config.num_hidden_layers * 2
    assert shipped.shape == (model.active_peft_config.num_virtual_tokens, wide if deep else config.hidden_size)
    ids = batch()[0][2]
    one = Resident(base, method_function)
    untouched, weights = logits(one.bare, ids), {k: v.clone() for k, v in one.bare.state_dict().items()}
    reloaded = logits(one.attach(Recipe(base, artifact)), ids)
    trained = logits(model, ids)
    assert torch.equal(reloaded, trained) or (way == "ptuning-lstm" and relative(reloaded, trained) < 1e-6), (
        "what is shipped is what was trained, bit by bit (torch's LSTM rounds otherwise in inference mode)"
    )
    assert relative(reloaded, untouched) > 1e-3
    one.detach()
    assert torch.equal(logits(one.bare, ids), untouched)
    assert all(torch.equal(value, weights[key]) for key, value in one.bare.state_dict().items())


@pytest.mark.parametrize(("bits", "dtype"), [(None, "bfloat16"), (4, "bfloat16"), (8, "float32")])
@pytest.mark.parametrize("way", ["prompt", "ptuning_v2"])
def test_prompts_are_learned_in_float32_on_bases_of_any_precision(
    folders: Callable[[str], Path], tmp_path: Path, way: str, bits: Any, dtype: str
) -> None:
    base = tiny.tiny_base(folders("llama"), bits=bits, dtype=dtype)
    model = made(base, way)
    assert {p.dtype for p in model.parameters() if p.requires_grad} == {torch.float32}
    first, *_, last = losses(model.train(), 6, 0.02)
    assert last < first
    artifact = saved(model.eval(), tmp_path / "artifact", way)
    ids = batch()[0][2]
    reloaded = Resident(base, method_function).attach(Recipe(base, artifact))
    assert torch.equal(logits(reloaded, ids), logits(model, ids))


# Initial values


@pytest.mark.parametrize("shape", [*SHAPES, "gemma2", "falcon", "opt"])
@pytest.mark.parametrize("way", ["prompt-text", "ptuning_v2-text"])
def test_a_prompt_initialised_from_a_text_acts_like_that_text(
    folders: Callable[[str], Path], way: str, shape: str
) -> None:
    base = tiny.tiny_base(folders(shape))
    tokenizer = tiny.tiny_tokenizer()
    words = tokenizer(TEXT)["input_ids"]
    if shape == "gemma3" and way == "ptuning_v2-text":  # it keeps no more keys and values than its window has tokens
        with pytest.raises(UserError, match="does not cache keys and values"):
            made(base, way, tokens=len(words) + 3)
        return
    model = made(base, way, tokens=len(words) + 3).eval()  # three more tokens than words: the text repeats
    ids = torch.tensor(tokenizer(ROWS[1])["input_ids"])
    prompted = logits(load_base(base), torch.tensor([*words, *words[:3], *ids]))[-len(ids) :]
    assert relative(logits(model, ids), prompted) < 1e-5


@pytest.mark.parametrize("way", ["prompt", "prompt-random", "ptuning_v2"])
def test_a_seed_decides_the_initial_values_and_their_scale_is_the_models_own(
    folders: Callable[[str], Path], way: str
) -> None:
    base = tiny.tiny_base(folders("llama"))
    first, second = (made(base, way, tokens=40).prompt_encoder["default"].embedding.weight for _ in range(2))
    assert torch.equal(first, second)
    torch.manual_seed(2)
    chosen = method(way, tokens=40)
    other = method_function(chosen)(load_base(base), **chosen.hyperparameters).prompt_encoder["default"]
    assert not torch.equal(first, other.embedding.weight)
    if way != "ptuning_v2":
        words = load_base(base).get_input_embeddings().weight
        assert 0.8 < float(first.detach().std() / words.std()) < 1.25


# Every path of the engine


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("way", ["prompt", "ptuning", "prefix", "ptuning_v2"])
def test_rows_padded_on_the_right_are_what_they_are_alone(folders: Callable[[str], Path], way: str, shape: str) -> None:
    model = made(tiny.tiny_base(folders(shape)), way).eval()
    ids, mask = batch()
    with torch.inference_mode():
        together = model(input_ids=ids, attention_mask=mask).logits[:, -ids.shape[1] :]
    for row, count, ours in zip(ids, mask.sum(1).tolist(), together, strict=True):
        assert relative(ours[:count], logits(model, row[:count])) < 1e-5


@pytest.mark.parametrize("shape", ["gemma3", "opt"])  # test_all_methods.py covers the other architectures
@pytest.mark.parametrize("way", ["prompt", "ptuning_v2"])
def test_the_fast_path_scores_and_generates_as_whole_rows_do_whatever_the_batch(
    folders: Callable[[str], Path], tmp_path: Path, way: str, shape: str
) -> None:
    base = tiny.tiny_base(folders(shape))
    model = made(base, way)
    losses(model.train(), 2, 0.05)
    artifact = saved(model.eval(), tmp_path / "artifact", way)
    model = Resident(base, method_function).attach(Recipe(base, artifact))
    for requests in (CHOICES, PROMPTS):
        items = encoded(model, requests)
        expected = run(model, items, "plain")
        for budget in (40, 2048):
            for ours, theirs in zip(run(model, items, "auto", budget), expected, strict=True):
                assert replace(ours, loglikelihoods=()) == replace(theirs, loglikelihoods=())
                assert all(
                    math.isclose(a, b, rel_tol=1e-5)
                    for a, b in zip(ours.loglikelihoods, theirs.loglikelihoods, strict=True)
                )


@pytest.mark.parametrize("way", ["prompt", "ptuning", "prefix", "ptuning_v2"])
def test_the_fast_path_is_taken(folders: Callable[[str], Path], way: str) -> None:
    for shape in ("llama", "qwen3", "gpt2"):
        runner = Runner(
            made(tiny.tiny_base(folders(shape)), way).eval(),
            tiny.tiny_tokenizer(),
            engine="auto",
            numerics="fp32",
            token_budget=2048,
            max_rows=None,
            seed=0,
        )
        assert (runner.scoring, runner.generation, runner.notes) == ("tree", "slots", [])


def encoded(model: Any, requests: Sequence[Any]) -> list[Encoded]:
    return Encoder(tiny.tiny_tokenizer(), context_length(model, tiny.tiny_tokenizer())).encode(tiny.task(*requests))


def run(model: Any, items: Sequence[Encoded], engine: str, budget: int = 2048) -> list[Raw]:
    runner = Runner(
        model,
        tiny.tiny_tokenizer(),
        engine=engine,
        numerics="fp32",
        token_budget=budget,
        max_rows=None,
        seed=0,
    )
    return sorted((raw for pack in runner.plan(items) for raw in runner.run(pack)), key=lambda raw: raw.index)


@pytest.mark.parametrize("shape", ["llama", "gpt2", "gemma3"])
@pytest.mark.parametrize("way", ["base", "prompt", "ptuning", "prefix", "ptuning_v2"])
def test_the_timed_decode_is_correct(folders: Callable[[str], Path], way: str, shape: str) -> None:
    base = tiny.tiny_base(folders(shape))
    model = (load_base(base) if way == "base" else made(base, way)).eval()
    ids = batch()[0][2:]
    fed: list[Tensor] = []
    inner = model.get_base_model() if way != "base" else model
    embedding = inner.get_input_embeddings()
    hook = embedding.register_forward_pre_hook(lambda module, arguments: fed.append(arguments[0]))
    latency(model, ids, 6, Stopwatch())
    hook.remove()
    decoded = [int(step) for step in fed if step.shape == (1, 1)]
    greedy = ids[0].tolist()
    for token in decoded:
        assert token == int(logits(model, torch.tensor(greedy))[-1].argmax())
        greedy.append(token)
    assert len(decoded) == 6


@pytest.mark.parametrize("shape", ["llama", "gpt2", "gemma2"])
@pytest.mark.parametrize("way", ["prompt", "ptuning", "prefix", "ptuning_v2"])
def test_the_loss_of_labelled_tokens_and_its_gradients_are_those_of_whole_logits(
    folders: Callable[[str], Path], way: str, shape: str
) -> None:
    model = made(tiny.tiny_base(folders(shape)), way).eval()
    learned = [p for p in model.parameters() if p.requires_grad]
    ids, mask = batch()
    labels = ids.masked_fill(mask == 0, -100)
    labels[:, :2] = -100  # the prompt has two tokens
    sums = label_loss(model, {"input_ids": ids, "attention_mask": mask, "labels": labels})
    whole = model(input_ids=ids, attention_mask=mask, labels=labels).loss * (labels != -100).sum()
    assert sums.item() == pytest.approx(whole.item(), rel=1e-6)
    ours, theirs = torch.autograd.grad(sums, learned), torch.autograd.grad(whole, learned)
    largest = max(float(gradient.abs().max()) for gradient in theirs)
    assert max(float((a - b).abs().max()) for a, b in zip(ours, theirs, strict=True)) < 1e-5 * largest


def test_texts_that_fill_the_context_make_room_for_the_prompt(folders: Callable[[str], Path], tmp_path: Path) -> None:
    base = tiny.tiny_base(folders("gpt2"))
    artifact = saved(made(base, "prompt").eval(), tmp_path / "artifact", "prompt")
    long = tiny.words(400)
    requests = (
        TaskRequests("choose", [tiny.choose(long, [" Paris", " 42"])]),
        TaskRequests("write", [tiny.generate(long, max_tokens=4)]),
        TaskRequests("read", [tiny.text(long)]),
    )
    variants = [
        ScoreVariant("base", tiny.bare(base), requests),
        ScoreVariant("prompt", Recipe(base, artifact), requests),
    ]
    events: list[Any] = []
    scoring.score(ScoreJob(variants, "auto", "fp32", 512, None, 0, allow_cut=True), events.append)
    assert not [event for event in events if isinstance(event, VariantFailed)]
    packed = [event for event in events if isinstance(event, Packed)]
    assert {(event.variant, event.task) for event in packed} == {
        (variant, task) for variant in ("base", "prompt") for task in ("choose", "write", "read")
    }
    assert all(math.isfinite(value) for event in packed for raw in event.raws for value in raw.loglikelihoods)


@pytest.mark.parametrize("shape", ["llama", "gpt2"])
@pytest.mark.parametrize("way", ["prompt", "ptuning"])
def test_computing_activations_again_gives_the_same_gradients(
    folders: Callable[[str], Path], way: str, shape: str
) -> None:
    model = made(tiny.tiny_base(folders(shape)), way).eval()
    ids, mask = batch()

    def gradients() -> list[Tensor]:
        model.zero_grad()
        model(input_ids=ids, attention_mask=mask).logits.square().mean().backward()
        return [p.grad.clone() for p in model.parameters() if p.requires_grad]

    model.train()
    for module in model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
    kept = gradients()
    model.get_base_model().gradient_checkpointing_enable({"use_reentrant": False})
    again = gradients()
    assert all(torch.allclose(a, b, rtol=1e-6, atol=1e-9) for a, b in zip(again, kept, strict=True))
    assert any(gradient.abs().max() > 0 for gradient in kept)


# Refused combinations


@pytest.mark.parametrize(
    ("way", "options", "said"),
    [
        ("prompt", {"tokens": 0}, "of 0 tokens"),
        ("ptuning", {"tokens": -3}, "of -3 tokens"),
        ("ptuning_v2", {"tokens": 256}, "no room in the model's context of 256"),
        ("prefix", {"tokens": 5000}, "no room"),
        ("prompt", {"init": "text"}, "`init=text` and `text` need each other"),
        ("prompt", {"init": "text", "text": "  "}, "`init=text` and `text` need each other"),
        ("ptuning_v2", {"text": "Hello"}, "`init=text` and `text` need each other"),
        ("prompt", {"init": "text", "text": TEXT, "tokens": 2}, "the prompt that starts from it only 2"),
        ("prefix", {"init": "vocab"}, "starts at random"),
    ],
)
def test_prompts_that_cannot_be_learned_are_refused(
    folders: Callable[[str], Path], way: str, options: dict[str, Any], said: str
) -> None:
    with pytest.raises(UserError) as refused:
        made(tiny.tiny_base(folders("llama")), way, **options)
    assert said in refused.value.message and refused.value.hint


@pytest.mark.parametrize("way", ["prefix", "ptuning_v2"])
def test_a_prefix_is_refused_where_no_keys_and_values_are_kept(folders: Callable[[str], Path], way: str) -> None:
    with pytest.raises(UserError, match="does not cache keys and values"):
        made(tiny.tiny_base(folders("mamba")), way)


@pytest.mark.parametrize("way", ["prompt", "prefix"])
def test_a_learned_prompt_cannot_be_merged(folders: Callable[[str], Path], tmp_path: Path, way: str) -> None:
    base = tiny.tiny_base(folders("llama"))
    artifact = saved(made(base, way), tmp_path / "artifact", way)
    with pytest.raises(UserError, match="merge"):
        Resident(base, method_function).attach(Recipe(base, artifact, merged=True))
    with pytest.raises(UserError, match="cannot be merged"):
        parse_variant(f"{way}@merged")


def test_a_text_in_any_script_may_be_the_start(folders: Callable[[str], Path]) -> None:
    model = made(tiny.tiny_base(folders("llama")), "prompt", init="text", text="答えは数字で。🙂", tokens=64)
    assert model.prompt_encoder["default"].embedding.weight.shape[0] == 64


def test_the_saved_parameters_are_counted_from_the_artifact(folders: Callable[[str], Path], tmp_path: Path) -> None:
    base = tiny.tiny_base(folders("llama"))
    model = made(base, "ptuning")
    trained = sum(p.numel() for p in model.parameters() if p.requires_grad)
    artifact = saved(model, tmp_path / "artifact", "ptuning")
    assert folder_numbers(artifact) == TOKENS * model.config.hidden_size < trained
    (artifact / "adapter_model.safetensors").write_bytes(b"torn")
    assert folder_numbers(artifact) is None
