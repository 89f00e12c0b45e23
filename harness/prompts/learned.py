"""The text that is learned of an assistant turn, and the prompt that it follows.

It is what the chat template renders for the turns up to and with the answer, less what it renders as the prompt for the
answer, up to the end of the turn: the text that the model should generate. Each answer is rendered as the last turn, because
many templates change a turn that others follow (Qwen3 drops its thought).

Some templates do not write what their prompt begins. Where the prompt opens a thought (DeepSeek-R1, Nemotron), the thought
of the row and its closing mark are learned after the prompt; where it closes an empty thought (Qwen3 with
`enable_thinking=false`), the thought of the row is left out. Everything else is refused.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from harness.errors import UserError
from harness.prompts.chat import REASONING, ChatTemplate

_MARKS = ("<think>", "</think>")
_PROBE = "qZ7x answer qZ7x"
"""An answer that no template contains: what a template writes after it is the end of a turn."""
_HINT = "leave the row out, or train with `template=none`"


@dataclass(frozen=True)
class LearnedTurn:
    """A prompt, and the text that is learned after it."""

    prompt: str
    text: str
    """Without the end of the turn."""
    thought: Literal["as rendered", "not rendered", "left out", "added"] = "as rendered"
    """What happened to the thought: `added` if its marks are in no rendered text, because the prompt opens it."""


def learned(
    template: ChatTemplate, messages: Sequence[Mapping[str, Any]], tools: Sequence[Mapping[str, Any]] | None = None
) -> LearnedTurn:
    """The learned text of the last message, with its tool calls.

    Args:
        template: The chat template.
        messages: The conversation up to an answer of the assistant.
        tools: The tools that the assistant may call.

    Raises:
        UserError: The template refuses the messages, changes the answer, or renders the answer without its prompt.

    Example:
        >>> template = ChatTemplate("{% for m in messages %}[{{ m.content }}]{% endfor %}", {}, "]")
        >>> learned(template, [{"role": "user", "content": "1 + 1?"}, {"role": "assistant", "content": "2"}])
        LearnedTurn(prompt='[1 + 1?]', text='[2', thought='as rendered')
    """
    *before, turn = messages
    opening, closing = template.thought or _MARKS
    # texts generated after an open thought lack the opening mark
    marks = rf"\s*(?:{re.escape(opening)})?(.*?){re.escape(closing)}\s*(.*)"
    inside = re.fullmatch(marks, turn["content"], re.DOTALL)
    said = next((str(turn[key]) for key in REASONING if turn.get(key)), inside[1] if inside else "").strip()
    pieces = [said, *(part.strip() for part in (inside.groups() if inside else ()))]
    prompt = template.rendered(before, add_generation_prompt=True, tools=tools)
    whole = template.rendered(messages, add_generation_prompt=False, tools=tools)
    after = ""
    if turn.get("tool_calls"):
        probe = [*before, {"role": "assistant", "content": _PROBE}]
        after = template.rendered(probe, add_generation_prompt=False, tools=tools).rpartition(_PROBE)[2]
    if whole.startswith(prompt):
        text = _until_end(template, whole[len(prompt) :], turn, after)
        return LearnedTurn(prompt, text, "as rendered" if all(piece in text for piece in pieces) else "not rendered")
    same = next((n for n, (one, other) in enumerate(zip(prompt, whole, strict=False)) if one != other), len(whole))
    begun, rest = prompt[same:], whole[same:]
    if closing in begun and said:
        plain = {key: value for key, value in turn.items() if key not in REASONING}
        without = learned(template, [*before, {**plain, "content": inside[2] if inside else turn["content"]}], tools)
        return LearnedTurn(without.prompt, without.text, "left out")
    if opening in said:
        raise UserError(
            f"the answer has text before its thought, {said[:40]!r}, and the prompt of the chat template begins the thought",
            hint="remove that text, or leave the row out",
        )
    if not begun.strip() and rest.lstrip().startswith(closing):
        # the prompt ends with an open thought and a line break, the whole with an empty thought
        rest = f"{said}\n{rest.lstrip()}" if said else rest
    elif begun.strip() == opening:
        rest = f"{said}\n" * bool(said) + f"{closing}\n\n" + rest.lstrip("\n")
    else:
        raise UserError(
            f"the model's chat template ends the prompt with {begun[-40:]!r}, where the answered turn has {rest[:40]!r}:"
            " what is to be learned does not follow the prompt",
            hint=_HINT,
        )
    text = _until_end(template, rest, turn, after)
    return LearnedTurn(prompt, text, "added" if all(piece in text for piece in pieces) else "not rendered")


def learned_after(template: ChatTemplate, messages: Sequence[Mapping[str, Any]], answer: str) -> LearnedTurn:
    """The learned text after an answer that the prompt has begun.

    Args:
        template: The chat template.
        messages: The prompt; its last message is the beginning of the answer.
        answer: The rest of the answer.

    Raises:
        UserError: See `learned`, and `ChatTemplate.render`.
    """
    *before, begun = messages
    prompt = template.render(messages)
    whole = template.rendered([*before, {**begun, "content": begun["content"] + answer}], add_generation_prompt=False)
    if not whole.startswith(prompt):
        raise UserError(
            "the model's chat template changes a begun answer when it is complete", hint="do not begin the answer"
        )
    return LearnedTurn(prompt, _until_end(template, whole[len(prompt) :], {"content": answer}))


def _until_end(template: ChatTemplate, text: str, turn: Mapping[str, Any], after: str = "") -> str:
    """The text of a turn up to its end; nothing that the template writes after the end is ever generated.

    Tool calls mostly follow the content, which some templates leave out beside calls. `after` is what the template writes
    after a turn of text.
    """
    end = template.turn_end if template.writes_end else ""
    closing = (template.thought or _MARKS)[1]
    answer = turn["content"].rpartition(closing)[2].strip()
    calls = bool(turn.get("tool_calls"))
    start = 0
    if answer:
        before_end = text.rfind(answer, 0, text.rfind(end))  # the answer `end` is also in `<|im_end|>`
        start = before_end if before_end >= 0 else text.rfind(answer)
    if start < 0 and not calls:
        raise UserError(
            f"the model's chat template changes the answer {answer[:80]!r}, so it cannot be learned as written",
            hint=_HINT,
        )
    said = start + len(answer) if start >= 0 else 0
    head, tail = text[:said], text[said:]
    if not end:
        return text.removesuffix(after) if calls else head
    if end not in tail:
        raise UserError(f"the model's chat template writes no {end} after the answer {answer[:80]!r}", hint=_HINT)
    return head + tail[: tail.index(end)]
