"""Describes training data before anything is trained: lengths, what would be cut, copies, empty and odd rows, languages.

Rows are numbered as in `--preview`. No weights are loaded.
"""

from __future__ import annotations

import dataclasses
import re
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import quantiles
from typing import TYPE_CHECKING, Any

from harness.authoring.preview_prompt import in_line
from harness.data.model_files import Snapshot
from harness.errors import UserError
from harness.jobs import Example
from harness.metrics.language import language_of
from harness.prepare.copies import identity, near_copies_of
from harness.prepare.trainings import Training
from harness.settings import STAGES
from harness.tokens.encode import load_encoder
from harness.tokens.training_labels import answer_ids

if TYPE_CHECKING:
    from rich.text import Text

SHOWN = 3
"""Rows shown for each finding."""
SHOWN_CHARACTERS = 60
LANGUAGES_OF = 300
"""Rows whose language is detected, evenly spread: one takes about 5 ms."""
SHORTEST_TEXT = 20
"""Characters from which the language of an answer is detected."""
REPEATED = 5
"""A line that occurs this often in one answer makes the row odd."""
_BROKEN = re.compile(r"\ufffd")
_TWICE_ENCODED = re.compile(r"[ÃÂ][\x80-\xbf]|â€")
_CONTROL = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]")
_HTML = re.compile(r"</?(?:br|p|div|span|a|li|ul|td|tr|b|i)\b[^<>]*>|&(?:amp|lt|gt|quot|nbsp|#\d+);", re.IGNORECASE)
_NO_VALUE = {"none", "nan", "null", "n/a", "undefined"}


@dataclass(frozen=True)
class Lengths:
    """The distribution of a number of tokens."""

    least: int
    median: int
    p95: int
    most: int
    total: int

    @classmethod
    def of(cls, values: Sequence[int]) -> Lengths:
        """The distribution of some numbers."""
        points = quantiles(values, n=20, method="inclusive") if len(values) > 1 else [values[0]] * 19
        return cls(min(values), round(points[9]), round(points[18]), max(values), sum(values))


@dataclass(frozen=True)
class DataFinding:
    """Something that a reader of the data should look at."""

    what: str
    rows: tuple[int, ...]
    """The rows, numbered from 0."""
    examples: tuple[str, ...]
    """The first of these rows, in short."""


@dataclass(frozen=True)
class Inspection:
    """A description of training data."""

    data: str
    model: str
    rows: int
    max_length: int
    lost_tokens: int
    """Tokens beyond the maximum length."""
    tokens: dict[str, Lengths]
    """`row`, `prompt` and `learned`."""
    languages: dict[str, int]
    """Rows by the language of the answer (ISO 639-1), of a sample of rows."""
    findings: tuple[DataFinding, ...]
    notes: tuple[str, ...]

    def to_dict(self) -> dict[str, Any]:
        """The description as plain data."""
        return dataclasses.asdict(self)

    def styled(self) -> Text:
        """The description for a terminal; text of the data is never read as markup."""
        from rich.text import Text

        return Text(str(self))

    def __str__(self) -> str:
        lines = [f"{self.rows} rows of {self.data}, in tokens of {self.model}", ""]
        lines.append(f"{'tokens':10}{'least':>8}{'median':>8}{'95 %':>8}{'most':>8}{'total':>12}")
        for name, each in self.tokens.items():
            numbers = "".join(f"{value:8,}" for value in (each.least, each.median, each.p95, each.most))
            lines.append(f"{name:10}{numbers}{each.total:12,}")
        if self.lost_tokens:
            lines += ["", f"{self.lost_tokens:,} tokens are beyond the maximum length of {self.max_length:,}"]
        if self.languages:
            lines += ["", "languages: " + ", ".join(f"{name} {count}" for name, count in self.languages.items())]
        for finding in self.findings:
            lines += ["", f"{finding.what}: {len(finding.rows)} row{'s' * (len(finding.rows) != 1)}"]
            lines += [f"  row {row}: {text}" for row, text in zip(finding.rows, finding.examples, strict=False)]
        return "\n".join(lines if self.findings else [*lines, "", "nothing odd was found"])


def inspect_training(training: Training, snapshot: Snapshot, *, trust_remote_code: bool = False) -> Inspection:
    """Describes the data of a training run.

    Args:
        training: The prepared training run.
        snapshot: The model, for its tokenizer and context length.
        trust_remote_code: Whether the tokenizer's own code may run.

    Raises:
        UserError: The tokenizer cannot be read.
    """
    encoder = load_encoder(snapshot, trust_remote_code=trust_remote_code)
    examples, stage = training.data.examples, training.settings.stage
    limit = min(training.settings.max_length, encoder.max_length)
    pairs = answer_ids(examples, encoder.tokenizer)
    prompts = [len(prompt) for prompt, _ in pairs]
    learned = [0 if STAGES[stage].rows == "prompt" else len(answer) for _, answer in pairs]
    whole = [prompt + answer for prompt, answer in zip(prompts, learned, strict=True)]
    is_cut = stage != "pretrain"  # plain text is divided into blocks
    tokens = {"row": Lengths.of(whole), "prompt": Lengths.of(prompts), "learned": Lengths.of(learned)}
    findings = [
        *(
            DataFinding(f"left out: {each.why} (numbered as read)", each.rows, _shown(each.examples))
            for each in training.data.left_out
        ),
        *_found("made by `augment`", training.data.made, examples),
        *(_lengths(examples, prompts, whole, limit, STAGES[stage].rows == "prompt") if is_cut else ()),
        *_copies(examples),
        *_odd(examples, has_answers=STAGES[stage].rows != "prompt"),
    ]
    return Inspection(
        training.data.name,
        snapshot.name,
        len(examples),
        limit,
        sum(max(0, length - limit) for length in whole) if is_cut else 0,
        tokens,
        _languages(examples),
        tuple(findings),
        training.data.notes,
    )


