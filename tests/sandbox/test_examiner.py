"""Tests of a program run in another process than the program, with the verdicts that one process gives."""

import pytest

from harness.sandbox.run import Outcome, run_program

PASSED = Outcome(passed=True)
PROGRAM = """
import math, collections
from fractions import Fraction
class Point:
    def __init__(self, x, y=0): self.x, self.y = x, y
    def __eq__(self, other): return isinstance(other, Point) and (self.x, self.y) == (other.x, other.y)
    def __add__(self, other): return Point(self.x + other.x, self.y + other.y)
    def __len__(self): return 2
    def __iter__(self): return iter((self.x, self.y))
    def __getitem__(self, key): return (self.x, self.y)[key]
    def __setitem__(self, key, value): self.x = value
    def __repr__(self): return f"Point({self.x})"
    def __call__(self, more): return self.x + more
    def __neg__(self): return Point(-self.x)
    def __contains__(self, value): return True
def leave():
    import os
    os._exit(0)
def same(value): return value
def fails(kind): raise kind
def count(n):
    for number in range(n): yield number
def apply(function, values): return [function(value) for value in values]
def all_x(points): return [point.x for point in points]
def adder(x): return lambda y: x + y
def sum(a, b): return a * b
limit = [1, 2]
Pair = collections.namedtuple("Pair", "a b")
"""

HOLDS = {
    "data": "for value in (None, True, 1, -2.5, 1j, 'é', b'x', [1], (1,), {1}, {1: [2]}, 10**500, float('inf'), range(3)):\n"
    "    assert same(value) == value and type(same(value)) is type(value)",
    "constants": "assert same(None) is None and same(True) is True",
    "nan": "assert same(float('nan')) != same(float('nan'))",
    "half a character": "assert same('\\ud83d') == '\\ud83d'",
    "standard types": "import collections, datetime, decimal, fractions\n"
    "for value in (collections.deque([1], 3), decimal.Decimal('1.5'), fractions.Fraction(1, 3), datetime.date(2020, 2, 3),\n"
    "              datetime.datetime(2020, 1, 2, 3, 4, 5, 6), datetime.time(1), datetime.timedelta(1, 2, 3), bytearray(b'x')):\n"
    "    assert same(value) == value",
    "views": "assert same({1: 2}.keys()) == {1} and list(same({1: 2}.values())) == [2] and same({1: 2}.items()) == {(1, 2)}",
    "subclasses": "assert Pair(1, 2) == (1, 2) and apply(same, [Pair(1, 2)]) == [(1, 2)]",
    "objects": "p = Point(3)\nassert p.x == 3 and p + Point(1) == Point(4) and p != Point(4) and -p == Point(-3) and p is same(p)",
    "methods of objects": "p = Point(3, 4)\nassert len(p) == 2 and list(p) == [3, 4] and p[1] == 4 and repr(p) == 'Point(3)' and p(2) == 5",
    "changes of objects": "p = Point(3)\np.x = 8\nassert p.x == 8\np[0] = 9\nassert p.x == 9",
    "classes": "assert isinstance(Point(1), Point) and not isinstance(1, Point) and {Point: 1}[Point] == 1",
    "objects in arguments": "assert all_x([Point(1), Point(2)]) == [1, 2]",
    "membership asks the values": "assert 3 in Point(3) and 7 not in Point(3)",
    "generators": "assert list(count(3)) == [0, 1, 2] and next(count(1)) == 0 and sorted(count(2)) == [0, 1]",
    "functions of tests": "assert apply(lambda x: x + 1, [1, 2]) == [2, 3] and apply(str, [1]) == ['1']",
    "functions that call back": "assert apply(lambda x: same(x) + 1, [1, 2]) == [2, 3]",
    "returned functions": "assert adder(2)(3) == 5",
    "exceptions": "for kind in (ValueError, KeyError, ZeroDivisionError, UnicodeError):\n"
    "    try: fails(kind)\n    except kind: continue\n    assert False",
    "exceptions of tests": "def bad(x): raise KeyError(x)\ntry: apply(bad, [1])\nexcept KeyError: pass\nelse: assert False",
    "modules of the program": "assert math.isclose(same(1.0), 1) and Fraction(1, 2) == same(Fraction(1, 2))",
    "values of the program": "assert limit == [1, 2]",
    "a name of Python beside others": "assert sum([1, 2]) == same(3)",
    "a name of Python alone": "assert sum(2, 5) == 10",
    "no tests": "",
}
FAILS = {
    "a wrong value": ("exception", "assert same(1) == 2"),
    "an exception": ("exception", "fails(ValueError)"),
    "a missing name": ("exception", "assert nothing(1) == 2"),
    "an object and a value": ("exception", "assert Point(1) == 1"),
    "an operator with a value": ("exception", "assert Point(1) + 1"),
    "an object of the tests": ("exception", "class Own: pass\nassert same(Own())"),
    "an exit in the program": ("exit", "fails(SystemExit)"),
    "an exit of the tests": ("exit", "import sys\nsys.exit(0)"),
    "a quiet exit of the tests": ("exit", "import os\nos._exit(0)"),
    "an exit that the tests catch": ("exit", "try: leave()\nexcept: pass"),
    "memory": ("memory", "fails(MemoryError)"),
    "not Python": ("exception", "assert ("),
}


@pytest.mark.parametrize("name", HOLDS)
def test_the_verdict_is_that_of_one_process(name: str) -> None:
    assert run_program(PROGRAM, HOLDS[name]) == PASSED


@pytest.mark.parametrize("name", FAILS)
def test_tests_that_fail_name_the_fault(name: str) -> None:
    fault, tests = FAILS[name]
    outcome = run_program(PROGRAM, tests)
    assert (outcome.passed, outcome.fault) == (False, fault)


def test_arrays_of_numpy_are_data() -> None:
    program = "import numpy as np\ndef f(n): return np.arange(n)\ndef g(n): return np.int64(n)"
    assert (
        run_program(program, "assert (f(3) == np.array([0, 1, 2])).all() and g(3) == 3 and f(2).dtype == 'int64'")
        == PASSED
    )


def test_a_fault_of_the_program_in_a_call_is_named() -> None:
    program = "import os\ndef f(): os.fork()\ndef g(): open('/etc/passwd')"
    assert run_program(program, "f()").fault == "processes"
    assert run_program(program, "g()").fault == "files"
