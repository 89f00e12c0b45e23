"""Variants as typed: `[name=]source[:key=value{,key=value}]{@merged|@4bit|@8bit}`, parsed and validated.

Example:
    >>> variant = parse_variant("mine=lora:rank=8,lr=1e-3@4bit")
    >>> variant.name, variant.bits, variant.hyperparameters["alpha"], variant.training
    ('mine', 4, 16, {'lr': 0.001})
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from pydantic import ValidationError

from harness.api import QUANTIZATIONS
from harness.errors import UserError, did_you_mean, together
from harness.registry.find import find, list_entries, split_path
from harness.registry.scan import Entry
from harness.registry.values import read, show, split, unquote
from harness.settings import MAY_BE_ZERO, TRAINING, TrainSettings

PROMPTING = {"shots": "int", "system": "str", "template": "str"}
"""Reserved keys that decide a prompt."""
_BITS: Mapping[str, Literal[4, 8]] = {"4bit": 4, "8bit": 8}
_FORMATS: Mapping[str, str] = {"4bit": "nf4", "8bit": "int8"}
"""What the transforms quantize to."""
_FORM = "write [name=]source[:key=value,…][@merged|@4bit|@8bit]"
_ADAPTER_FILES = ("adapter_config.json", "method.json", "config.json")


@dataclass(frozen=True)
class VariantSpec:
    """One row of a comparison, validated, defaults filled in."""

    name: str
    text: str = field(compare=False)
    """As typed."""
    source: str
    """`base`, a method as typed, or the path or Hub id of an adapter or checkpoint, without its revision."""
    kind: Literal["base", "method", "adapter"]
    entry: Entry | None = None
    """The method."""
    revision: str | None = None
    """Of an adapter on the Hub."""
    hyperparameters: dict[str, Any] = field(default_factory=dict)
    """The method's own, every default written out."""
    training: dict[str, Any] = field(default_factory=dict)
    """Only what this variant sets itself, of `TRAINING`."""
    prompting: dict[str, Any] = field(default_factory=dict)
    """Only what this variant sets itself, of `PROMPTING`."""
    merged: bool = False
    bits: Literal[4, 8] | None = None
    """Quantization at scoring that was asked for with `@4bit` or `@8bit`, beyond the method's own `load`."""
    replica: int = 0
    """Which of several trainings this is; 0 is the one that was typed."""
    replica_of: str | None = None
    """The variant that was typed, of which this is a further training."""
    fold: int | None = None
    """The part of the training data that this training does not see."""

    @property
    def load(self) -> str | None:
        """What the method wants its base quantized to for training, if it does."""
        return self.entry.quantization(self.hyperparameters) if self.entry else None

    @property
    def scored_bits(self) -> Literal[4, 8] | None:
        """Bits of the weights at scoring: what was asked for, else the method's own base unless that was merged."""
        if self.bits or self.merged or self.load is None:
            return self.bits
        return 8 if self.load == "int8" else 4

    @property
    def canonical(self) -> str:
        """The spec with every default written out and without the name; reads back to an equal variant."""
        return self._written({**self._own_texts(), **_texts(self.training), **_texts(self.prompting)}) + self.transforms

    @property
    def training_spec(self) -> str:
        """What decides the training, the form of its prompts included: variants with equal ones share it."""
        prompts = {key: value for key, value in self.prompting.items() if key != "shots"}
        return self._written({**self._own_texts(), **_texts(self.training), **_texts(prompts)})

    @property
    def transforms(self) -> str:
        """`@merged`, `@4bit`, `@merged@4bit` …, or nothing."""
        return "@merged" * self.merged + (f"@{self.bits}bit" if self.bits else "")

    @property
    def full_source(self) -> str:
        """The source with what its `@` may add: the revision, or the name of a method in a file."""
        if self.revision:
            return f"{self.source}@{self.revision}"
        if self.entry and self.entry.module is None:
            return f"{self.source}@{self.entry.name}"
        return self.source

    def _own_texts(self) -> dict[str, str]:
        own = {parameter.name: parameter for parameter in self.entry.parameters} if self.entry else {}
        return {
            key: show(value, own[key].annotation, own[key].default) if key in own else show(value)
            for key, value in self.hyperparameters.items()
        }

    def _written(self, keys: Mapping[str, str]) -> str:
        return self.full_source + ":" * bool(keys) + ",".join(f"{key}={text}" for key, text in keys.items())


