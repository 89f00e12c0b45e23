"""Metrics: pure functions from outputs to numbers.

Each is a `harness.api.Metric`, loaded with its libraries at first use. The string under its assignment documents it:
scale and source.

    >>> find("acc").name
    'acc'
"""

from __future__ import annotations

import importlib
import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from harness.api import Metric
from harness.errors import UserError, did_you_mean
from harness.lazy import exports, loader

if TYPE_CHECKING:
    from harness.metrics.alignment import meteor as meteor
    from harness.metrics.alignment import meteor_no_synonyms as meteor_no_synonyms
    from harness.metrics.choice import acc as acc
    from harness.metrics.choice import acc_bytes as acc_bytes
    from harness.metrics.choice import acc_norm as acc_norm
    from harness.metrics.choice import mc2 as mc2
    from harness.metrics.diversity import distinct_1 as distinct_1
    from harness.metrics.diversity import distinct_2 as distinct_2
    from harness.metrics.diversity import distinct_3 as distinct_3
    from harness.metrics.diversity import self_bleu as self_bleu
    from harness.metrics.facts import consistency as consistency
    from harness.metrics.function_call import arguments as arguments
    from harness.metrics.function_call import call as call
    from harness.metrics.function_call import function as function
    from harness.metrics.ifeval import inst_loose as inst_loose
    from harness.metrics.ifeval import inst_strict as inst_strict
    from harness.metrics.ifeval import prompt_loose as prompt_loose
    from harness.metrics.ifeval import prompt_strict as prompt_strict
    from harness.metrics.labels import auc as auc
    from harness.metrics.labels import macro_f1 as macro_f1
    from harness.metrics.labels import macro_precision as macro_precision
    from harness.metrics.labels import macro_recall as macro_recall
    from harness.metrics.labels import mcc as mcc
    from harness.metrics.mini_code import passes_cases as passes_cases
    from harness.metrics.ngram import bleu as bleu
    from harness.metrics.ngram import bleu_char as bleu_char
    from harness.metrics.ngram import bleu_ja as bleu_ja
    from harness.metrics.ngram import bleu_ko as bleu_ko
    from harness.metrics.ngram import bleu_zh as bleu_zh
    from harness.metrics.ngram import chrf as chrf
    from harness.metrics.ngram import ter as ter
    from harness.metrics.perplexity import bits_per_byte as bits_per_byte
    from harness.metrics.perplexity import byte_ppl as byte_ppl
    from harness.metrics.perplexity import token_ppl as token_ppl
    from harness.metrics.perplexity import word_ppl as word_ppl
    from harness.metrics.regression import mae as mae
    from harness.metrics.regression import mse as mse
    from harness.metrics.regression import parsed as parsed
    from harness.metrics.regression import pearson as pearson
    from harness.metrics.regression import rmse as rmse
    from harness.metrics.rouge import rouge1 as rouge1
    from harness.metrics.rouge import rouge2 as rouge2
    from harness.metrics.rouge import rougeL as rougeL
    from harness.metrics.rouge import rougeLsum as rougeLsum
    from harness.metrics.text_match import choice_letter as choice_letter
    from harness.metrics.text_match import em as em
    from harness.metrics.text_match import exact_match as exact_match
    from harness.metrics.text_match import f1 as f1
    from harness.metrics.text_match import flexible as flexible
    from harness.metrics.text_match import strict as strict

_HOMES = exports(__file__)
__all__ = sorted([*_HOMES, "find", "names"])

if not TYPE_CHECKING:  # a type checker that sees `__getattr__` accepts every name
    __getattr__ = loader(__name__, _HOMES)


def names() -> list[str]:
    """Returns the sorted names of the built-in metrics; loads none of them.

    Example:
        >>> "bleu" in names()
        True
    """
    return sorted(_HOMES)


FAMILIES = {"pass@K": ("code", "pass_at"), "evaluate:NAME[:KEY]": ("by_name", "from_evaluate")}
"""Names of families of metrics: the module and the function that makes a metric of the family."""


def find(name: str, folder: Path | None = None) -> Metric:
    """Returns the built-in metric of that name, `pass@K`, or `evaluate:NAME[:KEY]`.

    Args:
        name: Name as in a task.
        folder: Folder that paths of `evaluate:./x.py` are relative to; by default the working folder.

    Raises:
        UserError: No metric has that name.

    Example:
        >>> find("rougel")
        Traceback (most recent call last):
        ...
        harness.errors.UserError: unknown metric `rougel`
    """
    if name in _HOMES:
        return cast(Metric, getattr(sys.modules[__name__], name))
    if name.startswith("evaluate:"):
        return cast(Metric, _maker("evaluate:NAME[:KEY]")(name, folder))
    if re.fullmatch(r"pass@[1-9][0-9]*", name):
        return cast(Metric, _maker("pass@K")(int(name.removeprefix("pass@"))))
    raise UserError(
        f"unknown metric `{name}`", hint=did_you_mean(name, [*_HOMES, *FAMILIES], listing="`harness ls metrics`")
    )


def _maker(family: str) -> Any:
    module, function = FAMILIES[family]
    return getattr(importlib.import_module(f"harness.metrics.{module}"), function)


def __dir__() -> list[str]:
    return __all__
