r"""pass@k: whether generated code passes its tests, run in a guarded process.

The program is `meta["before"] + text + meta["after"]`, with the `meta` of the sample. It passes if it runs to its end.
`before` is optional. Several metrics share one run of the same program.

    >>> pass_at(10).name
    'pass@10'
    >>> sample = Generate("def f():", " return 7", meta={"before": "def f():", "after": "\nassert f() == 7"})
    >>> pass_at(1).measure(Output(texts=(" return 3 + 4",)), sample)
    1.0
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable

from harness.api import Generate, Metric, Output
from harness.errors import UserError
from harness.metrics.kinds import expect, missing_meta
from harness.sandbox.run import run_program


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


def _score(k: int) -> Callable[[Output, Generate], float]:
    def score(output: Output, sample: Generate) -> float:
        meta = expect(Generate, sample, f"pass@{k}").meta
        if not isinstance(meta.get("after"), str) or not isinstance(meta.get("before", ""), str):
            example = 'for example `meta={"before": prompt, "after": "\\n" + tests}`: code around the generated text'
            raise missing_meta(f"pass@{k}", "the text `after`", hint=example)
        estimate(len(output.texts), 0, k)  # raises an error for too few texts before a program runs
        before, after = meta.get("before", ""), meta["after"]
        return estimate(len(output.texts), sum(_works(before + text + after) for text in output.texts), k)

    return score


@functools.lru_cache(maxsize=1 << 14)
def _works(program: str) -> bool:
    return run_program(program).passed
