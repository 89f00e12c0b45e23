"""A model's chat template: messages to the text it was tuned on.

The template is read from the tokenizer's own files and rendered by jinja2 in a sandbox, so that the parent process needs
neither torch nor transformers to know every prompt.
"""

from __future__ import annotations

import datetime
import functools
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

        A last message of the assistant's is left open, to be continued, where the turn would have been asked for.

        Raises:
            UserError: The template refuses the messages (some refuse a system turn).

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
                    tools=None,
                    documents=None,
                    add_generation_prompt=add_generation_prompt and not is_open,
                    **self.special_tokens,
                )
            )
        except Exception as error:  # a template is a program: it can fail in any way
            roles = ", ".join(str(message.get("role", "?")) for message in messages)
            raise UserError(
                f"the model's chat template refuses these messages ({roles}): {error}",
                hint="without a system prompt? some templates take none",
            ) from error
        return _left_open(text, messages[-1]["content"]) if is_open else text


def _left_open(text: str, content: str) -> str:
    """The text up to the end of its last message; templates that strip a message lose its white space there too."""
    start = text.rindex(content.strip())
    whole = text[start:].startswith(content.lstrip())
    return text[: start + len(content.lstrip() if whole else content.strip())]


_SPECIAL_TOKENS = tuple(f"{kind}_token" for kind in ("bos", "eos", "unk", "sep", "pad", "cls", "mask"))

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
            hint=f"`{config_file.name}` must be as `tokenizer.save_pretrained` writes it",
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
    """JSON without jinja's escapes for HTML; templates may give the options that transformers gives them."""
    return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)


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
