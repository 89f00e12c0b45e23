"""The requests that a run will make, in short, and the short requests with which a probe tries a server."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from harness.serving.capabilities import SendingWay, ServerAnswer
from harness.serving.client import Client
from harness.serving.completions import complete
from harness.serving.faults import ServerFault

WRITTEN = 8
"""Tokens that the server writes in a trial."""
REFUSED = ("request", "answer")
"""Kinds of faults that belong to a request and not to the server."""
_FIELDS: Sequence[dict[str, Any]] = ({"return_token_ids": True, "logprobs": 1}, {"logprobs": 1}, {})
"""Fields that a server may refuse, fewer with each try."""


@dataclass(frozen=True)
class TrialPrompt:
    """A prompt of a task."""

    text: str
    """Messages as JSON, where the server applies its own chat template."""
    ids: tuple[int, ...] | None = None
    """None without a tokenizer."""


@dataclass(frozen=True)
class Asked:
    """Kinds of requests that a run will make."""

    prompts: tuple[TrialPrompt, ...]
    """Short ones, with which it is tried; the first one that makes it write enough counts."""
    longest: TrialPrompt
    chat: bool = False
    """Whether the server applies its own chat template."""
    templated: bool = False
    """Whether prompts hold the special tokens of a chat template already."""
    likelihoods: bool = True
    """Whether tasks need log-likelihoods."""
    sampled: bool = False
    """Whether tasks draw samples."""
    stops: int = 0
    """Largest number of stop strings."""
    end_ids: tuple[int, ...] = ()
    """Ids that end a text."""
    context: int | None = None
    """Tokens of prompt and answer together, as the server says."""
    decode: Callable[[Sequence[int]], Sequence[str]] | None = None
    """The texts that our tokenizer makes of ids, without and with special tokens."""


def sent(way: SendingWay, prompt: TrialPrompt) -> str | Sequence[int]:
    """A prompt in the form in which it is sent."""
    return prompt.ids if way == "ids" and prompt.ids is not None else prompt.text


def write_after_ids(client: Client, prompt: TrialPrompt) -> tuple[ServerAnswer, tuple[str, ...]]:
    """Asks for text after token ids; returns the answer, and the further fields that the server takes."""
    for fields in _FIELDS[:-1]:
        try:
            return complete(client, "ids", sent("ids", prompt), WRITTEN, **fields), tuple(set(fields) - {"logprobs"})
        except ServerFault as fault:
            if fault.kind not in REFUSED:
                raise
    return complete(client, "ids", sent("ids", prompt), WRITTEN), ()
