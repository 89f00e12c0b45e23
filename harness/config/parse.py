"""Reads the command line and `compare.yaml` into one validated `Config`.

Flags override the file, which overrides defaults. All errors are listed at once, with lines of the file.

Example:
    >>> config = configure(["base", "lora:rank=8"], limit=50)
    >>> config.model, [variant.name for variant in config.variants], config.tasks[:2]
    ('tiny', ['base', 'lora:rank=8'], ('mini_mmlu', 'mini_gsm8k'))
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError

from harness.config.config import Config as Config
from harness.config.config import listed
from harness.config.gates import parse_gate
from harness.config.mixes import data_problems
from harness.config.named_code import code_problems
from harness.config.variant_sources import split_transforms
from harness.config.variants import VariantSpec as VariantSpec
from harness.config.variants import make_variant, parse_variant, split_served
from harness.config.yaml_lines import ConfigFile, Place, load
from harness.errors import UserError, did_you_mean, together
from harness.registry.find import find_all
from harness.registry.task_spec import parse_task
from harness.serving.address import is_address
from harness.settings import SHARED_KEYS, overridden
from harness.settings import TrainSettings as TrainSettings

DEFAULT_VARIANTS = ("base", "lora", "qlora")


def configure(
    variants: Sequence[str] = (), *, file: Path | None = None, tasks_needed: bool = True, **settings: Any
) -> Config:
    """Makes a validated configuration from variants as typed, a YAML file, and settings that override the file.

    Args:
        variants: Specs, or names of entries of the file; none: all entries of the file, else `base lora qlora`.
        file: `compare.yaml`.
        tasks_needed: Whether variants will be scored: a model other than `tiny` then needs `tasks`.
        **settings: Fields of `Config`; `train` is a mapping with keys of `SHARED_KEYS`. None means not given.

    Raises:
        UserError: All that is wrong, with file and line where it is in the file.

    Example:
        >>> configure(["lora"], modle="x")
        Traceback (most recent call last):
        ...
        harness.errors.UserError: unknown setting `modle`
    """
    written = load(file) if file else ConfigFile("", {})
    problems = code_problems(written, variants, settings)
    if problems:
        raise together(problems)
    given = _merged(written.data, settings)
    entries = given.pop("variants", None)
    specs = _variants(variants, entries, written, problems)
    if given.get("model", "tiny") != "tiny" and not given.setdefault("tasks", []) and tasks_needed:
        problems.append(
            UserError(f"no tasks are given for `{given['model']}`", hint="name some with `--tasks`: `harness ls tasks`")
        )
    config = _validated(given, written, problems)
    rows = [row for spec in specs for row in _replicas(spec, config)]
    config = config.model_copy(update={"tasks": _tasks(config, written, problems), "variants": tuple(rows)})
    problems += _contradictions(config)
    if not problems:  # gates contain names of variants and tasks, which must be valid first
        problems += _gate_problems(config)
    if problems:
        raise together(problems)
    return config


def _merged(written: Mapping[str, Any], settings: Mapping[str, Any]) -> dict[str, Any]:
    """The file's settings, overridden by the given ones."""
    given = {key: value for key, value in settings.items() if value is not None}
    train = {key: value for key, value in (given.pop("train", None) or {}).items() if value is not None}
    merged = {**{key: value for key, value in written.items() if value is not None}, **given}
    shared = merged.get("train")
    if isinstance(shared, dict) or not shared:
        shared = {key: value for key, value in (shared or {}).items() if value is not None}
        merged["train"] = overridden(shared, train)
    return merged


def _validated(given: dict[str, Any], written: ConfigFile, problems: list[UserError]) -> Config:
    """The configuration without invalid settings, which are added to `problems`, so that later checks still run."""
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
    """The variants in order: entries of the file by name, or specs."""
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
            problems.append(
                UserError(f"two variants are named `{variant.name}`", hint="rename one of them: `NAME=SPEC`")
            )
        names.add(variant.name)
    return found


def _from_file(name: str, content: Any, written: ConfigFile) -> VariantSpec:
    """Reads a variant from its YAML entry: a spec as text, `{method: …, key: value}`, or `{adapter: …}`."""
    if isinstance(content, str):
        return replace(parse_variant(content), name=name)
    if content is not None and not isinstance(content, dict):
        raise UserError(f"variant `{name}` must be a mapping or a spec", hint="for example `{method: lora, rank: 8}`")
    keys = dict(content or {})
    named = [key for key in ("method", "adapter") if key in keys]
    if len(named) == 2:
        raise UserError(f"variant `{name}` has both a method and an adapter", hint="keep one")
    text, served = split_served(str(keys.pop(named[0])) if named else name)
    source, transforms = split_transforms(text)
    return make_variant(name, name, source, transforms, keys, served)


def _replicas(spec: VariantSpec, config: Config) -> list[VariantSpec]:
    """A variant with its replicas: training runs with further seeds, or with other folds held out."""
    if spec.kind != "method":
        return [spec]
    if config.folds is not None:
        return [replace(spec, fold=0), *(_replica(spec, k, f"fold{k}", fold=k) for k in range(1, config.folds))]
    first = int(spec.training.get("seed", config.seed))
    return [
        spec,
        *(_replica(spec, k, f"seed{k}", training={**spec.training, "seed": first + k}) for k in range(1, config.seeds)),
    ]


