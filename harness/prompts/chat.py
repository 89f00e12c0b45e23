"""Chat templates: convert messages to the text format that a model was trained on.

Templates come with the description of a tokenizer (`harness.tokens.description`) and are rendered by jinja2 in a sandbox,
in a process with limits (`harness.prompts.template_process`), without torch and transformers.
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from harness.errors import UserError
from harness.prompts.template_environment import template_variables
from harness.prompts.template_process import TemplateRefuses, limited
from harness.prompts.thoughts import ThoughtState, thought_state

_OPEN = "CONTINUE_FINAL_MESSAGE_TAG "
"""Marks the end of a begun answer, with transformers' own text: a template that trims content removes its blank."""


@dataclass(frozen=True)
class ChatTemplate:
    """A jinja template and the special tokens that it can use."""

    text: str
    special_tokens: dict[str, str]
    turn_end: str = ""
    """The special token that ends a turn of the assistant; empty if none does."""
    writes_end: bool = True
    """Whether the template writes `turn_end` after the last turn (GLM-4 writes it only before the next turn)."""
    thought: tuple[str, str] | None = None
    """Marks around a thought; None if the template knows no thoughts."""
    options: Mapping[str, Any] = field(default_factory=dict)
    """Further variables of the template, such as `enable_thinking`."""
    answer_start: str = ""
    """Text between the end of a prompt and an answer; see `for_choices`."""

    @property
    def has_switch(self) -> bool:
        """Whether the template reads `enable_thinking`."""
        return "enable_thinking" in self.text

    @functools.cached_property
    def thought_state(self) -> ThoughtState:
        """State of the thought at the end of a prompt."""
        if self.thought is None:
            return "none"
        return thought_state(self._probed(_USER).rpartition(_USER["content"])[2], self.thought)

    @functools.cached_property
    def variables(self) -> frozenset[str]:
        """Names of the variables that the template reads, without those that every template gets."""
        return template_variables(self.text) - self.special_tokens.keys() - RESERVED_VARIABLES

    def with_options(self, **options: Any) -> ChatTemplate:
        """The template with further variables."""
        return replace(self, options={**self.options, **options})

    @functools.cached_property
    def for_choices(self) -> ChatTemplate:
        """The template with which choices are scored: where it writes an answer without a thought.

        Raises:
            UserError: Its prompts end inside a thought, and it cannot close the thought.
        """
        if self.thought is None:
            return self
        closed = self.with_options(enable_thinking=False) if self.has_switch else self
        if closed.thought_state == "open":
            raise UserError(
                "the model's chat template begins a thought, and the likelihood of a choice inside a thought measures nothing",
                hint="use tasks that generate an answer, or leave out the chat template",
            )
        prompt, whole = closed._probed(_USER), closed._probed(_USER, {"role": "assistant", "content": _ANSWER})
        start, found, _ = whole.removeprefix(prompt).partition(_ANSWER)
        return replace(closed, answer_start=start if found and whole.startswith(prompt) else "")

    def render(
        self,
        messages: Sequence[Mapping[str, Any]],
        *,
        add_generation_prompt: bool = True,
        tools: Sequence[Mapping[str, Any]] | None = None,
    ) -> str:
        """Renders messages as text.

        Args:
            messages: The messages.
            add_generation_prompt: Whether to end with the start of the assistant's turn; if the last message is the
                assistant's, its turn is left open instead, so that the model continues it.
            tools: The tools that the model may call, in the form of transformers; None: no tools.

        Raises:
            UserError: The template raises an exception for these messages (some accept no system turn), or cannot leave the
                last turn open.

        Example:
            >>> template = ChatTemplate("{% for m in messages %}<{{ m.role }}>{{ m.content }}{% endfor %}", {})
            >>> template.render([{"role": "user", "content": "hi"}])
            '<user>hi'
        """
        if add_generation_prompt and messages and messages[-1].get("role") == "assistant":
            return self._left_open(messages, tools)
        text = self.rendered(messages, add_generation_prompt=add_generation_prompt, tools=tools)
        return text + self.answer_start if add_generation_prompt else text

    def _left_open(self, messages: Sequence[Mapping[str, Any]], tools: Sequence[Mapping[str, Any]] | None) -> str:
        """Renders messages up to the end of the last one's content, as `continue_final_message` of transformers does."""
        *before, last = messages
        content = last["content"]
        text = self.rendered([*before, {**last, "content": content + _OPEN}], add_generation_prompt=False, tools=tools)
        end = text.rfind(_OPEN.strip())
        if end < 0 or content.strip() not in text:
            raise UserError(
                f"the model's chat template changes the begun answer {content[:80]!r}, so the model cannot continue it",
                hint="leave out the assistant's turn at the end of the prompt, or use another template",
            )
        return text[:end] if text.startswith(_OPEN, end) else text[:end].rstrip()

    def rendered(
        self,
        messages: Sequence[Mapping[str, Any]],
        *,
        add_generation_prompt: bool,
        tools: Sequence[Mapping[str, Any]] | None = None,
    ) -> str:
        """The template's own text for messages.

        Args:
            messages: The messages.
            add_generation_prompt: Whether to end with the start of the assistant's turn, whoever wrote the last message.
            tools: The tools that the model may call; None: no tools.

        Raises:
            UserError: The template raises an exception for these messages.
        """
        try:
            return str(
                limited(self.text).render(
                    messages=[aliased(message) for message in messages],
                    tools=list(tools) if tools else None,
                    documents=None,
                    add_generation_prompt=add_generation_prompt,
                    **{**self.special_tokens, **self.options},
                )
            )
        except TemplateRefuses as error:
            roles = ", ".join(str(message.get("role", "?")) for message in messages)
            raise UserError(
                f"the model's chat template refuses messages with these roles ({roles}): {error}",
                hint="some templates accept no system prompt: try without one",
            ) from error

    def _probed(self, *messages: Mapping[str, Any]) -> str:
        """The text of probe messages, as a prompt if the last one is the user's; empty if the template refuses them."""
        for before in ((), (_SYSTEM_TURN,)):  # some templates refuse messages without a system turn
            with contextlib.suppress(UserError):
                return self.rendered([*before, *messages], add_generation_prompt=messages[-1]["role"] == "user")
        return ""

    @functools.cached_property
    def has_system_turn(self) -> bool:
        """Whether the template writes system turns; some refuse them (Gemma), and some leave them out.

        A template that refuses a user turn, too, counts as one that does: the error is then about the real messages.
        """
        try:
            return _SYSTEM in self.render([_SYSTEM_TURN, _USER])
        except UserError:
            pass
        try:
            self.render([_USER])
        except UserError:
            return True
        return False


