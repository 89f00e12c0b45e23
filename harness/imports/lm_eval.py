"""lm-evaluation-harness: `results_<time>.json`, and `samples_<task>_<time>.jsonl` of `--log_samples`."""

from __future__ import annotations

import datetime
import json
import re
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from harness.errors import UserError
from harness.imports.bounded import lines, number, objects, refused, text, without_secrets
from harness.imports.lm_eval_samples import request_of, text_of
from harness.imports.record import (
    ImportedRun,
    ImportedTask,
    Measured,
    SampleColumns,
    Samples,
    SampleText,
    digest,
    joined,
)
from harness.results import Protocol

_TIME = re.compile(r"_(\d{4}-\d\d-\d\dT\d\d-\d\d-\d\d(?:\.\d+)?)\.json$")
_SHARES = frozenset(["acc", "acc_norm", "acc_mutual_info", "acc_bytes", "exact_match", "em", "mc1", "contains"])
"""Metrics that are 0 or 1 for each sample."""
_UNIT = frozenset(["f1", "mc2", "pass@1", "rouge1_acc", "rouge2_acc", "rougeL_acc", "bleu_acc"])
"""Further metrics whose samples are within 0 and 1."""
_LOWER = frozenset(["ppl", "loss", "nll", "brier", "mae", "mse", "rmse", "ter", "wer", "cer"])
"""Words of names; within a word they mean nothing: `answer` has `wer` in it, and `character` has `ter`."""
_GENERIC = re.compile(r"(?:checkpoint-\d+|final|model|best|last|merged|adapter|output)", re.IGNORECASE)
_ADDRESS = re.compile(r" at 0x[0-9a-f]+")


def recognizes(found: Mapping[str, Any]) -> bool:
    """Whether a JSON document is such a results file."""
    return "results" in found and "versions" in found and "configs" in found and "config_general" not in found


def read(file: Path, found: Mapping[str, Any]) -> ImportedRun:
    """Reads a results file with the samples files beside it.

    Raises:
        UserError: A field is missing or wrong, or a samples file is damaged.
    """
    reader = _Reader(file, found)
    tasks = tuple(reader.tasks())
    if not tasks:
        raise refused(file, "`results` has no task with a number")
    arguments = reader.arguments
    base = str(arguments.get("pretrained") or arguments.get("model") or found.get("model_name") or "unnamed model")
    missing = [task.name for task in tasks if all(each.samples is None for each in task.measured)]
    lacks = ["training settings, seeds and costs"]
    if missing:
        which = "" if len(missing) == len(tasks) else f" of {', '.join(missing[:5])}{' …' if len(missing) > 5 else ''}"
        lacks.insert(0, f"samples{which} (`--log_samples` writes them)")
    spec = ",".join(f"{key}={value}" for key, value in without_secrets(arguments).items())
    return ImportedRun(
        name=short_name(str(found.get("model_name") or arguments.get("peft") or base)),
        tool=f"lm-eval {found.get('lm_eval_version') or found.get('git_hash') or ''}".strip()[:60],
        file=file,
        spec=f"{found.get('model_source') or reader.config.get('model') or 'model'}:{spec}"[:2000],
        model=base[:300],
        created=_created(found.get("date")),
        tasks=tasks,
        lacks=tuple(lacks),
        notes=tuple(reader.notes),
    )


def short_name(model: str) -> str:
    """The name of a row: the last part of a model's path or id, with the part before it if it says nothing.

    Example:
        >>> short_name("runs/lora-r8/checkpoint-500"), short_name("Qwen/Qwen3-0.6B")
        ('lora-r8-checkpoint-500', 'Qwen3-0.6B')
    """
    parts = [part for part in re.split(r"[/\\]", model.strip()) if part not in ("", ".", "..")]
    if not parts:
        return "model"
    last = parts[-1][:120]
    return f"{parts[-2][:120]}-{last}" if len(parts) > 1 and _GENERIC.fullmatch(last) else last


