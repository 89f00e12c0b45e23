"""Variants as typed: `[name=]source[:key=value{,key=value}]{@merged|@4bit|@8bit|@FORM}`, parsed and validated.

Example:
    >>> variant = parse_variant("mine=lora:rank=8,lr=1e-3@4bit")
    >>> variant.name, variant.bits, variant.hyperparameters["alpha"], variant.training
    ('mine', 4, 16, {'lr': 0.001})
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from harness.api import QUANTIZATIONS
from harness.config.deployed_forms import is_form, read_form
from harness.config.variant_keys import hyperparameter_texts, read_keys, setting_texts
from harness.config.variant_sources import (
    BITS,
    FORMATS,
    SourceKind,
    find_source,
    merges_first,
    split_transforms,
    transform_problems,
)
from harness.errors import UserError, did_you_mean, together
from harness.jobs import SERVED_PREFIX, DeployedForm
from harness.registry.scan import Entry
from harness.registry.values import split, unquote
from harness.serving.address import is_address, parse_address, split_address

_FORM = "write [name=]source[:key=value,…][@merged|@4bit|@8bit|@gguf:TYPE …]"


@dataclass(frozen=True)
class VariantSpec:
    """One row of a comparison, validated, defaults filled in."""

    name: str
    text: str = field(compare=False)
    """As typed."""
    source: str
    """`base`, a method as typed, or the path or Hub id of an adapter or checkpoint, without its revision."""
    kind: SourceKind
    entry: Entry | None = None
    """The method."""
    revision: str | None = None
    """The revision of an adapter on the Hub."""
    hyperparameters: dict[str, Any] = field(default_factory=dict)
    """The method's own, every default written out."""
    training: dict[str, Any] = field(default_factory=dict)
    """Settings of training that this variant itself gives."""
    prompting: dict[str, Any] = field(default_factory=dict)
    """Settings of prompts that this variant itself gives."""
    merged: bool = False
    bits: Literal[4, 8] | None = None
    """Bits of a weight at scoring, from `@4bit` or `@8bit`; None: as the method loads its base."""
    form: DeployedForm | None = None
    """The deployed form that is scored, such as `@gguf:Q4_K_M`; None: the weights as trained."""
    served: str | None = None
    """Address of the server on which it is scored, as typed; None: it is loaded here, or `--model` is a served model."""
    replica: int = 0
    """Number of this training run among the replicas of a variant; 0: the variant as typed."""
    replica_of: str | None = None
    """Name of the variant as typed, of which this is a replica."""
    fold: int | None = None
    """With `--folds`, the number of the fold that this training run holds out, from 0."""

    @property
    def canonical(self) -> str:
        """The spec with every default written out and without the name; it reads back to an equal variant."""
        return self._with_keys({**self.training, **self.prompting}) + self.transforms

    @property
    def training_spec(self) -> str:
        """The part of the spec that decides the training run, system prompt and template included: equal ones share a run."""
        prompts = {key: value for key, value in self.prompting.items() if key != "shots"}
        return self._with_keys({**self.training, **prompts})

    @property
    def transforms(self) -> str:
        """`@merged`, `@4bit`, `@merged@gguf:Q4_K_M`, `@endpoint:…` …, or nothing."""
        form = f"@{self.form.text}" if self.form else ""
        served = f"@{self.served}" if self.served and self.kind != "endpoint" else ""
        return "@merged" * self.merged + (f"@{self.bits}bit" if self.bits else "") + form + served

    @property
    def full_source(self) -> str:
        """The source with the `@` that belongs to it: a revision, or the name of a method in a file."""
        if self.revision:
            return f"{self.source}@{self.revision}"
        if self.entry and self.entry.module is None:
            return f"{self.source}@{self.entry.name}"
        return self.source

    def _with_keys(self, settings: Mapping[str, Any]) -> str:
        keys = {**hyperparameter_texts(self.entry, self.hyperparameters), **setting_texts(settings)}
        return self.full_source + ":" * bool(keys) + ",".join(f"{key}={text}" for key, text in keys.items())


