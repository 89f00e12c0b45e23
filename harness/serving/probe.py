"""The probe at the start: tells a server that can be trusted with a task from one that cannot, by a few short requests.

The server writes eight tokens and says how likely each was. Then the prompt with these tokens is scored in every way that the
server may know: only a way that gives the same numbers is used. A server that shifts them by a place, ignores `echo`, or has
none is found in this way, and one that cuts prompts, ignores limits, stop strings, temperature or seeds as well.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Literal

from harness.errors import UserError
from harness.serving.asked import REFUSED, WRITTEN, Asked, TrialPrompt, sent, write_after_ids
from harness.serving.capabilities import Capabilities, ServerAnswer
from harness.serving.client import Client
from harness.serving.completions import check_prompt, complete
from harness.serving.faults import ServerFault
from harness.serving.trusted_values import with_likelihoods

_SAMPLED = 16
"""Tokens of a drawn text: long enough that two of them differ."""
_NO_SUCH_NAME = ("model", "key", "path", "busy", *REFUSED)
"""Kinds of faults by which servers say that they have no model of a name: gateways refuse the key for it, or have no route."""
_OF_MESSAGES = "the server applies its own chat template"


def probe(client: Client, asked: Asked) -> Capabilities:
    """Finds out what a served model can do.

    Args:
        client: Asks the model.
        asked: What the run will ask.

    Raises:
        ServerFault: The server does not answer, or in a way that no task can use.
        UserError: The tokenizer does not fit the served model.
    """
    found, prompt, answer = _way(client, asked)
    found = replace(found, context=asked.context, answers_as=answer.answers_as)
    if answer.tokens is not None and answer.tokens > WRITTEN:
        raise ServerFault(
            "answer",
            f"`{client.served.url}` ignores `{found.limit_field}`: it wrote {answer.tokens} tokens where {WRITTEN} were allowed",
            "see the server's own log",
        )
    found = _with_name(client, found, prompt)
    if asked.likelihoods:
        found = with_likelihoods(client, found, asked)
    if asked.stops:
        found = _with_stops(client, found, prompt, answer, asked.stops)
    if asked.sampled:
        found = _with_samples(client, found, prompt, answer)
    if asked.end_ids and found.way != "chat":
        ends = {"stop_token_ids": list(asked.end_ids)}
        found = _with_fields(client, found, prompt, ends)
    _read_whole(client, found, asked.longest)
    return found


def _way(client: Client, asked: Asked) -> tuple[Capabilities, TrialPrompt, ServerAnswer]:
    """Finds how prompts are sent; returns also the prompt with which that was found, and the answer."""
    prompt = asked.prompts[0]
    if asked.chat:
        fields: Sequence[Literal["max_tokens", "max_completion_tokens"]] = ("max_tokens", "max_completion_tokens")
        for field in fields:
            try:
                answer = complete(client, "chat", prompt.text, WRITTEN, field)
            except ServerFault as fault:
                if field == fields[-1] or fields[-1] not in fault.message:
                    raise
                continue
            return Capabilities("chat", limit_field=field, no_likelihoods=_OF_MESSAGES), prompt, answer
    try:
        by_text = complete(client, "text", prompt.text, WRITTEN)
    except ServerFault as fault:
        if fault.kind != "path":
            raise
        raise ServerFault(
            "path",
            fault.message,
            "a server of messages alone needs `--apply-chat-template` without `--tokenizer`; most addresses end in `/v1`",
        ) from fault
    if prompt.ids is None:
        return (
            Capabilities("text", no_likelihoods="without `--tokenizer` there are no token ids to score"),
            prompt,
            by_text,
        )
    counted = by_text.prompt_tokens
    try:
        by_ids, fields_taken = write_after_ids(client, prompt)
        why = _not_ours(by_text, by_ids, len(prompt.ids), templated=asked.templated) or _reads_other(by_ids, asked)
    except ServerFault as fault:
        if fault.kind not in REFUSED:
            raise
        by_ids, fields_taken, why = by_text, (), f"it takes no token ids ({fault.message})"
    if not why:
        known, counts = by_ids.ids is not None, by_ids.prompt_tokens is not None
        return Capabilities("ids", fields=fields_taken, returns_ids=known, counts_as_we_do=counts), prompt, by_ids
    if asked.templated and counted is not None and counted != len(prompt.ids):
        raise UserError(
            f"`{client.served.url}#{client.served.name}`: {why}, and of a text in the form of the chat template it reads"
            f" {counted} tokens where there are {len(prompt.ids)}",
            hint="leave out `--tokenizer`: the server then applies its own chat template; or use plain prompts",
        )
    notes = []
    if counted is not None and counted != len(prompt.ids):
        notes.append(
            f"it reads {counted} tokens where our tokenizer makes {len(prompt.ids)} of a prompt: its tokenizer is another one,"
            " or adds a token of its own"
        )
    same = counted == len(prompt.ids)
    return Capabilities("text", counts_as_we_do=same, no_likelihoods=why, notes=tuple(notes)), prompt, by_text


def _not_ours(by_text: ServerAnswer, by_ids: ServerAnswer, tokens: int, *, templated: bool) -> str:
    """The reason for which our token ids mean something else to the server; empty if they mean the same."""
    if by_ids.prompt_tokens not in (None, tokens):
        return f"it reads {by_ids.prompt_tokens} tokens where {tokens} ids were sent"
    if by_text.prompt_tokens == tokens and by_text.text != by_ids.text:
        return "it writes another text after our token ids than after the same text, so its tokenizer is another one"
    if by_text.prompt_tokens not in (None, tokens, tokens + 1) and not templated:
        return f"it makes {by_text.prompt_tokens} tokens of a text of {tokens}, so its tokenizer is another one"
    return ""


def _reads_other(answer: ServerAnswer, asked: Asked) -> str:
    """The reason for which the server's ids mean something else to our tokenizer; empty if they mean the same, or it gives none."""

    def bare(text: str) -> str:  # decoders differ in white space, and in characters whose last bytes are missing
        return "".join(text.replace("\ufffd", "").split())

    if not answer.ids or asked.decode is None:
        return ""
    its, ours = bare(answer.text), list(map(bare, asked.decode(answer.ids)))
    if any(its.startswith(each) or each.startswith(its) for each in ours):
        return ""
    return "our tokenizer makes another text of the ids that it writes, so its tokenizer is another one"


