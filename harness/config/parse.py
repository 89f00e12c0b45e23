"""What a comparison is asked to do: command line and `compare.yaml` read into one validated `Config`.

Flags win over the file, which wins over defaults. Everything that is wrong is listed at once, with lines of the file.

Example:
    >>> config = configure(["base", "lora:rank=8"], limit=50)
    >>> config.model, [variant.name for variant in config.variants], config.tasks[:2]
    ('tiny', ['base', 'lora:rank=8'], ('mini_mmlu', 'mini_gsm8k'))
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError

from harness.config.config import Config as Config
from harness.config.config import listed
from harness.config.gates import parse_gate
from harness.config.mixes import parse_mix
from harness.config.variants import VariantSpec as VariantSpec
from harness.config.variants import make_variant, parse_variant, split_transforms
from harness.config.yaml_lines import ConfigFile, Place, load
from harness.data.files import FORMATS
from harness.data.saved import is_saved
from harness.errors import UserError, did_you_mean, together
from harness.registry.find import find, find_all, split_path
from harness.registry.task_spec import parse_task
from harness.settings import TrainSettings as TrainSettings

DEFAULT_VARIANTS = ("base", "lora", "qlora")


def configure(
    variants: Sequence[str] = (), *, file: Path | None = None, tasks_needed: bool = True, **settings: Any
) -> Config:
    """A validated configuration from variants as typed, a YAML file, and settings that win over it.

    Args:
        variants: Specs, or names of entries of the file; none: all of the file's, else `base lora qlora`.
        file: `compare.yaml`.
        tasks_needed: Whether something will be scored: then a model other than `tiny` must come with tasks.
        **settings: Fields of `Config`; `train` is a mapping of fields of `TrainSettings`. None means not given.

    Raises:
        UserError: All that is wrong, with file and line where it came from a file.

    Example:
        >>> configure(["lora"], modle="x")
        Traceback (most recent call last):
        ...
        harness.errors.UserError: unknown setting `modle`
    """
    written = load(file) if file else ConfigFile("", {})
    problems: list[UserError] = []
    given = _merged(written.data, settings)
    entries = given.pop("variants", None)
    specs = _variants(variants, entries, written, problems)
    if given.get("model", "tiny") != "tiny" and not given.setdefault("tasks", []) and tasks_needed:
        problems.append(
            UserError(f"no tasks named for `{given['model']}`", hint="name some with `--tasks`: `harness ls tasks`")
        )
    config = _validated(given, written, problems)
    rows = [row for spec in specs for row in _replicas(spec, config)]
    config = config.model_copy(update={"tasks": _tasks(config, written, problems), "variants": tuple(rows)})
    problems += _contradictions(config)
    if not problems:  # gates name variants and tasks, which must be right first
        problems += _gate_problems(config)
    if problems:
        raise together(problems)
    return config


def _merged(written: Mapping[str, Any], settings: Mapping[str, Any]) -> dict[str, Any]:
    """The file's settings under the given ones; a `steps` that is given drops the file's `epochs`, and vice versa."""
    given = {key: value for key, value in settings.items() if value is not None}
    train = {key: value for key, value in (given.pop("train", None) or {}).items() if value is not None}
    merged = {**{key: value for key, value in written.items() if value is not None}, **given}
    shared = merged.get("train")
    if isinstance(shared, dict) or not shared:
        shared = {key: value for key, value in (shared or {}).items() if value is not None}
        if {"steps", "epochs"} & set(train):
            shared = {key: value for key, value in shared.items() if key not in ("steps", "epochs")}
        merged["train"] = {**shared, **train}
    return merged


def _validated(given: dict[str, Any], written: ConfigFile, problems: list[UserError]) -> Config:
    """The settings without those that are wrong, which become problems: so that later checks still run."""
    try:
        return Config(**given)
    except ValidationError as error:
        for detail in error.errors():
            problems.append(_setting_problem(detail, written))
            first, *inner = detail["loc"]
            if first == "train" and inner:
                given["train"].pop(inner[0], None)
            else:
                given.pop(str(first), None)
    return Config(**given)


def _variants(typed: Sequence[str], entries: Any, written: ConfigFile, problems: list[UserError]) -> list[VariantSpec]:
    """The rows asked for, in order: by name from the file, else as specs."""
    if entries is not None and not isinstance(entries, dict):
        problems.append(UserError(f"{written.where(('variants',))}: `variants` must map names to settings"))
        entries = {}
    entries = entries or {}
    found: list[VariantSpec] = []
    for text in typed or list(entries) or DEFAULT_VARIANTS:
        try:
            found.append(_from_file(text, entries[text], written) if text in entries else parse_variant(text))
        except UserError as error:
            where = written.where(("variants", text)) + ": " if text in entries else ""
            problems += [UserError(where + part.message, part.hint) for part in error.problems or (error,)]
    names: set[str] = set()
    for variant in found:
        if variant.name in names:
            problems.append(UserError(f"two variants are named `{variant.name}`", hint="name one of them: `NAME=SPEC`"))
        names.add(variant.name)
    return found


def _from_file(name: str, content: Any, written: ConfigFile) -> VariantSpec:
    """A variant from its YAML entry: a spec as a text, or `{method: …, key: value}`, or `{adapter: …}`."""
    if isinstance(content, str):
        return replace(parse_variant(content), name=name)
    if content is not None and not isinstance(content, dict):
        raise UserError(f"variant `{name}` must be a mapping or a spec", hint="for example `{method: lora, rank: 8}`")
    keys = dict(content or {})
    named = [key for key in ("method", "adapter") if key in keys]
    if len(named) == 2:
        raise UserError(f"variant `{name}` has both a method and an adapter", hint="keep one")
    source, transforms = split_transforms(str(keys.pop(named[0])) if named else name)
    return make_variant(name, name, source, transforms, keys)


def _replicas(spec: VariantSpec, config: Config) -> list[VariantSpec]:
    """A variant and its further trainings: with other seeds, or without other parts of the data."""
    if spec.kind != "method":
        return [spec]
    if config.folds is not None:
        parts = range(config.folds)
        return [replace(spec, fold=0), *(_replica(spec, k, f"fold{k}", fold=k) for k in parts[1:])]
    first = int(spec.training.get("seed", config.seed))
    seeds = (first + k for k in range(config.seeds))
    return [spec] + [
        _replica(spec, k, f"seed{k}", training={**spec.training, "seed": seed}) for k, seed in enumerate(seeds) if k
    ]


def _replica(spec: VariantSpec, number: int, suffix: str, **changes: Any) -> VariantSpec:
    return replace(spec, name=f"{spec.name}.{suffix}", replica=number, replica_of=spec.name, **changes)


def _tasks(config: Config, written: ConfigFile, problems: list[UserError]) -> tuple[str, ...]:
    """Every task found, files with several tasks written out; parameters and duplicates checked."""
    texts: list[str] = []
    known: set[str] = set()
    for text in config.tasks:
        try:
            source = parse_task(text).source
            entries = find_all("task", source)
        except UserError as error:
            where = written.where(("tasks",)) + ": " if text in listed(written.data.get("tasks") or []) else ""
            problems.append(UserError(where + error.message, error.hint))
            continue
        texts += [text] if len(entries) == 1 else [f"{source}@{entry.name}{text[len(source) :]}" for entry in entries]
        known |= {parameter.name for entry in entries for parameter in entry.parameters}
    for key in config.task_parameters:
        if key not in known:
            hint = did_you_mean(key, known) if known else "these tasks have no parameters"
            problems.append(UserError(f"no task has a parameter `{key}` (`-T`)", hint=hint))
    for text in texts:
        try:
            parse_task(text, config.task_parameters)
        except UserError as error:
            problems.append(error)
    for text in sorted({text for text in texts if texts.count(text) > 1}):
        problems.append(UserError(f"task `{text}` is asked for twice"))
    return tuple(texts)


def _contradictions(config: Config) -> list[UserError]:
    """What each field allows and the whole does not."""
    problems = []
    names = [variant.name for variant in config.variants]
    if config.baseline is not None and config.baseline not in names:
        problems.append(
            UserError(f"baseline `{config.baseline}` is no variant here", hint=did_you_mean(config.baseline, names))
        )
    for variant in config.variants:
        if variant.replica and names.count(variant.name) > 1:
            flag = "--seeds" if config.folds is None else "--folds"
            problems.append(UserError(f"`{flag}` would name a second variant `{variant.name}`", hint="rename yours"))
    if config.folds is not None:
        if config.seeds > 1:
            problems.append(UserError("both `seeds` and `folds` are given", hint="keep one: each trains several times"))
        held = [config.train.validation, *(variant.training.get("validation") for variant in config.variants)]
        if any(each is not None for each in held):
            problems.append(
                UserError("both `folds` and `validation` are given", hint="each fold is held out in turn: drop it")
            )
        if config.tune_lr is not None:
            problems.append(
                UserError(
                    "both `folds` and `tune_lr` are given: rates would be chosen on the rows that count",
                    hint="tune without `--folds`, then give the rate: `lr=RATE`",
                )
            )
    asked = [config.train.model_dump(), *(variant.training for variant in config.variants)]
    for key, what in (("data", "training"), ("validation", "validation")):
        sources = {str(settings[key]) for settings in asked if settings.get(key) is not None}
        problems += [problem for source in sorted(sources) for problem in _data_problems(what, source)]
    named = [variant.training.get("data") for variant in config.variants if variant.kind == "method"]
    if config.train.columns and not config.train.data and not (named and all(named)):
        problems.append(UserError("`train.columns` without `train.data`", hint="name the data with `--train`"))
    return problems


def _gate_problems(config: Config) -> list[UserError]:
    problems = []
    for text in config.fail_if:
        try:
            parse_gate(text, [variant.name for variant in config.variants], config.tasks)
        except UserError as error:
            problems.append(error)
    return problems


def _data_problems(what: str, data: str) -> list[UserError]:
    """What is wrong with training or validation data as typed, part by part."""
    if what == "validation" and _is_number(data):
        return []
    try:
        return [problem for part in parse_mix(data) if (problem := _data_problem(what, part.source))]
    except UserError as error:
        return [error]


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _data_problem(what: str, data: str) -> UserError | None:
    """Why data cannot be what was typed, if it cannot."""
    if data.startswith("hub:"):
        if 1 <= len(data.split(":")) - 1 <= 3 and data.split(":")[1]:
            return None
        return UserError(f"malformed {what} data `{data}`", hint="write hub:owner/name[:config[:split]]")
    path, _ = split_path(data)
    if (path.is_file() and path.suffix in FORMATS) or ("/" in data and path.is_dir()):
        return None
    unread = UserError(f"{what} file `{data}` is of an unknown extension", hint="known: " + " ".join(FORMATS))
    if path.is_file() and path.suffix not in ("", ".py"):
        return unread
    meant = "parts of a mix stand apart: `a + b`" if "+" in data else ""
    if re.fullmatch(r"[\w-][\w.-]*/[\w.-]+(:.*)?", data) and path.suffix not in (*FORMATS, ".py"):
        meant = f"did you mean `hub:{data}`?"
    if path.suffix and path.suffix != ".py" and not path.exists():
        near = [each.name for each in path.parent.glob("*")] if path.parent.is_dir() else []
        hint = meant or (did_you_mean(path.name, near) if near else "check the path")
        return UserError(f"no {what} file `{data}`", hint=hint)
    try:
        find("task", parse_task(data).source)
    except UserError as error:
        if is_saved(path):
            return None
        if path.is_file() and not path.suffix:
            return unread
        return UserError(f"{what} data `{data}` is neither a task, a file, nor hub:owner/name", meant or error.hint)
    return None


def _setting_problem(detail: Mapping[str, Any], written: ConfigFile) -> UserError:
    """One of pydantic's errors as a sentence with file and line."""
    place: Place = tuple(detail["loc"])
    known_place = next((place[:end] for end in range(len(place), 0, -1) if place[:end] in written.lines), ())
    where = written.where(place) + ": " if known_place else ""
    name = ".".join(str(part) for part in place if not str(part).startswith("function-")) or "settings"
    if detail["type"] == "extra_forbidden":
        fields = (TrainSettings if place[0] == "train" else Config).model_fields
        return UserError(f"{where}unknown setting `{name}`", hint=did_you_mean(str(place[-1]), fields))
    said = str(detail["msg"]).removeprefix("Value error, ").partition(", unable")[0]
    got = "" if isinstance(detail["input"], dict | BaseModel) else f", got `{detail['input']}`"
    return UserError(f"{where}`{name}`: {said[0].lower()}{said[1:]}{got}")