def lower_is_better(metric: str) -> bool:
    """Whether smaller values are better, by the name of a metric for which the file does not say.

    Example:
        >>> [lower_is_better(name) for name in ("word_perplexity", "brier_score", "answer_accuracy")]
        [True, True, False]
    """
    name = metric.lower()
    return "perplexity" in name or "bits_per_byte" in name or not _LOWER.isdisjoint(re.findall("[a-z]+", name))


def unit_bounds(value: float, samples: Samples | None) -> tuple[float, float] | None:
    """The bounds 0 and 1 of a metric that is usually a fraction; None where the file has it in per cent."""
    values = samples.values if samples is not None else np.array([value])
    return (0.0, 1.0) if values.min() >= 0 and values.max() <= 1 else None


class _Reader:
    """Reads one results file."""

    def __init__(self, file: Path, found: Mapping[str, Any]) -> None:
        self.file = file
        self.found = found
        self.results = objects(file, found, "results")
        self.configs = objects(file, found, "configs")
        self.config = objects(file, found, "config", needed=False)
        self.notes: list[str] = []
        given = self.config.get("model_args")
        if isinstance(given, str):  # up to version 0.4.9
            given = dict(part.split("=", 1) for part in given.split(",") if "=" in part)
        self.arguments: dict[str, Any] = given if isinstance(given, dict) else {}
        self.sizes = objects(file, found, "n-samples", needed=False)

    def tasks(self) -> Iterator[ImportedTask]:
        """Generates the groups whose subtasks are all there as one task each, then all other tasks."""
        children = objects(self.file, self.found, "group_subtasks", needed=False)
        for group, names in children.items():
            if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
                raise refused(self.file, f"`group_subtasks.{group[:80]}` is not a list of names")
        nested = {name for names in children.values() for name in names}
        in_groups: set[str] = set()
        for group in children:
            leaves = _leaves(group, children)
            if group in nested or group not in self.results or not leaves:
                continue
            if task := self._group(group, leaves):
                in_groups |= {*leaves, group}
                yield task
        for name in self.results:
            if name not in in_groups and name in self.configs and (task := self._task(name)):
                yield task

    def _task(self, name: str) -> ImportedTask | None:
        text(self.file, "results", name)
        row = objects(self.file, self.results, name)
        config = objects(self.file, self.configs, name)
        columns = self._columns(name)
        measured = []
        for key, value in row.items():
            metric, _, kind = key.partition(",")
            if not kind or metric.endswith("_stderr") or isinstance(value, str):
                continue
            label = metric if kind == "none" else f"{metric},{kind}"
            text(self.file, f"results.{name[:80]}", label)
            samples = columns[kind].of(metric) if kind in columns else None
            measured.append(self._measured(name, label, metric, row, key, samples))
        if not measured:
            return None
        return ImportedTask(
            name=name,
            measured=tuple(measured),
            protocol=self._protocol(name, config),
            settings=self._settings(name, config) | ({} if columns else _questions(config)),
            definition="lm-eval",
            texts=self._texts(name) if columns else None,
            data=f"lm-eval:{config.get('dataset_path')}:{config.get('dataset_name') or ''}"[:300].rstrip(":"),
        )

    def _measured(
        self, task: str, label: str, metric: str, row: Mapping[str, Any], key: str, samples: Samples | None
    ) -> Measured:
        value = number(self.file, f"results.{task[:80]}.{key}", row[key])
        n = len(samples.values) if samples else self._size(task)
        if samples is not None and abs(float(samples.values.mean()) - value) > 1e-6 * max(1.0, abs(value)):
            self.notes.append(
                f"{task}: `{label}` is not the mean of its samples, so its differences have no paired test"
            )
            samples = None
        error = row.get(f"{metric}_stderr,{key.partition(',')[2]}")
        known = isinstance(error, int | float) and not isinstance(error, bool) and 0 <= error < float("inf")
        share = metric in _SHARES
        higher = objects(self.file, self.found, "higher_is_better", needed=False).get(task)
        direction = higher.get(metric) if isinstance(higher, dict) else None
        return Measured(
            metric=label,
            value=value,
            higher_is_better=direction if isinstance(direction, bool) else not lower_is_better(metric),
            n=n,
            error=float(error) if known and isinstance(error, int | float) else None,
            share=share and 0 <= value <= 1 and _is_count(value, n),
            bounds=unit_bounds(value, samples) if share or metric in _UNIT else None,
            samples=samples,
        )

    def _group(self, group: str, leaves: list[str]) -> ImportedTask | None:
        """A group as one task, if the samples of its subtasks have the mean that the file gives; else None."""
        if any(leaf not in self.results or leaf not in self.configs for leaf in leaves):
            return None
        row = objects(self.file, self.results, group)
        parts = [task for leaf in leaves if (task := self._task(leaf))]
        measured = []
        for key, value in row.items():
            metric, _, kind = key.partition(",")
            label = metric if kind == "none" else f"{metric},{kind}"
            found = [(task.name, each) for task in parts for each in task.measured if each.metric == label]
            if not kind or metric.endswith("_stderr") or isinstance(value, str) or len(found) != len(leaves):
                continue
            whole = [(name, each.samples) for name, each in found if each.samples is not None]
            samples = joined(whole) if len(whole) == len(found) else None
            if samples is None:
                return None
            if abs(float(samples.values.mean()) - number(self.file, f"results.{group}.{key}", value)) > 1e-6:
                self.notes.append(
                    f"{group}: its number is not the mean over the samples; its subtasks are shown instead"
                )
                return None
            leaf = found[0][1]
            measured.append(
                Measured(
                    label,
                    float(value),
                    leaf.higher_is_better,
                    len(samples.values),
                    bounds=leaf.bounds,
                    share=leaf.share,
                    samples=samples,
                )
            )
        if not measured:
            return None
        first = parts[0]
        settings = {
            name: value
            if all(part.settings.get(name) == value for part in parts)
            else json.dumps([part.settings.get(name) for part in parts])
            for name, value in first.settings.items()
        }
        return ImportedTask(group, tuple(measured), first.protocol, settings, "lm-eval", _texts_of_group(parts))

    def _size(self, task: str) -> int:
        size = self.sizes.get(task)
        effective = size.get("effective") if isinstance(size, dict) else None
        return effective if isinstance(effective, int) and not isinstance(effective, bool) and effective > 0 else 0

    def _protocol(self, name: str, config: Mapping[str, Any]) -> Protocol:
        generates = config.get("output_type") == "generate_until"
        shots = objects(self.file, self.found, "n-shot", needed=False).get(name)
        version = objects(self.file, self.found, "versions", needed=False).get(name)
        hashes = objects(self.file, self.found, "task_hashes", needed=False)
        return Protocol(
            version=str(version)[:40] if version is not None else None,
            shots=shots if isinstance(shots, int) and not isinstance(shots, bool) else None,
            mode="generate" if generates else "loglikelihood",
            numerics="lm-eval",
            engine=str(self.found.get("model_source") or self.config.get("model") or "lm-eval")[:80],
            dtype=str(self.config.get("model_dtype") or "unknown").removeprefix("torch.")[:40],
            chat_template=_optional(self.found.get("chat_template")),
            system=_optional(self.found.get("system_instruction")),
            prompt_sha256=_optional(hashes.get(name)),
        )

    def _settings(self, name: str, config: Mapping[str, Any]) -> dict[str, str]:
        protocol = self._protocol(name, config)
        kwargs = {**_mapping(config.get("generation_kwargs")), **_mapping(self.config.get("gen_kwargs"))}
        metrics = {each: config.get(each) for each in ("metric_list", "filter_list", "process_results", "repeats")}
        return {
            "lm-eval task version": str(protocol.version),
            "shots": str(protocol.shots),
            "kind of requests": str(config.get("output_type")),
            "generation settings": json.dumps(kwargs, sort_keys=True, default=str),
            "metric definition": _ADDRESS.sub("", json.dumps(metrics, sort_keys=True, default=str)),
            "chat template": str(self.found.get("chat_template_sha") or "none"),
            "system prompt": str(self.found.get("system_instruction_sha") or "none"),
            "conversation of shots": str(bool(self.found.get("fewshot_as_multiturn"))),
        }

    def _samples_file(self, task: str) -> Path | None:
        stamp = _TIME.search(self.file.name)
        if stamp is None or "/" in task or "\0" in task:
            return None
        file = self.file.with_name(f"samples_{task}_{stamp[1]}.jsonl")
        return file if file.is_file() and not file.is_symlink() else None

    def _columns(self, task: str) -> dict[str, SampleColumns]:
        """The samples by filter."""
        file = self._samples_file(task)
        if file is None:
            return {}
        found: dict[str, SampleColumns] = {}
        for line, row in lines(file):
            where = f"line {line}: "
            kind = text(file, f"{where}filter", row.get("filter", "none"))
            names = row.get("metrics", [key for key in _SHARES if key in row])
            if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
                raise refused(file, f"line {line}: `metrics` is not a list of names")
            document_hash = row.get("doc_hash")
            if not isinstance(document_hash, str):
                raise UserError(
                    f"`{file}`: line {line} has no `doc_hash`, by which samples of two runs are paired",
                    hint="lm-eval 0.4.3 or later writes it; run the evaluation again, or move the samples file away",
                )
            values = {name: number(file, f"{where}{name}", row[name]) for name in names if _is_number(row.get(name))}
            values |= {name: float(row[name]) for name in names if isinstance(row.get(name), bool)}
            request = request_of(row, templated=bool(self.found.get("chat_template")))
            found.setdefault(kind, SampleColumns()).add(
                digest(document_hash),
                digest(str(row.get("prompt_hash")), str(row.get("target_hash"))),
                values,
                None if request is None else digest(request.sha256),
            )
        size = self._size(task)
        for kind, columns in found.items():
            if size and len(columns) != size:
                raise refused(
                    file,
                    f"it has {len(columns)} samples of the filter `{kind[:80]}`, but `{self.file.name}` counts {size}",
                )
        return found

    def _texts(self, task: str) -> Any:
        def read_texts(metric: str, indices: Collection[int]) -> dict[int, SampleText]:
            file, kind = self._samples_file(task), metric.partition(",")[2] or "none"
            wanted, found, index = set(indices), dict[int, SampleText](), -1
            for _line, row in lines(file) if file else ():
                if row.get("filter", "none") != kind:
                    continue
                index += 1
                if index in wanted:
                    found[index] = text_of(row)
            return found

        return read_texts


