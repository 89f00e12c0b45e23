"""Every column of a training row and every key of a turn that common formats have: read, refused, or reported as not used.

The table in `finetune/README.md` is this declaration.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from harness.api import Row
from harness.errors import UserError
from harness.prompts.cells import has_content
from harness.prompts.content import MEDIA
from harness.prompts.marks import BOOLEAN
from harness.settings import COLUMNS


@dataclass(frozen=True)
class RowKey:
    """Columns, or keys of turns, that are treated alike."""

    names: str
    """The names, separated by blanks."""
    of: Literal["row", "turn"]
    fate: Literal["read", "refused", "not used"]
    text: str
    """How they are read, or why they are not."""
    formats: str = ""
    """The formats that write them, where not all do."""

    @property
    def is_rest(self) -> bool:
        """Whether it is for all names that are not declared."""
        return self.names.startswith("every other")

    def line(self) -> str:
        """The line of the table in `finetune/README.md`."""
        named = self.names if self.is_rest else " ".join(f"`{name}`" for name in self.names.split())
        return f"| {named} | {self.formats} | {self.fate} | {self.text} |"


KEYS = (
    RowKey("messages conversations", "row", "read", "the turns of a conversation", "OpenAI, ShareGPT, ms-swift"),
    RowKey("prompt completion", "row", "read", "prompt and answer, as texts or turns", "TRL"),
    RowKey("instruction input output", "row", "read", "prompt (with its `input`) and answer", "alpaca"),
    RowKey("context response", "row", "read", "`input` and `output` of a row with an `instruction`", "Dolly"),
    RowKey("query response", "row", "read", "prompt and answer", "ms-swift"),
    RowKey(
        "history", "row", "read", "turns before the prompt: `[question, answer]` pairs, or turns", "alpaca, ms-swift"
    ),
    RowKey("chosen rejected", "row", "read", "better and worse answer", "preferences"),
    RowKey(
        "rejected_response rejected_messages",
        "row",
        "read",
        "worse answer, or whole conversation; the better one is `response`, the last turn, or `messages`",
        "ms-swift",
    ),
    RowKey("system", "row", "read", "system prompt, unless the conversation has a system turn"),
    RowKey(
        "tools functions",
        "row",
        "read",
        "passed to the chat template; refused if it does not render them",
        "OpenAI, LLaMA-Factory",
    ),
    RowKey("text", "row", "read", "all of it is learned"),
    RowKey(
        "label kto_tag",
        "row",
        "read",
        "by `stage=kto`: the answer is good (true, 1, `desirable`, `good`) or bad (false, 0, `undesirable`, `bad`); refused where"
        " another stage would learn an answer that is marked true, false, 1 or 0",
        "KTO, LLaMA-Factory, ms-swift",
    ),
    RowKey(
        "images image videos video audios audio",
        "row",
        "refused",
        "only text is trained on",
        "ms-swift, LLaMA-Factory",
    ),
    RowKey(
        "preferred_output non_preferred_output",
        "row",
        "read",
        "better and worse answer; `input` then holds the messages and the tools",
        "OpenAI's preferences",
    ),
    RowKey("parallel_tool_calls response_format function_call", "row", "not used", "settings of a request", "OpenAI"),
    RowKey(
        "chosen_rating rejected_rating score score_chosen score_rejected margin",
        "row",
        "not used",
        "degrees of preference",
        "preferences",
    ),
    RowKey("every other column", "row", "not used", "map it with `--train-columns` if it is one of the above"),
    RowKey(
        "role content",
        "turn",
        "read",
        "a content may be a list of text parts, which are joined without a separator",
        "OpenAI, ms-swift",
    ),
    RowKey("from value", "turn", "read", "as `role` and `content`", "ShareGPT"),
    RowKey(
        "weight train training loss loss_scale",
        "turn",
        "read",
        "of an assistant turn: 0 or false makes it context, 1 or true is the default, other values are refused",
        "OpenAI, axolotl, ms-swift",
    ),
    RowKey(
        "reasoning_content thinking reasoning",
        "turn",
        "read",
        "of an assistant turn: passed to the chat template; counted and reported if it does not render it",
    ),
    RowKey(
        "tool_calls function_call",
        "turn",
        "read",
        "of an assistant turn: passed to the chat template; refused if it does not render them",
        "OpenAI",
    ),
    RowKey("tool_call_id name", "turn", "read", "of a tool's turn: passed to the chat template", "OpenAI"),
    RowKey(
        "images image videos video audios audio",
        "turn",
        "refused",
        "only text is trained on; so are such parts of a `content`, and parts of unknown types",
        "OpenAI, ms-swift",
    ),
    RowKey("every other key", "turn", "not used", "also the keys above in turns of other roles"),
)
"""Keys with content; null, NaN and empty lists count as absent."""
_MARKED = {"label", "kto_tag"}
_REFUSED = {*MEDIA} | _MARKED


def refuse_unusable(where: str, row: Row, *, used: Mapping[str, str], has_answer: bool) -> None:
    """Refuses a row with images or another medium, or with one answer that is marked as good or bad.

    Args:
        where: The data and the row, for messages.
        row: The row.
        used: Our column names to the row's, for the columns that its format reads.
        has_answer: Whether one answer of the row is learned.

    Raises:
        UserError: The row has such a column with content.
    """
    for column in sorted(_REFUSED & row.keys()):
        if column in MEDIA and has_content(row[column]):
            raise UserError(
                f"{where} has content in `{column}`, but only text is trained on",
                hint=f"leave these rows out; if their text is enough, name its columns: {_flag(used)}",
            )
        if column in _MARKED and has_answer and str(row[column]).strip().lower() in BOOLEAN:
            raise UserError(
                f"{where} marks its answer as good or bad in `{column}`, but this stage would learn it in any case",
                hint="`stage=kto` learns from such marks; for `stage=sft`, keep only good answers and remove the column; if it"
                f" means something else, name the columns to use: {_flag(used)}",
            )


def _flag(used: Mapping[str, str]) -> str:
    """The flag that reads a row without the other columns."""
    return "`--train-columns " + ",".join(f"{ours}={theirs}" for ours, theirs in used.items() if ours in COLUMNS) + "`"
