"""The text of a turn's content, which may be a list of parts, as OpenAI and Anthropic write it.

Example:
    >>> content_text("row 0", "user turn", [{"type": "text", "text": "1 + "}, {"type": "text", "text": "1?"}], Counter())
    '1 + 1?'
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any

from harness.errors import UserError
from harness.prompts.cells import as_text, has_content, is_missing

TEXTS = ("text", "input_text", "output_text")
"""Types of parts that are text."""
MEDIA = ("images", "image", "videos", "video", "audios", "audio")
"""Columns of rows, and keys of turns, that hold another medium."""
_PARTS = ("image", "video", "audio", "file", "document")
"""Beginnings of the types of parts that hold another medium: `image_url`, `input_audio` …"""


def content_text(where: str, place: str, value: Any, unused: Counter[str]) -> str:
    """The text of a content: parts are joined without a separator, as chat templates join them.

    Args:
        where: The data and the row, for messages.
        place: The turn, for messages.
        value: A text, a part, or a list of parts.
        unused: Counts the keys of parts that are not used.

    Raises:
        UserError: A part is an image or another medium, has an unknown type, or has no text.
    """
    if isinstance(value, Mapping):
        value = [value]
    if not isinstance(value, list):
        return as_text(where, place, value)
    return "".join(_part_text(where, place, part, unused) for part in value)


def _part_text(where: str, place: str, part: Any, unused: Counter[str]) -> str:
    if isinstance(part, str):
        return part
    if not isinstance(part, Mapping):
        raise UserError(
            f"{where} has a {type(part).__name__} as a part of the content of the {place}",
            hint='write the content as a text, or as parts: `[{"type": "text", "text": "…"}]`',
        )
    kind = "text" if is_missing(part.get("type")) else str(part["type"])
    filled = [str(key) for key, cell in part.items() if key not in ("type", "text") and has_content(cell)]
    names = [kind, *filled]
    medium = next((name for name in names if name.lower().removeprefix("input_").startswith(_PARTS)), None)
    if medium is not None:
        raise UserError(
            f"{where} has a part of the type `{medium}` in the {place}, but only text is trained on",
            hint="leave these rows out, or keep only their text",
        )
    if kind not in TEXTS:
        raise UserError(
            f"{where} has a part of the unknown type `{kind}` in the {place}",
            hint=f"known types: {', '.join(TEXTS)}; write tool calls as `tool_calls` and thoughts as `reasoning_content`",
        )
    unused.update(f"content.{key}" for key in filled)
    return as_text(where, f"text` of a part of the `{place}", part.get("text"))
