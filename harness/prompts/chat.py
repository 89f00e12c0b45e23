"""Chat templates: convert messages to the text format that a model was trained on.

The template is read from the tokenizer's files and rendered by jinja2 in a sandbox, so that the parent process can render
every prompt without torch and transformers.
"""

from __future__ import annotations

import datetime
import functools
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness.api import Message
from harness.errors import UserError


@dataclass(frozen=True)
class ChatTemplate:
    """A jinja template and the special tokens that it can use."""

    text: str
    special_tokens: dict[str, str]

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
            UserError: The template raises an exception for these messages (some accept no system turn).

        Example:
            >>> template = ChatTemplate("{% for m in messages %}<{{ m.role }}>{{ m.content }}{% endfor %}", {})
            >>> template.render([{"role": "user", "content": "hi"}])
            '<user>hi'
        """
        is_open = add_generation_prompt and bool(messages) and messages[-1].get("role") == "assistant"
        try:
            text = str(
                _compiled(self.text).render(
                    messages=list(messages),
                    tools=list(tools) if tools else None,
                    documents=None,
                    add_generation_prompt=add_generation_prompt and not is_open,
                    **self.special_tokens,
                )
            )
        except Exception as error:  # a template is a program: it can raise any exception
            roles = ", ".join(str(message.get("role", "?")) for message in messages)
            raise UserError(
                f"the model's chat template refuses messages with these roles ({roles}): {error}",
                hint="some templates accept no system prompt: try without one",
            ) from error
        return _left_open(text, messages[-1]["content"]) if is_open else text

    @functools.cached_property
    def has_system_turn(self) -> bool:
        """Whether the template writes system turns; some refuse them (Gemma), and some leave them out.

        A template that refuses a user turn, too, counts as one that does: the error is then about the real messages.
        """
        try:
            return _SYSTEM in self.render([{"role": "system", "content": _SYSTEM}, _USER])
        except UserError:
            pass
        try:
            self.render([_USER])
        except UserError:
            return True
        return False


_SYSTEM = "zq7system"
_USER = {"role": "user", "content": "zq7user"}


def system_in_user_turn(messages: Sequence[Message]) -> list[Message]:
    r"""Moves each system message to the head of the user turn that follows it, for templates without a system turn.

    Example:
        >>> system_in_user_turn([{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Why?"}])
        [{'role': 'user', 'content': 'Be brief.\n\nWhy?'}]
    """
    moved: list[Message] = []
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


def _left_open(text: str, content: str) -> str:
    """Cuts a text at the end of its last message, whose white space is kept unless the template strips messages."""
    start = text.rindex(content.strip())
    whole = text[start:].startswith(content.lstrip())
    return text[: start + len(content.lstrip() if whole else content.strip())]


_SPECIAL_TOKENS = tuple(f"{kind}_token" for kind in ("bos", "eos", "unk", "sep", "pad", "cls", "mask"))

PLAIN = ChatTemplate(
    "{% for m in messages %}{{ m.role | capitalize }}: {{ m.content }}\n{% endfor %}"
    "{% if add_generation_prompt %}Assistant:{% endif %}",
    {},
)
"""The format of messages for a model without a chat template."""


def load_template(folder: Path) -> ChatTemplate | None:
    """Loads the chat template from a tokenizer's folder; None if it has no template.

    `chat_template.jinja` has priority over the key `chat_template` of `tokenizer_config.json`; of several named templates,
    the one named `default` is used.

    Raises:
        UserError: One of the two files cannot be read.
    """
    config_file = folder / "tokenizer_config.json"
    template_file = folder / "chat_template.jinja"
    try:
        config: dict[str, Any] = json.loads(config_file.read_text(encoding="utf-8")) if config_file.is_file() else {}
        template = config.get("chat_template")
        if template_file.is_file():
            template = template_file.read_text(encoding="utf-8")
        if isinstance(template, list):
            template = {entry["name"]: entry["template"] for entry in template}.get("default")
        special = {}
        for key in _SPECIAL_TOKENS:
            value = config.get(key)
            if value is not None:
                special[key] = value["content"] if isinstance(value, dict) else value
    except (OSError, ValueError, AttributeError, KeyError, TypeError) as error:
        raise UserError(
            f"could not read the chat template in `{folder}`: {error}",
            hint=f"write `{config_file.name}` again with `tokenizer.save_pretrained`",
        ) from error
    return ChatTemplate(str(template), special) if template else None


@functools.cache
def _compiled(text: str) -> Any:
    import jinja2
    from jinja2.ext import loopcontrols
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    def refuse(message: str) -> None:
        raise jinja2.TemplateError(message)

    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[loopcontrols, _generation_tag()]
    )
    environment.globals["raise_exception"] = refuse
    environment.globals["strftime_now"] = lambda form: datetime.datetime.now().astimezone().strftime(form)
    environment.filters["tojson"] = _to_json
    return environment.from_string(text)


def _to_json(
    value: Any, ensure_ascii: bool = False, indent: Any = None, separators: Any = None, sort_keys: bool = False
) -> str:
    """JSON without jinja's HTML escapes, with the options that templates can use in transformers."""
    return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)


def _generation_tag() -> Any:
    """A jinja extension for `{% generation %}` blocks, which mark assistant text for training masks: renders their content."""
    import jinja2.ext
    from jinja2 import nodes
    from jinja2.parser import Parser

    class Generation(jinja2.ext.Extension):
        tags = {"generation"}  # noqa: RUF012

        def parse(self, parser: Parser) -> nodes.Node:
            line = next(parser.stream).lineno
            body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
            return nodes.Scope(body, lineno=line)

    return Generation