def parse_variant(text: str) -> VariantSpec:
    """Reads one variant as typed.

    Raises:
        UserError: The spec is malformed, unknown, or contradicts itself; all that is wrong with it is listed.

    Example:
        >>> parse_variant("base:shots=5").canonical
        'base:shots=5'
    """
    name, body = _split_name(text)
    body, transforms = split_transforms(body)
    source, colon, rest = body.partition(":")
    keys: dict[str, str] = {}
    for part in split(rest, ",") if colon else []:
        key, equals, value = part.partition("=")
        if not key or not equals:
            raise UserError(f"variant `{text}`: `{part}` is not `key=value`", hint=_FORM)
        if key in keys:
            raise UserError(f"variant `{text}` gives `{key}` twice")
        try:
            keys[key] = unquote(value)
        except ValueError as error:
            raise UserError(f"variant `{text}`, `{key}`: {error}") from None
    return make_variant(name or text, text, source, transforms, keys)


def split_transforms(text: str) -> tuple[str, list[str]]:
    """The transforms at the right end of `text`, in the order they act.

    Example:
        >>> split_transforms("./x.py@rslora:rank=8@merged@4bit")
        ('./x.py@rslora:rank=8', ['merged', '4bit'])
    """
    transforms: list[str] = []
    while match := re.search(r"@(merged|4bit|8bit)$", text):
        transforms.insert(0, match[1])
        text = text[: match.start()]
    return text, transforms


def make_variant(name: str, text: str, source: str, transforms: Sequence[str], keys: Mapping[str, Any]) -> VariantSpec:
    """A variant from its parts, as `parse_variant` and a YAML entry give them.

    Raises:
        UserError: See `parse_variant`.
    """
    where = f"variant `{text}`"
    if not source:
        raise UserError(f"{where} names no source", hint=_FORM)
    kind, source, entry, revision = _resolve(where, source)
    problems: list[UserError] = []
    training, prompting, own = {}, {}, {}
    for key, value in keys.items():
        try:
            if key in TRAINING and kind == "method":
                training[key] = _reserved(key, value, TRAINING[key])
            elif key in PROMPTING:
                prompting[key] = _reserved(key, value, PROMPTING[key])
            else:
                own[key] = _own(source, kind, entry, key, value)
        except ValueError as error:
            problems.append(UserError(f"{where}, `{key}`: {error}"))
        except UserError as error:
            problems.append(UserError(f"{where}: {error.message}", error.hint))
    hyperparameters = _with_defaults(entry, own) if entry else {}
    load = entry.quantization(hyperparameters) if entry else None
    if load not in (None, *QUANTIZATIONS):
        problems.append(UserError(f"{where}: there is no quantization `{load}`", did_you_mean(load, QUANTIZATIONS)))
    problems = _transform_problems(where, kind, source, entry, load, transforms) + problems
    if {"steps", "epochs"} <= set(training):
        problems.append(UserError(f"{where} gives both `steps` and `epochs`", hint="keep one"))
    if problems:
        raise together(problems)
    bits = next((_BITS[transform] for transform in transforms if transform in _BITS), None)
    merged = "merged" in transforms
    if not merged and load is not None and load == _FORMATS.get(f"{bits}bit"):
        bits = None  # `qlora@4bit` is `qlora`
    return VariantSpec(
        name,
        text,
        source,
        kind,
        entry,
        revision,
        hyperparameters,
        {key: training[key] for key in TRAINING if key in training},
        {key: prompting[key] for key in PROMPTING if key in prompting},
        merged,
        bits,
    )


def _split_name(text: str) -> tuple[str | None, str]:
    first = re.search(r"[=:@/]", text)
    if first is None or first[0] != "=":
        return None, text
    name = text[: first.start()]
    if not re.fullmatch(r"[A-Za-z0-9._-]+", name):
        raise UserError(f"variant `{text}`: `{name}` cannot be a name", hint="letters, digits, `.`, `_` and `-`")
    return name, text[first.end() :]


def _resolve(where: str, source: str) -> tuple[Literal["base", "method", "adapter"], str, Entry | None, str | None]:
    """What a source is: kind, source without `@…`, method, revision."""
    if source == "base":
        return "base", source, None, None
    path, name = split_path(source)
    methods = list_entries("method")
    named = source in {entry.name for entry in methods}  # a folder called `lora` does not hide the method
    if not named and any((path / file).is_file() for file in _ADAPTER_FILES):
        if name is not None:
            raise UserError(f"{where}: a local folder has no revision `{name}`", hint=f"write `{path}`")
        return "adapter", source, None, None
    if path.is_dir() and "/" in source and not any(path.glob("*.py")):
        raise UserError(
            f"{where}: `{path}` holds no adapter, checkpoint or method", hint="wanted: " + ", ".join(_ADAPTER_FILES)
        )
    on_hub = re.fullmatch(r"([\w.-]+/[\w.-]+)(?:@([\w./-]+))?", source)
    local = source.startswith((".", "~")) or path.suffix == ".py" or path.is_dir()
    if on_hub and not local and source not in {f"{entry.distribution}/{entry.name}" for entry in methods}:
        return "adapter", on_hub[1], None, on_hub[2]
    if name is not None and "/" not in source and path.suffix != ".py":
        raise UserError(f"{where}: unknown transform `@{name}`", hint="known: `@merged`, `@4bit`, `@8bit`")
    if path.suffix != ".py" and source.startswith((".", "/", "~")) and not path.exists():
        raise UserError(f"{where}: there is no `{path}`", hint="check the path of the adapter, checkpoint or method")
    try:
        entry = find("method", source)
    except UserError as error:
        hint = error.hint
        if error.message.startswith("unknown method"):
            names = ["base", *(entry.name for entry in methods)]
            hint = did_you_mean(source, names) + " (an adapter is given as ./folder or owner/name)"
        raise UserError(f"{where}: {error.message}", hint) from error
    return "method", str(source.rpartition("@")[0] if name else source), entry, None


