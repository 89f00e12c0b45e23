"""The keys of a variant, read and checked: settings of training, settings of prompts, and the method's own hyperparameters."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from pydantic import BaseModel, ValidationError

from harness.errors import UserError, did_you_mean
from harness.registry.scan import Entry
from harness.registry.values import read, show
from harness.settings import PROMPTING_KEYS, RESERVED_KEYS, TRAINING_KEYS, PromptSettings, TrainSettings


@dataclass(frozen=True)
class VariantKeys:
    """The keys of one variant by what they decide, values typed."""

    hyperparameters: dict[str, Any] = field(default_factory=dict)
    """The method's own, every default written out."""
    training: dict[str, Any] = field(default_factory=dict)
    """Settings of training that the variant itself gives, in the order of `TRAINING_KEYS`."""
    prompting: dict[str, Any] = field(default_factory=dict)
    """Settings of prompts that the variant itself gives, in the order of `PROMPTING_KEYS`."""


def read_keys(
    where: str, source: str, entry: Entry | None, keys: Mapping[str, Any], problems: list[UserError]
) -> VariantKeys:
    """Reads the keys of a variant.

    Args:
        where: The variant, for messages.
        source: Its source as typed, for messages.
        entry: Its method; None for `base` and for given adapters and checkpoints, which are not trained.
        keys: Key to value, a text or already typed.
        problems: Receives an error for each key that is wrong.
    """
    own: dict[str, Any] = {}
    training: dict[str, Any] = {}
    prompting: dict[str, Any] = {}
    for key, value in keys.items():
        try:
            if key in TRAINING_KEYS and entry is not None:
                training[key] = _setting(TrainSettings, key, value, TRAINING_KEYS[key])
            elif key in PROMPTING_KEYS:
                prompting[key] = _setting(PromptSettings, key, value, PROMPTING_KEYS[key])
            else:
                own[key] = _hyperparameter(source, entry, key, value)
        except ValueError as error:
            problems.append(UserError(f"{where}, `{key}`: {error}"))
        except UserError as error:
            problems.append(UserError(f"{where}: {error.message}", error.hint))
    if {"steps", "epochs"} <= training.keys():
        problems.append(UserError(f"{where} gives both `steps` and `epochs`", hint="keep one"))
    return VariantKeys(
        _with_defaults(entry, own) if entry else {},
        _in_order(training, TRAINING_KEYS),
        _in_order(prompting, PROMPTING_KEYS),
    )


def setting_texts(settings: Mapping[str, Any]) -> dict[str, str]:
    """Settings of training and of prompts as texts that read back to them."""
    types = {**TRAINING_KEYS, **PROMPTING_KEYS}
    return {key: show(value, types[key]) for key, value in settings.items()}


def hyperparameter_texts(entry: Entry | None, hyperparameters: Mapping[str, Any]) -> dict[str, str]:
    """Hyperparameters of a method as texts that read back to them."""
    declared = {parameter.name: parameter for parameter in entry.parameters} if entry else {}
    return {
        key: show(value, declared[key].annotation, declared[key].default) if key in declared else show(value)
        for key, value in hyperparameters.items()
    }


def _setting(model: type[BaseModel], key: str, value: Any, annotation: str) -> Any:
    """One setting, typed and within its limits."""
    if key == "think" and not isinstance(value, str):  # YAML reads on, off and 512 as other types
        value = {True: "on", False: "off"}[value] if isinstance(value, bool) else str(value)
    typed = read(value, annotation)
    try:
        model(**{key: typed})
    except ValidationError as error:
        said = str(error.errors()[0]["msg"]).removeprefix("Value error, ")
        raise ValueError(f"{said[0].lower()}{said[1:]}, got `{typed}`") from None
    return typed


def _hyperparameter(source: str, entry: Entry | None, key: str, value: Any) -> Any:
    """A hyperparameter of the method, typed by its signature."""
    if entry is None:
        known = list(PROMPTING_KEYS)
        if key in TRAINING_KEYS:
            untrained = "`base` is not trained" if source == "base" else f"`{source}` is given and only scored"
            raise UserError(f"{untrained}, so `{key}` has no effect", hint="keys here: " + ", ".join(known))
        raise UserError(f"`{source}` has no key `{key}`", hint=did_you_mean(key, known))
    declared = {parameter.name: parameter for parameter in entry.parameters}
    if key in declared:
        return read(value, declared[key].annotation, declared[key].default)
    if entry.open_ended:
        return read(value)
    nearest = did_you_mean(key, [*declared, *RESERVED_KEYS])
    own = ", ".join(declared) or "none"
    raise UserError(
        f"`{entry.name}` has no hyperparameter `{key}`",
        hint=(nearest if nearest.startswith("did") else "")
        + f" its own: {own}; for every method: lr, steps and the other settings of training",
    )


def _with_defaults(entry: Entry, own: Mapping[str, Any]) -> dict[str, Any]:
    """Every hyperparameter in the order of the signature, then further ones by name."""
    filled = {parameter.name: own.get(parameter.name, parameter.default) for parameter in entry.parameters}
    if filled.get("rank") and "alpha" in filled and filled["alpha"] is None:
        filled["alpha"] = 2 * filled["rank"]
    return filled | {key: own[key] for key in sorted(own) if key not in filled}


def _in_order(values: Mapping[str, Any], order: Mapping[str, str]) -> dict[str, Any]:
    return {key: values[key] for key in order if key in values}
