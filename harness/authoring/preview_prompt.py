r"""Shows a sample exactly as a model receives it: every character of the prompt, every token id, and where scoring begins.

White space that is easy to miss is made visible: `↵` for line breaks, `→` for tabs, `·` for spaces at the start or end of a
line and for two or more spaces in a row; other invisible characters are written as escapes. The token ids come from the
encoding that the engine uses.

Example:
    >>> visible("A:  1\tB \n")
    'A:··1→B·↵'
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from harness.api import Choose, Generate
from harness.data.model_files import Snapshot
from harness.jobs import Item, TaskRequests
from harness.prompts.samples import answer_text
from harness.tokens.encode import load_encoder

_SPACES = re.compile(r"^ +| {2,}| +$", re.MULTILINE)
WIDTH = 100
"""Width of a line of tokens, in terminal cells."""


@dataclass(frozen=True)
class Tokens:
    """The tokens of one input to the model; the scored tokens are at its end."""

    choice: int | None
    """Index of the choice at the end of the input; None for a text, and for a prompt that the model continues."""
    ids: tuple[int, ...]
    pieces: tuple[str, ...]
    """The text of each id; a token that is only part of a character is written as in the tokenizer's vocabulary."""
    scored_from: int
    """Position of the first scored token; the number of tokens if none is scored."""


@dataclass(frozen=True)
class View:
    """A sample with its texts and tokens."""

    task: str
    model: str
    item: Item
    rows: tuple[Tokens, ...]
    truncated: bool
    """Whether the prompt was cut on the left to fit the model's context length."""

    def to_dict(self) -> dict[str, Any]:
        """The view as plain data, with exact texts (white space is not replaced by visible signs)."""
        request, sample = self.item.request, self.item.sample
        known: dict[str, Any] = {
            "task": self.task,
            "id": request.id,
            "group": self.item.group,
            "mode": request.mode,
            "contexts": list(request.contexts),
            "continuations": list(request.continuations),
        }
        if isinstance(sample, Generate):
            settings = ("stop", "max_tokens", "samples", "temperature", "top_p")
            known |= {name: getattr(sample, name) for name in settings} | {"target": sample.target}
        elif isinstance(sample, Choose):
            known["answer"] = sample.answer
        return known | {
            "prompt_sha256": request.sha256,
            "model": self.model,
            "truncated": self.truncated,
            "rows": [vars(row) for row in self.rows],
        }

    def __str__(self) -> str:
        request, sample = self.item.request, self.item.sample
        where = f" · {self.item.group}" if self.item.group else ""
        lines = [f"── {self.task} · {request.mode} {request.id}{where}"]
        for number, context in enumerate(request.contexts):
            if request.mode != "text":
                lines += [f"── prompt{f' {number}' if len(request.contexts) > 1 else ''}", visible(context)]
        if isinstance(sample, Generate):
            sampling = f", {sample.samples} samples at temperature {sample.temperature}" if sample.temperature else ""
            lines += [f"── stop {list(sample.stop)}, at most {sample.max_tokens} tokens{sampling}"]
            lines += ["── target", visible(answer_text(sample))]
        else:
            answer = sample.answer if isinstance(sample, Choose) else ()
            right = (answer,) if isinstance(answer, int) else answer
            lines.append("── scored after it" if request.mode == "choose" else "── scored")
            for number, text in enumerate(request.continuations):
                mark = "  ← right" if number in right else ""
                lines.append(repr(text) + mark if request.mode == "choose" else visible(text))
        return "\n".join([*lines, *self._token_lines()])

    def _token_lines(self) -> Iterator[str]:
        """The tokens of every input; a context that several choices share is written once."""
        cut = ", cut on the left to fit the context" if self.truncated else ""
        shared: tuple[int, ...] | None = None
        for number, row in enumerate(self.rows):
            of = f" of choice {row.choice}" if row.choice is not None else f" {number}" if len(self.rows) > 1 else ""
            scored = len(row.ids) - row.scored_from
            use = f"{scored} scored, after ‖" if scored else "continued by generation"
            yield f"── tokens{of} by {self.model}: {len(row.ids)}, {use}{cut}"
            words = [f"{in_line(piece)}│{id}" for piece, id in zip(row.pieces, row.ids, strict=True)]
            before, after = words[: row.scored_from], words[row.scored_from :]
            known = row.choice is not None and row.ids[: row.scored_from] == shared
            shared = row.ids[: row.scored_from]
            yield from wrapped([*(["…"] if known else before), *(["‖"] if scored else []), *after])


def view(task: str, item: Item, snapshot: Snapshot, *, trust_remote_code: bool = False) -> View:
    """Encodes one sample for a model.

    Args:
        task: The task spec as typed.
        item: The rendered sample.
        snapshot: The model, for its tokenizer and context length; no weights are loaded.
        trust_remote_code: Whether the tokenizer's own code may run.

    Raises:
        UserError: The tokenizer cannot be read.
    """
    encoder = load_encoder(snapshot, trust_remote_code=trust_remote_code)
    tokenizer = encoder.tokenizer
    encoded = encoder.encode(TaskRequests(task, (item.request,)))[0]
    if item.request.mode == "generate":
        rows = [_tokens(tokenizer, None, encoded.prompt, len(encoded.prompt))]
    else:
        rows = [
            _tokens(
                tokenizer,
                span.choice if item.request.mode == "choose" else None,
                (*row.ids[: span.start + 1], *span.targets),
                span.start + 1,
            )
            for row in encoded.rows
            for span in row.spans
        ]
        rows.sort(key=lambda row: row.choice or 0)
    return View(task, snapshot.name, item, tuple(rows), encoded.truncated)


def visible(text: str) -> str:
    """A text with visible white space; its line breaks are kept."""
    marked = _SPACES.sub(lambda run: "·" * len(run[0]), text).replace("\t", "→").replace("\n", "↵\n")
    return "".join(_escaped(character) for character in marked).removesuffix("\n")


def _escaped(character: str) -> str:
    return character if character in "\n " or character.isprintable() else repr(character)[1:-1]


def _tokens(tokenizer: Any, choice: int | None, ids: Sequence[int], scored_from: int) -> Tokens:
    return Tokens(choice, tuple(ids), pieces_of(tokenizer, ids), scored_from)


def pieces_of(tokenizer: Any, ids: Sequence[int]) -> tuple[str, ...]:
    """The text of each id; a token that is only part of a character is written as in the tokenizer's vocabulary."""
    pieces = [tokenizer.decode([id], clean_up_tokenization_spaces=False) for id in ids]
    known = tokenizer.convert_ids_to_tokens(list(ids))
    return tuple(raw if not piece or "\ufffd" in piece else piece for piece, raw in zip(pieces, known, strict=True))


def in_line(piece: str) -> str:
    """A piece of text on one line, with all white space visible."""
    return "".join({" ": "·", "\n": "↵", "\t": "→"}.get(each) or _escaped(each) for each in piece)


def wrapped(words: Sequence[str]) -> list[str]:
    """Words separated by two spaces, on lines of at most `WIDTH` terminal cells."""
    from rich.cells import cell_len

    lines = [""]
    for word in words:
        if lines[-1] and cell_len(lines[-1]) + 2 + cell_len(word) > WIDTH:
            lines.append("")
        lines[-1] += ("  " if lines[-1] else "") + word
    return lines
