"""lighteval: `results_<time>.json`, and the details of each task as Parquet."""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Any

from harness.errors import one_line
from harness.imports.bounded import number, objects, refused, text, without_secrets
from harness.imports.lm_eval import lower_is_better, short_name, unit_bounds
from harness.imports.record import ImportedRun, ImportedTask, Measured, SampleColumns, SampleText, digest
from harness.results import Protocol

_TIME = re.compile(r"results_(\d{4}-\d\d-\d\dT\d\d-\d\d-\d\d(?:\.\d+)?)\.json")
_BATCH = 256
_MOST_BATCH_BYTES = 1 << 30


def recognizes(found: Mapping[str, Any]) -> bool:
    """Whether a JSON document is such a results file."""
    return "config_general" in found and "results" in found


def read(file: Path, found: Mapping[str, Any]) -> ImportedRun:
    """Reads a results file with the details that its folder has.

    Raises:
        UserError: A field is missing or wrong, or a Parquet file is damaged.
    """
    general = objects(file, found, "config_general")
    config = objects(file, general, "model_config", needed=False)
    model = text(file, "config_general.model_name", general.get("model_name") or config.get("model_name"))
    notes: list[str] = []
    tasks = tuple(
        _task(file, found, name, config, notes)
        for name in objects(file, found, "results")
        if name != "all" and ":_average" not in name
    )
    if not tasks:
        raise refused(file, "`results` has no task")
    missing = all(each.samples is None for task in tasks for each in task.measured)
    return ImportedRun(
        name=short_name(model),
        tool=f"lighteval {str(general.get('lighteval_sha') or '')[:10]}".strip(),
        file=file,
        spec=f"{model} {json.dumps(without_secrets(config), sort_keys=True, default=str)}"[:2000],
        model=model,
        created=_stamp(file) or "unknown",
        tasks=tasks,
        lacks=(*(("samples (`--save-details` writes them)",) if missing else ()), "training settings, seeds and costs"),
        notes=tuple(notes),
    )


def _task(file: Path, found: Mapping[str, Any], key: str, config: Mapping[str, Any], notes: list[str]) -> ImportedTask:
    text(file, "results", key)
    row = objects(file, objects(file, found, "results"), key)
    parts = key.split("|")  # `task|shots`; before version 0.11 `suite|task|shots|0`
    name, shots = parts[-3:-1] if len(parts) == 4 else (parts[0], parts[-1] if len(parts) > 1 else "")
    details = _details(file, key)
    columns = _columns(details) if details else SampleColumns()
    measured = []
    for metric, value in row.items():
        if metric.endswith("_stderr"):
            continue
        value, error = number(file, f"results.{key}.{metric}", value), row.get(f"{metric}_stderr")
        samples = columns.of(metric)
        if samples is not None and abs(float(samples.values.mean()) - value) > 1e-6 * max(1.0, abs(value)):
            notes.append(f"{name}: `{metric}` is not the mean of its samples, so its differences have no paired test")
            samples = None
        in_unit = samples is not None and bool(((samples.values >= 0) & (samples.values <= 1)).all())
        known = isinstance(error, int | float) and not isinstance(error, bool) and 0 <= error < float("inf")
        measured.append(
            Measured(
                metric=text(file, f"results.{key}", metric),
                value=value,
                higher_is_better=not lower_is_better(metric),
                n=len(columns),
                error=float(error) if known and isinstance(error, int | float) else None,
                bounds=unit_bounds(value, samples)
                if (in_unit and "acc" in metric) or metric in ("em", "f1", "extractive_match")
                else None,
                samples=samples,
            )
        )
    if not measured:
        raise refused(file, f"`results.{key[:80]}` has no number")
    version = objects(file, found, "versions", needed=False).get(key)
    settings = objects(file, found, "config_tasks", needed=False).get(key)
    fields = ("metric", "metrics", "generation_size", "stop_sequence", "prompt_function", "hf_revision", "hf_subset")
    defined = {each: settings.get(each) for each in fields} if isinstance(settings, dict) else {}
    return ImportedTask(
        name=name or key,
        measured=tuple(measured),
        protocol=Protocol(
            version=str(version)[:40] if version is not None else None,
            shots=int(shots) if shots.isdecimal() and len(shots) < 5 else None,
            mode="unknown",
            numerics="lighteval",
            engine="lighteval",
            dtype=str(config.get("dtype") or "unknown")[:40],
            chat_template=None,
        ),
        settings={
            "lighteval task version": str(version),
            "shots": shots,
            "metric definition": re.sub(r" at 0x[0-9a-f]+", "", json.dumps(defined, sort_keys=True, default=str)),
            "generation settings": json.dumps(config.get("generation_parameters"), sort_keys=True, default=str),
        },
        definition="lighteval",
        texts=_texts(details) if details else None,
    )


