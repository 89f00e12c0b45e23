"""Which way of fine-tuning is worth it, for this model, this data and this hardware.

Tasks, methods and metrics are written with the names below; `compare()`, `evaluate()` and `train()` do what the
commands of the same names do. Every name is loaded when it is first used, so that `import harness` stays quick.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

_HOMES = {
    "harness.api": (
        "Choose Data Generate Message MethodFunction Metric Output Row Sample Source Task TaskFunction Text method task"
    ),
    "harness.errors": "UserError",
    "harness.data": "hub packaged",
    "harness.metrics": (
        "acc acc_norm bits_per_byte bleu bleu_zh byte_ppl chrf exact_match f1 flexible passes_cases rouge1 rouge2 rougeL"
        " rougeLsum strict token_ppl word_ppl"
    ),
    "harness.results": "Run",
    "harness.comparison": "compare evaluate train",
}
_HOME = {name: module for module, names in _HOMES.items() for name in names.split()}

__all__ = sorted([*_HOME, "__version__"])

if TYPE_CHECKING:
    from harness.api import Choose as Choose
    from harness.api import Data as Data
    from harness.api import Generate as Generate
    from harness.api import Message as Message
    from harness.api import MethodFunction as MethodFunction
    from harness.api import Metric as Metric
    from harness.api import Output as Output
    from harness.api import Row as Row
    from harness.api import Sample as Sample
    from harness.api import Source as Source
    from harness.api import Task as Task
    from harness.api import TaskFunction as TaskFunction
    from harness.api import Text as Text
    from harness.api import method as method
    from harness.api import task as task
    from harness.comparison import compare as compare
    from harness.comparison import evaluate as evaluate
    from harness.comparison import train as train
    from harness.data import hub as hub
    from harness.data import packaged as packaged
    from harness.errors import UserError as UserError
    from harness.metrics import acc as acc
    from harness.metrics import acc_norm as acc_norm
    from harness.metrics import bits_per_byte as bits_per_byte
    from harness.metrics import bleu as bleu
    from harness.metrics import bleu_zh as bleu_zh
    from harness.metrics import byte_ppl as byte_ppl
    from harness.metrics import chrf as chrf
    from harness.metrics import exact_match as exact_match
    from harness.metrics import f1 as f1
    from harness.metrics import flexible as flexible
    from harness.metrics import passes_cases as passes_cases
    from harness.metrics import rouge1 as rouge1
    from harness.metrics import rouge2 as rouge2
    from harness.metrics import rougeL as rougeL
    from harness.metrics import rougeLsum as rougeLsum
    from harness.metrics import strict as strict
    from harness.metrics import token_ppl as token_ppl
    from harness.metrics import word_ppl as word_ppl
    from harness.results import Run as Run


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'harness' has no attribute {name!r}")
    value = getattr(importlib.import_module(_HOME[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return __all__
