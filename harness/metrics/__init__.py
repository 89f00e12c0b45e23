"""Metrics: pure functions from outputs to numbers.

Each is a `harness.api.Metric`, loaded with its libraries when it is first used. A metric's docstring is the comment under
its assignment: scale and source.

    >>> find("acc").name
    'acc'
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any, cast

from harness.api import Metric
from harness.errors import UserError, did_you_mean

_HOMES = {
    "choice": "acc acc_norm",
    "mini_code": "passes_cases",
    "ngram": "bleu bleu_zh chrf",
    "perplexity": "bits_per_byte byte_ppl token_ppl word_ppl",
    "rouge": "rouge1 rouge2 rougeL rougeLsum",
    "text_match": "exact_match f1 flexible strict",
}
_HOME = {name: module for module, names in _HOMES.items() for name in names.split()}

__all__ = sorted([*_HOME, "find", "names"])

if TYPE_CHECKING:
    from harness.metrics.choice import acc as acc
    from harness.metrics.choice import acc_norm as acc_norm
    from harness.metrics.mini_code import passes_cases as passes_cases
    from harness.metrics.ngram import bleu as bleu
    from harness.metrics.ngram import bleu_zh as bleu_zh
    from harness.metrics.ngram import chrf as chrf
    from harness.metrics.perplexity import bits_per_byte as bits_per_byte
    from harness.metrics.perplexity import byte_ppl as byte_ppl
    from harness.metrics.perplexity import token_ppl as token_ppl
    from harness.metrics.perplexity import word_ppl as word_ppl
    from harness.metrics.rouge import rouge1 as rouge1
    from harness.metrics.rouge import rouge2 as rouge2
    from harness.metrics.rouge import rougeL as rougeL
    from harness.metrics.rouge import rougeLsum as rougeLsum
    from harness.metrics.text_match import exact_match as exact_match
    from harness.metrics.text_match import f1 as f1
    from harness.metrics.text_match import flexible as flexible
    from harness.metrics.text_match import strict as strict


def names() -> list[str]:
    """Names of the built-in metrics, sorted; loads none of them.

    Example:
        >>> "bleu" in names()
        True
    """
    return sorted(_HOME)


def find(name: str) -> Metric:
    """The built-in metric of that name.

    Raises:
        UserError: There is none.

    Example:
        >>> find("rougel")
        Traceback (most recent call last):
        ...
        harness.errors.UserError: unknown metric `rougel`
    """
    if name not in _HOME:
        raise UserError(f"unknown metric `{name}`", hint=did_you_mean(name, _HOME, listing="`harness ls metrics`"))
    return cast(Metric, __getattr__(name))


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'harness.metrics' has no attribute {name!r}")
    value = getattr(importlib.import_module(f"harness.metrics.{_HOME[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return __all__
