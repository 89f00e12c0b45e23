"""GPQA: graduate questions in biology, chemistry and physics that a search engine does not answer.

Dataset: https://huggingface.co/datasets/Idavidrein/gpqa (gated: ask for access, then `hf auth login`; configs
`gpqa_diamond` 198 rows, `gpqa_main` 448, `gpqa_extended` 546; split train), CC-BY-4.0 licence.
Paper: Rein et al., "GPQA: A Graduate-Level Google-Proof Q&A Benchmark", 2023 (arXiv 2311.12022).
Protocol: lm-evaluation-harness's `gpqa_diamond_zeroshot`, `gpqa_main_zeroshot`, `gpqa_extended_zeroshot`: log-likelihood of
` (A)` … ` (D)`, no solved examples. The order of the choices is a row's own: of the 24 permutations of right answer and
wrong answers 1 to 3, in lexicographic order, the one whose number is SHA-256 of the question's UTF-8 bytes modulo 24. There
the order depends on what was loaded before; `-T order=lm-eval` is the one of a fresh cache with one task asked.
The `_cot` tasks are its `gpqa_diamond_cot_zeroshot` and kin: `Let's think step by step: ` stands in place of `Answer:`, and
the model writes, greedily. `strict` wants `The answer is (B).`, `choice_letter` is its `flexible-extract`. Its 256 tokens cut
most chains of thought short: `-T max_tokens=2048` lets them end.
Chance: 0.25.

Example:
    What is the correct answer to this question:Which of these particles has no electric charge?
    Choices:
    (A) The proton
    (B) The neutron
    (C) The electron
    (D) The positron
    Answer: (B)
"""

import functools
import hashlib
import itertools
import random
from collections.abc import Callable, Sequence

from harness import (
    Choose,
    Data,
    Generate,
    Metric,
    Row,
    Task,
    UserError,
    acc,
    acc_norm,
    choice_letter,
    hub,
    matching,
    rows,
    task,
)

ANSWERS = ("Correct Answer", "Incorrect Answer 1", "Incorrect Answer 2", "Incorrect Answer 3")
LETTERS = ["(A)", "(B)", "(C)", "(D)"]
PERMUTATIONS = list(itertools.permutations(ANSWERS))

strict = Metric("strict", score=matching(r"(?<=The answer is )(.*)(?=.)", punctuation=False))


def _clean(answer: str | None) -> str:
    return " " if answer is None else answer.strip().replace(" [title]", ". ").replace("  ", " ")


def _by_question(row: Row) -> Sequence[str]:
    number = int.from_bytes(hashlib.sha256(row["Question"].encode()).digest())
    return PERMUTATIONS[number % len(PERMUTATIONS)]


def _as_lm_eval(data: Data) -> Callable[[Row], Sequence[str]]:
    @functools.cache
    def orders() -> dict[tuple[str, ...], list[str]]:
        generator = random.Random(0)
        found = {}
        for row in rows(data):
            order = [*ANSWERS[1:], ANSWERS[0]]
            generator.shuffle(order)
            found[_key(row)] = order
        return found

    return lambda row: orders()[_key(row)]


def _key(row: Row) -> tuple[str, ...]:
    return (row["Question"], *(row[column] for column in ANSWERS))


def _gpqa(config: str, order: str, max_tokens: int | None = None) -> Task:
    """The letters scored, or, with `max_tokens`, an answer written."""
    if order not in ("question", "lm-eval"):
        raise UserError(f"unknown order of choices `{order}`", hint="known: `question`, `lm-eval`")
    data = hub("Idavidrein/gpqa", config, split="train")
    order_of = _by_question if order == "question" else _as_lm_eval(data)

    def asked(row: Row) -> tuple[str, list[str], int]:
        answers = [_clean(row[column]) for column in order_of(row)]
        lines = [f"{letter} {answer}" for letter, answer in zip(LETTERS, answers, strict=True)]
        question = f"What is the correct answer to this question:{row['Question']}"
        return "\n".join([question, "Choices:", *lines, ""]), answers, answers.index(_clean(row["Correct Answer"]))

    def letters(row: Row) -> Choose:
        question, _, right = asked(row)
        return Choose(question + "Answer:", LETTERS, right)

    def aloud(row: Row) -> Generate:
        question, answers, right = asked(row)
        return Generate(
            question + "Let's think step by step: ",
            [f"The answer is {LETTERS[right]}.", LETTERS[right]],
            stop=("</s>",),
            max_tokens=max_tokens or 0,
            meta={"choices": answers},
        )

    metrics = [strict, choice_letter] if max_tokens else [acc, acc_norm]
    return Task(data=data, sample=aloud if max_tokens else letters, metrics=metrics)


@task
def gpqa_diamond(*, order: str = "question") -> Task:
    """The 198 graduate questions that experts agree on and others get wrong.

    Args:
        order: Of the choices: `question` (each question's own) or `lm-eval`.
    """
    return _gpqa("gpqa_diamond", order)


@task
def gpqa_main(*, order: str = "question") -> Task:
    """448 graduate questions.

    Args:
        order: Of the choices: `question` (each question's own) or `lm-eval`.
    """
    return _gpqa("gpqa_main", order)


@task
def gpqa_extended(*, order: str = "question") -> Task:
    """All 546 graduate questions.

    Args:
        order: Of the choices: `question` (each question's own) or `lm-eval`.
    """
    return _gpqa("gpqa_extended", order)


@task
def gpqa_diamond_cot(*, max_tokens: int = 256, order: str = "question") -> Task:
    """The 198 graduate questions that experts agree on and others get wrong, reasoned aloud.

    Args:
        max_tokens: Where an answer is cut; lm-evaluation-harness's 256 are few.
        order: Of the choices: `question` (each question's own) or `lm-eval`.
    """
    return _gpqa("gpqa_diamond", order, max_tokens)


@task
def gpqa_main_cot(*, max_tokens: int = 256, order: str = "question") -> Task:
    """448 graduate questions, reasoned aloud.

    Args:
        max_tokens: Where an answer is cut; lm-evaluation-harness's 256 are few.
        order: Of the choices: `question` (each question's own) or `lm-eval`.
    """
    return _gpqa("gpqa_main", order, max_tokens)


@task
def gpqa_extended_cot(*, max_tokens: int = 256, order: str = "question") -> Task:
    """All 546 graduate questions, reasoned aloud.

    Args:
        max_tokens: Where an answer is cut; lm-evaluation-harness's 256 are few.
        order: Of the choices: `question` (each question's own) or `lm-eval`.
    """
    return _gpqa("gpqa_extended", order, max_tokens)
