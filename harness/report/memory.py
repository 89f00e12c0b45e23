"""The predicted memory and time of training runs (`harness plan`), as a table and as JSON."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import Literal

from harness.jobs import Planned
from harness.report import numbers
from harness.report.gpus import UTILISATION
from harness.report.tables import Cell, Column, Table, TableRow

SpeedSource = Literal["measured", "published"] | None
"""Where the speed of the machine is from: measured here, or published for a GPU that is named; None: it is not known."""


@dataclass(frozen=True)
class PlanRow:
    """The prediction for one training run, or the reason why there is none."""

    name: str
    spec: str
    rows: int
    """Rows in a micro-batch."""
    length: int
    """Tokens in each row: the maximum length."""
    planned: Planned | None = None
    error: str | None = None
    step_seconds: float | None = None
    """Predicted time of an optimizer step on rows of that length; None if the machine's speed is not known."""
    steps: int | None = None
    """Optimizer steps; None if the rows of the data decide it."""

    @property
    def train_seconds(self) -> float | None:
        """Predicted time of all steps."""
        return None if self.step_seconds is None or self.steps is None else self.step_seconds * self.steps


@dataclass(frozen=True)
class MemoryPlan:
    """The predicted memory and time of all training runs of a configuration."""

    model: str
    device: str
    dtype: str
    memory_bytes: int
    rows: tuple[PlanRow, ...]
    speed: SpeedSource = None

    def fits(self, row: PlanRow) -> bool | None:
        """Whether the peak of a training run fits into the memory; None if it could not be predicted."""
        return row.planned.peak_bytes <= self.memory_bytes if row.planned else None

    def to_json(self) -> str:
        """Returns the document that `--format json` prints."""
        variants = [
            {"name": row.name, "spec": row.spec, "micro_batch_size": row.rows, "max_length": row.length}
            | (asdict(row.planned) if row.planned else {})
            | {"step_seconds": row.step_seconds, "train_seconds": row.train_seconds}
            | {"fits": self.fits(row), "error": row.error}
            for row in self.rows
        ]
        whole = {"model": self.model, "device": self.device, "dtype": self.dtype, "memory_bytes": self.memory_bytes}
        whole |= {"speed": self.speed, "utilisation": UTILISATION if self.speed == "published" else None}
        return json.dumps(whole | {"variants": variants}, indent=1, ensure_ascii=False)


def memory_table(plan: MemoryPlan) -> Table:
    """Makes the table of a plan: memory by purpose, the peak, and the largest micro-batch that would fit."""
    names = ["trainable", "of all", "weights", "optimizer", "activations", "peak", "saved", "fits", "rows", "at most"]
    names += ["step", "training"] if plan.speed else []
    return Table("Memory", tuple(map(Column, names)), tuple(_row(plan, row) for row in plan.rows))


MEMORY_NOTES = (
    "Peak: the largest memory that tensors take at one time, if all rows that pass through the model at once have about the maximum"
    " length. Rows: their number × their length; the two answers of a pair are two rows. Pairs are counted with the loss of `sft`,"
    " slightly too high for `stage=reward`. At most: rows that would fit. A GPU also needs about 0.5 GiB for its context, and"
    " memory that its allocator reserves but does not use.",
    "Optimizer: optimizer state and gradients. Activations: tensors that the forward pass keeps for the backward pass.",
)


def plan_notes(plan: MemoryPlan) -> list[str]:
    """Lists the notes on the prediction of time, and on single training runs."""
    time = {
        "measured": "Step: time of an optimizer step, if all rows of the batch have the maximum length. The machine's speed was"
        " measured in steps of a copy with one layer; training, if the number of steps is known. Shorter rows take less.",
        "published": f"Step: time of an optimizer step, if all rows of the batch have the maximum length, at {UTILISATION:.0%} of"
        f" the published speed of {plan.device} for dense matrices: 30 to 60 % are common. Unpacking quantized weights"
        " comes on top. Training: all steps, if their number is known.",
        None: "No prediction of time: name the GPU, such as `--gpu H100`.",
    }
    mixtures = [
        f"{row.name}: a token passes {row.planned.expert_share:.0%} of the experts, with them"
        f" {numbers.count(row.planned.parameters_active)} weights, which decides the time; all experts are in memory"
        for row in plan.rows
        if row.planned and row.planned.expert_share < 1
    ]
    reserved = [
        f"{row.name} {numbers.memory(row.planned.reserved_bytes)}"
        for row in plan.rows
        if row.planned and row.planned.reserved_bytes is not None
    ]
    allocator = [f"The GPU's allocator would reserve, with expandable segments less: {', '.join(reserved)}."]
    return [time[plan.speed], *(allocator if reserved else []), *mixtures] + [
        f"{row.name}: {note}" for row in plan.rows if row.planned for note in row.planned.notes
    ]


def _row(plan: MemoryPlan, row: PlanRow) -> TableRow:
    planned = row.planned
    if planned is None:
        return TableRow(row.name, tuple(Cell() for _ in range(12 if plan.speed else 10)), f"no prediction: {row.error}")
    sizes = (
        planned.weights_bytes,
        planned.optimizer_bytes + planned.gradient_bytes,
        planned.activation_bytes,
        planned.peak_bytes,
    )
    texts = [
        numbers.count(planned.parameters_trainable),
        f"{planned.parameters_trainable / planned.parameters_total:.2%}",
        *map(numbers.memory, sizes),
        numbers.file_size(planned.artifact_bytes),
        "yes" if plan.fits(row) else "no",
        f"{planned.rows}×{planned.length:,}",
        numbers.ABSENT if planned.largest_micro_batch is None else f"{planned.largest_micro_batch:,}",
    ]
    texts += [numbers.seconds(row.step_seconds), numbers.seconds(row.train_seconds)] if plan.speed else []
    return TableRow(row.name, tuple(map(Cell, texts)))
