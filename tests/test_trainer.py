"""Training on toy rows: what is learned from, what is counted, and that an interruption leaves no trace."""

import json
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import tiny_models as tiny
import torch
from safetensors.torch import load_file

from harness import children
from harness.engine.encode import Encoder
from harness.errors import UserError
from harness.finetune import trainer
from harness.finetune.curve import read_curve
from harness.finetune.trainer import tokenise
from harness.jobs import TRAINED_FILE, Advanced, Event, Method, Recipe, Trained, Training, TrainJob
from harness.models import Resident, load_base
from harness.render import Example

SETTINGS = Training(
    lr=5e-3,
    steps=None,
    epochs=1.0,
    batch_size=8,
    micro_batch_size=8,
    max_length=256,
    seed=0,
    bf16=False,
)
ANSWERS = ["one", "two", "three", "four"]
EXAMPLES = [
    Example("hello " * (n % 5) + f"Question: {n % 4}? Answer:", f" {ANSWERS[n % 4]} and {n % 7}") for n in range(48)
]

NORMS = """
from harness import method

@method(lr=1e-2)
def norms(model):
    for name, parameter in model.named_parameters():
        parameter.requires_grad_("norm" in name)
    return model

@method
def nothing(model):
    return model
"""


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("trainer")
    tiny.save_tiny(root / "llama")
    (root / "methods.py").write_text(NORMS)
    return root


def method_of(root: Path, name: str, **hyperparameters: Any) -> Method:
    if name in ("norms", "nothing"):
        return tiny.from_file(root / "methods.py", name)
    return tiny.built_in(name, **hyperparameters)


def job_for(
    root: Path, output: Path, name: str = "lora", *, examples: Sequence[Example] = EXAMPLES, **settings: Any
) -> TrainJob:
    bits = settings.pop("bits", 4 if name == "qlora" else None)
    dtype = settings.pop("dtype", "float32")
    hyperparameters = settings.pop("hyperparameters", {"rank": 4} if "lora" in name else {})
    return TrainJob(
        base=tiny.tiny_base(root / "llama", bits=bits, dtype=dtype),
        method=method_of(root, name, **hyperparameters),
        training=replace(SETTINGS, **settings),
        examples=examples,
        saves="checkpoint" if name == "full" else "delta",
        output=output / "artifact",
        log=output / "train.jsonl",
        state=output / "state",
        train_key="the key",
    )


def train(job: TrainJob, send: Callable[[Event], None] = lambda event: None) -> Trained:
    return children.train(job, send)


def tensors(output: Path) -> dict[str, torch.Tensor]:
    (file,) = (output / "artifact").glob("*.safetensors")
    return load_file(file)


def equal(ours: Path, theirs: Path) -> bool:
    a, b = tensors(ours), tensors(theirs)
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


# Rows


def test_the_loss_is_on_the_completion_and_its_end_alone() -> None:
    tokenizer = tiny.tiny_tokenizer()
    rows, truncated = tokenise([Example("Question: what? Answer:", " two")], tokenizer, 100)
    (row,) = rows
    answer = tokenizer(" two")["input_ids"]
    assert row["labels"] == [-100] * (len(row["labels"]) - len(answer) - 1) + [*answer, tiny.EOS]
    assert tokenizer.decode(row["input_ids"]) == "Question: what? Answer: two</s>"
    assert truncated == 0


@pytest.mark.parametrize("adds_bos", [False, True])
@pytest.mark.parametrize("prompt", ["The answer is", "The answer is ", "", "x"])
def test_a_row_is_tokenised_as_it_is_scored(prompt: str, adds_bos: bool) -> None:
    tokenizer = tiny.tiny_tokenizer(adds_bos=adds_bos)
    (row,), _ = tokenise([Example(prompt, " 42 and", append_eos=False)], tokenizer, 100)
    (item,) = Encoder(tokenizer, 100).encode(tiny.task(tiny.choose(prompt, [" 42 and"])))
    (scored,) = item.rows
    learned = [label for label in row["labels"] if label not in (-100, tiny.BOS)]
    assert learned == list(scored.spans[0].targets)
    if prompt or adds_bos:
        assert row["input_ids"] == [*scored.ids, scored.spans[0].targets[-1]]


CASES = [(" two and", True, 1), (" two and", False, 0), (" two and</s>", False, 1), (" two and</s>", True, 1)]


