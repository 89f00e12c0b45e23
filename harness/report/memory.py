"""What trainings would need in memory, as a table."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass

from harness.jobs import Planned
from harness.report import numbers
from harness.report.tables import Cell, Column, Row, Table


@dataclass(frozen=True)
class PlanRow:
    """One training, counted or not."""

    name: str
    spec: str
    rows: int
    """Of a micro-batch, all of the greatest length."""
    length: int
    planned: Planned | None = None
    error: str | None = None


@dataclass(frozen=True)
class MemoryPlan:
    """What the trainings of a configuration would need."""

    model: str
    device: str
    dtype: str
    memory_bytes: int
    rows: tuple[PlanRow, ...]

    def fits(self, row: PlanRow) -> bool | None:
        """Whether a training's peak is below what there is; None where it could not be counted."""
        return row.planned.peak_bytes <= self.memory_bytes if row.planned else None

    def to_json(self) -> str:
        """The document that `--format json` prints."""
        variants = [
            {"name": row.name, "spec": row.spec, "micro_batch_size": row.rows, "max_length": row.length}
            | (asdict(row.planned) if row.planned else {})
            | {"fits": self.fits(row), "error": row.error}
            for row in self.rows
        ]
        whole = {"model": self.model, "device": self.device, "dtype": self.dtype, "memory_bytes": self.memory_bytes}
        return json.dumps(whole | {"variants": variants}, indent=1, ensure_ascii=False)


def memory_table(plan: MemoryPlan) -> Table:
    """A plan as a table: what holds the bytes, the peak, and how many rows at once would fit."""
    names = ("trainable", "of all", "weights", "optimizer", "activations", "peak", "saved", "fits", "rows", "at most")
    return Table("Memory", tuple(map(Column, names)), tuple(_cells(plan, row) for row in plan.rows))


MEMORY_NOTES = (
    "Peak: the most that tensors take at once, with all rows of a micro-batch at their greatest length (rows: how many, the"
    " two answers of a pair being a row each with the loss of `sft`, a little too much for `stage=reward`; at most: how many"
    " would fit). A GPU adds its context, about half a GiB, and what its allocator reserves unused.",
    "Optimizer: its state and the gradients. Activations: what the forward pass keeps for the backward pass.",
)


def _cells(plan: MemoryPlan, row: PlanRow) -> Row:
    planned = row.planned
    if planned is None:
        return Row(row.name, tuple(Cell() for _ in range(10)), f"not counted: {row.error}")
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
        f"{row.rows}×{row.length:,}",
        f"{planned.largest_micro_batch:,}",
    ]
    return Row(row.name, tuple(map(Cell, texts)))
