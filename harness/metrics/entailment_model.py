"""A judge of entailment in a process of its own: does a premise say what a hypothesis says?

The parent imports no torch, and a model of any size must not come near what is being measured: a child (`python -m harness.metrics.entailment_model
MODEL`) loads a sequence classifier on the CPU when the first pair is asked, and answers one line of JSON with another. It ends with
its parent.

Example:
    >>> judge("cross-encoder/nli-deberta-v3-base").entailment([("A dog sleeps.", "An animal sleeps.")])  # doctest: +SKIP
    [0.99]
"""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable, Sequence
from typing import Any

from harness.errors import UserError
from harness.metrics.model_process import Helper, HelperFailed, answer_lines

TextPair = tuple[str, str]
"""Premise and hypothesis."""

_BATCH = 16


class EntailmentModel:
    """The parent's end of the child.

    Args:
        model: A sequence classifier: a folder, or its name on the Hub.
    """

    def __init__(self, model: str) -> None:
        self.model = model
        self._helper = Helper("harness.metrics.entailment_model", model)

    def entailment(self, pairs: Sequence[TextPair]) -> list[float]:
        """The probability that each premise entails its hypothesis.

        Raises:
            UserError: The model cannot be loaded, has no class for entailment, or its process ended.
        """
        try:
            return self._helper.ask(list(pairs))
        except HelperFailed as error:
            raise UserError(
                f"could not judge entailment with `{self.model}`: {error}", hint="`nli` names a classifier"
            ) from error


@functools.cache
def judge(model: str) -> EntailmentModel:
    """The judge of that name: one process a model, however many metrics ask it."""
    return EntailmentModel(model)


def main(model: str) -> None:
    """The child: pairs in, probabilities out."""

    def load() -> Callable[[Any], list[float]]:
        scorer = _Scorer(model)
        return lambda pairs: scorer.probabilities([(premise, hypothesis) for premise, hypothesis in pairs])

    answer_lines(load)


class _Scorer:
    """The model, in the child."""

    def __init__(self, model: str) -> None:
        import transformers

        self.tokenizer = transformers.AutoTokenizer.from_pretrained(model, trust_remote_code=False)
        self.model = transformers.AutoModelForSequenceClassification.from_pretrained(
            model, trust_remote_code=False, use_safetensors=True
        ).eval()
        names = {int(index): str(name).lower() for index, name in self.model.config.id2label.items()}
        classes = [index for index, name in names.items() if name.startswith("entail")]
        if not classes and len(names) > 1:
            raise ValueError(f"none of its classes is entailment: {', '.join(names.values())}")
        self.entailment = classes[0] if classes else None
        positions = getattr(self.model.config, "max_position_embeddings", None) or 512
        self.length = min(self.tokenizer.model_max_length, positions, 512)

    def probabilities(self, pairs: Sequence[TextPair]) -> list[float]:
        import torch

        found: list[float] = []
        for start in range(0, len(pairs), _BATCH):
            premises, hypotheses = zip(*pairs[start : start + _BATCH], strict=True)
            inputs = self.tokenizer(
                list(premises),
                list(hypotheses),
                truncation="longest_first",
                max_length=self.length,
                padding=True,
                return_tensors="pt",
            )
            with torch.inference_mode():
                logits = self.model(**inputs).logits.float()
            scores = logits.sigmoid()[:, 0] if self.entailment is None else logits.softmax(-1)[:, self.entailment]
            found += scores.tolist()
        return found


if __name__ == "__main__":
    main(sys.argv[1])