def test_a_row_ends_once_whether_text_or_tokenizer_or_neither_ends_it() -> None:
    from tokenizers import processors

    plain = tiny.tiny_tokenizer()
    ending = tiny.tiny_tokenizer.__wrapped__()
    ending._tokenizer.post_processor = processors.TemplateProcessing(
        single="$A </s>", special_tokens=[("</s>", tiny.EOS)]
    )
    assert ending("x")["input_ids"][-1] == tiny.EOS
    for tokenizer in (plain, ending):
        for completion, append, ends in CASES:
            (row,), _ = tokenise([Example("", completion, append_eos=append)], tokenizer, 100)
            assert row["labels"].count(tiny.EOS) == ends, (completion, append)


def test_a_stop_string_is_learned_instead_of_the_end() -> None:
    (row,), _ = tokenise([Example("Question:", " two\n", append_eos=False)], tiny.tiny_tokenizer(), 100)
    assert tiny.tiny_tokenizer().decode([label for label in row["labels"] if label != -100]) == " two\n"


def test_long_rows_are_cut_on_the_right_and_counted_and_those_without_an_answer_left_out() -> None:
    short, cut, gone = Example("hello", " world"), Example("hello", " world" * 30), Example("hello " * 30, " world")
    rows, truncated = tokenise([short, cut, gone], tiny.tiny_tokenizer(), 12)
    assert truncated == 2
    assert len(rows) == 2
    whole = tokenise([cut], tiny.tiny_tokenizer(), 500)[0][0]
    assert rows[1]["input_ids"] == whole["input_ids"][:12]
    assert rows[1]["labels"] == whole["labels"][:12]


def test_rows_of_which_no_answer_fits_are_an_error() -> None:
    with pytest.raises(UserError, match="none of the 48 training rows has an answer within 2 tokens") as caught:
        tokenise(EXAMPLES, tiny.tiny_tokenizer(), 2)
    assert "--max-length" in str(caught.value.hint)


# Steps


def by_hand(root: Path, examples: Sequence[Example]) -> float:
    """Mean cross-entropy of the answers' tokens, one row at a time, by the untrained base."""
    model, tokenizer = load_base(tiny.tiny_base(root / "llama")), tiny.tiny_tokenizer()
    losses = []
    for example in examples:
        prompt = tokenizer(example.prompt)["input_ids"]
        ids = [*tokenizer(example.prompt + example.completion)["input_ids"], tiny.EOS]
        with torch.inference_mode():
            logprobs = model(torch.tensor([ids])).logits[0].log_softmax(-1)
        losses += [-float(logprobs[at - 1, ids[at]]) for at in range(len(prompt), len(ids))]
    return sum(losses) / len(losses)


@pytest.mark.parametrize("micro", [8, 2])
def test_the_first_loss_is_the_mean_over_the_answers_tokens(root: Path, tmp_path: Path, micro: int) -> None:
    job = job_for(root, tmp_path, examples=EXAMPLES[:8], steps=1, micro_batch_size=micro)
    assert train(job).losses[0] == pytest.approx(by_hand(root, EXAMPLES[:8]), rel=1e-3)


def test_accumulated_micro_batches_train_as_the_whole_batch(root: Path, tmp_path: Path) -> None:
    whole = train(job_for(root, tmp_path / "8", steps=6))
    parts = train(job_for(root, tmp_path / "2", steps=6, micro_batch_size=2))
    assert parts.losses == pytest.approx(whole.losses, rel=1e-3)
    assert parts.tokens == whole.tokens
    assert parts.steps == whole.steps == 6
    ours, theirs = tensors(tmp_path / "2"), tensors(tmp_path / "8")
    assert all(torch.allclose(ours[name], theirs[name], atol=1e-4) for name in theirs)


def test_tokens_are_those_of_the_rows_without_padding(root: Path, tmp_path: Path) -> None:
    trained = train(job_for(root, tmp_path, epochs=2.0))
    rows, _ = tokenise(EXAMPLES, tiny.tiny_tokenizer(), 256)
    assert len({len(row["input_ids"]) for row in rows}) > 1
    assert trained.tokens == 2 * sum(len(row["input_ids"]) for row in rows)
    assert trained.steps == 2 * len(EXAMPLES) / 8
    assert trained.samples == len(EXAMPLES)