def _with_name(client: Client, found: Capabilities, prompt: TrialPrompt) -> Capabilities:
    other = client.named(client.served.name + "-which-is-not-there", patience=0.0)
    try:
        complete(other, found.way, sent(found.way, prompt), 1, found.limit_field)
    except ServerFault as fault:
        if fault.kind in _NO_SUCH_NAME:
            return found
        raise
    note = f"it answers to any name of a model, so that nothing shows whether `{client.served.name}` answers"
    return replace(found, notes=(*found.notes, note))


def _with_stops(
    client: Client, found: Capabilities, prompt: TrialPrompt, answer: ServerAnswer, most: int
) -> Capabilities:
    """Finds how many stop strings it takes, and whether it applies them; texts are cut here in any case."""
    taken = None
    for count in sorted({most, *(each for each in (4, 1) if each < most)}, reverse=True):
        try:
            complete(
                client,
                found.way,
                sent(found.way, prompt),
                1,
                found.limit_field,
                stop=[f"\x02{n}" for n in range(count)],
            )
        except ServerFault as fault:
            if fault.kind not in REFUSED:
                raise
            continue
        taken = None if count == most else count
        break
    else:
        return replace(found, stops=0, notes=(*found.notes, "it takes no stop strings: texts are cut here"))
    notes = [f"it takes {taken} of {most} stop strings: texts are cut here at the others"] if taken else []
    written = answer.text.strip()
    if len(written) > 2:
        stop = written[1:3]
        again = complete(client, found.way, sent(found.way, prompt), WRITTEN, found.limit_field, stop=[stop])
        if again.text == answer.text:
            notes.append("it ignores stop strings: texts are cut here")
    return replace(found, stops=taken, notes=(*found.notes, *notes))


def _with_samples(client: Client, found: Capabilities, prompt: TrialPrompt, answer: ServerAnswer) -> Capabilities:
    """Whether it draws samples, and the same ones for the same seed."""
    found = _with_fields(client, found, prompt, {"top_k": 0, "min_p": 0})
    neutral: dict[str, Any] = {name: 0 for name in ("top_k", "min_p") if name in found.fields}

    def draw(seed: int) -> str:
        more = {"temperature": 2.0, "top_p": 1.0, "seed": seed, **neutral}
        return complete(client, found.way, sent(found.way, prompt), _SAMPLED, found.limit_field, **more).text

    first, again, other, third = draw(1), draw(1), draw(2), draw(3)
    if first == other == third:
        return replace(found, no_samples="it writes the same text whatever `temperature` and `seed` are")
    notes = [] if first == again else ["it ignores `seed`: samples are others each time"]
    if not neutral:
        notes.append("its own limits of sampling (top-k, min-p) may apply: it takes no such fields")
    return replace(found, notes=(*found.notes, *notes))


def _with_fields(client: Client, found: Capabilities, prompt: TrialPrompt, fields: dict[str, Any]) -> Capabilities:
    """Adds fields that it takes."""
    try:
        complete(client, found.way, sent(found.way, prompt), 1, found.limit_field, **fields)
    except ServerFault as fault:
        if fault.kind not in REFUSED:
            raise
        return found
    return replace(found, fields=(*found.fields, *fields))


def _read_whole(client: Client, found: Capabilities, longest: TrialPrompt) -> None:
    """Refuses a server that cuts the longest prompt; without token ids, it must read as much as of both halves together."""
    answer = complete(client, found.way, sent(found.way, longest), 1, found.limit_field)
    if longest.ids is not None and found.counts_as_we_do:
        check_prompt(client, found, answer, len(longest.ids))
    elif found.way == "text" and answer.prompt_tokens is not None:
        middle = len(longest.text) // 2
        halves = [part for part in (longest.text[:middle], longest.text[middle:]) if part.strip()]
        counts = [complete(client, "text", half, 1).prompt_tokens for half in halves]
        tokens = sum(count or 0 for count in counts)
        if len(halves) == 2 and None not in counts and answer.prompt_tokens < 0.9 * tokens - 2:
            check_prompt(client, replace(found, counts_as_we_do=True), answer, tokens)
