"""inspect_ai logs: `.eval` (a ZIP file) and `.json`."""

from __future__ import annotations

import json
import re
import zipfile
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Any

from harness.errors import UserError, one_line
from harness.imports.archive import json_entry
from harness.imports.bounded import is_finite, number, objects, refused, text, without_secrets
from harness.imports.lm_eval import lower_is_better, short_name
from harness.imports.record import ImportedRun, ImportedTask, Measured, SampleColumns, SampleText, digest
from harness.results import Protocol

_SAMPLE = re.compile(r"samples/.+_epoch_\d+\.json")
_MOST_ENTRIES = 2_000_000
_MOST_BYTES = 64 << 30
"""Of all unpacked samples together."""
_LETTERS = {"C": 1.0, "I": 0.0, "P": 0.5, "N": 0.0, "yes": 1.0, "true": 1.0, "no": 0.0, "false": 0.0}
"""The numbers that inspect's `value_to_float` gives to grades."""


def recognizes(found: Mapping[str, Any]) -> bool:
    """Whether a JSON document is an inspect log."""
    return isinstance(found.get("eval"), dict) and "status" in found and "task" in found["eval"]


def read_zip(file: Path) -> ImportedRun:
    """Reads a `.eval` file; nothing in it is unpacked to the disk.

    Raises:
        UserError: It is damaged, is not finished, or unpacks to more than the limits.
    """
    try:
        with zipfile.ZipFile(file) as opened:
            names = [info.filename for info in opened.infolist()]
            if len(names) > _MOST_ENTRIES:
                raise refused(file, f"it has {len(names):,} entries")
            if len(set(names)) != len(names):
                twice = next(name for name in names if names.count(name) > 1)
                raise refused(file, f"it has `{twice[:80]}` twice")
            if "header.json" not in names:
                raise refused(file, "`header.json` is missing: the evaluation was not finished")
            header = json_entry(opened, file, "header.json")
    except (zipfile.BadZipFile, OSError, ValueError) as error:
        raise refused(file, f"it is not a ZIP file: {one_line(error)}") from error
    return _Log(file, header, zipped=True).run()


def read(file: Path, found: Mapping[str, Any]) -> ImportedRun:
    """Reads a log in JSON.

    Raises:
        UserError: A field is missing or wrong, or the evaluation is not finished.
    """
    return _Log(file, found, zipped=False).run()


