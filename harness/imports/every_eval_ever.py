"""Every Eval Ever: `<uuid>.json` with aggregate scores, and `<uuid>_samples.jsonl` beside it."""

from __future__ import annotations

import datetime
import json
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from harness.errors import UserError
from harness.imports.bounded import lines, number, objects, refused, text
from harness.imports.lm_eval import short_name
from harness.imports.record import ImportedRun, ImportedTask, Measured, SampleColumns, SampleText, digest
from harness.results import Protocol

_VERSIONS = ("0.2", "0.3")


def recognizes(found: Mapping[str, Any]) -> bool:
    """Whether a JSON document has aggregate scores in this format."""
    return "evaluation_results" in found and "evaluation_id" in found


def read(file: Path, found: Mapping[str, Any]) -> ImportedRun:
    """Reads a file of aggregate scores with its samples.

    Raises:
        UserError: A field is missing or wrong, or the schema is of another version.
    """
    version = str(found.get("schema_version"))
    if not version.startswith(_VERSIONS):
        raise UserError(
            f"`{file}`: `schema_version` is {version[:40]}, but versions 0.2 and 0.3 are read",
            hint="`python -m every_eval_ever` converts files of other versions",
        )
    library, model = objects(file, found, "eval_library", needed=False), objects(file, found, "model_info")
    name = text(file, "model_info.id", model.get("id") or model.get("name"))
    results = found.get("evaluation_results")
    if not isinstance(results, list) or not results or not all(isinstance(each, dict) for each in results):
        raise refused(file, "`evaluation_results` is not a list of results")
    samples = file.with_name(f"{file.stem}_samples.jsonl")
    columns = _columns(samples) if samples.is_file() and not samples.is_symlink() else {}
    notes: list[str] = []
    by_task: dict[str, ImportedTask] = {}
    for index, row in enumerate(results):
        task = _task(file, f"evaluation_results.{index}", row, columns, samples, notes)
        same = by_task.get(task.name)
        if same and task.measured[0].metric in {each.metric for each in same.measured}:
            raise refused(file, f"`evaluation_results` has `{task.name[:80]}` twice", "leave one of the results out")
        if same:
            task = ImportedTask(
                task.name, (*same.measured, *task.measured), same.protocol, same.settings, same.definition, same.texts
            )
        by_task[task.name] = task
    missing = all(each.samples is None for task in by_task.values() for each in task.measured)
    return ImportedRun(
        name=short_name(name),
        tool=f"Every Eval Ever {version[:20]} ({str(library.get('name') or 'unknown tool')[:40]} {str(library.get('version') or '')[:20]})".replace(
            " )", ")"
        ),
        file=file,
        spec=name,
        model=name,
        created=_time(found.get("retrieved_timestamp")),
        tasks=tuple(by_task.values()),
        lacks=(*(("samples",) if missing else ()), "training settings, seeds and costs"),
        notes=tuple(notes),
    )


