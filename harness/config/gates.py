"""Gates of a run: `--fail-if "lora.gsm8k < base.gsm8k - 0.01"` sets the exit code to 1 when it holds.

A gate compares (`<`, `<=`, `>`, `>=`) two sums of numbers and scores. A score is `VARIANT.TASK`: the value of the headline in
`run.json` (accuracy 0.41, not 41). This module parses the small grammar itself and evaluates nothing as Python.

Example:
    >>> gate = parse_gate("lora.gsm8k < base.gsm8k - 0.01", ["base", "lora"], ["gsm8k"])
    >>> gate.holds({("base", "gsm8k"): 0.40, ("lora", "gsm8k"): 0.38})
    True
"""

from __future__ import annotations

import operator
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from harness.errors import UserError, did_you_mean
from harness.results import Run

_COMPARISONS: Mapping[str, Callable[[float, float], bool]] = {
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}
_NUMBER = r"\d+(?:\.\d*)?(?:[eE][+-]?\d+)?|\.\d+(?:[eE][+-]?\d+)?"

Reference = tuple[str, str]
"""Variant and task."""


@dataclass(frozen=True)
class Term:
    """A signed number, or its product with a score."""

    factor: float
    reference: Reference | None

    def value(self, scores: Mapping[Reference, float]) -> float:
        """The value of the term.

        Raises:
            KeyError: Its score is unknown.
        """
        return self.factor * (scores[self.reference] if self.reference else 1.0)


@dataclass(frozen=True)
class Gate:
    """A condition that fails a run."""

    text: str
    left: tuple[Term, ...]
    comparison: str
    right: tuple[Term, ...]

    def holds(self, scores: Mapping[Reference, float]) -> bool:
        """Whether the condition holds and the run fails; it also holds if a score is missing."""
        try:
            left, right = (sum(term.value(scores) for term in terms) for terms in (self.left, self.right))
        except KeyError:
            return True
        return _COMPARISONS[self.comparison](left, right)


def parse_gate(text: str, variants: Sequence[str], tasks: Sequence[str]) -> Gate:
    """Reads a gate.

    Args:
        text: Such as `lora.gsm8k < 0.9 * base.gsm8k`.
        variants: Names that are valid before the dot.
        tasks: Tasks, as typed, that are valid after the dot.

    Raises:
        UserError: The text is not a gate, or names an unknown variant or task.
    """
    sides = re.split(r"(<=|>=|<|>)", text)
    if len(sides) != 3:
        raise UserError(
            f"`--fail-if {text}` is not one comparison", hint='for example "lora.gsm8k < base.gsm8k - 0.01"'
        )
    known = {f"{variant}.{task}": (variant, task) for variant in variants for task in tasks}
    return Gate(text, _terms(text, sides[0], known), sides[1], _terms(text, sides[2], known))


def failed_gates(run: Run, gates: Sequence[Gate]) -> list[str]:
    """The texts of the gates that hold for a finished run."""
    headlines = {task.name: task.headline for task in run.tasks}
    scores = {
        (variant.name, score.task): score.value
        for variant in run.variants
        for score in variant.scores
        if score.metric == headlines.get(score.task) and score.value is not None
    }
    return [gate.text for gate in gates if gate.holds(scores)]


def _terms(text: str, side: str, known: Mapping[str, Reference]) -> tuple[Term, ...]:
    """Reads a sum: terms `a` and `a * b`, joined by `+` and `-`.

    Names may contain signs and dots, so known names are matched first, the longest before the others.
    """
    names = "|".join(re.escape(name) for name in sorted(known, key=len, reverse=True))
    atom = re.compile(rf"\s*(?:({names})(?![\w.])|({_NUMBER})(?![\w.]))" if names else rf"\s*(?:(?!)()|({_NUMBER}))")
    terms: list[Term] = []
    at, sign = 0, 1.0
    while True:
        while match := re.compile(r"\s*([+-])").match(side, at):
            sign, at = sign * (-1.0 if match[1] == "-" else 1.0), match.end()
        factor, reference = sign, None
        while True:
            match = atom.match(side, at)
            if match is None or (match[1] and reference):
                raise _syntax_error(text, side[at:].strip(), known)
            reference = known[match[1]] if match[1] else reference
            factor *= float(match[2]) if match[2] else 1.0
            at = match.end()
            times = re.compile(r"\s*\*").match(side, at)
            if times is None:
                break
            at = times.end()
        terms.append(Term(factor, reference))
        if not side[at:].strip():
            return tuple(terms)
        if not re.match(r"\s*[+-]", side[at:]):
            raise _syntax_error(text, side[at:].strip(), known)
        sign = 1.0


def _syntax_error(text: str, rest: str, known: Mapping[str, Reference]) -> UserError:
    word = rest.split()[0] if rest else ""
    wrong = f"`{word}` is neither a number nor VARIANT.TASK of this run" if word else "something is missing"
    return UserError(f"`--fail-if {text}`: {wrong}", hint=did_you_mean(word, known))
