"""Reads the tasks, methods and metrics that a Python file defines, with their signatures, from the file's text.

Nothing is imported or evaluated, so defaults and options must be literals, or names of module constants that are literals.

Example:
    >>> [entry.name for entry in scan(Path("capitals.py"))]  # doctest: +SKIP
    ['capitals']
"""

from __future__ import annotations

import ast
import dataclasses
import functools
import itertools
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from harness.api import QUANTIZATIONS, MethodFunction
from harness.data.digests import state_of
from harness.errors import UserError
from harness.settings import RESERVED_KEYS

Kind = Literal["task", "method", "metric"]

_MARKS: Mapping[str, Kind] = {"task": "task", "method": "method", "Metric": "metric"}
"""Public names that mark an entry."""
_OPTIONS = {
    option.name: option.default
    for option in dataclasses.fields(MethodFunction)
    if option.default is not dataclasses.MISSING
}
"""Keywords of `@method` and their defaults."""


@dataclass(frozen=True)
class Parameter:
    """A keyword-only parameter of a task, or a hyperparameter of a method."""

    name: str
    default: Any
    annotation: str
    """The annotation as written; empty if there is none."""


@dataclass(frozen=True)
class Entry:
    """A task, method or metric as its file declares it."""

    kind: Kind
    name: str
    path: Path
    line: int
    summary: str = ""
    """First paragraph of the docstring, on one line."""
    docstring: str = ""
    parameters: tuple[Parameter, ...] = ()
    open_ended: bool = False
    """Whether further hyperparameters are accepted (`**options`)."""
    options: Mapping[str, Any] = field(default_factory=dict)
    """Decorator options of a method, with defaults filled in: lr, load, mergeable, checkpointing, padding, saves,
    parameters."""
    attribute: str = ""
    """Name of the function in its module."""
    module: str | None = None
    """Import path of a built-in entry or plugin; None for a file given by path."""
    distribution: str | None = None
    """The installed distribution of a plugin."""

    def quantization(self, hyperparameters: Mapping[str, Any]) -> Any:
        """The quantization of the base that a method needs: its `load`, or the value of the hyperparameter named there."""
        load = self.options.get("load")
        return hyperparameters.get(load, load) if load else None

    @property
    def place(self) -> str:
        """File and line, for messages."""
        return f"{self.path}:{self.line}"


def scan(path: Path) -> list[Entry]:
    """The entries of a Python file, in the order of its lines.

    Raises:
        UserError: The file cannot be read or is not Python; a default is missing or not a literal; a method declares a
            reserved name.
    """
    try:
        state = state_of(path)
    except OSError as error:
        raise UserError(f"could not read `{path}`: {error.strerror}", hint="check the path") from error
    if not path.is_file():  # a device may never end
        raise UserError(f"could not read `{path}`: it is not a file", hint="name a Python file")
    return list(_scan(path, state))


def maker_entry(path: Path, function: str, name: str) -> Entry:
    """The entry of a family of metrics, which one function creates.

    Args:
        path: The file of the function.
        function: The name of the function.
        name: The name of the family, such as `pass@K`.

    Raises:
        UserError: The file cannot be read, or has no such function.
    """
    for node in _parse(path).body:
        if isinstance(node, ast.FunctionDef) and node.name == function:
            docstring = ast.get_docstring(node) or ""
            return Entry("metric", name, path, node.lineno, _summary(docstring), docstring, attribute=function)
    raise UserError(
        f"`{path}` defines no function `{function}`, which creates the metrics `{name}`",
        hint="is the installation complete? install finetune-harness again",
    )


@functools.lru_cache(maxsize=512)
def _scan(path: Path, _state: tuple[int, ...]) -> tuple[Entry, ...]:
    return tuple(_File(path, _parse(path)).entries())


def _parse(path: Path) -> ast.Module:
    try:
        return ast.parse(path.read_text(encoding="utf-8"))
    except SyntaxError as error:
        code = f"\n\n  {path.name}:{error.lineno}\n    {(error.text or '').strip()}\n  SyntaxError: {error.msg}"
        raise UserError(f"could not read `{path}`{code}", hint=f"for the full error, run `python {path}`") from None
    except (OSError, UnicodeDecodeError, ValueError) as error:
        raise UserError(f"could not read `{path}`: {error}", hint="the file must be Python source in UTF-8") from error


