"""Converts between values and their text on the command line (`rank=8`, `lr=1e-5`, `target_modules=q_proj+v_proj`).

The command line and YAML give texts; the annotation of a parameter, which is parsed but never evaluated, decides the type.
`show` writes a value as a text that `read` converts back; canonical specs consist of such texts.

Example:
    >>> read("1e-5", "float"), read("q_proj+v_proj", "str | Sequence[str]"), read("none", "int | None")
    (1e-05, ['q_proj', 'v_proj'], None)
"""

from __future__ import annotations

import ast
import functools
import json
import math
from dataclasses import dataclass
from typing import Any


class Quoted(str):
    """A text that was in quotes: if a parameter accepts texts, it is not read as a number, a boolean or a list."""

    __slots__ = ()


@dataclass(frozen=True)
class _Type:
    """The values that an annotation allows."""

    names: frozenset[str] = frozenset()
    """Some of int, float, bool, str, None, list, any."""
    choices: tuple[Any, ...] = ()
    """Members of a `Literal`."""
    item: str = ""
    """Annotation of the items of a list."""

    def __str__(self) -> str:
        words = {"int": "a whole number", "float": "a number", "bool": "true or false", "str": "a text", "None": "none"}
        texts = [json.dumps(choice) if not isinstance(choice, str) else f"`{choice}`" for choice in self.choices]
        texts += [word for name, word in words.items() if name in self.names]
        if "list" in self.names:
            texts.append("a list (`a+b`)")
        return " or ".join(texts) or "a number, a text or a list"


def read(value: Any, annotation: str = "", default: Any = None) -> Any:
    """Converts a value to the type of `annotation`; without it, to the type of `default`; without both, guesses.

    Args:
        value: A text (from the command line or YAML), or a Python value, which is only checked.
        annotation: The annotation as written in the signature, such as `int | None`.
        default: The default of the parameter.

    Raises:
        ValueError: `value` does not have that type; the message names the expected type.
    """
    wanted = _type(annotation or _annotation_of(default))
    found = _read_text(value, wanted) if isinstance(value, str) else _check(value, wanted)
    if found is _NOTHING:
        raise ValueError(f"expected {wanted}, got `{value}`")
    return found


def show(value: Any, annotation: str = "", default: Any = None) -> str:
    """Writes a value as a text that `read` converts back.

    Example:
        >>> show(["q_proj"], "str | Sequence[str]"), show("a, b", "str"), show(None), show(True)
        ('q_proj+', '"a, b"', 'none', 'true')
    """
    if value is None or isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, int | float):
        return repr(value).replace("e+", "e")  # `+` separates the items of a list
    if isinstance(value, list | tuple):
        item = _type(annotation or _annotation_of(default)).item
        texts = [show(each, item) for each in value]
        return "+".join(texts) + ("+" if len(texts) < 2 else "")
    text = str(value)
    plain = text == text.strip() and text.isprintable() and not set(text) & set('",+@')
    try:
        plain = plain and text != "" and read(text, annotation, default) == text
    except ValueError:
        plain = False
    return text if plain else json.dumps(text, ensure_ascii=False)


def split(text: str, separator: str) -> list[str]:
    """Splits a text at every `separator` outside double quotes.

    Example:
        >>> split('shots=5,system="Be brief, please"', ",")
        ['shots=5', 'system="Be brief, please"']
    """
    parts, quoted, escaped = [""], False, False
    for character in text:
        if character == separator and not quoted:
            parts.append("")
            continue
        if character == '"' and not escaped:
            quoted = not quoted
        escaped = quoted and character == "\\" and not escaped
        parts[-1] += character
    return parts


def unquote(text: str) -> str:
    """Removes the double quotes around a text and marks it as `Quoted`; a text without quotes is returned unchanged.

    Raises:
        ValueError: A quote is not closed, or is not at the end.
    """
    if not text.startswith('"') or len(split(text, "+")) > 1:  # the items of a list are unquoted one by one
        return text
    try:
        return Quoted(json.loads(text))
    except ValueError:
        raise ValueError(f"unclosed or misplaced quote in `{text}`") from None


