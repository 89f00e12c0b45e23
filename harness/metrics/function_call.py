r"""Function calls: whether a text calls the right function with the right arguments, as JSON.

A call is an object `{"name": …, "arguments": {…}}`. The first call in the text counts; anything around it is ignored
(words, a code fence, other JSON). The call must be strict JSON: double quotes, no trailing comma, no NaN, no duplicate
key. Arguments are compared as values: the order of keys does not matter, 6 equals 6.0 but not "6" or true, and an
argument with its default value (`meta["defaults"]`) equals a missing one.

>>> from harness.api import Generate, Output
>>> sample = Generate("Wake me at 6:30.", '{"name": "set_alarm", "arguments": {"hour": 6, "minute": 30}}')
>>> text = 'Sure:\n```json\n{"name": "set_alarm", "arguments": {"minute": 30, "hour": 6.0}}\n```'
>>> call.measure(Output(texts=(text,)), sample)
1.0
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from harness.api import Generate, Metric, Output
from harness.errors import UserError
from harness.metrics.kinds import Extracting, expect, targets_of

_START = re.compile(r'\{\s*"(?:name|arguments)"\s*:')


class Call(NamedTuple):
    """A function's name and its arguments."""

    name: str
    arguments: dict[str, Any]


def read_call(text: str) -> Call | None:
    """Returns the first call in a text, or None."""
    decoder = json.JSONDecoder(object_pairs_hook=_unique_keys, parse_constant=_refuse)
    for match in _START.finditer(text):
        try:
            value, _ = decoder.raw_decode(text, match.start())
        except (ValueError, RecursionError):
            continue
        name, arguments = value.get("name"), value.get("arguments")
        if len(value) == 2 and isinstance(name, str) and isinstance(arguments, dict):
            return Call(name, arguments)
    return None


def _unique_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError("duplicate key")
    return found


def _refuse(constant: str) -> Any:
    raise ValueError(f"{constant} is not JSON")


def same(a: Any, b: Any) -> bool:
    """Whether two JSON values are equal: numbers by value; booleans are not numbers."""
    if isinstance(a, bool) or isinstance(b, bool):
        return a is b
    if isinstance(a, dict) and isinstance(b, dict):
        return a.keys() == b.keys() and all(same(a[key], b[key]) for key in a)
    if isinstance(a, list) and isinstance(b, list):
        return len(a) == len(b) and all(map(same, a, b))
    return bool(a == b)


def _calls(metric: str, output: Output, sample: Any) -> tuple[Call | None, Call, Mapping[str, Any]]:
    request = expect(Generate, sample, metric)
    wanted = read_call(targets_of(request)[0])
    if wanted is None:
        raise UserError(
            f"metric `{metric}`: the target of a sample is not a call: {str(request.target)[:60]!r}",
            hint='a target is `{"name": "set_alarm", "arguments": {"hour": 6}}`',
        )
    return read_call(output.texts[0]), wanted, request.meta.get("defaults", {})


def _scored(metric: str, *, by_name: bool, by_arguments: bool) -> Callable[[Output, Any], float]:
    def score(output: Output, sample: Any) -> float:
        made, wanted, defaults = _calls(metric, output, sample)
        if made is None or (by_name and made.name != wanted.name):
            return 0.0
        return float(not by_arguments or same({**defaults, **made.arguments}, {**defaults, **wanted.arguments}))

    return Extracting(score, lambda output, sample: read_call(output.texts[0]) is not None)


call = Metric("call", score=_scored("call", by_name=True, by_arguments=True), bounds=(0, 1))
"""0–1. The first function call in the text, as JSON, equals the target: name and all arguments."""

function = Metric("function", score=_scored("function", by_name=True, by_arguments=False), bounds=(0, 1))
"""0–1. The first function call in the text, as JSON, names the target's function."""

arguments = Metric("arguments", score=_scored("arguments", by_name=False, by_arguments=True), bounds=(0, 1))
"""0–1. The first function call in the text, as JSON, has the target's arguments; its function can be another one."""