def _lengths(
    examples: Sequence[Example], prompts: Sequence[int], whole: Sequence[int], limit: int, online: bool
) -> list[DataFinding]:
    dropped = [] if online else [row for row, length in enumerate(prompts) if length >= limit]
    cut = [row for row, length in enumerate(whole) if length > limit and row not in set(dropped)]
    return _found(f"longer than {limit:,} tokens, cut on the right", cut, examples) + _found(
        f"left out, because the prompt alone has {limit:,} tokens or more", dropped, examples
    )


def _copies(examples: Sequence[Example]) -> list[DataFinding]:
    texts = [f"{example.prompt}\n{example.completion}\n{example.rejected or ''}" for example in examples]
    first: dict[str, int] = {}
    same = [(row, of) for row, text in enumerate(texts) if (of := first.setdefault(" ".join(text.split()), row)) != row]
    equal = {row for row, _ in same}
    near = [each for each in near_copies_of(examples) if each.text not in equal]
    found = []
    if same:
        shown = tuple(f"as row {of}: {_short(examples[row])}" for row, of in same[:SHOWN])
        found.append(DataFinding("copies of earlier rows", tuple(row for row, _ in same), shown))
    if near:
        shown = tuple(f"{each.similarity:.0%} as row {each.of}: {_short(examples[each.text])}" for each in near[:SHOWN])
        found.append(DataFinding("nearly copies of earlier rows", tuple(each.text for each in near), shown))
    return found


def _odd(examples: Sequence[Example], *, has_answers: bool) -> list[DataFinding]:
    """Rows that often come from a mistake in a program that wrote the data."""

    def text(example: Example) -> str:
        return f"{example.prompt}\n{example.completion}\n{example.rejected or ''}"

    marks: dict[tuple[str, ...], set[bool | None]] = defaultdict(set)
    for example in examples:
        marks[identity(example)].add(example.desirable)
    checks: list[tuple[str, Callable[[Example], object]]] = [
        ("characters that could not be decoded (U+FFFD)", lambda each: _BROKEN.search(text(each))),
        ("UTF-8 read as Latin-1, such as `Ã©`", lambda each: _TWICE_ENCODED.search(text(each))),
        ("control characters", lambda each: _CONTROL.search(text(each))),
        ("HTML tags or entities", lambda each: _HTML.search(text(each))),
        ("a line that is repeated", lambda each: _repeats(each.completion)),
        ("marked good in one row and bad in another", lambda each: len(marks[identity(each)]) > 1),
        ("the same text chosen and rejected", lambda each: each.completion.strip() == (each.rejected or "\0").strip()),
    ]
    if has_answers:
        checks += [
            ("an empty answer", lambda each: not each.completion.strip()),
            ("a missing value as the answer, such as `nan`", lambda each: each.completion.strip().lower() in _NO_VALUE),
            (
                "the prompt repeated as the answer",
                lambda each: len(each.completion) > SHORTEST_TEXT and each.completion.strip() in each.prompt,
            ),
        ]
    return [
        finding
        for what, is_odd in checks
        for finding in _found(what, [row for row, example in enumerate(examples) if is_odd(example)], examples)
    ]


def _repeats(answer: str) -> bool:
    lines = Counter(line.strip() for line in answer.splitlines() if len(line.strip()) >= SHORTEST_TEXT // 2)
    return max(lines.values(), default=0) >= REPEATED


def _languages(examples: Sequence[Example]) -> dict[str, int]:
    """Rows by the language of the answer, of evenly spread rows; empty if langdetect is not installed."""
    step = max(1, len(examples) // LANGUAGES_OF)
    counts: Counter[str] = Counter()
    for example in examples[::step]:
        if len(example.completion.strip()) < SHORTEST_TEXT:
            counts["too short"] += 1
            continue
        try:
            counts[language_of(example.completion) or "no letters"] += 1
        except UserError:  # langdetect is not installed
            return {}
    return dict(counts.most_common())


def _found(what: str, rows: Sequence[int], examples: Sequence[Example]) -> list[DataFinding]:
    return [DataFinding(what, tuple(rows), _shown([examples[row] for row in rows]))] if rows else []


def _shown(examples: Sequence[Example]) -> tuple[str, ...]:
    return tuple(map(_short, examples[:SHOWN]))


def _short(example: Example) -> str:
    prompt, answer = (in_line(text) for text in (example.prompt, example.completion))
    half = SHOWN_CHARACTERS // 2
    return f"{'…' * (len(prompt) > half)}{prompt[-half:]}‖{answer[:half]}{'…' * (len(answer) > half)}"
