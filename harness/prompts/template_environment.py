"""The jinja environment of chat templates, as in transformers: a sandbox with the functions and tags that templates use."""

from __future__ import annotations

import datetime
import functools
import json
from collections.abc import Iterator
from typing import Any


def template_variables(text: str) -> frozenset[str]:
    """Names of the variables that a template reads before it sets them; no name if it is not a template.

    The template is only parsed: `jinja2.meta` would also compute its constants, which may take any time and memory.

    Example:
        >>> sorted(template_variables("{% set b = a %}{{ b }}{{ c }}"))
        ['a', 'c']
    """
    from jinja2 import TemplateError, nodes

    try:
        tree = _environment().parse(text)
    except (TemplateError, RecursionError, ValueError):  # a number of 5,000 digits is a ValueError
        return frozenset()
    first: dict[str, str] = {}
    for name in _names(tree):
        first.setdefault(name.name, name.ctx)
    read = {name for name, use in first.items() if use == "load"}
    return frozenset(read - {"loop", *(macro.name for macro in tree.find_all(nodes.Macro)), *_environment().globals})


def _names(node: Any) -> Iterator[Any]:
    """The names in a part of a template, in the order in which they are read and set."""
    from jinja2 import nodes

    if isinstance(node, nodes.Name):
        yield node
    children = list(node.iter_child_nodes())
    for child in reversed(children) if isinstance(node, nodes.Assign) else children:  # an assignment reads first
        yield from _names(child)


@functools.cache
def compiled(text: str) -> Any:
    """The compiled template; only `harness.prompts.template_process` uses it, within limits."""
    return _environment().from_string(text)


@functools.cache
def _environment() -> Any:
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
    return environment


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
