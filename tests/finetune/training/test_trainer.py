"""Training on toy rows: which tokens are learned, what is counted, and that an interrupted run ends with the same weights."""

import json
import math
import re
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import tiny_models as tiny
import torch
from safetensors.torch import load_file

from harness.comparison.curve import read_curve
from harness.config.parse import configure
from harness.errors import UserError
from harness.finetune.stages import sft
from harness.finetune.training import batches, checkpoints, loop, micro_batches, trainer
from harness.jobs import TRAINED_FILE, Advanced, Event, Example, Method, Monitor, Recipe, Trained, TrainJob
from harness.models.load import Resident, load_base, method_function
from harness.settings import TrainingSettings
from harness.tokens.training_labels import tokenise
from harness.worker import child

SETTINGS = TrainingSettings(
    lr=5e-3,
    steps=None,
    epochs=1.0,
    batch_size=8,
    micro_batch_size=8,
    max_length=256,
    seed=0,
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
        training=SETTINGS.model_copy(update=settings),
        examples=examples,
        saves="checkpoint" if name == "full" else "delta",
        output=output / "artifact",
        log=output / "train.jsonl",
        state=output / "state",
        train_key="the key",
    )


def train(job: TrainJob, send: Callable[[Event], None] = lambda event: None) -> Trained:
    return child.train(job, send)


def tensors(output: Path) -> dict[str, torch.Tensor]:
    (file,) = (output / "artifact").glob("*.safetensors")
    return load_file(file)


def equal(ours: Path, theirs: Path) -> bool:
    a, b = tensors(ours), tensors(theirs)
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


# Steps


def by_hand(root: Path, examples: Sequence[Example]) -> float:
    """Returns the mean cross-entropy of the answers' tokens under the untrained base, computed one row at a time."""
    model, tokenizer = load_base(tiny.tiny_base(root / "llama")), tiny.tiny_tokenizer()
    losses = []
    for example in examples:
        prompt = tokenizer(example.prompt)["input_ids"]
        ids = [*tokenizer(example.prompt + example.completion)["input_ids"], tiny.EOS]
        with torch.inference_mode():
            logprobs = model(torch.tensor([ids])).logits[0].log_softmax(-1)
        losses += [-float(logprobs[at - 1, ids[at]]) for at in range(len(prompt), len(ids))]
    return sum(losses) / len(losses)