def _replica(spec: VariantSpec, number: int, suffix: str, **changes: Any) -> VariantSpec:
    return replace(spec, name=f"{spec.name}.{suffix}", replica=number, replica_of=spec.name, **changes)


def _tasks(config: Config, written: ConfigFile, problems: list[UserError]) -> tuple[str, ...]:
    """The text of every task, a file with several tasks written out as `FILE@NAME`; checks parameters and duplicates."""
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
        problems.append(UserError(f"task `{text}` is given twice"))
    return tuple(texts)


def _undecidable(config: Config) -> list[UserError]:
    """Errors of `until_decided` and `smallest`."""
    if not config.until_decided:
        hint = "add `--until-decided`, or leave `--smallest` out"
        return [UserError("`--smallest` needs `--until-decided`", hint=hint)] if config.smallest else []
    if config.seeds > 1 or config.folds is not None:
        flag = "--seeds" if config.folds is None else "--folds"
        return [
            UserError(
                f"both `--until-decided` and `{flag}` are given",
                hint="keep one: a mean over training runs that stop early has 6 to 11 % false positives",
            )
        ]
    if len(config.variants) == 1:
        return [UserError("`--until-decided` compares variants, and there is one", hint="name a second variant")]
    return []


def _contradictions(config: Config) -> list[UserError]:
    """Errors of settings that are valid each, but not together."""
    problems = []
    names = [variant.name for variant in config.variants]
    if config.baseline is not None and config.baseline not in names:
        problems.append(
            UserError(
                f"baseline `{config.baseline}` is not a variant of this run", hint=did_you_mean(config.baseline, names)
            )
        )
    for variant in config.variants:
        if variant.replica and names.count(variant.name) > 1:
            flag = "--seeds" if config.folds is None else "--folds"
            problems.append(
                UserError(f"`{flag}` would add a second variant named `{variant.name}`", hint="rename your variant")
            )
    if config.tokenizer is not None and not is_address(config.model):
        problems.append(
            UserError(
                "`--tokenizer` is for served models: a model that is loaded here has its own",
                hint="leave it out, or give the server as the model: `--model endpoint:http://HOST:PORT/v1#NAME`",
            )
        )
    problems += _undecidable(config)
    other = f"--engine {config.engine}" if config.engine != "auto" else f"--numerics {config.numerics}"
    if config.writer == "vllm" and (config.engine != "auto" or config.numerics != "fp32"):
        problems.append(
            UserError(
                f"`--writer vllm` and `{other}` contradict each other: that is our own engine", hint="leave out one"
            )
        )
    if config.folds is not None:
        if config.seeds > 1:
            problems.append(
                UserError("both `seeds` and `folds` are given", hint="keep one: each repeats every training run")
            )
        held = [config.train.validation, *(variant.training.get("validation") for variant in config.variants)]
        if any(each is not None for each in held):
            problems.append(
                UserError(
                    "both `folds` and `validation` are given",
                    hint="leave out `validation`: each fold is held out in turn",
                )
            )
        if config.tune_lr is not None:
            problems.append(
                UserError(
                    "both `folds` and `tune_lr` are given: learning rates would be chosen on the rows that evaluate them",
                    hint="tune without `--folds`, then give the learning rate: `lr=RATE`",
                )
            )
    given = [config.train.model_dump(), *(variant.training for variant in config.variants)]
    for key, kind in (("data", "training"), ("validation", "validation")):
        sources = {str(settings[key]) for settings in given if settings.get(key) is not None}
        problems += [problem for source in sorted(sources) for problem in data_problems(kind, source)]
    named = [variant.training.get("data") for variant in config.variants if variant.kind == "method"]
    if config.train.columns and not config.train.data and not (named and all(named)):
        problems.append(UserError("`train.columns` is given without `train.data`", hint="name the data with `--train`"))
    return problems


def _gate_problems(config: Config) -> list[UserError]:
    problems = []
    for flag, text in config.gate_texts:
        try:
            parse_gate(text, [variant.name for variant in config.variants], config.tasks, flag)
        except UserError as error:
            problems.append(error)
    return problems


def _setting_problem(detail: Mapping[str, Any], written: ConfigFile) -> UserError:
    """An error of pydantic as a sentence with file and line."""
    place: Place = tuple(detail["loc"])
    known_place = next((place[:end] for end in range(len(place), 0, -1) if place[:end] in written.lines), ())
    where = written.where(place) + ": " if known_place else ""
    name = ".".join(str(part) for part in place if not str(part).startswith("function-")) or "settings"
    if detail["type"] == "extra_forbidden":
        known = SHARED_KEYS if place[0] == "train" else Config.model_fields.keys() - {"allow_code"}  # only a flag
        return UserError(f"{where}unknown setting `{name}`", hint=did_you_mean(str(place[-1]), known))
    said = str(detail["msg"]).removeprefix("Value error, ").partition(", unable")[0]
    got = "" if isinstance(detail["input"], dict | BaseModel) else f", got `{detail['input']}`"
    return UserError(f"{where}`{name}`: {said[0].lower()}{said[1:]}{got}")