class _File:
    """A parsed file: the names under which it imports our public names, and its constants."""

    def __init__(self, path: Path, tree: ast.Module) -> None:
        self.path, self.tree = path, tree
        self.marks: dict[str, Kind] = {}
        self.constants: dict[str, ast.expr] = {}
        for node in tree.body:
            if isinstance(node, ast.ImportFrom) and node.module in ("harness", "harness.api"):
                for alias in node.names:
                    if alias.name in _MARKS:
                        self.marks[alias.asname or alias.name] = _MARKS[alias.name]
            elif isinstance(node, ast.Import):
                for alias in node.names:
                    if alias.name in ("harness", "harness.api"):
                        self.marks |= {f"{alias.asname or alias.name}.{name}": kind for name, kind in _MARKS.items()}
            elif isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
                self.constants[node.targets[0].id] = node.value
            elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name) and node.value:
                self.constants[node.target.id] = node.value

    def entries(self) -> Iterator[Entry]:
        for node, following in itertools.zip_longest(self.tree.body, self.tree.body[1:]):
            if isinstance(node, ast.FunctionDef):
                yield from self._function(node)
            elif isinstance(node, ast.Assign | ast.AnnAssign):
                yield from self._metric(node, following)

    def _function(self, node: ast.FunctionDef) -> Iterator[Entry]:
        for decorator in node.decorator_list:
            call = decorator.func if isinstance(decorator, ast.Call) else decorator
            kind = self.marks.get(ast.unparse(call))
            if kind in ("task", "method"):
                yield self._entry(kind, node, decorator.keywords if isinstance(decorator, ast.Call) else [])

    def _entry(self, kind: Kind, node: ast.FunctionDef, keywords: list[ast.keyword]) -> Entry:
        given = {keyword.arg: self._literal(keyword.value, f"option `{keyword.arg}`") for keyword in keywords}
        name = given.pop("name", None) or node.name
        docstring = ast.get_docstring(node) or ""
        parameters = tuple(self._parameters(kind, name, node))
        load = given.get("load")
        if load and load not in (*QUANTIZATIONS, *(parameter.name for parameter in parameters)):
            raise UserError(
                f"{self.path}:{node.lineno}: method `{name}` has `load={load!r}`, which is not a quantization",
                hint="use one of "
                + ", ".join(QUANTIZATIONS)
                + ", or the name of a hyperparameter that has one of them",
            )
        return Entry(
            kind,
            name,
            self.path,
            node.lineno,
            _summary(docstring),
            docstring,
            parameters,
            open_ended=node.args.kwarg is not None,
            options={**_OPTIONS, **{str(key): value for key, value in given.items()}} if kind == "method" else {},
            attribute=node.name,
        )

    def _parameters(self, kind: Kind, name: str, node: ast.FunctionDef) -> Iterator[Parameter]:
        for argument, default in zip(node.args.kwonlyargs, node.args.kw_defaults, strict=True):
            place = f"{self.path}:{argument.lineno}"
            if default is None:
                raise UserError(
                    f"{place}: parameter `{argument.arg}` of {kind} `{name}` has no default",
                    hint=f"write `{argument.arg}=…`",
                )
            if kind == "method" and argument.arg in RESERVED_KEYS:
                raise UserError(
                    f"{place}: method `{name}` declares `{argument.arg}`, which is a key of every variant",
                    hint="rename it; reserved names: " + ", ".join(RESERVED_KEYS),
                )
            annotation = ast.unparse(argument.annotation) if argument.annotation else ""
            yield Parameter(argument.arg, self._literal(default, f"default of `{argument.arg}`"), annotation)

    def _metric(self, node: ast.Assign | ast.AnnAssign, following: ast.stmt | None) -> Iterator[Entry]:
        """`name = Metric("name", …)`, with the string below it, if any, as the docstring."""
        target = node.targets[0] if isinstance(node, ast.Assign) else node.target
        call = node.value
        if not isinstance(call, ast.Call) or not isinstance(target, ast.Name) or target.id.startswith("_"):
            return
        if self.marks.get(ast.unparse(call.func)) != "metric":
            return
        names = [*call.args[:1], *(keyword.value for keyword in call.keywords if keyword.arg == "name")]
        docstring = ""
        if isinstance(following, ast.Expr) and isinstance(following.value, ast.Constant):
            docstring = str(following.value.value).strip()
        name = str(self._literal(names[0], "name of the metric")) if names else target.id
        yield Entry("metric", name, self.path, node.lineno, _summary(docstring), docstring, attribute=target.id)

    def _literal(self, node: ast.expr, what: str) -> Any:
        try:
            return ast.literal_eval(self.constants.get(node.id, node) if isinstance(node, ast.Name) else node)
        except ValueError:
            raise UserError(
                f"{self.path}:{node.lineno}: {what} is `{ast.unparse(node)}`, which is not a literal",
                hint="write the number, text or list itself: files are read without being imported",
            ) from None


def _summary(docstring: str) -> str:
    return " ".join(docstring.partition("\n\n")[0].split())