def _transform_problems(
    where: str, kind: str, source: str, entry: Entry | None, load: str | None, transforms: Sequence[str]
) -> list[UserError]:
    problems = []
    bits = [transform for transform in transforms if transform in _BITS]
    if len(set(transforms)) < len(transforms) or len(bits) > 1:
        problems.append(UserError(f"{where} repeats or contradicts a transform", hint="at most one of each kind"))
    elif "merged" in transforms and bits and transforms[0] != "merged":
        problems.append(
            UserError(f"{where}: what is quantized can no longer be merged into", hint=f"write `@merged@{bits[0]}`")
        )
    if "merged" in transforms:
        if kind == "base":
            problems.append(UserError(f"{where}: `base` has nothing to merge", hint="leave out `@merged`"))
        elif entry and (not entry.options["mergeable"] or entry.options["saves"] == "checkpoint"):
            problems.append(
                UserError(f"{where}: what `{entry.name}` trains cannot be merged", hint="leave out `@merged`")
            )
        elif kind == "adapter" and _is_checkpoint(Path(source).expanduser()):
            problems.append(UserError(f"{where}: `{source}` is a whole checkpoint", hint="leave out `@merged`"))
    elif entry and bits and load not in (None, _FORMATS[bits[0]]):
        problems.append(
            UserError(
                f"{where}: `{entry.name}` adapters belong to a base in {load}",
                hint=f"write `{source}`, or `@merged@{bits[0]}` to merge first",
            )
        )
    return problems


def _is_checkpoint(path: Path) -> bool:
    return (path / "config.json").is_file() and not any((path / file).is_file() for file in _ADAPTER_FILES[:2])


def _reserved(key: str, value: Any, annotation: str) -> Any:
    typed = read(value, annotation)
    may_be_zero = key in (*MAY_BE_ZERO, "shots")
    if (
        isinstance(typed, int | float)
        and not isinstance(typed, bool)
        and (typed < 0 or (typed == 0 and not may_be_zero))
    ):
        raise ValueError(f"expected {'zero or more' if may_be_zero else 'more than zero'}, got `{typed}`")
    if key in TrainSettings.model_fields:
        try:
            TrainSettings(**{key: typed})
        except ValidationError as error:
            raise ValueError(str(error.errors()[0]["msg"]).removeprefix("Value error, ") + f", got `{typed}`") from None
    return typed


def _own(source: str, kind: str, entry: Entry | None, key: str, value: Any) -> Any:
    """A hyperparameter of the method, typed by its signature."""
    if entry is None:
        known = list(PROMPTING)
        if key in TRAINING:
            what = "`base` is not trained" if kind == "base" else f"`{source}` is given and only scored"
            raise UserError(f"{what}, so `{key}` has no meaning", hint="keys here: " + ", ".join(known))
        raise UserError(f"`{source}` has no key `{key}`", hint=did_you_mean(key, known))
    parameters = {parameter.name: parameter for parameter in entry.parameters}
    if key in parameters:
        return read(value, parameters[key].annotation, parameters[key].default)
    if entry.open_ended:
        return read(value)
    hint = did_you_mean(key, [*parameters, *TRAINING, *PROMPTING])
    own = ", ".join(parameters) or "none"
    raise UserError(
        f"`{entry.name}` has no hyperparameter `{key}`",
        hint=(hint if hint.startswith("did") else "")
        + f" its own: {own}; for every method: lr, steps and the other settings of training",
    )


def _with_defaults(entry: Entry, own: Mapping[str, Any]) -> dict[str, Any]:
    """Every hyperparameter in the order of the signature, then the further ones by name."""
    filled = {parameter.name: own.get(parameter.name, parameter.default) for parameter in entry.parameters}
    if filled.get("rank") and "alpha" in filled and filled["alpha"] is None:
        filled["alpha"] = 2 * filled["rank"]
    return filled | {key: own[key] for key in sorted(own) if key not in filled}


def _texts(reserved: Mapping[str, Any]) -> dict[str, str]:
    return {key: show(value, {**TRAINING, **PROMPTING}[key]) for key, value in reserved.items()}
