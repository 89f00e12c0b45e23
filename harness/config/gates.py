"""Gates of a run: conditions on scores that set the exit code to 1, judged by 95 % intervals.

- `--fail-if "lora.gsm8k < base.gsm8k - 0.01"` fails if the condition is shown: the whole interval of left − right satisfies it.
- `--fail-unless "lora.gsm8k > base.gsm8k - 0.01"` fails unless the condition is shown: a larger loss was not excluded.

A gate compares (`<`, `<=`, `>`, `>=`) two sums of numbers and scores. A score is `VARIANT.TASK`: the value of the headline in
`run.json` (accuracy 0.41, not 41). This module parses the small grammar itself and evaluates nothing as Python.

Example:
    >>> gate = parse_gate("lora.gsm8k < base.gsm8k - 0.01", ["base", "lora"], ["gsm8k"])
    >>> gate.terms
    {('lora', 'gsm8k'): 1.0, ('base', 'gsm8k'): -1.0, None: 0.01}
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from harness.errors import UserError, did_you_mean
from harness.results import Comparison, Run

GateOutcome = Literal["PASS", "FAIL", "UNDECIDED"]
Flag = Literal["--fail-if", "--fail-unless"]
_NUMBER = r"\d+(?:\.\d*)?(?:[eE][+-]?\d+)?|\.\d+(?:[eE][+-]?\d+)?"

Reference = tuple[str, str]
"""Variant and task."""


@dataclass(frozen=True)
class Term:
    """A signed number, or its product with a score."""

    factor: float
    reference: Reference | None


@dataclass(frozen=True)
class Gate:
    """A condition that decides whether a run fails."""

    flag: Flag
    text: str
    left: tuple[Term, ...]
    comparison: str
    right: tuple[Term, ...]

    @property
    def terms(self) -> dict[Reference | None, float]:
        """The factors of left − right; None: of 1."""
        found: dict[Reference | None, float] = {}
        for sign, side in ((1.0, self.left), (-1.0, self.right)):
            for term in side:
                found[term.reference] = found.get(term.reference, 0.0) + sign * term.factor
        return found

    def judge(self, run: Run) -> Judgement:
        """Judges a finished run by the 95 % interval of left − right.

        Two scores of one task with opposite signs have the interval of their paired difference; what is left has the
        intervals of single scores. Intervals are added end to end, which is never too narrow.
        """
        factors = self.terms
        low = high = value = factors.pop(None, 0.0)
        for reference, factor in factors.items():
            score = _scores(run).get(reference) if reference else None
            if score is None:
                return Judgement(self, "FAIL", note=f"{'.'.join(reference or ())} has no score")
            value += factor * score[0]
        untested = None
        for found, amount in _pairs(run, factors):
            untested = untested or found.untestable
            ends = sorted((amount * found.low, amount * found.high))
            low, high = low + ends[0], high + ends[1]
        for reference, factor in factors.items():
            if reference and factor:
                _, *limits = _scores(run)[reference]
                ends = sorted(factor * limit for limit in limits)
                low, high = low + ends[0], high + ends[1]
        if untested or not (math.isfinite(low) and math.isfinite(high)):
            return Judgement(self, "UNDECIDED", value, note=untested or "the interval is not known")
        return Judgement(self, self._outcome(low, high), value, low, high)

    def _outcome(self, low: float, high: float) -> GateOutcome:
        below, strict = self.comparison.startswith("<"), "=" not in self.comparison
        nearest, farthest = (-high, -low) if below else (low, high)
        shown = nearest > 0 if strict else nearest >= 0
        excluded = farthest <= 0 if strict else farthest < 0
        if not shown and not excluded:
            return "UNDECIDED"
        return "PASS" if shown == (self.flag == "--fail-unless") else "FAIL"


@dataclass(frozen=True)
class Judgement:
    """The outcome of a gate, with left − right and its 95 % interval."""

    gate: Gate
    outcome: GateOutcome
    value: float | None = None
    low: float | None = None
    high: float | None = None
    note: str = ""

    @property
    def fails(self) -> bool:
        """Whether the run fails: `--fail-unless` also fails if nothing was shown."""
        return self.outcome == "FAIL" or (self.outcome == "UNDECIDED" and self.gate.flag == "--fail-unless")

    def __str__(self) -> str:
        facts = [] if self.value is None else [f"left - right is {self.value:+.4g}"]
        facts += [] if self.low is None or self.high is None else [f"95 % {self.low:+.4g} to {self.high:+.4g}"]
        facts += [self.note] if self.note else []
        return f"{self.outcome} {self.gate.flag} {self.gate.text}  ({', '.join(facts)})"


def parse_gate(text: str, variants: Sequence[str], tasks: Sequence[str], flag: Flag = "--fail-if") -> Gate:
    """Reads a gate.

    Args:
        text: Such as `lora.gsm8k < 0.9 * base.gsm8k`.
        variants: Names that are valid before the dot.
        tasks: Tasks, as typed, that are valid after the dot.
        flag: Whether the run fails if the condition is shown, or unless it is.

    Raises:
        UserError: The text is not a gate, or names an unknown variant or task.
    """
    sides = re.split(r"(<=|>=|<|>)", text)
    if len(sides) != 3:
        raise UserError(f"`{flag} {text}` is not one comparison", hint='for example "lora.gsm8k < base.gsm8k - 0.01"')
    known = {f"{variant}.{task}": (variant, task) for variant in variants for task in tasks}
    asked = f"{flag} {text}"
    return Gate(flag, text, _terms(asked, sides[0], known), sides[1], _terms(asked, sides[2], known))


def _scores(run: Run) -> dict[Reference, tuple[float, float, float]]:
    """Returns the value of each headline with the ends of its interval; NaN where they are not known."""
    headlines = {task.name: task.headline for task in run.tasks}
    return {
        (variant.name, score.task): (
            score.value,
            math.nan if score.low is None else score.low,
            math.nan if score.high is None else score.high,
        )
        for variant in run.variants
        for score in variant.scores
        if score.metric == headlines.get(score.task) and score.value is not None
    }


def _pairs(run: Run, factors: dict[Reference | None, float]) -> list[tuple[Comparison, float]]:
    """Takes paired differences out of the factors: each with the amount that two scores of a task have in common."""
    found = []
    tasks = {task.name: task for task in run.tasks}
    places = [reference for reference in factors if reference is not None]
    for first in places:
        for second in places:
            if first[1] != second[1] or factors[first] <= 0 or factors[second] >= 0:
                continue
            comparison = run.comparison(tasks[first[1]], first[0], second[0])
            if comparison is not None:
                amount = min(factors[first], -factors[second])
                factors[first], factors[second] = factors[first] - amount, factors[second] + amount
                found.append((comparison, amount))
    return found


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
    return UserError(f"`{text}`: {wrong}", hint=did_you_mean(word, known))