class _Log:
    """One log."""

    def __init__(self, file: Path, header: Mapping[str, Any], *, zipped: bool) -> None:
        self.file = file
        self.header = header
        self.zipped = zipped
        self.spec = objects(file, header, "eval")
        self.notes: list[str] = []

    def run(self) -> ImportedRun:
        version, status = self.header.get("version"), self.header.get("status")
        if version != 2:
            raise UserError(
                f"`{self.file}`: `version` is {str(version)[:40]}, but logs of version 2 are read",
                hint="`inspect log convert` of a current inspect_ai writes it in this version",
            )
        if status != "success":
            raise UserError(
                f"`{self.file}`: the evaluation is not finished: `status` is {str(status)[:40]}",
                hint="continue it with `inspect eval-retry`",
            )
        if self.header.get("invalidated"):
            raise UserError(f"`{self.file}`: its author has marked the log as invalid", hint="run the evaluation again")
        model = text(self.file, "eval.model", self.spec.get("model"))
        task = self._task()
        packages = objects(self.file, self.spec, "packages", needed=False)
        arguments = without_secrets(objects(self.file, self.spec, "model_args", needed=False))
        has_samples = any(each.samples is not None for each in task.measured)
        return ImportedRun(
            name=short_name(model),
            tool=f"inspect_ai {packages.get('inspect_ai') or ''}".strip()[:60],
            file=self.file,
            spec=f"{model} {json.dumps(arguments, sort_keys=True)}"[:2000].removesuffix(" {}"),
            model=model,
            created=str(self.spec.get("created") or "unknown")[:40],
            tasks=(task,),
            lacks=(*(() if has_samples else ("samples",)), "training settings, seeds and costs"),
            notes=tuple(self.notes),
        )

    def _task(self) -> ImportedTask:
        results = objects(self.file, self.header, "results")
        scores = results.get("scores")
        if not isinstance(scores, list) or not scores or not all(isinstance(each, dict) for each in scores):
            raise refused(self.file, "`results.scores` is not a list of scores")
        name = text(self.file, "eval.task", self.spec.get("task"))
        columns = self._columns()
        measured: list[Measured] = []
        for index, score in enumerate(scores):
            measured += self._measured(f"results.scores.{index}", score, columns)
        if not measured:
            raise refused(self.file, "`results.scores` has no metric with a number")
        task_version = self.spec.get("task_version")
        protocol = Protocol(
            version=str(task_version)[:40] if task_version is not None else None,
            shots=None,
            mode="generate",
            numerics="inspect_ai",
            engine=text(self.file, "eval.model", self.spec.get("model")).partition("/")[0][:80],
            dtype="unknown",
            chat_template=None,
            prompt_sha256=None,
        )
        data = objects(self.file, self.spec, "dataset", needed=False)
        return ImportedTask(
            name=name,
            measured=tuple(measured),
            protocol=protocol,
            settings={
                "inspect task version": str(task_version),
                "task arguments": json.dumps(self.spec.get("task_args") or {}, sort_keys=True, default=str),
                "generation settings": json.dumps(
                    self.spec.get("model_generate_config") or {}, sort_keys=True, default=str
                ),
                "epochs": str(objects(self.file, self.spec, "config", needed=False).get("epochs") or 1),
                "scorers": json.dumps([[each.get("scorer"), each.get("params")] for each in scores], default=str),
            },
            definition="inspect_ai",
            texts=self._texts,
            data=f"inspect_ai:{data.get('name') or data.get('location') or ''}"[:300],
        )

    def _measured(self, field: str, score: Mapping[str, Any], columns: SampleColumns) -> Iterator[Measured]:
        metrics = objects(self.file, score, "metrics", needed=False)
        named = text(self.file, f"{field}.name", score.get("name"))
        numbers = {}
        for key, metric in metrics.items():
            if not isinstance(metric, dict):
                raise refused(self.file, f"`{field}.metrics.{key[:80]}` is not an object")
            numbers[key] = number(self.file, f"{field}.metrics.{key[:80]}.value", metric.get("value"))
        scored = score.get("scored_samples")
        for key, value in numbers.items():
            if key in ("stderr", "std", "var") or key.endswith("_stderr"):
                continue
            samples = columns.of(named)
            if samples is not None and abs(float(samples.values.mean()) - value) > 1e-6 * max(1.0, abs(value)):
                samples = None
                self.notes.append(
                    f"{named} {key} is not the mean of its samples, so its differences have no paired test"
                )
            known = isinstance(scored, int) and not isinstance(scored, bool) and scored > 0
            n = len(samples.values) if samples else scored if known and isinstance(scored, int) else len(columns)
            in_unit = samples is not None and bool(((samples.values >= 0) & (samples.values <= 1)).all())
            yield Measured(
                metric=text(self.file, f"{field}.name", f"{named} {key}"),
                value=value,
                higher_is_better=not lower_is_better(key),
                n=n,
                error=numbers.get("stderr") if len(numbers) == 2 and numbers.get("stderr", -1) >= 0 else None,
                bounds=(0.0, 1.0) if in_unit and key in ("accuracy", "mean") else None,
                samples=samples,
            )

    def _rows(self) -> Iterator[tuple[str, dict[str, Any]]]:
        """Generates the samples in a fixed order, one at a time."""
        if not self.zipped:
            found = self.header.get("samples") or []
            if not isinstance(found, list) or not all(isinstance(each, dict) for each in found):
                raise refused(self.file, "`samples` is not a list of samples")
            yield from ((f"{self.file}:samples.{index}", each) for index, each in enumerate(found))
            return
        with zipfile.ZipFile(self.file) as opened:
            unpacked = 0
            for info in sorted(opened.infolist(), key=lambda info: info.filename):
                if _SAMPLE.fullmatch(info.filename):
                    unpacked += info.file_size
                    if unpacked > _MOST_BYTES:
                        raise refused(self.file, f"its samples unpack to more than {_MOST_BYTES:,} bytes")
                    yield f"{self.file}:{info.filename[:120]}", json_entry(opened, self.file, info.filename)

    def _documents(self) -> Iterator[tuple[list[tuple[str, dict[str, Any]]], str]]:
        """Generates the epochs of each document together, with the document's id."""
        waiting: list[tuple[str, dict[str, Any]]] = []
        last = None
        for where, row in self._ordered():
            name = json.dumps(row.get("id"))
            if waiting and name != last:
                yield waiting, last or ""
                waiting = []
            last = name
            waiting.append((where, row))
        if waiting:
            yield waiting, last or ""

    def _ordered(self) -> Iterator[tuple[str, dict[str, Any]]]:
        """The rows with all epochs of a document after each other."""
        if self.zipped:  # `<id>_epoch_<n>.json` in the order of names
            yield from self._rows()
        else:
            yield from sorted(self._rows(), key=lambda each: json.dumps(each[1].get("id")))

    def _columns(self) -> SampleColumns:
        """The scores by scorer; several epochs of a document are one sample with their mean."""
        columns = SampleColumns()
        for epochs, _ in self._documents():
            found: dict[str, list[float]] = {}
            for where, row in epochs:
                for scorer, score in objects(where, row, "scores", needed=False).items():
                    value = score.get("value") if isinstance(score, dict) else None
                    if (each := as_float(where, scorer, value)) is not None:
                        found.setdefault(scorer, []).append(each)
            where, row = epochs[0]
            means = {name: sum(each) / len(each) for name, each in found.items() if len(each) == len(epochs)}
            columns.add(_document_of(row), _prompt_of(row), means)
        return columns

    def _texts(self, metric: str, indices: Collection[int]) -> dict[int, SampleText]:
        wanted, found = set(indices), dict[int, SampleText]()
        for index, (epochs, name) in enumerate(self._documents()):
            if index in wanted:
                row = epochs[0][1]
                output = row.get("output")
                choices = output.get("choices") if isinstance(output, dict) else None
                first = choices[0] if isinstance(choices, list) and choices and isinstance(choices[0], dict) else {}
                message = first.get("message")
                answer = _plain(message.get("content")) if isinstance(message, dict) else ""
                kept = row.get("attachments")
                texts = [
                    _attached(each, kept) for each in (_plain(row.get("input")), _plain(row.get("target")), answer)
                ]
                found[index] = SampleText(name.strip('"')[:80], *texts)
        return found


