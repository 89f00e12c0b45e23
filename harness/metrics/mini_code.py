"""Metric of the task `mini_code`: whether a one-line expression has the right values on a few lists.

A small evaluator walks the syntax tree, with a whitelist of nodes and limits on steps and sizes: no attributes, no
strings, no `exec`, no `eval`. Generated code therefore never runs as Python. The evaluator supports integers, booleans
and lists of them; any other expression counts as wrong.

Example:
    >>> passes("sorted(x)[:2]", [[[3, 1, 2], [1, 2]]])
    True
    >>> passes("__import__('os').getcwd()", [[[3, 1, 2], [1, 2]]])
    False
"""

import ast
import operator
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final

from harness.api import Generate, Metric, Output
from harness.metrics.kinds import expect, missing_meta

MAX_LENGTH: Final = 200
MAX_STEPS: Final = 2000
MAX_SIZE: Final = 10**9

FUNCTIONS: Final[Mapping[str, Callable[..., Any]]] = {
    "abs": abs,
    "len": len,
    "max": max,
    "min": min,
    "sorted": sorted,
    "sum": sum,
}
OPERATORS: Final[Mapping[type[ast.AST], Callable[..., Any]]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.FloorDiv: operator.floordiv,
    ast.Mod: operator.mod,
    ast.USub: operator.neg,
    ast.Gt: operator.gt,
    ast.GtE: operator.ge,
    ast.Lt: operator.lt,
    ast.LtE: operator.le,
    ast.Eq: operator.eq,
    ast.NotEq: operator.ne,
}


def passes(code: str, cases: list[Any]) -> bool:
    """Whether the expression has every expected value; an unsupported expression fails."""
    try:
        if len(code) > MAX_LENGTH:
            return False
        tree = ast.parse(code.strip(), mode="eval").body
        return all(Evaluator().value(tree, {"x": given}) == expected for given, expected in cases)
    except (ArithmeticError, LookupError, MemoryError, RecursionError, SyntaxError, TypeError, ValueError):
        return False


class Evaluator:
    """Computes integers, booleans and lists of them from a syntax tree, never through `eval`."""

    def __init__(self) -> None:
        self.steps = 0

    def value(self, node: ast.AST, names: Mapping[str, Any]) -> Any:
        """Returns the value of an expression; raises ValueError if it is not allowed or takes too many steps."""
        self.steps += 1
        if self.steps > MAX_STEPS:
            raise ValueError("too many steps")
        match node:
            case ast.Constant(int() as number) if abs(number) < MAX_SIZE:
                return number
            case ast.Name(name):
                return names[name]
            case ast.BinOp(left, op, right) | ast.Compare(left, [op], [right]):
                a, b = self.value(left, names), self.value(right, names)
                # Lists can be joined and compared; a list times a number could use all memory.
                if list in (type(a), type(b)) and not isinstance(op, ast.Add | ast.Eq | ast.NotEq):
                    raise ValueError("not allowed for lists")
                return self.small(OPERATORS[type(op)](a, b))
            case ast.UnaryOp(op, operand):
                return OPERATORS[type(op)](self.value(operand, names))
            case ast.Call(ast.Name(function), arguments, []):
                return FUNCTIONS[function](*(self.value(argument, names) for argument in arguments))
            case ast.Subscript(owner, ast.Slice(low, high, step)):
                ends = [end and self.value(end, names) for end in (low, high, step)]
                return self.value(owner, names)[slice(*ends)]
            case ast.Subscript(owner, index):
                return self.value(owner, names)[self.value(index, names)]
            case ast.List(items):
                return [self.value(item, names) for item in items]
            case ast.ListComp(item, [loop]) | ast.GeneratorExp(item, [loop]):
                return list(self.each(item, loop, names))
        raise ValueError(f"not allowed: {type(node).__name__}")

    def each(self, item: ast.expr, loop: ast.comprehension, names: Mapping[str, Any]) -> Iterator[Any]:
        """Yields the items of a comprehension."""
        if not isinstance(loop.target, ast.Name):
            raise ValueError("only one name per loop")
        for element in self.value(loop.iter, names):
            inner = {**names, loop.target.id: element}
            if all(self.value(test, inner) for test in loop.ifs):
                yield self.value(item, inner)

    def small(self, value: Any) -> Any:
        """Returns the value; raises ValueError if it is a huge number or a long list."""
        if len(value) > MAX_STEPS if isinstance(value, list) else abs(value) > MAX_SIZE:
            raise ValueError("too large")
        return value


def _score(output: Output, sample: Generate) -> float:
    cases = expect(Generate, sample, "passes_cases").meta.get("cases")
    if not cases:
        example = (
            'for example `meta={"cases": [[[3, 1, 2], [1, 2, 3]]]}`: pairs of an input list and the expected value'
        )
        raise missing_meta("passes_cases", "`cases`", hint=example)
    return float(passes(output.texts[0], cases))


passes_cases = Metric("passes_cases", score=_score, bounds=(0, 1))
"""0–1. Whether the generated line has the expected value on every list of `meta["cases"]`."""
