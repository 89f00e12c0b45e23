"""GPQA: graduate-level questions in biology, chemistry and physics that are hard to answer with a search engine.

Dataset: https://huggingface.co/datasets/Idavidrein/gpqa (gated: ask for access, then `hf auth login`; configs
`gpqa_diamond` 198 rows, `gpqa_main` 448, `gpqa_extended` 546; split train), CC-BY-4.0 licence.
Paper: Rein et al., "GPQA: A Graduate-Level Google-Proof Q&A Benchmark", 2023 (arXiv 2311.12022).
Protocol: lm-evaluation-harness's `gpqa_diamond_zeroshot`, `gpqa_main_zeroshot`, `gpqa_extended_zeroshot`:
log-likelihood of ` (A)` … ` (D)`, 0 shots. Each row has its own order of choices: of the 24 permutations of the right
answer and wrong answers 1 to 3, in lexicographic order, the one with the number SHA-256 of the question's UTF-8 bytes
modulo 24. In lm-evaluation-harness the order depends on the tasks loaded before; `-T order=lm-eval` is the order with a
fresh cache and a single task. The `_cot` tasks are its `gpqa_diamond_cot_zeroshot` and similar: the prompt ends with
`Let's think step by step: ` instead of `Answer:`, and the model generates greedily. `strict` requires
`The answer is (B).`; `choice_letter` is its `flexible-extract`. Its limit of 256 tokens cuts most chains of thought;
`-T max_tokens=2048` leaves enough tokens.
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
    """Scores the letters or, with `max_tokens`, a generated answer."""
    if order not in ("question", "lm-eval"):
        raise UserError(f"unknown order of choices `{order}`", hint="known: `question`, `lm-eval`")
    data = hub("Idavidrein/gpqa", config, split="train")
    order_of = _by_question if order == "question" else _as_lm_eval(data)

    def question_of(row: Row) -> tuple[str, list[str], int]:
        answers = [_clean(row[column]) for column in order_of(row)]
        lines = [f"{letter} {answer}" for letter, answer in zip(LETTERS, answers, strict=True)]
        question = f"What is the correct answer to this question:{row['Question']}"
        return "\n".join([question, "Choices:", *lines, ""]), answers, answers.index(_clean(row["Correct Answer"]))

    def letters(row: Row) -> Choose:
        question, _, right = question_of(row)
        return Choose(question + "Answer:", LETTERS, right)

    def reasoned(row: Row) -> Generate:
        question, answers, right = question_of(row)
        return Generate(
            question + "Let's think step by step: ",
            [f"The answer is {LETTERS[right]}.", LETTERS[right]],
            stop=("</s>",),
            max_tokens=max_tokens or 0,
            meta={"choices": answers},
        )

    metrics = [strict, choice_letter] if max_tokens else [acc, acc_norm]
    return Task(data=data, sample=reasoned if max_tokens else letters, metrics=metrics)


@task
def gpqa_diamond(*, order: str = "question") -> Task:
    """The 198 graduate-level questions that experts answer correctly and others do not.

    Args:
        order: Order of the choices: `question` (each question has its own) or `lm-eval`.
    """
    return _gpqa("gpqa_diamond", order)


@task
def gpqa_main(*, order: str = "question") -> Task:
    """448 graduate-level questions.

    Args:
        order: Order of the choices: `question` (each question has its own) or `lm-eval`.
    """
    return _gpqa("gpqa_main", order)


@task
def gpqa_extended(*, order: str = "question") -> Task:
    """All 546 graduate-level questions.

    Args:
        order: Order of the choices: `question` (each question has its own) or `lm-eval`.
    """
    return _gpqa("gpqa_extended", order)


@task
def gpqa_diamond_cot(*, max_tokens: int = 256, order: str = "question") -> Task:
    """The 198 graduate-level questions that experts answer correctly and others do not, with a chain of thought.

    Args:
        max_tokens: Maximum length of an answer; lm-evaluation-harness's 256 is short.
        order: Order of the choices: `question` (each question has its own) or `lm-eval`.
    """
    return _gpqa("gpqa_diamond", order, max_tokens)


@task
def gpqa_main_cot(*, max_tokens: int = 256, order: str = "question") -> Task:
    """448 graduate-level questions, with a chain of thought.

    Args:
        max_tokens: Maximum length of an answer; lm-evaluation-harness's 256 is short.
        order: Order of the choices: `question` (each question has its own) or `lm-eval`.
    """
    return _gpqa("gpqa_main", order, max_tokens)


@task
def gpqa_extended_cot(*, max_tokens: int = 256, order: str = "question") -> Task:
    """All 546 graduate-level questions, with a chain of thought.

    Args:
        max_tokens: Maximum length of an answer; lm-evaluation-harness's 256 is short.
        order: Order of the choices: `question` (each question has its own) or `lm-eval`.
    """
    return _gpqa("gpqa_extended", order, max_tokens)
