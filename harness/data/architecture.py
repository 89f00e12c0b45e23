"""Recognises from `config.json` models that are no causal language models, before anything is loaded.

transformers would load many of them nevertheless: a classifier with an output head drawn at random, an encoder without its
causal mask.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from harness.errors import UserError

_HEADS = re.compile(
    r"For(SequenceClassification|TokenClassification|QuestionAnswering|MultipleChoice|NextSentencePrediction|Classification"
    r"|RewardModel)$"
)
ENCODERS = frozenset(
    [
        "albert",
        "bert",
        "big_bird",
        "camembert",
        "convbert",
        "data2vec-text",
        "deberta",
        "deberta-v2",
        "distilbert",
        "electra",
        "ernie",
        "esm",
        "esmc",
        "eurobert",
        "flaubert",
        "fnet",
        "funnel",
        "gte",
        "ibert",
        "jina_embeddings_v3",
        "layoutlm",
        "longformer",
        "luke",
        "megatron-bert",
        "mobilebert",
        "modernbert",
        "mpnet",
        "mra",
        "nomic_bert",
        "nystromformer",
        "rembert",
        "roberta",
        "roberta-prelayernorm",
        "roc_bert",
        "roformer",
        "squeezebert",
        "xlm",
        "xlm-roberta",
        "xlm-roberta-xl",
        "xmod",
        "yoso",
    ]
)
"""Values of `model_type` in transformers 5 whose attention sees later tokens, unless `is_decoder` is set."""
_HINT = "give a causal language model: its config.json names an architecture such as `LlamaForCausalLM`"


def refuse_other_architectures(name: str, config: Mapping[str, Any]) -> None:
    """Refuses models that do not predict each token from those before it.

    Args:
        name: The model, for the message.
        config: Its `config.json`.

    Raises:
        UserError: The model is a classifier, an encoder or an encoder-decoder.

    Example:
        >>> refuse_other_architectures("bert-base-uncased", {"architectures": ["BertForMaskedLM"], "model_type": "bert"})
        Traceback (most recent call last):
        ...
        harness.errors.UserError: `bert-base-uncased` is an encoder (`BertForMaskedLM`), no causal language model
    """
    architectures = config.get("architectures")
    first = architectures[0] if isinstance(architectures, list) and architectures else architectures
    named = first if first and isinstance(first, str) else str(config.get("model_type") or "")
    is_decoder = bool(config.get("is_decoder") or config.get("causal"))
    if _HEADS.search(named):
        raise UserError(
            f"`{name}` is a classifier (`{named}`), no causal language model: it has no output head over the vocabulary",
            hint=f"{_HINT}; often the base model that the classifier was trained from is one",
        )
    if config.get("is_encoder_decoder") and not named.endswith("ForCausalLM"):
        raise UserError(f"`{name}` is an encoder-decoder (`{named}`), no causal language model", hint=_HINT)
    if not is_decoder and (config.get("model_type") in ENCODERS or named.endswith("ForMaskedLM")):
        raise UserError(
            f"`{name}` is an encoder (`{named}`), no causal language model",
            hint=f"{_HINT}; an encoder that was trained as a decoder has `is_decoder: true` there",
        )