def test_a_base_on_the_second_gpu_is_trained_there(root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    chosen: list[Any] = []
    monkeypatch.setattr(torch.cuda, "set_device", chosen.append)
    monkeypatch.setenv("ACCELERATE_TORCH_DEVICE", "cpu")
    job = job_for(root, tmp_path, precision="fp32")
    job = replace(job, base=replace(job.base, device="cuda:1"))
    accelerator = trainer._accelerator(job, trainer._arguments(job, 1))
    assert accelerator.device == torch.device("cuda:1") and chosen[-1] == "cuda:1"


@pytest.mark.parametrize("micro", [8, 2])
def test_the_first_loss_is_the_mean_over_the_answers_tokens(root: Path, tmp_path: Path, micro: int) -> None:
    job = job_for(root, tmp_path, examples=EXAMPLES[:8], steps=1, micro_batch_size=micro)
    assert train(job).losses[0] == pytest.approx(by_hand(root, EXAMPLES[:8]), rel=1e-3)


def test_accumulated_micro_batches_train_as_the_whole_batch(root: Path, tmp_path: Path) -> None:
    whole = train(job_for(root, tmp_path / "8", steps=6))
    smaller = train(job_for(root, tmp_path / "2", steps=6, micro_batch_size=2))
    assert smaller.losses == pytest.approx(whole.losses, rel=1e-3)
    assert smaller.tokens == whole.tokens
    assert smaller.steps == whole.steps == 6
    ours, theirs = tensors(tmp_path / "2"), tensors(tmp_path / "8")
    assert all(torch.allclose(ours[name], theirs[name], atol=1e-4) for name in theirs)


def test_tokens_are_those_of_the_rows_without_padding(root: Path, tmp_path: Path) -> None:
    trained = train(job_for(root, tmp_path, epochs=2.0))
    rows = tokenise(EXAMPLES, tiny.tiny_tokenizer(), 256).rows
    assert len({len(row["input_ids"]) for row in rows}) > 1
    assert trained.tokens == 2 * sum(len(row["input_ids"]) for row in rows)
    assert trained.steps == 2 * len(EXAMPLES) / 8
    assert trained.samples == len(EXAMPLES)


def test_the_learning_rate_warms_up_and_follows_a_cosine_to_zero(root: Path, tmp_path: Path) -> None:
    steps = 40
    train(job_for(root, tmp_path, steps=steps))
    warm = math.ceil(0.05 * steps)
    expected = [
        5e-3 * min(step / warm, 0.5 * (1 + math.cos(math.pi * max(0, step - warm) / (steps - warm))))
        for step in range(steps)  # the learning rate of the first step is 0
    ]
    assert [line["lr"] for line in read_log(tmp_path)] == pytest.approx(expected, rel=1e-6, abs=1e-12)


def read_log(output: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (output / "train.jsonl").read_text().splitlines()]


def test_the_log_has_a_line_for_each_step_and_progress_receives_each(root: Path, tmp_path: Path) -> None:
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

    monkeypatch.setattr(batches.Padding, "__call__", slow(batches.Padding.__call__, 0.05))
    monkeypatch.setattr(trainer, "save_artifact", slow(trainer.save_artifact, 0.2))
    monkeypatch.setattr(checkpoints.Checkpoints, "save", slow(checkpoints.Checkpoints.save, 0.05))
    monkeypatch.setattr(loop, "CHECKPOINT_EVERY_SECONDS", 0.0)
    start = time.perf_counter()
    trained = train(job_for(root, tmp_path, steps=4))
    wall = time.perf_counter() - start
    assert slept > 0.5
    assert 0 < trained.train_seconds <= wall - slept
    assert trained.train_seconds == pytest.approx(sum(line["seconds"] for line in read_log(tmp_path)))
    phases = trained.phase_seconds
    assert list(phases) == ["load", "tokenise", "train", "save"]
    assert sum(phases.values()) <= wall
    assert phases["save"] >= 0.4 and phases["train"] >= trained.train_seconds


def test_memory_of_evaluations_is_not_in_the_peak_of_training(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    without = train(job_for(root, tmp_path / "without", steps=2))
    held_out_loss = loop.Loop._held_out_loss

    def large(self: Any, rows: Any) -> float:
        block = b"\2" * (512 << 20)
        assert len(block) > 0
        return held_out_loss(self, rows)

    monkeypatch.setattr(loop.Loop, "_held_out_loss", large)
    evaluated = train(replace(job_for(root, tmp_path / "evaluated", steps=2), validation=HELD_OUT))
    assert evaluated.phase_seconds["evaluate"] > 0
    peaks = [run.peaks["peak_rss_bytes"] or 0 for run in (without, evaluated)]
    assert abs(peaks[1] - peaks[0]) < 256 << 20


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
        model = Resident(job.base, method_function).attach(Recipe(job.base, job.output, method=method))
    rows = tokenise(EXAMPLES[:8], tiny.tiny_tokenizer(), 256).rows
    batch = batches.Padding(tiny.PAD)(rows)
    del batch["tokens"]
    with torch.inference_mode():
        assert float(model(**batch).loss) < 0.8 * trained.losses[0]
    assert not job.state.exists()
    assert [path.name for path in job.output.parent.glob("*.partial")] == []


@pytest.mark.parametrize("name", ["lora", "full", "norms"])
def test_a_16_bit_base_trains_in_float32_weights(root: Path, tmp_path: Path, name: str) -> None:
    job = job_for(root, tmp_path, name, dtype="bfloat16", precision="bf16", steps=3)
    assert math.isfinite(train(job).losses[-1])
    kept = torch.bfloat16 if name == "full" else torch.float32
    assert {tensor.dtype for tensor in tensors(tmp_path).values()} == {kept}


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("name", ["lora", "full", "norms"])
def test_weights_in_bfloat16_are_read_back_as_they_were_trained(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, dtype: str
) -> None:
    made: list[Any] = []
    make = trainer.make_optimizer

    def kept(*arguments: Any) -> Any:
        made.append(make(*arguments))
        return made[-1]

    monkeypatch.setattr(trainer, "make_optimizer", kept)
    trained = train(job_for(root, tmp_path, name, dtype=dtype, precision="bf16", weights="bf16", lr=0.02, steps=8))
    assert trained.losses[-1] < trained.losses[0]
    (optimizer,) = made
    assert {state["exp_avg"].dtype for state in optimizer.state.values()} == {torch.bfloat16}
    saved = tensors(tmp_path).values()
    assert {tensor.dtype for tensor in saved} == {getattr(torch, dtype)}  # of the base, in which it is scored


def test_unknown_target_modules_are_an_error_of_the_user(root: Path, tmp_path: Path) -> None:
    job = job_for(root, tmp_path, hyperparameters={"target_modules": "no_such_proj"})
    with pytest.raises(UserError, match="no_such_proj"):
        train(job)


def test_a_method_that_trains_nothing_is_an_error(root: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="method `nothing` left no parameter of this model to train"):
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


def interrupt_saving(*_: Any, **__: Any) -> None:
    raise Interrupted


def interrupt_at(step: int) -> Callable[[Event], None]:
    def send(event: Event) -> None:
        if isinstance(event, Advanced) and event.done == step:
            raise Interrupted

    return send


@pytest.mark.parametrize("name", ["lora", "qlora", "full", "norms", "adalora", "ptuning"])
def test_an_interrupted_training_continues_to_the_same_weights(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    settings: dict[str, Any] = {"epochs": 1.5}
    if name == "lora":  # dropout and noise are drawn again
        settings |= {"hyperparameters": {"rank": 4, "dropout": 0.3}, "neftune": 5.0}
    whole = train(job_for(root, tmp_path / "whole", name, **settings))
    monkeypatch.setattr(loop, "CHECKPOINT_EVERY_SECONDS", 0.0)
    job = job_for(root, tmp_path / "cut", name, **settings)
    for step in (4, 7):  # the second interruption is in the second epoch
        with pytest.raises(Interrupted):
            train(job, interrupt_at(step))
        assert [path.name for path in job.state.iterdir()] == [f"checkpoint-{step - 1}"]
        assert len(read_log(tmp_path / "cut")) == step
    torn = job.state / "checkpoint-7"  # the leftover of a kill while a checkpoint is written
    torn.mkdir()
    (torn / "checkpoint.json").write_text('{"train_k')
    events: list[Any] = []
    continued = train(job, events.append)
    assert [event.done for event in events if isinstance(event, Advanced)] == [7, 8, 9]
    assert equal(tmp_path / "cut", tmp_path / "whole")
    assert continued.losses == whole.losses
    assert continued.tokens == whole.tokens
    assert [line["step"] for line in read_log(tmp_path / "cut")] == list(range(1, 10))
    assert not job.state.exists()


def test_a_training_interrupted_while_it_is_saved_continues_to_the_same_weights(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings: dict[str, Any] = {"steps": 7, "schedule": "constant"}  # an epoch has six steps
    whole = train(job_for(root, tmp_path / "whole", **settings))
    monkeypatch.setattr(loop, "CHECKPOINT_EVERY_SECONDS", 0.0)
    job = job_for(root, tmp_path / "cut", **settings)

    with monkeypatch.context() as patch:
        patch.setattr(trainer, "save_artifact", interrupt_saving)
        with pytest.raises(Interrupted):
            train(job)
    assert [path.name for path in job.state.iterdir()] == ["checkpoint-7"]
    continued = train(job)
    assert equal(tmp_path / "cut", tmp_path / "whole")
    assert continued.losses == whole.losses
    assert len(continued.losses) == 7


# Memory


class Scarce:
    """The loss of a stage, which runs out of memory with more than `rows` rows at once."""

    def __init__(self, rows: int, error: Exception) -> None:
        self._rows, self._error = rows, error
        self._loss = sft.label_loss
        self.most = 0

    def __call__(self, model: Any, batch: Any, **options: Any) -> torch.Tensor:
        torch.rand(1)  # uses the random generator, as dropout does
        rows = len(batch["input_ids"])
        if rows > self._rows:
            raise self._error
        self.most = max(self.most, rows)
        return self._loss(model, batch, **options)


def test_out_of_memory_halves_the_rows_at_once_and_changes_no_loss(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = train(job_for(root, tmp_path / "plain", steps=4, batch_size=7, micro_batch_size=7))
    assert plain.notes == ()
    for number, error in enumerate(
        (MemoryError(), torch.OutOfMemoryError("CUDA out of memory"), RuntimeError("can't allocate memory"))
    ):
        with monkeypatch.context() as patch:
            scarce = Scarce(2, error)
            patch.setattr(sft, "label_loss", scarce)
            smaller = train(job_for(root, tmp_path / str(number), steps=4, batch_size=7, micro_batch_size=7))
        assert smaller.micro_batch_size <= 2
        assert scarce.most == smaller.micro_batch_size
        assert ["memory ran out" in note for note in smaller.notes] == [True]
        assert smaller.losses == pytest.approx(plain.losses, rel=1e-5)
        assert smaller.tokens == plain.tokens


def test_memory_that_not_even_one_row_fits_is_a_failure(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sft, "label_loss", Scarce(0, MemoryError()))
    with pytest.raises(MemoryError):
        train(job_for(root, tmp_path, steps=2))
    monkeypatch.setattr(sft, "label_loss", Scarce(0, RuntimeError("another error")))
    with pytest.raises(RuntimeError, match="another error"):
        train(job_for(root, tmp_path, steps=2))


def test_checkpointed_activations_and_packed_rows_give_the_same_losses(root: Path, tmp_path: Path) -> None:
    plain = train(job_for(root, tmp_path / "plain", steps=3))
    checkpointed = train(job_for(root, tmp_path / "checkpointed", steps=3, checkpointing=True))
    packed = train(job_for(root, tmp_path / "packed", steps=3, packing=True))
    assert checkpointed.losses == pytest.approx(plain.losses, rel=1e-6)
    assert packed.losses == pytest.approx(plain.losses, rel=1e-5)
    assert packed.tokens == plain.tokens


def test_prefix_tuning_is_not_checkpointed(root: Path, tmp_path: Path) -> None:
    job = job_for(root, tmp_path, "peft", hyperparameters={"type": "PREFIX_TUNING", "num_virtual_tokens": 4})
    with pytest.raises(UserError, match="cannot be trained with activation checkpointing"):
        train(replace(job, training=job.training.model_copy(update={"checkpointing": True, "steps": 1})))


# Held-out rows


HELD_OUT = EXAMPLES[:6]


def test_the_best_checkpoint_is_kept_exactly_and_training_stops_when_gains_stop(root: Path, tmp_path: Path) -> None:
    others = [
        replace(example, completion=" four and 9" if n % 2 else " one and 8") for n, example in enumerate(HELD_OUT)
    ]
    job = job_for(root, tmp_path, steps=60, lr=5e-2, schedule="constant", evaluate_every=3, patience=2)
    trained = train(replace(job, validation=others))
    evaluations = dict(trained.validation)
    assert trained.best_step is not None
    assert trained.best_step == min(evaluations, key=lambda step: evaluations[step])
    assert trained.steps == trained.best_step + 2 * 3 < 60
    assert list(evaluations) == list(range(3, trained.steps + 1, 3))
    assert trained.validation_loss == evaluations[trained.best_step]
    assert any("2 evaluations without improvement" in note for note in trained.notes)
    model = Resident(job.base, method_function).attach(Recipe(job.base, job.output))
    rows = tokenise(others, tiny.tiny_tokenizer(), 256).rows
    batch = batches.Padding(tiny.PAD)(rows)
    with torch.no_grad():
        loss = sft.label_loss(model, batch) / sum(label != -100 for row in rows for label in row["labels"][1:])
    assert float(loss) == pytest.approx(trained.validation_loss, rel=1e-5)
    assert not job.state.exists()


def test_evaluations_change_nothing_in_training_and_take_none_of_its_seconds(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    without = train(job_for(root, tmp_path / "without", steps=10, neftune=5.0))
    evaluate = loop.Loop.evaluate

    def slow(self: Any) -> bool:
        time.sleep(0.2)
        return evaluate(self)

    monkeypatch.setattr(loop.Loop, "evaluate", slow)
    job = job_for(root, tmp_path / "evaluated", steps=10, neftune=5.0)
    start = time.perf_counter()
    evaluated = train(replace(job, validation=HELD_OUT))
    assert evaluated.losses == without.losses
    assert [step for step, _ in evaluated.validation] == list(range(1, 11))
    assert evaluated.train_seconds < time.perf_counter() - start - 2.0
    assert evaluated.held_out_losses == tuple(value for _, value in evaluated.validation)


def test_an_interrupted_training_with_evaluations_continues_to_the_same_best_checkpoint(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = {
        "steps": 12,
        "lr": 0.1,
        "evaluate_every": 2,
        "patience": 3,
        "optimizer": "adamw_8bit",
        "layer_decay": 0.5,
    }
    whole = train(replace(job_for(root, tmp_path / "whole", **settings), validation=HELD_OUT))
    monkeypatch.setattr(loop, "CHECKPOINT_EVERY_SECONDS", 0.0)
    job = replace(job_for(root, tmp_path / "cut", **settings), validation=HELD_OUT)
    for step in (4, 7):
        with pytest.raises(Interrupted):
            train(job, interrupt_at(step))
    continued = train(job)
    assert equal(tmp_path / "cut", tmp_path / "whole")
    assert (continued.losses, continued.validation) == (whole.losses, whole.validation)
    assert continued.best_step == whole.best_step


def test_patience_continues_after_an_interruption_and_checkpoints_come_between_the_best_evaluations(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings: dict[str, Any] = {
        "steps": 30,
        "lr": 0.3,  # far too high: evaluations get worse
        "schedule": "constant",
        "evaluate_every": 1,
        "patience": 2,
        "warmup": 0,
    }
    whole = train(replace(job_for(root, tmp_path / "whole", **settings), validation=HELD_OUT))
    assert whole.best_step is not None
    assert whole.steps == whole.best_step + 2 < 30
    monkeypatch.setattr(loop, "CHECKPOINT_EVERY_SECONDS", 0.0)
    job = replace(job_for(root, tmp_path / "cut", **settings), validation=HELD_OUT)
    with pytest.raises(Interrupted):
        train(job, interrupt_at(whole.steps))
    worse = whole.best_step + 1  # no improvement, but a checkpoint was due
    assert {path.name for path in job.state.iterdir()} == {f"checkpoint-{whole.best_step}", f"checkpoint-{worse}"}
    load_weights = checkpoints.Checkpoints.load_weights

    def interrupted_at_the_best(self: Any, step: int) -> None:
        if step == whole.best_step:
            raise Interrupted
        load_weights(self, step)

    with monkeypatch.context() as patch:
        patch.setattr(checkpoints.Checkpoints, "load_weights", interrupted_at_the_best)
        with pytest.raises(Interrupted):
            train(job)  # after patience ended, before the best weights are loaded
    assert f"checkpoint-{whole.steps}" in {path.name for path in job.state.iterdir()}
    continued = train(job)
    assert equal(tmp_path / "cut", tmp_path / "whole")
    assert (continued.losses, continued.validation) == (whole.losses, whole.validation)
    assert (continued.steps, continued.best_step) == (whole.steps, whole.best_step)


CAPITALS = """
from harness import Choose, Task, task

@task
def numbers():
    return Task(data=[{"n": n} for n in range(8)], metrics=["acc"],
                sample=lambda row: Choose(f"Question: {row['n'] % 4}? Answer:", ["one", "two", "three", "four"], row["n"] % 4))
"""


def test_a_tasks_headline_can_say_what_is_best(root: Path, tmp_path: Path) -> None:
    from harness.prompts.render import Prompting, render
    from harness.registry.find import find
    from harness.registry.load import load_task

    file = tmp_path / "numbers.py"
    file.write_text(CAPITALS)
    task = load_task(find("task", str(file)), {})
    monitor = Monitor(str(file), {}, render("numbers", task, Prompting()))
    job = job_for(root, tmp_path, steps=24, lr=2e-2, evaluate_every=6)
    trained = train(replace(job, monitor=monitor))
    scores = dict(trained.validation)
    assert list(scores) == [6, 12, 18, 24]
    assert all(0 <= score <= 1 for score in scores.values())
    assert trained.best_step == max(scores, key=lambda step: (scores[step], -step))
    assert max(scores.values()) >= 0.5
    assert trained.validation_loss is None


# Failures


@pytest.mark.parametrize("where", ["loss", "gradient"])
def test_a_nan_loss_stops_at_its_step_and_keeps_the_last_good_weights(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    own, calls = sft.label_loss, 0

    def failing(*arguments: Any, **options: Any) -> torch.Tensor:
        nonlocal calls
        calls += 1
        loss = own(*arguments, **options)
        if calls != 3:
            return loss
        return loss * math.nan if where == "loss" else loss + (loss * 0).sqrt()  # its gradient is inf * 0

    good = train(job_for(root, tmp_path / "good", steps=2, schedule="constant", micro_batch_size=8))
    monkeypatch.setattr(sft, "label_loss", failing)
    monkeypatch.setitem(micro_batches._OVERHEAD, "cpu", 1e12)  # one micro-batch for each batch
    job = job_for(root, tmp_path / "bad", steps=9, schedule="constant")
    with pytest.raises(loop.Diverged, match=f"the {where} of step 3 is .*lower the learning rate .*step 2") as caught:
        train(job)
    assert len(good.losses) == 2
    kept = tmp_path / "bad" / "artifact-step-2"
    assert str(kept) in str(caught.value)
    found = load_file(kept / "adapter_model.safetensors")
    assert all(bool(tensor.isfinite().all()) for tensor in found.values())
    assert not job.output.exists()


def test_weights_that_give_nan_are_not_kept_as_good(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = job_for(root, tmp_path, steps=9, lr=1e30)
    with pytest.raises(loop.Diverged, match=r"lower the learning rate \(no weights with a finite loss were kept\)"):
        train(job)
    assert not list(tmp_path.glob("artifact*"))
    monkeypatch.setattr(loop, "CHECKPOINT_EVERY_SECONDS", 0.0)

    def seldom(event: Event) -> None:
        if isinstance(event, Advanced) and event.done == 3:
            monkeypatch.setattr(loop, "CHECKPOINT_EVERY_SECONDS", 1e9)

    rates = job.training.model_copy(update={"lr": 1e-3, "schedule": "staged", "rates": (1.0, 1.0, 1e33)})
    with pytest.raises(loop.Diverged, match=r"the weights of step 2 are in") as caught:
        train(replace(job, training=rates), seldom)
    (kept,) = tmp_path.glob("artifact-step-*")
    assert str(kept) in str(caught.value)
    found = load_file(kept / "adapter_model.safetensors")
    assert all(float(tensor.abs().max()) < 10 for tensor in found.values())


def test_a_checkpoint_of_another_training_is_not_continued(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loop, "CHECKPOINT_EVERY_SECONDS", 0.0)
    job = job_for(root, tmp_path, steps=4)
    with pytest.raises(Interrupted):
        train(job, interrupt_at(3))
    trained = train(replace(job, train_key="another key"))
    assert trained.steps == 4
    assert "not resumed from" in trained.notes[0]


def test_a_full_disk_loses_nothing(root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = train(job_for(root, tmp_path / "whole", steps=6))
    monkeypatch.setattr(loop, "CHECKPOINT_EVERY_SECONDS", 0.0)
    job, own = job_for(root, tmp_path / "cut", steps=6), checkpoints.save_file

    def full(tensors: Any, path: Path) -> None:
        if path.parent.name.startswith("checkpoint-4"):
            path.write_bytes(b"half")
            raise OSError(28, "No space left on device")
        own(tensors, path)

    with monkeypatch.context() as patch:
        patch.setattr(checkpoints, "save_file", full)
        with pytest.raises(OSError, match="No space left"):
            train(job)
    events: list[Any] = []
    assert train(job, events.append).losses == whole.losses
    assert [event.done for event in events if isinstance(event, Advanced)] == [4, 5, 6]
    assert equal(tmp_path / "cut", tmp_path / "whole")


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"optimizer": "adamm"}, "unknown optimizer `adamm`"),
        ({"schedule": "staged"}, "`rates` go together"),
        ({"rates": (1.0, 0.5)}, "`rates` go together"),
    ],
)
def test_impossible_settings_are_named(root: Path, tmp_path: Path, settings: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        train(job_for(root, tmp_path, steps=2, **settings))


def test_full_precision_is_refused_for_a_16_bit_base(root: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="`precision=fp32` is not possible with a base in bfloat16"):
        train(job_for(root, tmp_path, dtype="bfloat16", precision="fp32", steps=1))


def test_one_row_is_enough_to_train_on(root: Path, tmp_path: Path) -> None:
    trained = train(job_for(root, tmp_path, examples=EXAMPLES[:1], steps=3, lr=1e-2))
    assert trained.steps == 3
    assert trained.losses[-1] < trained.losses[0]


# Notes and trackers


def test_the_note_of_a_step_has_loss_pace_and_memory(root: Path, tmp_path: Path) -> None:
    events: list[Any] = []
    train(job_for(root, tmp_path, steps=2), events.append)
    notes = [event.note for event in events if isinstance(event, Advanced)]
    assert all(re.fullmatch(r"loss \d+\.\d\d · [\d.]+k? tok/s · \d+\.\d GB", note) for note in notes), notes


def test_a_missing_tracker_is_named_with_its_installation(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UserError, match="unknown tracker") as caught:
        configure(["base"], report_to="tensorbord")
    assert "tensorboard" in str(caught.value.hint)
    monkeypatch.setattr("harness.config.config.find_spec", lambda name: None)
    with pytest.raises(UserError, match="needs the package `mlflow`") as caught:
        configure(["base"], report_to="mlflow")
    assert caught.value.hint == "pip install mlflow"


def test_tensorboard_receives_every_step_and_evaluation_beside_the_log(root: Path, tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    job = job_for(root, tmp_path, steps=4, evaluate_every=2)
    train(replace(job, validation=HELD_OUT, report_to=["tensorboard"]))
    events = EventAccumulator(str(tmp_path / "train.tensorboard")).Reload()
    log = read_log(tmp_path)
    for shown, key in (("loss", "loss"), ("learning_rate", "lr"), ("grad_norm", "grad_norm")):
        expected = [(line["step"], pytest.approx(line[key])) for line in log if key in line]
        assert [(event.step, event.value) for event in events.Scalars(f"train/{shown}")] == expected
    held_out = [(line["step"], pytest.approx(line["held_out"]["loss"])) for line in log if "held_out" in line]
    assert [(event.step, event.value) for event in events.Scalars("eval/loss")] == held_out
    assert len(held_out) == 2


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
    assert read_curve(losses).partition(":")[0] == word


def test_held_out_rows_distinguish_overfitting_from_a_falling_loss() -> None:
    falling = [4.0 * 0.9**n for n in range(40)]
    assert read_curve(falling, [3.0, 2.0, 2.2]) == "overfitting: stop earlier"
    assert read_curve(falling, [3.0, 2.0, 2.0, 2.0, 2.0, 2.01]) == "converged"
    assert read_curve([1.0] * 40, [3.0, 2.0, 1.5, 1.1]) == "still falling: more steps may help"
    assert read_curve(falling, [3.0, math.nan]) == "diverged: lower the learning rate"


@pytest.mark.parametrize("losses", [[4.0, 3.0, math.nan, math.nan], [4.0] * 20 + [math.inf]])
def test_a_curve_with_nan_has_diverged(losses: list[float]) -> None:
    assert read_curve(losses) == "diverged: lower the learning rate"