def parse_variant(text: str) -> VariantSpec:
    """Reads one variant as typed.

    Raises:
        UserError: The spec is malformed, unknown, or contradicts itself; it lists all that is wrong.

    Example:
        >>> parse_variant("base:shots=5").canonical
        'base:shots=5'
    """
    name, body = _split_name(text)
    body, served = split_served(body)
    body, transforms = split_transforms(body)
    source, colon, rest = split_address(body) if is_address(body) else body.partition(":")
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
    return make_variant(name or text, text, source, transforms, keys, served)


def make_variant(
    name: str, text: str, source: str, transforms: Sequence[str], keys: Mapping[str, Any], served: str | None = None
) -> VariantSpec:
    """Makes a variant from its parts, which `parse_variant` or a YAML entry gives.

    Args:
        name: Its name.
        text: As typed, for messages.
        source: Its source.
        transforms: Its transforms, in the order they act, without `@endpoint:…`.
        keys: Its keys.
        served: Address of the server on which it is scored.

    Raises:
        UserError: See `parse_variant`.
    """
    where = f"variant `{text}`"
    if not source:
        raise UserError(f"{where} names no source", hint=_FORM)
    found = find_source(where, source)
    problems: list[UserError] = []
    read = read_keys(where, found.name, found.entry, keys, problems)
    quant = found.entry.quantization(read.hyperparameters) if found.entry else None
    if quant not in (None, *QUANTIZATIONS):
        problems.append(UserError(f"{where}: unknown quantization `{quant}`", did_you_mean(quant, QUANTIZATIONS)))
    problems = transform_problems(where, found, quant, transforms) + problems
    forms = [read_form(where, each, problems) for each in transforms if is_form(each)]
    if served is not None:
        problems += _served_problems(where, found.kind, served, transforms)
    if problems:
        raise together(problems)
    bits = next((BITS[transform] for transform in transforms if transform in BITS), None)
    merged = "merged" in transforms or (bool(forms) and merges_first(found))
    if not merged and quant is not None and quant == FORMATS.get(f"{bits}bit"):
        bits = None  # `qlora@4bit` is `qlora`
    return VariantSpec(
        name=name,
        text=text,
        source=found.name,
        kind=found.kind,
        entry=found.entry,
        revision=found.revision,
        hyperparameters=read.hyperparameters,
        training=read.training,
        prompting=read.prompting,
        merged=merged,
        bits=bits,
        form=forms[0] if forms else None,
        served=found.name if found.kind == "endpoint" else served,
    )


def split_served(text: str) -> tuple[str, str | None]:
    """Splits `@endpoint:…` off the right end of a variant: the server on which what was trained here is scored.

    Example:
        >>> split_served("lora:rank=8@endpoint:http://127.0.0.1:8000/v1#mine")
        ('lora:rank=8', 'endpoint:http://127.0.0.1:8000/v1#mine')
    """
    body, mark, address = text.partition(f"@{SERVED_PREFIX}")
    return body, SERVED_PREFIX + address if mark else None


def _served_problems(where: str, kind: SourceKind, served: str, transforms: Sequence[str]) -> list[UserError]:
    """The errors of `@endpoint:…`."""
    if kind in ("base", "endpoint"):
        return [UserError(f"{where}: `@{served}` is for what was trained", hint=f"write `{served}` alone")]
    if transforms:
        return [
            UserError(
                f"{where}: `@{transforms[0]}` cannot change what a server loads", hint=f"leave out `@{transforms[0]}`"
            )
        ]
    try:
        parse_address(served, "")
    except UserError as error:
        return [UserError(f"{where}: {error.message}", error.hint)]
    return []


def _split_name(text: str) -> tuple[str | None, str]:
    """The name before the `=`, if there is one, and the rest."""
    first = re.search(r"[=:@/]", text)
    if first is None or first[0] != "=":
        return None, text
    name = text[: first.start()]
    if not re.fullmatch(r"[A-Za-z0-9._-]+", name):
        raise UserError(f"variant `{text}`: `{name}` cannot be a name", hint="use letters, digits, `.`, `_` and `-`")
    return name, text[first.end() :]
