"""A model's chat template: messages to the text it was tuned on.

The template is read from the tokenizer's own files and rendered by jinja2 in a sandbox, so that the parent process needs
neither torch nor transformers to know every prompt.
"""

from __future__ import annotations

import datetime
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness.api import Message
from harness.errors import UserError


@dataclass(frozen=True)
class ChatTemplate:
    """A jinja template with the special tokens it may name."""

    text: str
    special_tokens: dict[str, str]

    def render(self, messages: Sequence[Message], *, add_generation_prompt: bool = True) -> str:
        """The text of `messages`, ready for the assistant's turn when `add_generation_prompt`.

        Raises:
            UserError: The template refuses the messages (some refuse a system turn).

        Example:
            >>> template = ChatTemplate("{% for m in messages %}<{{ m.role }}>{{ m.content }}{% endfor %}", {})
            >>> template.render([{"role": "user", "content": "hi"}])
            '<user>hi'
        """
        import jinja2
        from jinja2.ext import loopcontrols
        from jinja2.sandbox import ImmutableSandboxedEnvironment

        def refuse(message: str) -> None:
            raise jinja2.TemplateError(message)

        environment = ImmutableSandboxedEnvironment(
            trim_blocks=True, lstrip_blocks=True, extensions=[loopcontrols, _generation_tag()]
        )
        environment.globals["raise_exception"] = refuse
        environment.globals["strftime_now"] = lambda form: datetime.datetime.now(datetime.UTC).strftime(form)
        environment.filters["tojson"] = lambda value, indent=None: json.dumps(value, ensure_ascii=False, indent=indent)
        try:
            return environment.from_string(self.text).render(
                messages=list(messages), add_generation_prompt=add_generation_prompt, **self.special_tokens
            )
        except jinja2.TemplateError as error:
            roles = ", ".join(message.get("role", "?") for message in messages)
            raise UserError(
                f"the model's chat template refuses these messages ({roles}): {error}",
                hint="without a system prompt? some templates take none",
            ) from error


PLAIN = ChatTemplate(
    "{% for m in messages %}{{ m.role | capitalize }}: {{ m.content }}\n{% endfor %}"
    "{% if add_generation_prompt %}Assistant:{% endif %}",
    {},
)
"""For message data on a model that brings no template."""


def load_template(folder: Path) -> ChatTemplate | None:
    """The chat template of a tokenizer's folder, or None where it has none.

    `chat_template.jinja` wins over the key `chat_template` of `tokenizer_config.json`; of several named templates the one
    called `default` is taken.
    """
    config_file = folder / "tokenizer_config.json"
    config: dict[str, Any] = json.loads(config_file.read_text(encoding="utf-8")) if config_file.is_file() else {}
    template = config.get("chat_template")
    if (folder / "chat_template.jinja").is_file():
        template = (folder / "chat_template.jinja").read_text(encoding="utf-8")
    if isinstance(template, list):
        template = {entry["name"]: entry["template"] for entry in template}.get("default")
    if not template:
        return None
    special = {}
    for key in ("bos_token", "eos_token", "pad_token", "unk_token"):
        value = config.get(key)
        if value is not None:
            special[key] = value["content"] if isinstance(value, dict) else value
    return ChatTemplate(str(template), special)


def _generation_tag() -> Any:
    """The `{% generation %}` block, which marks assistant text for training masks: rendered as its content."""
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
