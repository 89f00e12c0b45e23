"""Whether the log-probabilities of a server can be trusted: tokens that it wrote itself are scored, and must agree.

A server that shifts values by a place, ignores `echo` or reads another prompt gives other numbers than it said while it wrote.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import replace
from typing import Literal

from harness.serving.asked import REFUSED, Asked, write_after_ids
from harness.serving.capabilities import Capabilities
from harness.serving.client import Client
from harness.serving.faults import ServerFault
from harness.serving.likelihoods import Value, of_next, of_prompt

TOLERANCE = 0.1
"""Largest difference of a log-probability: bfloat16 differs by some hundredths between a prompt and a single step."""
_CLOSE = 1e-3
"""The same where neighbouring values are too near to each other to show a shift."""


def with_likelihoods(client: Client, found: Capabilities, asked: Asked) -> Capabilities:
    """Scores tokens that the server wrote itself, in every way that it may know.

    Args:
        client: Asks the model.
        found: The findings so far.
        asked: Prompts to try; the first one whose values show whether they are right decides.
    """
    if found.way != "ids":
        return found
    faults: dict[str, None] = {}
    fields: Sequence[Literal["prompt_logprobs", "echo"]] = ("prompt_logprobs", "echo")
    for prompt in asked.prompts:
        assert prompt.ids is not None
        answer, _ = write_after_ids(client, prompt)
        said = answer.logprobs
        if not said or answer.ids is None or len(said) != len(answer.ids):
            missing = "log-probabilities" if not said else "the ids"
            return replace(found, no_likelihoods=f"it does not give {missing} of the tokens that it writes")
        if len(said) < 2:
            faults["it wrote one token after a prompt, too few to compare"] = None
            continue
        for field in fields:
            try:
                again = of_prompt(client, field, [*prompt.ids, *answer.ids], len(prompt.ids))
            except ServerFault as fault:
                if fault.kind not in REFUSED:
                    raise
                faults[f"`{field}`: {fault.message.partition('`: ')[2] or fault.message}"] = None
                continue
            if not (why := _differs(again, said)):
                letters = _has_letters(client, prompt.ids, answer.ids, again, field)
                return replace(found, likelihoods=field, letters=letters)
            faults[f"`{field}` {why}"] = None
    return replace(found, no_likelihoods="; ".join(faults))


def _differs(again: Sequence[Value], said: Sequence[float]) -> str:
    """Describes how scored tokens differ from the values that the server gave while it wrote them; empty if they agree."""
    worst = max(abs(mine - its) for (mine, _), its in zip(again, said, strict=True))
    steps = max(abs(a - b) for a, b in itertools.pairwise(said))
    if worst <= (TOLERANCE if steps > 2 * TOLERANCE else _CLOSE):
        return ""
    return f"is {worst:.2g} off what it said of the same tokens while it wrote them"


def _has_letters(
    client: Client,
    ids: Sequence[int],
    written: Sequence[int],
    scored: Sequence[Value],
    field: Literal["prompt_logprobs", "echo"],
) -> bool:
    """Whether values of chosen next tokens are those of the prompt."""
    try:
        first, second = of_next(client, ids, [written[0], ids[-1]])
        other = of_prompt(client, field, [*ids, ids[-1]], len(ids))[0]
    except ServerFault as fault:
        if fault.kind not in REFUSED:
            raise
        return False
    return abs(first[0] - scored[0][0]) <= TOLERANCE and abs(second[0] - other[0]) <= TOLERANCE