def test_the_rate_warms_up_and_follows_a_cosine_to_zero(root: Path, tmp_path: Path) -> None:
    steps = 40
    train(job_for(root, tmp_path, steps=steps))
    warm = math.ceil(0.05 * steps)
    expected = [
        5e-3 * min(step / warm, 0.5 * (1 + math.cos(math.pi * max(0, step - warm) / (steps - warm))))
        for step in range(steps)  # the first step is taken at rate 0
    ]
    assert [line["lr"] for line in read_log(tmp_path)] == pytest.approx(expected, rel=1e-6, abs=1e-12)


def read_log(output: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (output / "train.jsonl").read_text().splitlines()]


def test_the_log_has_a_line_a_step_and_progress_hears_of_each(root: Path, tmp_path: Path) -> None:
    events: list[Any] = []
    trained = train(job_for(root, tmp_path, steps=5), events.append)
    log = read_log(tmp_path)
    assert [line["step"] for line in log] == [1, 2, 3, 4, 5]
    assert tuple(line["loss"] for line in log) == trained.losses
    assert sum(line["tokens"] for line in log) == trained.tokens
    assert [(e.done, e.total) for e in events if isinstance(e, Advanced)] == [(n, 5) for n in range(1, 6)]
    assert trained.final_loss == pytest.approx(sum(trained.losses) / 5)


def test_one_seed_gives_one_adapter_and_another_seed_another(root: Path, tmp_path: Path) -> None:
    runs = {
        name: train(job_for(root, tmp_path / name, steps=5, seed=seed))
        for name, seed in zip("abc", (3, 3, 4), strict=True)
    }
    assert equal(tmp_path / "a", tmp_path / "b")
    assert not equal(tmp_path / "a", tmp_path / "c")
    assert runs["a"].losses == runs["b"].losses != runs["c"].losses


