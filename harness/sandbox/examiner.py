"""The process of the tests: runs them on the program in the other process, and reports the verdict.

No code of the program runs here. Its functions and objects are `Remote`s: calls and attributes are done in the program's
process, and plain data comes back, which the tests compare here. See `harness.sandbox.child`.
"""

from __future__ import annotations

import builtins
import sys

from harness.sandbox.remote import Program, Remote

TYPE_CHECKING = False  # importing `typing` takes longer than everything else here
if TYPE_CHECKING:
    from types import CodeType
    from typing import Any
else:
    CodeType = type((lambda: None).__code__)

ALIASES = {"np": "numpy", "pd": "pandas", "plt": "matplotlib.pyplot"}
ANNOTATIONS, PARSE = 0x1000000, 0x400
"""Flags of the compiler: `from __future__ import annotations`, as helpers do not need the types they name; a tree, no code."""


def examine(program: Program, tests: str, given: str) -> tuple[str, str] | None:
    """Waits for the program to reach its end, and runs the tests.

    Args:
        program: The program's process.
        tests: Source code of the tests.
        given: Beginning of the program that the task wrote. Its imports and complete functions are trusted.

    Returns:
        The fault and its description; None if the tests passed.
    """
    try:
        program.answer()
        if tests:
            code = compile(tests, "<tests>", "exec")
            exec(code, _names(program, _names_in(code), given))
    except BaseException as error:
        return program.gone.fault if program.gone else getattr(error, "fault", None) or _fault(error)
    return program.gone.fault if program.gone else None


def _fault(error: BaseException) -> tuple[str, str]:
    kind = {SystemExit: "exit", MemoryError: "memory"}.get(type(error), "exception")
    return kind, f"{type(error).__name__}: {error}"[:300]


def _names_in(code: CodeType) -> set[str]:
    """The names that code uses, also those of attributes, in all its functions."""
    found = set(code.co_names)
    for each in code.co_consts:
        if isinstance(each, CodeType):
            found |= _names_in(each)
    return found


def _names(program: Program, used: set[str], given: str) -> dict[str, Any]:
    """The names with which the tests begin: helpers that the task wrote, the standard library, and the program's objects.

    A name of Python's own stays Python's own (`abs`, `math`), unless it is the only name of the program that the tests use: it
    is then the function that they test, as `sum` in MBPP.
    """
    own = _helpers(given, used)
    wanted = used.union(*(_names_in(code) for code in own.values()))
    names: dict[str, Any] = {}
    special: dict[str, Any] = {}
    for name, (kind, module, attribute, value) in program.ask("names", sorted(wanted - own.keys())).items():
        is_special = name in vars(builtins) or name in sys.stdlib_module_names
        found = None
        if kind == "module" and module in (
            ALIASES.get(name),
            name if is_special else f"{module.rpartition('.')[0]}.{name}",
        ):
            found = _imported(module)
        elif kind == "standard" and attribute == name and module.partition(".")[0] in sys.stdlib_module_names:
            found = getattr(_imported(module), name, None)
        if found is not None:
            names[name] = found
        else:
            (special if is_special else names)[name] = value
    if not any(type(value) is Remote for value in names.values()):
        names |= special
    for code in own.values():
        exec(code, names)
    return names


def _imported(module: str) -> Any:
    """A module, or None if it is not installed; the program's folder is not among the places that are searched."""
    try:
        __import__(module)
    except ImportError:
        return None
    return sys.modules[module]


def _tree(given: str) -> Any:
    """The syntax tree of the beginning of a program; its last statement may be incomplete."""
    lines = given.splitlines(keepends=True)
    starts = [number for number, line in enumerate(lines) if not line[0].isspace()]
    for end in (len(lines), *reversed(starts)):
        beginning = "".join(lines[:end])
        try:
            return compile(beginning if end == len(lines) else f"{beginning}pass", "<given>", "exec", PARSE)
        except (SyntaxError, ValueError):  # a text of the model completes the last statement
            continue
    return compile("", "<given>", "exec", PARSE)


def _helpers(given: str, used: set[str]) -> dict[str, CodeType]:
    """The imports and complete functions at the beginning of a program that tests use, by name, each with its code."""
    tree = _tree(given)
    found: dict[str, CodeType] = {}
    for position, statement in enumerate(tree.body):
        kind = type(statement).__name__
        if kind in ("Import", "ImportFrom"):
            bound = [alias.asname or alias.name.partition(".")[0] for alias in statement.names]
        elif kind == "FunctionDef" and position + 1 < len(tree.body):
            bound = [statement.name]
        else:
            continue
        tree.body, body = [statement], tree.body
        code = compile(tree, "<given>", "exec", ANNOTATIONS)
        tree.body = body
        found |= dict.fromkeys(bound, code)
    needed, more = set[str](), used & found.keys()
    while more:
        needed |= more
        more = found.keys() & set[str]().union(*(_names_in(found[name]) for name in more)) - needed
    return {name: code for name, code in found.items() if name in needed}
