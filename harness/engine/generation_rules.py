"""Rules of a model's `generation_config.json` that change which token comes next, such as a repetition penalty.

lm-evaluation-harness calls `generate` of transformers, which applies them; the same classes of transformers are used here. Each
row is processed alone, as in a batch of one.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from transformers import (
    ExponentialDecayLengthPenalty,
    ForcedEOSTokenLogitsProcessor,
    LogitsProcessor,
    LogitsProcessorList,
    MinLengthLogitsProcessor,
    MinNewTokensLengthLogitsProcessor,
    NoBadWordsLogitsProcessor,
    NoRepeatNGramLogitsProcessor,
    RepetitionPenaltyLogitsProcessor,
    SequenceBiasLogitsProcessor,
    SuppressTokensAtBeginLogitsProcessor,
    SuppressTokensLogitsProcessor,
)

from harness.errors import UserError
from harness.jobs import Request

_APPLIED = (
    "sequence_bias",
    "repetition_penalty",
    "no_repeat_ngram_size",
    "bad_words_ids",
    "min_length",
    "min_new_tokens",
    "forced_eos_token_id",
    "exponential_decay_length_penalty",
    "suppress_tokens",
    "begin_suppress_tokens",
)
"""Fields whose rules are applied, in the order in which transformers applies them."""
_OF_THE_END = ("min_length", "min_new_tokens", "exponential_decay_length_penalty")
"""Those that change the logits of tokens that end a text."""
_LEFT_OUT = (
    "num_beams",
    "encoder_repetition_penalty",
    "encoder_no_repeat_ngram_size",
    "token_healing",
    "penalty_alpha",
    "dola_layers",
    "guidance_scale",
    "watermarking_config",
    "constraints",
    "force_words_ids",
    "stop_strings",
    "max_new_tokens",
    "max_time",
)
"""Fields that `generate` applies and this engine does not."""
_SAMPLING = ("top_k", "top_p", "min_p", "top_h", "typical_p", "epsilon_cutoff", "eta_cutoff")
"""Fields that `generate` applies to sampled texts; here a task says how its texts are sampled."""
_NEUTRAL = {
    "repetition_penalty": 1.0,
    "encoder_repetition_penalty": 1.0,
    "encoder_no_repeat_ngram_size": 0,
    "token_healing": False,
    "num_beams": 1,
    "guidance_scale": 1.0,
    "top_p": 1.0,
    "typical_p": 1.0,
    "min_length": 0,
    "min_new_tokens": 0,
    "no_repeat_ngram_size": 0,
    "top_k": 0,
    "epsilon_cutoff": 0.0,
    "eta_cutoff": 0.0,
}
"""Values that change nothing."""


class GenerationRules:
    """The rules of a model.

    Args:
        model: The model; its `generation_config` is read once.
    """

    def __init__(self, model: Any) -> None:
        self._device = model.device
        self._given = {
            name: value
            for name, value in model.generation_config.to_dict().items()
            if value is not None and value != [] and value != _NEUTRAL.get(name)
        }
        eos = self._given.get("eos_token_id")
        self._eos = [eos] if isinstance(eos, int) else eos
        if self._eos is None:  # transformers leaves these out too
            for name in _OF_THE_END:
                self._given.pop(name, None)

    @property
    def applied(self) -> dict[str, Any]:
        """The fields that are applied, with their values."""
        return {name: self._given[name] for name in _APPLIED if name in self._given}

    def notes(self, requests: Sequence[Request]) -> list[str]:
        """Describes for the user which fields are applied to some requests, and which are not."""
        notes = []
        if applied := self._shown(_APPLIED):
            notes.append(f"texts are generated with {applied} of the model's generation_config.json, as lm-eval does")
        sampled = any(request.temperature > 0 for request in requests)
        if left := self._shown((*_LEFT_OUT, *(_SAMPLING if sampled else ()))):
            notes.append(f"{left} of the model's generation_config.json is not applied; lm-eval would apply it")
        return notes

    def of(self, request: Request, prompt_tokens: int) -> LogitsProcessorList | None:
        """The rules for one text; None if there are none.

        Args:
            request: Asks for the text.
            prompt_tokens: Tokens before the first new one.

        Raises:
            UserError: A field has an impossible value.
        """
        rules = []
        for name in _APPLIED:
            if name in self._given:
                try:
                    rules.append(self._rule(name, request, prompt_tokens))
                except (ValueError, TypeError, LookupError) as error:
                    raise UserError(
                        f"generation_config.json of the model: `{name}`: {error}", hint="correct or remove the field"
                    ) from error
        return LogitsProcessorList(rules) if rules else None

    def _rule(self, name: str, request: Request, start: int) -> LogitsProcessor:
        value, device = self._given[name], self._device
        if name == "sequence_bias":
            return SequenceBiasLogitsProcessor(value)
        if name == "repetition_penalty":
            return RepetitionPenaltyLogitsProcessor(float(value))
        if name == "no_repeat_ngram_size":
            return NoRepeatNGramLogitsProcessor(value)
        if name == "bad_words_ids":
            return NoBadWordsLogitsProcessor(value, self._tensor(self._eos))
        if name == "forced_eos_token_id":
            return ForcedEOSTokenLogitsProcessor(start + request.max_tokens, value, device=device)
        if name == "suppress_tokens":
            return SuppressTokensLogitsProcessor(value, device=device)
        if name == "begin_suppress_tokens":
            return SuppressTokensAtBeginLogitsProcessor(value, start, device=device)
        if name == "min_length":
            return MinLengthLogitsProcessor(value, self._tensor(self._eos), device=device)
        if name == "min_new_tokens":
            return MinNewTokensLengthLogitsProcessor(start, value, self._tensor(self._eos), device=device)
        return ExponentialDecayLengthPenalty(tuple(value), self._tensor(self._eos), start)

    def _tensor(self, ids: list[int] | None) -> Tensor | None:
        return None if ids is None else torch.tensor(ids, device=self._device)

    def _shown(self, names: Sequence[str]) -> str:
        """Fields that are given, with short values."""
        return ", ".join(
            f"{name}={value}" if len(str(value := self._given[name])) < 20 else name
            for name in names
            if name in self._given
        )