def test_seconds_are_those_of_the_steps_and_not_of_loading_or_saving(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    slept = 0.0

    def slow(function: Callable[..., Any], seconds: float) -> Callable[..., Any]:
        def wait(*arguments: Any, **options: Any) -> Any:
            nonlocal slept
            slept += seconds
            time.sleep(seconds)
            return function(*arguments, **options)

        return wait

    monkeypatch.setattr(trainer._Padding, "__call__", slow(trainer._Padding.__call__, 0.05))
    monkeypatch.setattr(trainer, "save_artifact", slow(trainer.save_artifact, 0.2))
    monkeypatch.setattr(trainer._CountingTrainer, "_save_checkpoint", slow(trainer.Trainer._save_checkpoint, 0.05))
    monkeypatch.setattr(trainer, "_CHECKPOINT_EVERY_SECONDS", 0.0)
    start = time.perf_counter()
    trained = train(job_for(root, tmp_path, steps=4))
    wall = time.perf_counter() - start
    assert slept >= 0.2 + 4 * 0.1
    assert 0 < trained.train_seconds <= wall - slept
    assert trained.train_seconds == pytest.approx(sum(line["seconds"] for line in read_log(tmp_path)))


# Methods


@pytest.mark.parametrize("name", ["lora", "qlora", "full", "norms"])
def test_a_method_lowers_the_loss_and_its_artifact_says_what_it_learned(root: Path, tmp_path: Path, name: str) -> None:
    rate = {"lora": 2e-2, "qlora": 2e-2, "full": 5e-3, "norms": 1e-1}[name]
    job = job_for(root, tmp_path, name, epochs=4.0, lr=rate)
    trained = train(job)
    assert trained.losses[-1] < 0.8 * trained.losses[0]
    assert 0 < trained.parameters_trainable <= trained.parameters_total
    assert (trained.parameters_trainable == trained.parameters_total) is (name == "full")
    assert trained.peaks["peak_rss_bytes"] is not None
    record = json.loads((job.output / TRAINED_FILE).read_text())
    assert record["train_key"] == "the key"
    assert record["trained"]["losses"] == list(trained.losses)
    if name == "full":
        model = load_base(replace(job.base, folder=job.output))
    else:
        method = job.method if name == "norms" else None
        model = Resident(job.base, children._load_method).attach(Recipe(job.base, job.output, method=method))
    rows, _ = tokenise(EXAMPLES[:8], tiny.tiny_tokenizer(), 256)
    batch = trainer._Padding(tiny.PAD)(rows)
    with torch.inference_mode():
        assert float(model(**batch).loss) < 0.8 * trained.losses[0]
    assert not job.state.exists()
    assert [path.name for path in job.output.parent.glob("*.partial")] == []


@pytest.mark.parametrize("name", ["lora", "full", "norms"])
def test_a_16_bit_base_trains_in_float32_weights(root: Path, tmp_path: Path, name: str) -> None:
    job = job_for(root, tmp_path, name, dtype="bfloat16", bf16=True, steps=3)
    assert math.isfinite(train(job).losses[-1])
    kept = torch.bfloat16 if name == "full" else torch.float32
    assert {tensor.dtype for tensor in tensors(tmp_path).values()} == {kept}


def test_unknown_target_modules_are_an_error_of_the_user(root: Path, tmp_path: Path) -> None:
    job = job_for(root, tmp_path, hyperparameters={"target_modules": "no_such_proj"})
    with pytest.raises(UserError, match=r"method `lora`.*no_such_proj"):
        train(job)


def test_a_method_that_trains_nothing_is_an_error(root: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="method `nothing` left nothing to train"):
        train(job_for(root, tmp_path, "nothing"))


# Artifacts and interruptions


def test_an_artifact_is_whole_or_not_there(root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    job = job_for(root, tmp_path, steps=1)

    def torn(model: Any, tokenizer: Any, folder: Path, **_: Any) -> None:
        (folder / "half").write_text("")
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(trainer, "save_artifact", torn)
        with pytest.raises(OSError, match="No space left"):
            train(job)
    assert not job.output.exists()
    train(job)
    names = {path.name for path in job.output.iterdir()}
    assert {"adapter_config.json", "adapter_model.safetensors", TRAINED_FILE} <= names
    assert "half" not in names


class Interrupted(Exception):
    pass


def interrupt_at(step: int) -> Callable[[Event], None]:
    def send(event: Event) -> None:
        if isinstance(event, Advanced) and event.done == step:
            raise Interrupted

    return send


@pytest.mark.parametrize("name", ["lora", "qlora", "full", "norms"])
def test_an_interrupted_training_goes_on_to_the_same_weights(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    whole = train(job_for(root, tmp_path / "whole", name, epochs=1.5))
    monkeypatch.setattr(trainer, "_CHECKPOINT_EVERY_SECONDS", 0.0)
    job = job_for(root, tmp_path / "cut", name, epochs=1.5)
    for step in (4, 7):  # the second time in the second epoch
        with pytest.raises(Interrupted):
            train(job, interrupt_at(step))
        assert [path.name for path in job.state.iterdir()] == [f"checkpoint-{step - 1}"]
        assert len(read_log(tmp_path / "cut")) == step
    torn = job.state / "checkpoint-7"  # what a kill amid a checkpoint leaves
    torn.mkdir()
    (torn / "trainer_state.json").write_text('{"global_st')
    heard: list[Any] = []
    continued = train(job, heard.append)
    assert [event.done for event in heard if isinstance(event, Advanced)] == [7, 8, 9]
    assert equal(tmp_path / "cut", tmp_path / "whole")
    assert continued.losses == whole.losses
    assert continued.tokens == whole.tokens
    assert [line["step"] for line in read_log(tmp_path / "cut")] == list(range(1, 10))
    assert not job.state.exists()


# Curves


@pytest.mark.parametrize(
    ("losses", "word"),
    [
        ([3.0, 2.0], "too short to tell"),
        ([4.0 * 0.9**n for n in range(40)], "still falling"),
        ([4.0, 3.0, 2.0] + [1.0 + 0.01 * (n % 2) for n in range(40)], "converged"),
        ([1.0] * 20 + [0.2, 2.0] * 10, "oscillating"),
        ([4.0, 1.0, 1.0, 1.0, 1.0, 1.5, 2.0, 2.5], "oscillating"),
    ],
)
def test_a_curve_is_read(losses: list[float], word: str) -> None:
    assert read_curve(losses) == word


@pytest.mark.parametrize("losses", [[4.0, 3.0, math.nan, math.nan], [4.0] * 20 + [math.inf]])
def test_a_curve_that_left_the_numbers_has_diverged(losses: list[float]) -> None:
    assert read_curve(losses) == "diverged"