_NOTHING: Any = object()
_SIMPLE = {"int", "float", "bool", "str", "None"}
_LISTS = {"Sequence", "list", "List", "tuple", "Tuple", "Iterable", "Collection"}


def _annotation_of(default: Any) -> str:
    if isinstance(default, bool | int | float | str):
        return type(default).__name__
    if isinstance(default, list | tuple):
        return f"list[{_annotation_of(default[0])}]" if default and _annotation_of(default[0]) else "list"
    return ""


@functools.cache
def _type(annotation: str) -> _Type:
    """Parses an annotation; unknown types become `any`."""
    if not annotation:
        return _Type(frozenset({"any"}))
    try:
        return _of_node(ast.parse(annotation, mode="eval").body)
    except SyntaxError:
        return _Type(frozenset({"any"}))


def _of_node(node: ast.expr) -> _Type:
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.BitOr):
        return _union([_of_node(node.left), _of_node(node.right)])
    if isinstance(node, ast.Constant):
        return _Type(frozenset({"None"})) if node.value is None else _type(str(node.value))
    name = ast.unparse(node.value if isinstance(node, ast.Subscript) else node).rpartition(".")[2]
    inside: list[ast.expr] = []
    if isinstance(node, ast.Subscript):
        inside = list(node.slice.elts) if isinstance(node.slice, ast.Tuple) else [node.slice]
    if name in _LISTS:
        return _Type(frozenset({"list"}), item=ast.unparse(inside[0]) if inside else "")
    if name == "Literal":
        return _Type(choices=tuple(ast.literal_eval(each) for each in inside))
    if name in {"Optional", "Union"}:
        return _union([_of_node(each) for each in inside] + [_Type(frozenset({"None"}))] * (name == "Optional"))
    return _Type(frozenset({name if name in _SIMPLE else "any"}))


def _union(types: list[_Type]) -> _Type:
    return _Type(
        frozenset().union(*(each.names for each in types)),
        tuple(choice for each in types for choice in each.choices),
        next((each.item for each in types if "list" in each.names), ""),
    )


def _read_text(text: str, wanted: _Type) -> Any:
    names = wanted.names
    for choice in wanted.choices:
        if text == (choice if isinstance(choice, str) else show(choice)):
            return choice
    if isinstance(text, Quoted) and names & {"str", "any"}:
        return str(text)
    guess = "any" in names
    if (guess or "None" in names) and text.lower() in {"none", "null"}:
        return None
    if (guess or "bool" in names) and text.lower() in {"true", "false"}:
        return text.lower() == "true"
    number = _number(text)
    if number is not None and (guess or "int" in names or "float" in names):
        if not guess and "int" not in names:
            return float(number)
        if isinstance(number, int) or guess or "float" in names:
            return number
        if number.is_integer():  # `steps=1e3`
            return int(number)
    if (guess and "+" in text) or ("list" in names and ("+" in text or "str" not in names)):
        items = [] if text == "+" else split(text.removesuffix("+"), "+")
        return [read(unquote(item), wanted.item) for item in items]
    return str(text) if guess or "str" in names else _NOTHING


def _number(text: str) -> int | float | None:
    """The finite number that a text represents, or None."""
    for kind in (int, float):
        try:
            number: int | float = kind(text)
        except ValueError:
            continue
        return number if math.isfinite(number) else None
    return None


def _check(value: Any, wanted: _Type) -> Any:
    """A Python value if the type allows it; whole floats and ints are converted to each other."""
    names = wanted.names
    if value in wanted.choices:
        return value
    if isinstance(value, list | tuple) and names & {"list", "any"}:
        return [read(each, wanted.item) for each in value]
    if value is None or isinstance(value, bool):
        return value if names & {"None" if value is None else "bool", "any"} else _NOTHING
    if isinstance(value, int | float) and math.isfinite(value):
        if isinstance(value, int):
            return value if names & {"int", "any"} else float(value) if "float" in names else _NOTHING
        if names & {"float", "any"}:
            return value
        return int(value) if "int" in names and value.is_integer() else _NOTHING
    return _NOTHING