def _texts_of_group(parts: list[ImportedTask]) -> Any:
    def read_texts(metric: str, indices: Collection[int]) -> dict[int, SampleText]:
        found, start = dict[int, SampleText](), 0
        for part in parts:
            samples = next(each.samples for each in part.measured if each.metric == metric)
            end = start + (len(samples.values) if samples else 0)
            mine = [index - start for index in indices if start <= index < end]
            if mine and part.texts:
                found |= {index + start: each for index, each in part.texts(metric, mine).items()}
            start = end
        return found

    return read_texts


def _questions(config: Mapping[str, Any]) -> dict[str, str]:
    """Describes the questions, as far as a file without samples says; with samples, the prompts themselves are compared."""
    data = [config.get(name) for name in ("dataset_path", "dataset_name", "test_split", "validation_split")]
    asked = [config.get(name) for name in ("description", "doc_to_text", "doc_to_choice", "doc_to_target")]
    shown = {"data": data, "template of prompts": asked}
    return {name: _ADDRESS.sub("", json.dumps(each, default=str)) for name, each in shown.items()}


def _leaves(group: str, children: Mapping[str, Any], above: tuple[str, ...] = ()) -> list[str]:
    """The tasks of a group and of the groups in it; a group that contains itself has none."""
    if group in above:
        return []
    found: dict[str, None] = {}
    for name in children[group]:
        found |= dict.fromkeys(_leaves(name, children, (*above, group)) if children.get(name) else [name])
    return list(found)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _is_count(value: float, n: int) -> bool:
    return n > 0 and abs(value * n - round(value * n)) < 1e-6 * n


def _mapping(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _optional(value: Any) -> str | None:
    return value if isinstance(value, str) and value else None


def _created(date: Any) -> str:
    try:
        return datetime.datetime.fromtimestamp(float(date), datetime.UTC).isoformat(timespec="seconds")
    except (ValueError, TypeError, OverflowError, OSError):
        return "unknown"
