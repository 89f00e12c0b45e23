"""Compares ways of fine-tuning a model, on your data and your hardware.

The names below are for files of tasks, methods and metrics; `compare()`, `evaluate()` and `train()` are the commands
`compare`, `eval` and `train`. Names are loaded at first use, so that `import harness` is quick.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from harness.lazy import exports, loader

__version__ = "0.1.0"

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
    from harness.comparison.api import compare as compare
    from harness.comparison.api import evaluate as evaluate
    from harness.comparison.api import train as train
    from harness.data.sources import hub as hub
    from harness.data.sources import packaged as packaged
    from harness.data.sources import rows as rows
    from harness.errors import UserError as UserError
    from harness.metrics import acc as acc
    from harness.metrics import acc_bytes as acc_bytes
    from harness.metrics import acc_norm as acc_norm
    from harness.metrics import auc as auc
    from harness.metrics import bits_per_byte as bits_per_byte
    from harness.metrics import bleu as bleu
    from harness.metrics import bleu_char as bleu_char
    from harness.metrics import bleu_ja as bleu_ja
    from harness.metrics import bleu_ko as bleu_ko
    from harness.metrics import bleu_zh as bleu_zh
    from harness.metrics import byte_ppl as byte_ppl
    from harness.metrics import choice_letter as choice_letter
    from harness.metrics import chrf as chrf
    from harness.metrics import consistency as consistency
    from harness.metrics import distinct_1 as distinct_1
    from harness.metrics import distinct_2 as distinct_2
    from harness.metrics import distinct_3 as distinct_3
    from harness.metrics import em as em
    from harness.metrics import exact_match as exact_match
    from harness.metrics import f1 as f1
    from harness.metrics import flexible as flexible
    from harness.metrics import inst_loose as inst_loose
    from harness.metrics import inst_strict as inst_strict
    from harness.metrics import macro_f1 as macro_f1
    from harness.metrics import macro_precision as macro_precision
    from harness.metrics import macro_recall as macro_recall
    from harness.metrics import mae as mae
    from harness.metrics import mc2 as mc2
    from harness.metrics import mcc as mcc
    from harness.metrics import meteor as meteor
    from harness.metrics import meteor_no_synonyms as meteor_no_synonyms
    from harness.metrics import mse as mse
    from harness.metrics import parsed as parsed
    from harness.metrics import passes_cases as passes_cases
    from harness.metrics import pearson as pearson
    from harness.metrics import prompt_loose as prompt_loose
    from harness.metrics import prompt_strict as prompt_strict
    from harness.metrics import rmse as rmse
    from harness.metrics import rouge1 as rouge1
    from harness.metrics import rouge2 as rouge2
    from harness.metrics import rougeL as rougeL
    from harness.metrics import rougeLsum as rougeLsum
    from harness.metrics import self_bleu as self_bleu
    from harness.metrics import strict as strict
    from harness.metrics import ter as ter
    from harness.metrics import token_ppl as token_ppl
    from harness.metrics import word_ppl as word_ppl
    from harness.metrics.entailment import entailment_by as entailment_by
    from harness.metrics.judged import reward_by as reward_by
    from harness.metrics.labels import label_metrics as label_metrics
    from harness.metrics.ngram import bleu_for as bleu_for
    from harness.metrics.text_match import matching as matching
    from harness.models.layers import decoder_layers as decoder_layers
    from harness.models.layers import expert_parameters as expert_parameters
    from harness.models.layers import linear_layers as linear_layers
    from harness.models.layers import norm_layers as norm_layers
    from harness.models.soft_prompts import starting_embeddings as starting_embeddings
    from harness.models.soft_prompts import starting_keys_and_values as starting_keys_and_values
    from harness.prompts.labels import label as label
    from harness.results import Run as Run

_HOMES = exports(__file__)
__all__ = sorted([*_HOMES, "__version__"])

if not TYPE_CHECKING:  # a type checker that sees `__getattr__` accepts every name
    __getattr__ = loader(__name__, _HOMES)


def __dir__() -> list[str]:
    return __all__
