"""Deployed forms of a variant: the transforms that convert its weights to what a server loads, such as `@gguf:Q4_K_M`.

A form is the last transform of a variant: `@TOOL:TYPE[:READER]`. A further form is one more entry of `FORMS`.

Example:
    >>> read_form("variant `x`", "gguf:Q4_K_M", [])
    DeployedForm(tool='gguf', type='Q4_K_M', reader='transformers')
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import get_args

from harness.errors import UserError, did_you_mean
from harness.jobs import DeployedForm, Reader

GGUF_TYPES = (
    *("F32", "F16", "BF16", "Q8_0", "Q6_K", "Q5_K_M", "Q5_K_S", "Q5_1", "Q5_0", "Q4_K_M", "Q4_K_S", "Q4_1", "Q4_0"),
    *("IQ4_NL", "IQ4_XS", "Q3_K_L", "Q3_K_M", "Q3_K_S", "Q2_K"),
)
"""Types of llama.cpp that need no importance matrix, largest first."""


@dataclass(frozen=True)
class _Kind:
    """The types and readers of one tool."""

    types: tuple[str, ...]
    default: str | None = None
    """Type without `:TYPE`; None: a type must be given."""
    readers: tuple[Reader, ...] = ("transformers",)


FORMS: Mapping[str, _Kind] = {
    "gguf": _Kind(GGUF_TYPES, readers=get_args(Reader)),
    "torchao": _Kind(("int8wo", "int4wo")),
    "gptq": _Kind(("W4A16", "W8A16"), default="W4A16"),
    "awq": _Kind(("W4A16_ASYM", "W4A16"), default="W4A16_ASYM"),
}
"""Tools by the name of their transform."""
TRANSFORM = re.compile(rf"@(merged|4bit|8bit|(?:{'|'.join(FORMS)})(?::[^@]*)?)$")
"""The last transform of a variant."""
KNOWN = "`@merged`, `@4bit`, `@8bit`, " + ", ".join(
    f"`@{name}" + ("`" if kind.default else ":TYPE`") for name, kind in FORMS.items()
)
"""All transforms, for messages."""


def is_form(transform: str) -> bool:
    """Whether a transform is a deployed form.

    Example:
        >>> is_form("gguf:Q4_K_M"), is_form("merged")
        (True, False)
    """
    return transform.partition(":")[0] in FORMS


def read_form(where: str, transform: str, problems: list[UserError]) -> DeployedForm:
    """Reads a deployed form as typed, without `@`.

    Args:
        where: The variant, for messages.
        transform: Such as `gguf:Q4_K_M`; upper and lower case are the same.
        problems: Receives the errors.
    """
    tool, _, rest = transform.partition(":")
    kind, (typed, _, reader) = FORMS[tool], rest.partition(":")
    known = {each.lower(): each for each in kind.types}
    if not typed and kind.default is None:
        problems.append(
            UserError(f"{where}: `@{tool}` needs a type, such as `@{tool}:{_example(kind)}`", _listed(kind.types))
        )
    elif (typed or str(kind.default)).lower() not in known:
        problems.append(UserError(f"{where}: unknown type `{typed}` of `@{tool}`", did_you_mean(typed, kind.types)))
    if reader and reader not in kind.readers:
        problems.append(
            UserError(f"{where}: unknown reader `{reader}` of `@{tool}`", did_you_mean(reader, kind.readers))
        )
    chosen = known.get((typed or str(kind.default)).lower(), typed)
    return DeployedForm(tool, chosen, next((each for each in kind.readers if each == reader), "transformers"))


def _example(kind: _Kind) -> str:
    return "Q4_K_M" if "Q4_K_M" in kind.types else kind.types[0]


def _listed(types: tuple[str, ...]) -> str:
    return "types: " + ", ".join(types)
