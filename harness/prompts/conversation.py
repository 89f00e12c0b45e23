"""A conversation of a training row, through the model's chat template: the prompt of each assistant turn, and its answer."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVar

from harness.errors import UserError
from harness.prompts.chat import PLAIN, ChatTemplate, system_in_user_turn
from harness.prompts.learned import LearnedTurn, learned
from harness.prompts.tool_calls import names_of, with_text_arguments
from harness.prompts.turns import Turn

_PROBE = "qZ7x answer qZ7x"
"""A text that no template contains."""
_Made = TypeVar("_Made")


@dataclass(frozen=True)
class Conversation:
    """Turns, and what a chat template writes before them."""

    where: str
    """The data and the row, for messages."""
    turns: Sequence[Turn]
    template: ChatTemplate | None
    """The model's chat template; None: the plain format."""
    system: Sequence[Mapping[str, Any]] = ()
    """A system message before the turns, if they have none."""
    tools: Sequence[Mapping[str, Any]] = ()

    def check(self, count: int) -> None:
        """Checks that the template renders the tools, and the tool calls of the first `count` turns.

        Raises:
            UserError: It does not.
        """
        turns = self.turns[:count]
        if self.tools and turns and not self._renders_tools(turns):
            raise UserError(
                f"{self.where} has tools, which {self._renderer} does not render",
                hint="train a model whose chat template renders tools, or remove them from the data",
            )
        for position, turn in enumerate(turns):
            if turn.calls and not self._renders_calls(turns, position):
                raise self._call_error(position)

    @property
    def turn_end(self) -> str | None:
        """As `Example.turn_end`."""
        return None if self.template is None else self.template.turn_end

    def prompt(self, position: int) -> str:
        """The text of the turns before a position, up to the start of the assistant's answer."""
        return self._rendered(self.turns[:position])

    def answer(self, position: int) -> LearnedTurn:
        """The prompt of an assistant turn and its learned text, without the end of the turn.

        With a chat template, it is what `harness.prompts.learned` says; otherwise, it is the content of the turn.

        Args:
            position: The position of the turn.

        Raises:
            UserError: The template does not render the turn after its prompt, or changes it.
        """
        turn, before = self.turns[position], self.turns[:position]
        if self.template is None:
            lost = bool(turn.reasoning.strip())
            return LearnedTurn(self.prompt(position), " " + turn.content, "not rendered" if lost else "as rendered")
        if turn.calls:
            prompt = self.prompt(position)
            if not self._rendered([*before, turn], open=False).startswith(prompt):
                raise UserError(
                    f"{self.where} has a tool call in turn {position} (assistant), but the chat template does not render"
                    f" the turn after the prompt: the prompt ends with {prompt[-40:]!r}",
                    hint="leave the row out, or train a model with another chat template",
                )
        return self._made_of([*before, turn], partial(learned, self.template, tools=self.tools))

    def lost_reasoning(self, position: int, prompt: str) -> int:
        """Number of turns before a position whose reasoning is not in the prompt."""
        return sum(turn.reasoning.strip() not in prompt for turn in self.turns[:position])

    def lost_texts(self, count: int) -> int:
        """Number of turns of tools and of turns with tool calls, among the first `count`, whose text is not rendered."""
        turns = self.turns[:count]
        return sum(
            not self._depends(turns, position, {**turn.message, "content": _PROBE})
            for position, turn in enumerate(turns)
            if (turn.role == "tool" or turn.calls) and turn.content.strip()
        )

    @property
    def moves_system(self) -> bool:
        """Whether system turns are at the head of user turns, because the template has none."""
        spoken = [*self.system, *(turn.message for turn in self.turns)]
        has_system = any(message["role"] == "system" for message in spoken)
        return has_system and self.template is not None and not self.template.has_system_turn

    def lost_turns(self, position: int, prompt: str) -> int:
        """Number of system and user turns before a position whose text is not in the prompt."""
        asked = (turn for turn in self.turns[:position] if turn.role in ("system", "user"))
        return sum(turn.content.strip() not in prompt for turn in asked)

    @property
    def _renderer(self) -> str:
        return "the plain format (the model has no chat template)" if self.template is None else "the chat template"

    def _rendered(self, turns: Sequence[Turn], *, open: bool = True, tools: Sequence[Any] | None = None) -> str:
        template, tools = self.template or PLAIN, self.tools if tools is None else tools
        return self._made_of(turns, partial(template.render, add_generation_prompt=open, tools=tools))

    def _made_of(self, turns: Sequence[Turn], render: Callable[[Sequence[Mapping[str, Any]]], _Made]) -> _Made:
        """Applies a function to the messages of the turns, with the arguments of calls in the form that the template reads."""
        messages = [*self.system, *(turn.message for turn in turns)]
        if self.moves_system:  # as in the prompts of tasks
            messages = system_in_user_turn(messages)
        try:
            return render(messages)
        except UserError as error:
            # DeepSeek-V3's template joins the arguments of a call to text, so they must be JSON text and not an object
            with contextlib.suppress(UserError):
                if any(turn.calls for turn in turns):
                    return render([with_text_arguments(message) for message in messages])
            raise UserError(f"{self.where}: {error.message}", error.hint) from error

    def _renders_tools(self, turns: Sequence[Turn]) -> bool:
        if self.template is None:
            return False
        return self._rendered(turns, open=False) != self._rendered(turns, open=False, tools=())

    def _renders_calls(self, turns: Sequence[Turn], position: int) -> bool:
        """Whether the text of the turns has the calls of one of them, and would be another text without them."""
        if self.template is None:
            return False
        text = self._rendered(turns, open=False)
        silent = {key: value for key, value in turns[position].message.items() if key != "tool_calls"}
        return self._depends(turns, position, silent) and all(name in text for name in names_of(turns[position].calls))

    def _depends(self, turns: Sequence[Turn], position: int, message: Mapping[str, Any]) -> bool:
        """Whether the text of the turns changes if one of them is replaced."""
        try:
            replaced = self._rendered([*turns[:position], Turn(message), *turns[position + 1 :]], open=False)
        except UserError:  # a template that refuses the replaced turn reads what was replaced
            return True
        return replaced != self._rendered(turns, open=False)

    def _call_error(self, position: int) -> UserError:
        return UserError(
            f"{self.where} has a tool call in turn {position} (assistant), which {self._renderer} does not render",
            hint="write the call into `content`, as the model should generate it, or leave the row out",
        )