def as_float(where: str, scorer: str, value: Any) -> float | None:
    """A grade as inspect's `value_to_float` reads it; None for values with several numbers and for unknown words.

    Raises:
        UserError: The number is not finite.
    """
    if isinstance(value, bool):
        return float(value)
    if isinstance(value, str):
        letter = _LETTERS.get(value, _LETTERS.get(value.lower()))
        if letter is not None:
            return letter
        try:
            value = float(value)
        except ValueError:
            return None
    if isinstance(value, int | float):
        if not is_finite(value):
            raise refused(where, f"`scores.{scorer[:80]}.value` is not a finite number")
        return float(value)
    return None


def _document_of(row: Mapping[str, Any]) -> int:
    return digest(
        *(json.dumps(row.get(name), sort_keys=True) for name in ("id", "target", "choices")), _plain(row.get("input"))
    )


def _prompt_of(row: Mapping[str, Any]) -> int:
    """Digest of everything that the model was told before its first answer."""
    messages = row.get("messages")
    asked: list[str] = []
    for message in messages if isinstance(messages, list) else []:
        if not isinstance(message, dict) or message.get("role") == "assistant":
            break
        asked += [str(message.get("role")), _plain(message.get("content"))]
    return digest(*(asked or [_plain(row.get("input"))]))


def _plain(content: Any) -> str:
    """The text of a message's content, of a list of messages, or of targets."""
    if isinstance(content, str):
        return content
    if isinstance(content, list):
        return "\n".join(_plain(each) for each in content)
    if isinstance(content, dict):
        return _plain(content.get("content", content.get("text", "")))
    return "" if content is None else str(content)


def _attached(content: str, attachments: Any) -> str:
    """A text; inspect keeps long ones beside the sample, by their digest."""
    key = content.removeprefix("attachment://")
    found = attachments.get(key) if key != content and isinstance(attachments, dict) else None
    return found if isinstance(found, str) else content
