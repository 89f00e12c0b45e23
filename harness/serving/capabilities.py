"""Capabilities of a served model, as the probe at the start has found them; every score shows them in its protocol."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

SendingWay = Literal["ids", "text", "chat"]
"""How prompts are sent: as token ids, as text, or as messages to which the server applies its own chat template."""


@dataclass(frozen=True)
class Capabilities:
    """The findings about one served model."""

    way: SendingWay
    likelihoods: Literal["prompt_logprobs", "echo"] | None = None
    """The field that gives log-probabilities of a prompt, if they are right."""
    letters: bool = False
    """Whether `logprob_token_ids` gives those of chosen next tokens, without the prompt's."""
    returns_ids: bool = False
    """Whether it returns the ids of the tokens that it has written."""
    counts_as_we_do: bool = False
    """Whether it reads as many tokens as our tokenizer makes of a prompt; every answer is then checked."""
    stops: int | None = None
    """Stop strings that it takes at most; None: as many as the tasks have."""
    context: int | None = None
    """Tokens of prompt and answer together, if it says so."""
    limit_field: Literal["max_tokens", "max_completion_tokens"] = "max_tokens"
    fields: tuple[str, ...] = ()
    """Further fields that it takes."""
    answers_as: str = ""
    """The model's name in its answers."""
    no_likelihoods: str = ""
    """Why it gives no log-likelihoods."""
    no_samples: str = ""
    """Why it draws no samples."""
    notes: tuple[str, ...] = ()
    """Notes for the user."""

    def __str__(self) -> str:
        parts = [
            {
                "ids": "prompts as token ids",
                "text": "prompts as text",
                "chat": "messages, with the server's chat template",
            }[self.way]
        ]
        if self.likelihoods is not None:
            parts.append(
                f"log-likelihoods by `{self.likelihoods}`"
                + (", letters by `logprob_token_ids`" if self.letters else "")
            )
        elif self.no_likelihoods:
            parts.append(f"no log-likelihoods: {self.no_likelihoods}")
        return "; ".join(parts)


@dataclass(frozen=True)
class ServerAnswer:
    """One completion, read from a server's answer."""

    text: str
    ids: tuple[int, ...] | None
    """The ids of the written tokens, the end token among them, if the server returns them."""
    logprobs: tuple[float, ...]
    """Log-probabilities of the written tokens, if the server gives them."""
    at_limit: bool
    """Whether the limit of tokens or the context ended it."""
    prompt_tokens: int | None
    """Tokens of the prompt that the server has counted."""
    tokens: int | None
    """Tokens that it has written."""
    raw: Mapping[str, Any] = field(repr=False)
    """The choice as the server sent it."""
    answers_as: str = ""
