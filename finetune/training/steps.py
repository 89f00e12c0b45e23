"""The optimizer steps of a training, on transformers' Trainer: batches in parts, checkpoints, looks, and when to stop.

To the Trainer a step is one batch, whatever happens inside it: the batch is run in parts of like length, and in smaller ones
when memory runs out, and its gradient is the same. So the order of the data, the rates and what a checkpoint resumes do not
depend on memory.
"""

from __future__ import annotations

import gc
import json
import math
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from accelerate.data_loader import SeedableRandomSampler
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.optim.lr_scheduler import LambdaLR
from torch.utils.data import Dataset, Sampler
from transformers import Trainer, TrainerCallback
from transformers.trainer import TRAINER_STATE_NAME

from harness.errors import is_out_of_memory
from harness.finetune.training.adaptive_rank import AdaptiveRank
from harness.finetune.training.optimizers import parameter_groups, schedule
from harness.finetune.training.parts import length, split, tokens_at_once
from harness.finetune.training.recorder import Recorder
from harness.finetune.training.stage import Stage
from harness.finetune.training.validation import Headline, Undisturbed
from harness.models.artifacts import trained_tensors
from harness.models.reward_head import inner_model
from harness.settings import TrainingSettings

CHECKPOINT_EVERY_SECONDS = 300.0
_TENSORS_FILE, _RECORD_FILE = "trained.safetensors", "training.json"
_OVERHEAD = {"cpu": 1e6, "cpu16": 3e7, "cuda": 8e9}
"""What running a layer costs besides its tokens, in tokens times the square of its width; in 16 bits, the CPU's kernels are
made anew, and kept, for every shape."""


class Diverged(Exception):
    """The loss or the gradient is no finite number any more.

    Args:
        what: And at which step.
        broken: Whether the weights give no number for the rows of the step before either, which they did then.
    """

    def __init__(self, what: str, *, broken: bool = False) -> None:
        super().__init__(what)
        self.broken = broken


@dataclass(frozen=True)
class Batch:
    """The rows of a step, cut into parts and collated."""

    rows: Sequence[dict[str, Any]]
    parts: Sequence[dict[str, Any]]
    items: int


class Rows(Dataset[dict[str, Any]]):
    """Rows as a data loader wants them."""

    def __init__(self, rows: Sequence[dict[str, Any]]) -> None:
        self._rows = rows

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, index: int) -> dict[str, Any]:
        return self._rows[index]


