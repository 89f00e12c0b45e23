"""The source of a variant and its transforms: which method, adapter or checkpoint is meant, and what can be done with it.

Example:
    >>> find_source("variant `lora`", "lora").kind, split_transforms("lora:rank=8@merged@gguf:Q4_K_M")
    ('method', ('lora:rank=8', ['merged', 'gguf:Q4_K_M']))
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from harness.config.deployed_forms import KNOWN, TRANSFORM, is_form
from harness.data.gguf import is_gguf
from harness.errors import UserError, did_you_mean
from harness.registry.find import find, list_entries, split_path
from harness.registry.scan import Entry
from harness.serving.address import is_address, parse_address

BITS: Mapping[str, Literal[4, 8]] = {"4bit": 4, "8bit": 8}
"""Transforms that quantize, with the bits of a weight."""
FORMATS: Mapping[str, str] = {"4bit": "nf4", "8bit": "int8"}
"""Transforms that quantize, with the format of the weights."""
_ADAPTER_FILES = ("adapter_config.json", "method.json", "config.json")

SourceKind = Literal["base", "method", "adapter", "endpoint"]


@dataclass(frozen=True)
class VariantSource:
    """The source of a variant, found."""

    kind: SourceKind
    name: str
    """As typed, without its `@…`."""
    entry: Entry | None = None
    """The method."""
    revision: str | None = None
    """The revision of an adapter on the Hub."""


def split_transforms(text: str) -> tuple[str, list[str]]:
    """Splits the transforms off the right end of `text`, in the order they act.

    Example:
        >>> split_transforms("./x.py@rslora:rank=8@merged@4bit")
        ('./x.py@rslora:rank=8', ['merged', '4bit'])
    """
    transforms: list[str] = []
    while match := TRANSFORM.search(text):
        transforms.insert(0, match[1])
        text = text[: match.start()]
    return text, transforms


def find_source(where: str, source: str) -> VariantSource:
    """Finds out whether a source is the base, a method, or a given adapter or checkpoint.

    Args:
        where: The variant, for messages.
        source: As typed, without transforms.

    Raises:
        UserError: The source names nothing that exists.
    """
    if source == "base":
        return VariantSource("base", source)
    if is_address(source):
        parse_address(source, "")  # which server `#NAME` alone means is known when the model is
        return VariantSource("endpoint", source)
    path, name = split_path(source)
    methods = list_entries("method")
    if is_gguf(path) and path.is_file():
        return VariantSource("adapter", source)
    named = source in {entry.name for entry in methods}  # a folder called `lora` does not hide the method
    if not named and any((path / file).is_file() for file in _ADAPTER_FILES):
        if name is not None:
            raise UserError(f"{where}: a local folder has no revision `{name}`", hint=f"write `{path}`")
        return VariantSource("adapter", source)
    if path.is_dir() and "/" in source and not any(path.glob("*.py")):
        raise UserError(
            f"{where}: `{path}` holds no adapter, checkpoint or method",
            hint="expected one of: " + ", ".join(_ADAPTER_FILES),
        )
    on_hub = re.fullmatch(r"([\w.-]+/[\w.-]+)(?:@([\w./-]+))?", source)
    local = source.startswith((".", "~")) or path.suffix == ".py" or path.is_dir()
    if on_hub and not local and source not in {f"{entry.distribution}/{entry.name}" for entry in methods}:
        return VariantSource("adapter", on_hub[1], revision=on_hub[2])
    if name is not None and "/" not in source and path.suffix != ".py":
        raise UserError(f"{where}: unknown transform `@{name}`", hint=f"known: {KNOWN}")
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
    return VariantSource("method", source.rpartition("@")[0] if name else source, entry)


def transform_problems(
    where: str, source: VariantSource, quant: str | None, transforms: Sequence[str]
) -> list[UserError]:
    """The errors of transforms that contradict each other or do not fit their source.

    Args:
        where: The variant, for messages.
        source: Its source.
        quant: The format in which the method needs its base, if it needs one.
        transforms: In the order they act.
    """
    problems = []
    if source.kind == "endpoint" and transforms:
        return [
            UserError(
                f"{where}: `@{transforms[0]}` cannot change a served model, whose weights are on the server",
                hint=f"leave out `@{transforms[0]}`",
            )
        ]
    entry = source.entry
    bits = [transform for transform in transforms if transform in BITS]
    forms = [transform for transform in transforms if is_form(transform)]
    if len(set(transforms)) < len(transforms) or len(bits) > 1 or len(forms) > 1:
        problems.append(UserError(f"{where} repeats or contradicts a transform", hint="at most one of each kind"))
    elif forms and bits:
        problems.append(
            UserError(
                f"{where} quantizes twice: `@{bits[0]}` and `@{forms[0]}`",
                hint=f"keep one; `@{forms[0]}` converts the merged weights",
            )
        )
    elif forms and transforms[-1] != forms[0]:
        problems.append(
            UserError(f"{where}: nothing can follow `@{forms[0]}`", hint=f"write `@merged@{forms[0]}`, or leave it out")
        )
    elif "merged" in transforms and bits and transforms[0] != "merged":
        problems.append(
            UserError(f"{where}: an adapter cannot be merged after `@{bits[0]}`", hint=f"write `@merged@{bits[0]}`")
        )
    if "merged" in transforms:
        if source.kind == "base":
            problems.append(UserError(f"{where}: `base` has nothing to merge", hint="leave out `@merged`"))
        elif entry and (not entry.options["mergeable"] or entry.options["saves"] == "checkpoint"):
            problems.append(
                UserError(f"{where}: the result of `{entry.name}` cannot be merged", hint="leave out `@merged`")
            )
        elif source.kind == "adapter" and _is_checkpoint(Path(source.name).expanduser()):
            problems.append(UserError(f"{where}: `{source.name}` is a whole checkpoint", hint="leave out `@merged`"))
    elif forms and entry and not (entry.options["mergeable"] or entry.options["saves"] == "checkpoint"):
        problems.append(
            UserError(
                f"{where}: `@{forms[0]}` converts whole weights, and the result of `{entry.name}` cannot be merged into them",
                hint="use a method that can be merged, such as `lora` (`harness ls methods`), or `@4bit` and `@8bit`,"
                " which quantize the base beside it",
            )
        )
    elif entry and bits and quant not in (None, FORMATS[bits[0]]):
        problems.append(
            UserError(
                f"{where}: adapters of `{entry.name}` need a base in {quant}",
                hint=f"write `{source.name}`, or `@merged@{bits[0]}` to merge first",
            )
        )
    return problems


def merges_first(source: VariantSource) -> bool:
    """Whether the source is known to be an adapter, which is merged before its weights are converted.

    An adapter on the Hub is known as one only after it was downloaded.
    """
    if source.entry is not None:
        return bool(source.entry.options["saves"] != "checkpoint")
    path = Path(source.name).expanduser()
    return source.kind == "adapter" and any((path / file).is_file() for file in _ADAPTER_FILES[:2])


def _is_checkpoint(path: Path) -> bool:
    if is_gguf(path):
        return True
    return (path / "config.json").is_file() and not any((path / file).is_file() for file in _ADAPTER_FILES[:2])
