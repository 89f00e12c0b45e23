"""Reads `run.json`, which anybody may have written: bounded, of the schema, and consistent, or refused with the field.

Example:
    >>> fault_of_values({"variants": [{"name": "a" * 3, "n": math.inf}]})
    ('variants.0.n', 'is not a finite number')
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from harness.errors import UserError
from harness.results import SCHEMA, Run, Variant
from harness.storage import read_json

FieldFault = tuple[str, str]
"""A field of the document, and what is wrong with it."""

_DEEPEST = 40
_LONGEST_TEXT = 2 << 20
"""Characters; the longest text of our own is a chat template, of 1 MiB at most."""
_LONGEST_LIST = 100_000
"""Raw times have one entry for each token that was timed."""
_MOST_NOTES = 10_000
_NOT_NEGATIVE = frozenset(
    [
        "n",
        "rows",
        "tokens",
        "steps",
        "samples",
        "batch_size",
        "total",
        "trainable",
        "bytes",
        "parameters",
        "sharing",
        "contained",
        "words",
        "shots",
        "truncated",
        "shortened",
        "timed_out",
        "duplicates",
        "cut",
        "dropped",
        "lost_tokens",
        "validation_rows",
        "repeats",
        "warmup",
        "prompt_tokens",
        "new_tokens",
    ]
)


def read_document(file: Path) -> Run:
    """Reads the results of a run.

    Raises:
        UserError: The file cannot be read, has another schema, or a field of it is wrong.
    """
    try:
        document = read_json(file)
    except ValueError as error:
        raise _refused(file, str(error)) from error
    except OSError as error:
        raise UserError(
            f"could not read `{file}`: {error.strerror}", hint="check that you have permission to read it"
        ) from error
    if not isinstance(document, dict):
        raise _refused(file, f"it is a {type(document).__name__}, not an object")
    if document.get("schema") != SCHEMA:
        raise UserError(
            f"`{file}` has schema {str(document.get('schema'))[:40]}, but this version of harness reads schema {SCHEMA}",
            hint="use the version of harness that wrote the file, or run the comparison again",
        )
    if fault := fault_of_values(document):
        raise _refused(file, "`{}` {}".format(*fault))
    try:
        run = Run.model_validate(document)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        place = ".".join(map(str, first["loc"])) or "the document"
        raise _refused(file, f"`{place}`: {first['msg'][:1].lower()}{first['msg'][1:]}") from error
    if fault := next(_inconsistencies(run), None):
        raise _refused(file, "`{}` {}".format(*fault))
    return run


def fault_of_values(document: Any) -> FieldFault | None:
    """The first value that is not finite, negative where a number counts, too long or nested too deeply; None if all are good."""
    waiting: list[tuple[tuple[str | int, ...], Any]] = [((), document)]
    while waiting:
        place, value = waiting.pop()
        fault = _fault_of(place, value)
        if fault is not None:
            return ".".join(map(str, place)), fault
        if isinstance(value, dict):
            waiting += [((*place, key), each) for key, each in value.items()]
        elif isinstance(value, list):
            waiting += [((*place, index), each) for index, each in enumerate(value)]
    return None


def _fault_of(place: tuple[str | int, ...], value: Any) -> str | None:
    if len(place) > _DEEPEST:
        return "is nested too deeply"
    if isinstance(value, float) and not math.isfinite(value):
        return "is not a finite number"
    if isinstance(value, int | float) and place[-1] in _NOT_NEGATIVE and not 0 <= value < 1e18:
        return f"is {value}"
    if isinstance(value, str) and len(value) > _LONGEST_TEXT:
        return f"has {len(value):,} characters"
    if isinstance(value, str) and _is_cut(value):
        return "has half of a character"
    if isinstance(value, list | dict) and len(value) > (_MOST_NOTES if place == ("notes",) else _LONGEST_LIST):
        return f"has {len(value):,} entries"
    return None


def _is_cut(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return True
    return False


def _inconsistencies(run: Run) -> Iterator[FieldFault]:
    """Names that are given twice, or that nothing in the document has."""
    variants, tasks = [variant.name for variant in run.variants], {task.name: task for task in run.tasks}
    for field, names in (("variants", variants), ("tasks", [task.name for task in run.tasks])):
        for name in _repeated(names):
            yield field, f"has `{name[:80]}` twice"
    if not variants:
        yield "variants", "is empty"
    for kind in ("model", "packages"):
        if not isinstance(run.environment.get(kind) or {}, dict):
            yield f"environment.{kind}", "is not an object"
    if run.baseline not in variants:
        yield "baseline", f"names no variant: `{run.baseline[:80]}`"
    for index, task in enumerate(run.tasks):
        metrics = [info.name for info in task.metrics]
        if task.headline not in metrics:
            yield f"tasks.{index}.headline", f"names no metric of the task: `{task.headline[:80]}`"
        for name in _repeated(metrics):
            yield f"tasks.{index}.metrics", f"has `{name[:80]}` twice"
    known = {(task.name, info.name) for task in run.tasks for info in task.metrics}
    for place, variant in enumerate(run.variants):
        for index, score in enumerate(variant.scores):
            if (score.task, score.metric) not in known:
                yield f"variants.{place}.scores.{index}", f"is of no task of the run: `{score.task[:80]}`"
        for score_of in _repeated([(score.task, score.metric) for score in variant.scores]):
            yield f"variants.{place}.scores", f"has `{score_of[0][:80]}` twice"
        yield from _impossible_times(f"variants.{place}", variant)
    for index, found in enumerate(run.comparisons):
        if (found.task, found.metric) not in known or not {found.a, found.b} <= set(variants):
            yield f"comparisons.{index}", "is of no task or variant of the run"
    for index, mean in enumerate(run.replicated):
        if mean.variant not in variants or not set(mean.trainings) <= set(variants):
            yield f"replicated.{index}", "is of no variant of the run"
    for index, gain in enumerate(run.gains):
        if gain.variant not in variants:
            yield f"gains.{index}", "is of no variant of the run"
    if run.recommendation and not set(run.recommendation.choices) <= set(variants):
        yield "recommendation", "names no variant of the run"
    for index, shown in enumerate(run.samples_shown):
        if shown.task not in tasks or not {each.variant for each in shown.variants} <= set(variants):
            yield f"samples_shown.{index}", "is of no task or variant of the run"
        elif not {out.id for each in shown.variants for out in each.outputs} <= {each.id for each in shown.prompts}:
            yield f"samples_shown.{index}", "has an output without its prompt"
    for index, overlap in enumerate(run.overlaps):
        if overlap.task not in tasks or (overlap.contained and not (overlap.examples and overlap.n)):
            yield f"overlaps.{index}", "is of no task of the run, or has no example"


def _impossible_times(place: str, variant: Variant) -> Iterator[FieldFault]:
    """Times of which no ratio can be computed: not above zero, or measured in turn with others that are missing."""
    train = variant.train
    blocks = train.block_seconds if train else ()
    if train and blocks and (min(train.train_seconds, *blocks) <= 0 or len(blocks) > train.steps):
        yield f"{place}.train.block_seconds", "has a time that is not above zero, or more blocks than steps"
    raw = variant.inference.raw_seconds if variant.inference else {}
    for name, times in raw.items():
        if min(times, default=1.0) <= 0:
            yield f"{place}.inference.raw_seconds.{name[:80]}", "has a time that is not above zero"
        if name.startswith("base_") and times and len(times) != len(raw.get(name.removeprefix("base_"), [])):
            yield f"{place}.inference.raw_seconds.{name[:80]}", "has another number of times than the variant"


def _repeated(names: Iterable[Any]) -> list[Any]:
    return [name for name, count in Counter(names).items() if count > 1]


def _refused(file: Path, what: str) -> UserError:
    return UserError(
        f"`{file}` is not the results of a run: {what}",
        hint="was the file edited or cut short? run the comparison again to write it again",
    )
