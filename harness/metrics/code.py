r"""pass@k: whether generated code passes its tests, run in a guarded process.

The program is `meta["before"] + text`, and its tests are `meta["after"]`, with the `meta` of the sample; `before` is optional.
It passes if program and tests run to their end. They run in two processes, so the text cannot see or change its tests
(`harness/sandbox/README.md`). Lines at the beginning of `after` that continue the program, such as the rest of a function, belong
to the program. `meta["together"] = True` runs all of it as one program: for tests that need the program's own process, such as
those that catch what it prints.

A program that runs out of time is tried again alone, and then counted: `timed_out`. Several metrics share one run of a program.

    >>> pass_at(10).name
    'pass@10'
    >>> sample = Generate("def f():", " return 7", meta={"before": "def f():", "after": "\nassert f() == 7"})
    >>> pass_at(1).measure(Output(texts=(" return 3 + 4",)), sample)
    1.0
"""

from __future__ import annotations

import ast
import functools
import math
import threading
from collections.abc import Callable, Mapping
from typing import Any

from harness.api import Generate, Metric, Output, Sample
from harness.errors import UserError
from harness.metrics.kinds import expect, missing_meta
from harness.sandbox.attempts import judge
from harness.sandbox.run import Outcome


@functools.cache
def pass_at(k: int) -> Metric:
    """0–1. pass@k: the probability that at least one of k texts passes, estimated from n ≥ k texts of which c pass.

    The unbiased estimate `1 − C(n−c, k) / C(n, k)` of Chen et al., "Evaluating Large Language Models Trained on Code",
    2021 (arXiv 2107.03374).

    Raises:
        UserError: k is less than 1; when measuring: a sample has fewer than k texts, or no tests.

    Example:
        >>> pass_at(1).higher_is_better
        True
    """
    if k < 1:
        raise UserError(f"there is no pass@{k}", hint="k is 1 or more: `pass@1`, `pass@10`")
    return Metric(f"pass@{k}", score=_score(k), bounds=(0, 1))


def estimate(texts: int, correct: int, k: int) -> float:
    """Returns the share of all draws of k texts that contain a correct one.

    Raises:
        UserError: k is more than the number of texts.

    Example:
        >>> estimate(5, 2, 2)  # 1 − 3/10
        0.7
    """
    if not 1 <= k <= texts:
        raise UserError(
            f"pass@{k} needs at least {k} texts per sample, and there are {texts}",
            hint=f"set `samples={k}` or more in the task (with a temperature), or a smaller k",
        )
    return 1 - math.comb(texts - correct, k) / math.comb(texts, k)


def timed_out(output: Output, sample: Sample) -> int:
    """Counts the texts whose program ran out of time, also alone; the metrics have run the programs before."""
    meta = sample.meta
    return sum(_judged(*_parts(text, meta)).fault == "timeout" for text in output.texts)


def _score(k: int) -> Callable[[Output, Generate], float]:
    def score(output: Output, sample: Generate) -> float:
        meta = expect(Generate, sample, f"pass@{k}").meta
        if not isinstance(meta.get("after"), str) or not isinstance(meta.get("before", ""), str):
            example = 'for example `meta={"before": prompt, "after": "\\n" + tests}`: code around the generated text'
            raise missing_meta(f"pass@{k}", "the text `after`", hint=example)
        estimate(len(output.texts), 0, k)  # raises an error for too few texts before a program runs
        passed = sum(_judged(*_parts(text, meta)).passed for text in output.texts)
        return estimate(len(output.texts), passed, k)

    score.timed_out = timed_out  # type: ignore[attr-defined]
    return score


def _parts(text: str, meta: Mapping[str, Any]) -> tuple[str, str, str]:
    """The program, its tests, and the beginning of the program that the task wrote."""
    before, after = meta.get("before", ""), meta["after"]
    if meta.get("together"):
        return before + text + after, "", ""
    rest, tests = split(after)
    return before + text + rest, tests, before


_PARSER = threading.Lock()
"""Python 3.11's `ast.parse` can fail with a `SystemError` in two threads at once (CPython issue 106905)."""


@functools.lru_cache(maxsize=1 << 10)
def split(after: str) -> tuple[str, str]:
    r"""Splits the code after a text into the lines that continue the program, and the tests.

    The split depends on no generated text, so that no text can turn its tests into something else.

    Example:
        >>> split("\nassert f(2) == 3")
        ('\n', 'assert f(2) == 3')
        >>> split("\n    return x\nassert f(2) == 3")
        ('\n    return x\n', 'assert f(2) == 3')
        >>> split(" + 1\nassert f(2) == 3")
        (' + 1\n', 'assert f(2) == 3')
    """
    lines = after.splitlines(keepends=True)
    for number, line in enumerate(lines):
        if line[:1] in " \t\f\r\n#)]}":  # a line that starts no statement
            continue
        tests = "".join(lines[number:])
        try:
            with _PARSER:
                tree = ast.parse(tests)
        except (SyntaxError, ValueError, MemoryError, RecursionError):
            continue
        # Without a line break before it, an expression continues the text's last line: `[0]`, `(x)`, `"…"`.
        if number or not isinstance(tree.body[0], ast.Expr):
            return "".join(lines[:number]), tests
    return after, ""


@functools.lru_cache(maxsize=1 << 14)
def _judged(program: str, tests: str, given: str) -> Outcome:
    return judge(program, tests, given=given)
