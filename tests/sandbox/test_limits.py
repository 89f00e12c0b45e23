"""The sandbox's README names what cannot be defended; each item passes here, so that the list stays true."""

from pathlib import Path

import pytest

from harness.sandbox.run import run_program

README = Path(__file__).parents[2] / "harness" / "sandbox" / "README.md"
ANY = "class Any:\n    __eq__ = lambda self, other: True\ndef f(x): return Any()\ndef g(x): return Any()\n"
TOGETHER = """
import sys
def f(x):
    names = sys._getframe(1).f_code
    return max(value for value in names.co_consts if isinstance(value, int))
assert f(1) == 731
"""

NAMED = {
    "Tests that compare the program with itself.": (ANY, "assert f(1) == g(1)"),
    "Tests that accept anything.": ("def f(x): return [None]", "assert len(f(3)) > 0"),
    "Tests that give the answer away.": ("def f(x, expected): return expected", "assert f(3, expected=7) == 7"),
    "Programs without tests, and `together`.": (TOGETHER, ""),
    "Answers learned by heart.": ("def f(x): return {1: 731}.get(x)", "assert f(1) == 731"),
}


@pytest.mark.parametrize("name", NAMED)
def test_what_cannot_be_defended_is_named(name: str) -> None:
    source, tests = NAMED[name]
    assert run_program(source, tests).passed
    assert f"- **{name}**" in README.read_text(encoding="utf-8")