class StageTrainer(Trainer):  # type: ignore[misc]
    """Runs a stage.

    Args:
        stage: What is fed and minimised.
        settings: How.
        recorder: Told of every step and look.
        train_key: Of the training; a checkpoint of another one is not taken up.
        held_out: Rows that are looked at.
        headline: What says which look is best; None: the loss of the held-out rows.
        ranks: AdaLoRA's budget.
        options: The Trainer's own.
    """

    control: Any

    def __init__(
        self,
        stage: Stage,
        settings: TrainingSettings,
        recorder: Recorder,
        train_key: str,
        *,
        held_out: Sequence[dict[str, Any]],
        headline: Headline | None,
        ranks: AdaptiveRank | None,
        **options: Any,
    ) -> None:
        self._stage, self._settings, self._recorder, self._key = stage, settings, recorder, train_key
        self._held_out, self._headline, self._ranks = held_out, headline, ranks
        self.most_rows = settings.micro_batch_size
        self._tokens = 0
        self._learned: Batch | None = None
        super().__init__(train_dataset=Rows(stage.rows), eval_dataset=Rows(held_out), data_collator=_Handful, **options)
        self._rate = schedule(settings, self.args.max_steps)
        self._trained = [parameter for parameter in self.model.parameters() if parameter.requires_grad]
        self._noise = _add_noise(self.model, settings.neftune) if settings.neftune else None
        width = getattr(self.model.config.get_text_config(), "hidden_size", 1024)
        kind = "cpu" if self.args.device.type != "cuda" else "cuda"
        kind += "16" if kind == "cpu" and settings.precision != "fp32" else ""
        self._overhead = int(_OVERHEAD[kind] / width**2)
        for callback in list(self.callback_handler.callbacks):
            if type(callback).__name__ in ("PrinterCallback", "ProgressCallback"):
                self.remove_callback(callback)
        self.add_callback(_Hooks(recorder, ranks, stage.updates))
        self.model.train()

    # Batches

    def _get_train_sampler(self, train_dataset: Any = None) -> Any:
        if self._stage.updates == 1:
            return super()._get_train_sampler(train_dataset)
        # accelerate gives a bare sampler an order for each epoch; within another one it has to have it already
        rows = SeedableRandomSampler(self.train_dataset, data_seed=self.args.seed)
        return Repeated(rows, self._train_batch_size, self._stage.updates)

    def get_batch_samples(self, epoch_iterator: Iterator[Any], num_batches: int, device: Any) -> tuple[list[Any], None]:
        batch: list[Any] = []
        if self.state.global_step >= self.state.max_steps:
            return batch, None  # taken up after its last step: the Trainer would make another before it looks
        with suppress(StopIteration):
            batch = [self._cut(next(epoch_iterator).rows)]
        return batch, None

    def _cut(self, rows: Sequence[dict[str, Any]]) -> Batch:
        tokens = tokens_at_once(self.args.device.type, self._settings.max_length)
        if self._settings.packing:  # packed rows are not padded: nothing is won by cutting
            starts = range(0, len(rows), self.most_rows)
            groups = [list(rows[start : start + self.most_rows]) for start in starts]
        else:
            groups = split(rows, self.most_rows, self._overhead, tokens)
        parts = [self._stage.collate(group) for group in groups]
        return Batch(rows, parts, sum(map(self._stage.items, parts)))

    # Steps

    def training_step(self, model: Any, inputs: Batch, num_items_in_batch: Any = None) -> Tensor:
        if self._noise is not None:
            self._noise.length = sum(map(length, inputs.rows)) / len(inputs.rows)
        loss: Tensor = self._fitting(lambda batch: self._learn(model, batch), inputs)
        if not math.isfinite(loss):
            broken = not self.gives_numbers()
            raise Diverged(f"the loss of step {self.state.global_step + 1} is {loss:g}", broken=broken)
        self._learned = inputs
        return loss

    @torch.no_grad()
    def gives_numbers(self) -> bool:
        """Whether the weights give the rows last learned from a loss that is a number, as those before them did."""
        if self._learned is None:
            return True
        with self.accelerator.autocast():
            losses = [
                self._stage.loss(self.model, self._prepare_inputs(part), self._learned.items)
                for part in self._learned.parts
            ]
        return all(bool(loss.isfinite()) for loss in losses)

    def _learn(self, model: Any, batch: Batch) -> Tensor:
        """The batch's loss; its gradient is added up on the way."""
        total, self._tokens = torch.zeros((), device=self.args.device), 0
        self._stage.begin(self.state.global_step)
        for part in batch.parts:
            part = self._prepare_inputs(part)
            with self.accelerator.autocast():
                loss = self._stage.loss(model, part, batch.items)
            self.accelerator.backward(loss)
            total += loss.detach()
            self._tokens += part["tokens"]
        if self._ranks is not None:
            self.accelerator.backward(self._ranks.penalty())
        return total

    def _fitting(self, work: Callable[[Batch], Any], batch: Batch) -> Any:
        """Does the work, from its start again with half as many rows at once where memory runs out."""
        draws, figures = _draws(self.args.device), self._stage.figures.so_far()
        while True:
            try:
                return work(batch)
            except (RuntimeError, MemoryError) as error:
                if not is_out_of_memory(error) or self.most_rows == 1:
                    raise
            self.most_rows = max(1, min(self.most_rows, len(batch.rows)) // 2)
            self.model.zero_grad()
            gc.collect()
            if self.args.device.type == "cuda":
                torch.cuda.empty_cache()
            _draw_again(draws)
            self._stage.figures.go_back(figures)
            batch = self._cut(batch.rows)

    def _clip_grad_norm(self, model: Any) -> Any:
        return self.accelerator.clip_grad_norm_(self._trained, self.args.max_grad_norm)

    def _get_grad_norm(self, model: Any, grad_norm: Any = None) -> Any:
        norm = super()._get_grad_norm(model, grad_norm)
        if not math.isfinite(norm) and not self.args.fp16:  # with fp16, the scaler leaves such a step out
            raise Diverged(f"the gradient of step {self.state.global_step + 1} is {float(norm):g}")
        return norm

    def floating_point_ops(self, inputs: Any) -> int:
        return 0  # counted by nobody

    def create_optimizer(self, model: Any = None) -> Any:
        kind, options = self.get_optimizer_cls_and_kwargs(self.args, self.model)
        self.optimizer_cls_and_kwargs = kind, {**options, "params": parameter_groups(self.model, self._settings)}
        return super().create_optimizer(model)

    def create_scheduler(self, num_training_steps: int, optimizer: Any = None) -> Any:
        self.lr_scheduler = LambdaLR(optimizer or self.optimizer, self._rate)
        self._created_lr_scheduler = True
        return self.lr_scheduler

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Tells recorder and trackers; keeps no history, which every checkpoint would carry."""
        if "loss" in logs:
            step = self.state.global_step
            logs["learning_rate"] = self._settings.lr * self._rate(step - 1)
            figures = self._stage.figures.take()
            line = {"loss": logs["loss"], "lr": logs["learning_rate"], "grad_norm": logs.get("grad_norm")}
            self._recorder.step(step, self.state.max_steps, {**line, "tokens": self._tokens, **figures})
            logs |= figures
        self.control = self.callback_handler.on_log(self.args, self.state, self.control, logs)

    # Looks

    def evaluate(self, *_: Any, **__: Any) -> dict[str, float]:
        figures: dict[str, float] = {}
        with Undisturbed(self.model), self.accelerator.autocast():
            if self._held_out:
                figures = {"loss": self._held_out_loss(), **self._stage.figures.take()}
            if self._headline is not None:
                figures["headline"] = self._headline.measure(self.model)
        self._recorder.look(self.state.global_step, figures)
        metrics = {f"eval_{name}": value for name, value in figures.items()}
        self.log(dict(metrics))
        self.control = self.callback_handler.on_evaluate(self.args, self.state, self.control, metrics)
        return metrics

    def _determine_best_metric(self, metrics: dict[str, float], trial: Any) -> bool:
        """Whether a look leaves a checkpoint: as the best so far, or because one is due."""
        # not at the end: who took that up would not know that patience is over
        due = self.control.should_save and not self.control.should_training_stop
        best: bool = super()._determine_best_metric(metrics, trial)
        return best or due

    def _held_out_loss(self) -> float:
        size, total, items = self._settings.batch_size, 0.0, 0
        ordered = sorted(self._held_out, key=length)
        for start in range(0, len(ordered), size):
            batch = self._cut(ordered[start : start + size])
            total += self._fitting(self._look_at, batch)
            items += batch.items
        return total / max(1, items)

    def _look_at(self, batch: Batch) -> float:
        return sum(float(self._stage.loss(self.model, self._prepare_inputs(part), 1)) for part in batch.parts)

    # Checkpoints

    def _save(self, output_dir: str | None = None, state_dict: Any = None) -> None:
        """What is trained, and nothing else: exact for every method, and small for most."""
        folder = Path(output_dir or self.args.output_dir)
        folder.mkdir(parents=True, exist_ok=True)
        save_file(trained_tensors(self.model), folder / _TENSORS_FILE)
        if self._ranks is not None:
            self._ranks.save(folder)
        record = {"train_key": self._key, "most_rows": self.most_rows}
        (folder / _RECORD_FILE).write_text(json.dumps(record), encoding="utf-8")

    def _load_from_checkpoint(self, resume_from_checkpoint: Any, model: Any = None) -> None:
        folder = Path(resume_from_checkpoint)
        tensors = load_file(folder / _TENSORS_FILE)
        for name, parameter in self.model.named_parameters():
            if parameter.requires_grad:
                parameter.data.copy_(tensors[name])
        if self._ranks is not None:
            self._ranks.load(folder)
        self.most_rows = min(self.most_rows, json.loads((folder / _RECORD_FILE).read_text())["most_rows"])

    def _load_best_model(self) -> None:
        self._load_from_checkpoint(self.state.best_model_checkpoint)


class _Handful:
    """The rows of a batch; opaque, so that nobody looks for tensors among their tokens."""

    def __init__(self, rows: Sequence[dict[str, Any]]) -> None:
        self.rows = rows


class Repeated(Sampler[int]):
    """Whole batches of another sampler, each several times in succession; rows that fill none wait for the next epoch.

    Example:
        >>> list(Repeated([4, 2, 0, 1, 3], 2, 2))
        [4, 2, 4, 2, 0, 1, 0, 1]
    """

    def __init__(self, sampler: Any, size: int, times: int) -> None:
        self._sampler, self._size, self._times = sampler, size, times

    def set_epoch(self, epoch: int) -> None:
        """Which of its orders the other sampler gives."""
        self._sampler.set_epoch(epoch)

    def __len__(self) -> int:
        return len(self._sampler) // self._size * self._size * self._times

    def __iter__(self) -> Iterator[int]:
        batch: list[int] = []
        for index in self._sampler:
            batch.append(index)
            if len(batch) == self._size:
                for _ in range(self._times):
                    yield from batch
                batch = []


class _Hooks(TrainerCallback):  # type: ignore[misc]
    """The clock of the steps, AdaLoRA's cuts, and when a checkpoint is due."""

    def __init__(self, recorder: Recorder, ranks: AdaptiveRank | None, updates: int) -> None:
        self._recorder, self._ranks, self._updates = recorder, ranks, updates
        self._saved = time.monotonic()

    def on_step_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self._recorder.step_begins()

    def on_optimizer_step(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        if self._ranks is not None:
            self._ranks.after_step(state.global_step + 1)

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self._recorder.step_ends()
        if args.eval_strategy != "no" and state.global_step >= state.max_steps:
            control.should_evaluate = True
        due = time.monotonic() - self._saved >= CHECKPOINT_EVERY_SECONDS
        if due and state.global_step % self._updates == 0:  # between two looks at the same answers nothing can resume
            control.should_save = True

    def on_save(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self._saved = time.monotonic()


class _Noise:
    """NEFTune (arXiv 2310.05914): uniform noise on the embeddings of a model in training.

    Its bound is alpha / sqrt(length * width). The length is the mean of the batch's rows without padding, so that it does not
    depend on how a batch is cut.
    """

    def __init__(self, alpha: float) -> None:
        self._alpha = alpha
        self.length = 1.0

    def __call__(self, module: Any, arguments: Any, output: Tensor) -> Tensor:
        if not module.training:
            return output
        bound = self._alpha / math.sqrt(self.length * output.shape[-1])
        return output + torch.empty_like(output).uniform_(-bound, bound)


def _add_noise(model: Any, alpha: float) -> _Noise:
    noise = _Noise(alpha)
    inner_model(model).get_input_embeddings().register_forward_hook(noise)
    return noise


def _draws(device: torch.device) -> tuple[Tensor, Tensor | None]:
    return torch.get_rng_state(), torch.cuda.get_rng_state(device) if device.type == "cuda" else None


def _draw_again(draws: tuple[Tensor, Tensor | None]) -> None:
    torch.set_rng_state(draws[0])
    if draws[1] is not None:
        torch.cuda.set_rng_state(draws[1])


def last_checkpoint(state: Path, train_key: str) -> tuple[Path | None, bool]:
    """The newest whole checkpoint of a training, and whether there are those of another one, which are left alone.

    The Trainer writes its state last, so a checkpoint torn by a kill or a full disk has none, or a torn one.
    """
    found, foreign = None, False
    for folder in sorted(state.glob("checkpoint-*"), key=step_of, reverse=True):
        try:
            json.loads((folder / TRAINER_STATE_NAME).read_text(encoding="utf-8"))
            same = json.loads((folder / _RECORD_FILE).read_text(encoding="utf-8"))["train_key"] == train_key
        except (OSError, json.JSONDecodeError):
            continue
        foreign |= not same
        if same and found is None:
            found = folder
    return found, foreign


def step_of(checkpoint: Path) -> int:
    """The step after which a checkpoint was written."""
    return int(checkpoint.name.rpartition("-")[2])