def _stamp(file: Path) -> str | None:
    found = _TIME.fullmatch(file.name)
    return found[1] if found else None


def _details(file: Path, key: str) -> Path | None:
    """The Parquet file of a task: `OUT/details/<model>/<time>/`, beside `OUT/results/<model>/`."""
    stamp = _stamp(file)
    parents = file.resolve().parents
    if stamp is None or "/" in key or "\0" in key:
        return None
    for depth, root in enumerate(parents[:5]):
        if root.name == "results":
            model = file.resolve().relative_to(root).parent
            found = parents[depth + 1] / "details" / model / stamp / f"details_{key}_{stamp}.parquet"
            return found if found.is_file() and not found.is_symlink() else None
    return None


def _rows(file: Path) -> Iterator[dict[str, Any]]:
    """Generates the rows of a Parquet file, a few at a time; only three columns are read."""
    import pyarrow
    import pyarrow.parquet

    try:
        with pyarrow.parquet.ParquetFile(file) as opened:
            names = [name for name in ("doc", "metric", "model_response") if name in opened.schema_arrow.names]
            if "doc" not in names or "metric" not in names:
                raise refused(file, "it has no columns `doc` and `metric`")
            for batch in opened.iter_batches(batch_size=_BATCH, columns=names):
                if batch.nbytes > _MOST_BATCH_BYTES:
                    raise refused(file, f"{_BATCH} rows take more than {_MOST_BATCH_BYTES:,} bytes")
                yield from batch.to_pylist()
    except (pyarrow.ArrowException, OSError, ValueError, OverflowError) as error:
        raise refused(file, f"it is not a Parquet file that can be read: {one_line(error)}") from error


def _columns(file: Path) -> SampleColumns:
    columns = SampleColumns()
    for index, row in enumerate(_rows(file)):
        document, metrics = row.get("doc"), row.get("metric")
        if not isinstance(document, dict) or not isinstance(metrics, dict):
            raise refused(file, f"row {index}: `doc` or `metric` is not a structure")
        values = {
            name: number(file, f"row {index}: metric.{name[:80]}", float(each) if isinstance(each, bool) else each)
            for name, each in metrics.items()
            if isinstance(each, int | float)
        }
        shown = row.get("model_response")
        prompt = shown.get("input") if isinstance(shown, dict) else None
        asked = [
            json.dumps(document.get(name), sort_keys=True, default=str)
            for name in ("query", "choices", "gold_index", "instruction")
        ]
        columns.add(digest(*asked), digest(json.dumps(prompt, default=str)), values)
    return columns


def _texts(file: Path) -> Any:
    def read_texts(_: str, indices: Collection[int]) -> dict[int, SampleText]:
        wanted, found = set(indices), dict[int, SampleText]()
        for index, row in enumerate(_rows(file)):
            if index not in wanted:
                continue
            document, response = row["doc"], row.get("model_response")
            answers = response.get("text") if isinstance(response, dict) else None
            choices, gold = document.get("choices"), document.get("gold_index")
            gold = gold[0] if isinstance(gold, list) and gold else gold
            right = isinstance(choices, list) and isinstance(gold, int) and 0 <= gold < len(choices)
            found[index] = SampleText(
                str(document.get("id") or index)[:80],
                str(document.get("query")),
                str(choices[gold]) if right else None,
                str(answers[0]) if isinstance(answers, list) and answers else "",
            )
        return found

    return read_texts
