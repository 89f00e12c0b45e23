"""Ollama's Modelfile for an exported GGUF file: the prompt format that was scored, what ends a text, greedy decoding.

Ollama's templates are Go's. One is derived from the model's chat template by rendering probes, and kept only if it gives the
same text as the chat template for longer conversations.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from harness.errors import UserError
from harness.prompts.chat import ChatTemplate

_SYSTEM, _FIRST, _ANSWER, _SECOND = "qZ4 system", "qZ5 first", "qZ6 answer", "qZ7 second"
"""Probes: texts that occur in no template."""
PLAIN = "{{ .Prompt }}"
"""Template of models that were scored on plain text."""


@dataclass(frozen=True)
class TurnTexts:
    """The text around the turns of a conversation."""

    default: str
    """Text before the first turn if there is no system turn."""
    system: tuple[str, str] | None
    """Text before and after a system turn; None: the template takes none."""
    user: tuple[str, str]
    assistant: tuple[str, str]
    begin: str
    """Start of the assistant's turn, at the end of a prompt."""

    def rendered(self, messages: Sequence[Mapping[str, str]]) -> str:
        """A prompt for messages."""
        has_system = bool(messages) and messages[0]["role"] == "system"
        sides = {"system": self.system or ("", ""), "user": self.user, "assistant": self.assistant}
        turns = "".join(sides[each["role"]][0] + each["content"] + sides[each["role"]][1] for each in messages)
        return ("" if has_system else self.default) + turns + self.begin

    @property
    def go(self) -> str:
        """The template in Go's language."""
        before, after = self.system or ("", "")
        system = f"{{{{ if .System }}}}{before}{{{{ .System }}}}{after}{{{{ else }}}}{self.default}{{{{ end }}}}"
        return (
            (system if self.system else self.default)
            + '{{ range .Messages }}{{ if eq .Role "user" }}'
            + f"{self.user[0]}{{{{ .Content }}}}{self.user[1]}"
            + '{{ else if eq .Role "assistant" }}'
            + f"{self.assistant[0]}{{{{ .Content }}}}{self.assistant[1]}"
            + "{{ end }}{{ end }}"
            + self.begin
        )


def turns_of(template: ChatTemplate) -> TurnTexts | None:
    """Finds the text around turns; None if the template does more than put text around them.

    A beginning-of-text token at the start is left out: llama.cpp adds it.
    """
    try:
        turns = _probed(template)
        if turns is None or any(mark in turns.go.replace("{{ ", "") for mark in ("{{", '"""')):
            return None
        asked = [_turn("user", "a b"), _turn("assistant", "c"), _turn("user", "d\ne"), _turn("assistant", "f")]
        asked.append(_turn("user", "g"))
        bos = template.special_tokens.get("bos_token", "")
        for messages in (asked, [_turn("system", "h i"), *asked] if turns.system else asked):
            if turns.rendered(messages) != template.render(messages).removeprefix(bos):
                return None
        return turns
    except UserError:  # the template refuses such conversations
        return None


def _probed(template: ChatTemplate) -> TurnTexts | None:
    bos = template.special_tokens.get("bos_token", "")

    def text(*messages: Mapping[str, str], prompt: bool = True) -> str:
        return template.rendered(messages, add_generation_prompt=prompt).removeprefix(bos)

    first, answer, second = _turn("user", _FIRST), _turn("assistant", _ANSWER), _turn("user", _SECOND)
    start, _, after_user = text(first, prompt=False).partition(_FIRST)
    begin = text(first).partition(_FIRST)[2].removeprefix(after_user)
    whole = text(first, answer, second, prompt=False)
    between = whole.partition(_FIRST)[2].partition(_ANSWER)[0]
    after_answer = text(first, answer, prompt=False).partition(_ANSWER)[2]
    before_user = whole.partition(_ANSWER)[2].partition(_SECOND)[0].removeprefix(after_answer)
    if not between.startswith(after_user) or not start.endswith(before_user):
        return None
    system = None
    if template.has_system_turn:
        before, _, rest = text(_turn("system", _SYSTEM), first, prompt=False).partition(_SYSTEM)
        system = (before, rest.partition(_FIRST)[0].removesuffix(before_user))
    return TurnTexts(
        default=start.removesuffix(before_user),
        system=system,
        user=(before_user, after_user),
        assistant=(between.removeprefix(after_user), after_answer),
        begin=begin,
    )


def modelfile(
    file: str,
    *,
    title: str,
    template: ChatTemplate | None,
    stops: Sequence[str],
    context: int,
    system: str | None = None,
    repetition_penalty: float = 1.0,
) -> tuple[str, str | None]:
    """Writes the Modelfile.

    Args:
        file: Name of the GGUF file beside it.
        title: What it is, for the first line.
        template: Chat template that the variant was scored with; None: plain text.
        stops: Texts that end an answer.
        context: Most tokens of prompt and answer.
        system: System prompt of the variant.
        repetition_penalty: The model's own; Ollama's default is another.

    Returns:
        Its text, and a note if the chat template has no counterpart: Ollama then looks for one that it knows.
    """
    lines, note = [f"# {' '.join(title.split())}", f"FROM ./{file}"], None
    if template is None:
        lines.append(f'TEMPLATE """{PLAIN}"""')
    elif (turns := turns_of(template)) is not None:
        lines.append(f'TEMPLATE """{turns.go}"""')
    else:
        note = "Ollama's template language cannot express the chat template: Ollama chooses one that it knows; check it"
        lines.append(f"# {note}")
    if system and '"""' not in system:
        lines.append(f'SYSTEM """{system}"""')
    quoted = [stop.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n") for stop in dict.fromkeys(stops)]
    lines += [f'PARAMETER stop "{stop}"' for stop in quoted if stop]
    lines += [
        "# as it was scored: greedy, with the model's own penalty for repetition",
        "PARAMETER temperature 0",
        f"PARAMETER repeat_penalty {repetition_penalty:g}",
        f"PARAMETER num_ctx {context}",
    ]
    return "\n".join(lines) + "\n", note


def _turn(role: str, content: str) -> dict[str, str]:
    return {"role": role, "content": content}