_SYSTEM, _ANSWER = "zq7system", "zq7answer"
_SYSTEM_TURN = {"role": "system", "content": _SYSTEM}
_USER = {"role": "user", "content": "zq7user"}
RESERVED_VARIABLES = frozenset({"messages", "tools", "documents", "add_generation_prompt"})
"""Variables of a template that decide its messages."""


def system_in_user_turn(messages: Sequence[Mapping[str, Any]]) -> list[Any]:
    r"""Moves each system message to the head of the user turn that follows it, for templates without a system turn.

    Example:
        >>> system_in_user_turn([{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Why?"}])
        [{'role': 'user', 'content': 'Be brief.\n\nWhy?'}]
    """
    moved: list[Any] = []
    head = ""
    for message in messages:
        if message["role"] == "system":
            head = _below(head, message["content"])
        elif head and message["role"] == "user":
            moved.append({**message, "content": _below(head, message["content"])})
            head = ""
        else:
            moved += [{"role": "user", "content": head}] if head else []
            moved.append(message)
            head = ""
    return [*moved, {"role": "user", "content": head}] if head else moved


def _below(head: str, text: str) -> str:
    """Joins two texts with an empty line, unless the first ends in white space of its own."""
    return head + ("" if not head or head[-1].isspace() else "\n\n") + text


REASONING = ("reasoning_content", "thinking", "reasoning")
"""Keys of a turn's thought; the first one that a turn has is its thought."""


def aliased(message: Mapping[str, Any]) -> dict[str, Any]:
    """A message with its thought under the names that templates read, and without empty keys, as in transformers."""
    known: dict[str, Any] = {key: value for key, value in message.items() if value is not None}
    thought = next((known[key] for key in REASONING if key in known), None)
    return known if thought is None else {"thinking": thought, **known, "reasoning_content": thought}


PLAIN = ChatTemplate(
    "{% for m in messages %}{{ m.role | capitalize }}: {{ m.content }}\n{% endfor %}"
    "{% if add_generation_prompt %}Assistant:{% endif %}",
    {},
)
"""The format of messages for a model without a chat template."""
