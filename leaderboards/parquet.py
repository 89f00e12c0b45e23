"""The tidy table as Parquet: the rows of the CSV with the types of their columns.

Example:
    >>> Path("report.parquet").write_bytes(render([run]))  # doctest: +SKIP
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import Any

from harness.errors import printable
from harness.leaderboards import rows
from harness.results import Run

_INTEGERS = ("seed", "n", "shots", "rank", "rank_worst", "trainings", "train_steps", "train_batch_size",
             "inference_prompt_tokens", "total_parameters", "trainable_parameters", "model_bytes", "artifact_bytes",
             "train_peak_gpu_allocated_bytes", "train_peak_gpu_reserved_bytes", "train_peak_rss_bytes",
             "inference_peak_gpu_allocated_bytes", "inference_peak_gpu_reserved_bytes", "inference_peak_rss_bytes")  # fmt: skip
_BOOLEANS = ("shared_shots", "trained_on", "headline", "higher_is_better")
_TEXTS = ("model", "model_digest", "device", "harness", "created", "config_sha256", "baseline", "variant", "spec", "method",
          "status", "error", "task", "metric", "verdict", "tentative", "untestable", "decided", "mode", "numerics", "engine",
          "dtype", "chat_template", "system", "think", "template_options", "prompt_sha256", "train_precision", "currency",
          "task_version", "form", "reader", "source")  # fmt: skip


def render(runs: Sequence[Run]) -> bytes:
    """Writes the rows of all runs as one table; an empty cell is null."""
    import pyarrow
    from pyarrow import parquet

    kinds = {name: pyarrow.int64() for name in _INTEGERS}
    kinds |= {name: pyarrow.bool_() for name in _BOOLEANS} | {name: pyarrow.string() for name in _TEXTS}
    schema = pyarrow.schema([(name, kinds.get(name, pyarrow.float64())) for name in rows.COLUMNS])
    content = [{name: _cell(row.get(name)) for name in rows.COLUMNS} for run in runs for row in rows.tidy(run)]
    stream = io.BytesIO()
    parquet.write_table(pyarrow.Table.from_pylist(content, schema=schema), stream)
    return stream.getvalue()


def _cell(value: Any) -> Any:
    return printable(value) if isinstance(value, str) else value
