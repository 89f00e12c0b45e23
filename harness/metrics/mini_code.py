"""The judge of `mini_code`: does a one-line expression give the right values on a few lists?

A small evaluator walks the syntax tree: a whitelist of nodes, no attributes, no strings, no `exec` and no
`eval`, a limit on steps and on sizes. So what the model wrote is never run as Python. It covers integers,
booleans and lists of them; what it does not understand counts as wrong.

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
from harness.errors import UserError
from harness.metrics.kinds import expect

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
    """Whether the expression gives every expected value; anything not understood is a failure."""
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
        """The value of an expression; ValueError where it is not allowed or takes too long."""
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
                # Lists may be joined and compared; a list times a number could fill the memory.
                if list in (type(a), type(b)) and not isinstance(op, ast.Add | ast.Eq | ast.NotEq):
                    raise ValueError("not for lists")
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
        """The items of a comprehension."""
        if not isinstance(loop.target, ast.Name):
            raise ValueError("one name a loop")
        for element in self.value(loop.iter, names):
            inner = {**names, loop.target.id: element}
            if all(self.value(test, inner) for test in loop.ifs):
                yield self.value(item, inner)

    def small(self, value: Any) -> Any:
        """The value itself, unless it is a huge number or a long list."""
        if len(value) > MAX_STEPS if isinstance(value, list) else abs(value) > MAX_SIZE:
            raise ValueError("too large")
        return value


def _score(output: Output, sample: Generate) -> float:
    cases = expect(Generate, sample, "passes_cases").meta.get("cases")
    if not cases:
        raise UserError(
            "metric `passes_cases` needs `meta` with `cases`, which a sample does not have",
            hint='for example `meta={"cases": [[[3, 1, 2], [1, 2, 3]]]}`: pairs of a list and what is wanted of it',
        )
    return float(passes(output.texts[0], cases))


passes_cases = Metric("passes_cases", score=_score)
"""Whether the one line written gives the wanted value on every list of `meta["cases"]`. 0–1."""