def _task(
    file: Path,
    field: str,
    row: Mapping[str, Any],
    columns: Mapping[str, SampleColumns],
    samples_file: Path,
    notes: list[str],
) -> ImportedTask:
    name = text(file, f"{field}.evaluation_name", row.get("evaluation_name"))
    metric = objects(file, row, "metric_config")
    details = objects(file, row, "score_details")
    value = number(file, f"{field}.score_details.score", details.get("score"))
    lower = metric.get("lower_is_better")
    if not isinstance(lower, bool):
        raise refused(file, f"`{field}.metric_config.lower_is_better` is not true or false")
    uncertainty = objects(file, details, "uncertainty", needed=False)
    error = objects(file, uncertainty, "standard_error", needed=False).get("value")
    limits = objects(file, uncertainty, "confidence_interval", needed=False)
    ends: list[float | None] = [None, None]
    if limits.get("confidence_level") in (0.95, 95):
        ends = [
            number(file, f"{field}.score_details.uncertainty.confidence_interval.{end}", limits.get(end))
            for end in ("lower", "upper")
        ]
    n = uncertainty.get("num_samples")
    collected = columns.get(str(row.get("evaluation_result_id")), columns.get(name))
    samples = collected.of("score") if collected else None
    label = str(metric.get("metric_name") or metric.get("metric_id") or "score")
    if samples is not None and abs(float(samples.values.mean()) - value) > 1e-6 * max(1.0, abs(value)):
        notes.append(f"{name}: `{label}` is not the mean of its samples, so its differences have no paired test")
        samples = None
    least, most = metric.get("min_score"), metric.get("max_score")
    bounded = all(isinstance(each, int | float) and not isinstance(each, bool) for each in (least, most))
    bounds = (float(least), float(most)) if bounded and least is not None and most is not None else None
    if bounds is not None:
        scores = [value] if samples is None else [float(samples.values.min()), float(samples.values.max())]
        if not bounds[0] <= min(scores) <= max(scores) <= bounds[1]:
            raise refused(file, f"`{field}` has scores outside of `min_score` {least} and `max_score` {most}")
    generation = objects(file, row, "generation_config", needed=False)
    return ImportedTask(
        name=name,
        measured=(
            Measured(
                metric=text(file, f"{field}.metric_config.metric_name", label),
                value=value,
                higher_is_better=not lower,
                n=len(samples.values)
                if samples
                else n
                if isinstance(n, int) and not isinstance(n, bool) and n > 0
                else 0,
                error=None
                if error is None
                else number(file, f"{field}.score_details.uncertainty.standard_error.value", error),
                low=ends[0],
                high=ends[1],
                bounds=bounds,
                samples=samples,
            ),
        ),
        protocol=Protocol(
            version=None,
            shots=None,
            mode="unknown",
            numerics="unknown",
            engine="unknown",
            dtype="unknown",
            chat_template=None,
        ),
        settings={
            "metric definition": json.dumps(metric, sort_keys=True, default=str),
            "generation settings": json.dumps(generation.get("generation_args"), sort_keys=True, default=str),
        },
        definition="Every Eval Ever",
        texts=_texts(samples_file, str(row.get("evaluation_result_id")), name) if samples is not None else None,
    )


def _place(row: Mapping[str, Any]) -> str:
    return str(row.get("evaluation_result_id") or row.get("evaluation_name"))


def _columns(file: Path) -> dict[str, SampleColumns]:
    """The samples by result, or by task where they do not name the result."""
    found: dict[str, SampleColumns] = {}
    for line, row in lines(file):
        scored, asked = row.get("evaluation"), row.get("input")
        if not isinstance(scored, dict) or not isinstance(asked, dict):
            raise refused(file, f"line {line} has no `evaluation` or no `input`")
        value = scored.get("score")
        score = number(file, f"line {line}: evaluation.score", float(value) if isinstance(value, bool) else value)
        document = digest(
            str(row.get("sample_id")),
            json.dumps(asked.get("raw"), default=str),
            json.dumps(asked.get("reference"), default=str),
        )
        found.setdefault(_place(row), SampleColumns()).add(
            document, digest(json.dumps(asked.get("formatted") or asked.get("raw"), default=str)), {"score": score}
        )
    return found


def _texts(file: Path, result: str, task: str) -> Any:
    def read_texts(_: str, indices: Collection[int]) -> dict[int, SampleText]:
        wanted, found, index = set(indices), dict[int, SampleText](), -1
        for _line, row in lines(file):
            if _place(row) not in (result, task):
                continue
            index += 1
            if index in wanted:
                asked, output = row["input"], row.get("output")
                reference, raw = asked.get("reference"), output.get("raw") if isinstance(output, dict) else None
                found[index] = SampleText(
                    str(row.get("sample_id"))[:80],
                    str(asked.get("formatted") or asked.get("raw")),
                    " | ".join(map(str, reference)) if isinstance(reference, list) else None,
                    str(raw[0]) if isinstance(raw, list) and raw else "",
                )
        return found

    return read_texts


def _time(stamp: Any) -> str:
    try:
        return datetime.datetime.fromtimestamp(float(stamp), datetime.UTC).isoformat(timespec="seconds")
    except (ValueError, TypeError, OverflowError, OSError):
        return "unknown"
