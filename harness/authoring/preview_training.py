"""Shows training rows exactly as a model receives them: the tokens that are learned, those only read, and those cut off.

White space and token ids are shown as in `harness.authoring.preview_prompt`. Learned tokens are after `‖`; the tokens
before it are only read, and are dimmed on a terminal. No weights are loaded.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from harness.authoring.preview_prompt import in_line, pieces_of, visible, wrapped
from harness.data.model_files import Snapshot
from harness.jobs import Example
from harness.prepare.trainings import Training
from harness.settings import STAGES, StageName
from harness.tokens.encode import load_encoder
from harness.tokens.training_labels import answer_ids, blocks

if TYPE_CHECKING:
    from rich.text import Text


@dataclass(frozen=True)
class Learned:
    """One training sequence."""

    title: str
    """`row 3`, `row 3, rejected`, `row 3, marked good`, `block 0`."""
    ids: tuple[int, ...]
    pieces: tuple[str, ...]
    """The text of each id."""
    learned_from: int
    """Position of the first learned token; the number of tokens if none is learned."""
    lost_tokens: int
    """Tokens cut off on the right because of the maximum length."""
    prompt: str
    """Text of the tokens that are only read, decoded from the ids."""
    answer: str
    """Text of the learned tokens, decoded from the ids."""

    def lines(self, model: str) -> Iterator[tuple[str, str]]:
        """Lines as pairs: the dimmed text (only read), then the rest of the line."""
        count = len(self.ids) - self.learned_from
        cut = f"; {self.lost_tokens} more were cut off" if self.lost_tokens else ""
        none = "left out, because the answer does not fit" if self.lost_tokens else "none learned"
        learned = f"{count} learned, after ‖" if count else none
        yield "", f"── {self.title}: {len(self.ids)} tokens of {model}, {learned}{cut}"
        mark = "‖" if count else ""
        yield visible(self.prompt), mark + visible(self.answer) + (" ✂" if self.lost_tokens else "")
        words = [f"{in_line(piece)}│{id}" for piece, id in zip(self.pieces, self.ids, strict=True)]
        before = [*words[: self.learned_from], *([mark] if count else [])]
        for line in wrapped([*before, *words[self.learned_from :]]):
            read, found, rest = line.partition("‖")
            yield (read, found + rest) if found or before else ("", line)
            before = [] if found else before  # lines after the mark are learned


@dataclass(frozen=True)
class TrainView:
    """The first rows of a training run."""

    data: str
    model: str
    rows: tuple[Learned, ...]
    notes: tuple[str, ...] = ()
    """Notes on the training data, such as columns that are not used."""

    def to_dict(self) -> dict[str, Any]:
        """The view as plain data, with exact texts (white space is not replaced by visible signs)."""
        return {
            "data": self.data,
            "model": self.model,
            "rows": [vars(row) for row in self.rows],
            "notes": [*self.notes],
        }

    def styled(self) -> Text:
        """The view for a terminal: tokens that are only read are dim."""
        from rich.text import Text

        text = Text()
        for number, row in enumerate(self.rows):
            for read, rest in row.lines(self.model):
                text.append(read, "dim").append(rest + "\n")
            text.append("\n" * (number < len(self.rows) - 1))
        text.rstrip()
        return text

    def __str__(self) -> str:
        return self.styled().plain


def view_training(training: Training, snapshot: Snapshot, count: int, *, trust_remote_code: bool = False) -> TrainView:
    """Encodes the first rows of a training run.

    Args:
        training: The prepared training run.
        snapshot: The model, for its tokenizer and context length.
        count: Number of rows, or of blocks for plain text.
        trust_remote_code: Whether the tokenizer's own code may run.

    Raises:
        UserError: The tokenizer cannot be read.
    """
    encoder = load_encoder(snapshot, trust_remote_code=trust_remote_code)
    limit, stage = min(training.settings.max_length, encoder.max_length), training.given.stage
    if stage == "pretrain":
        few = training.data.examples[: count * limit]  # enough: every example has at least one token
        shown = _blocks(encoder.tokenizer, few, limit)[:count]
    else:
        shown = [
            each
            for number, example in enumerate(training.data.examples[:count])
            for each in _rows(encoder.tokenizer, number, example, stage, limit)
        ]
    return TrainView(training.data.name, snapshot.name, tuple(shown), training.data.notes)


def _rows(tokenizer: Any, number: int, example: Example, stage: StageName, limit: int) -> Iterator[Learned]:
    """The sequences of one example: both answers of a preference; only the prompt for stages that generate the answers."""
    mark = {None: "", True: ", marked good", False: ", marked bad"}[example.desirable]
    answers = {f"row {number}{mark}": example.completion}
    if STAGES[stage].rows == "pair" and example.rejected is not None:
        answers = {f"row {number}, chosen": example.completion, f"row {number}, rejected": example.rejected}
    for title, text in answers.items():
        ((prompt, answer),) = answer_ids([replace(example, completion=text)], tokenizer)
        tail = [] if STAGES[stage].rows == "prompt" else answer
        yield _learned(tokenizer, title, [*prompt, *tail], len(prompt), limit)


def _blocks(tokenizer: Any, examples: Sequence[Example], limit: int) -> list[Learned]:
    rows = blocks(examples, tokenizer, limit).rows
    return [_learned(tokenizer, f"block {number}", row["input_ids"], 1, limit) for number, row in enumerate(rows)]


def _learned(tokenizer: Any, title: str, ids: Sequence[int], start: int, limit: int) -> Learned:
    kept = tuple(ids[:limit])
    start = min(start, len(kept))
    texts = [tokenizer.decode(part, clean_up_tokenization_spaces=False) for part in (kept[:start], kept[start:])]
    return Learned(title, kept, pieces_of(tokenizer, kept), start, len(ids) - len(kept), *texts)
