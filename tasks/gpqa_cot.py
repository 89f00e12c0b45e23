"""GPQA with chains of thought: graduate questions, reasoned aloud before the letter.

Dataset: https://huggingface.co/datasets/Idavidrein/gpqa (gated: ask for access, then `hf auth login`; configs
`gpqa_diamond` 198 rows, `gpqa_main` 448, `gpqa_extended` 546; split train), CC-BY-4.0 licence.
Paper: Rein et al., "GPQA: A Graduate-Level Google-Proof Q&A Benchmark", 2023 (arXiv 2311.12022).
Protocol: lm-evaluation-harness's `gpqa_diamond_cot_zeroshot`, `gpqa_main_cot_zeroshot`, `gpqa_extended_cot_zeroshot`: greedy,
no solved examples. `strict` wants `The answer is (B).`, `choice_letter` is its `flexible-extract`. Its 256 tokens cut most
chains of thought short: `-T max_tokens=2048` lets them end. Choices stand in the order of `gpqa_diamond`.
Chance: 0.25.

Example:
    What is the correct answer to this question:Which of these particles has no electric charge?
    Choices:
    (A) The proton
    (B) The neutron
    (C) The electron
    (D) The positron
    Let's think step by step: A neutron, as its name says, is neutral. The answer is (B).
"""

import functools
import hashlib
import itertools
import random
from collections.abc import Callable, Sequence

from harness import Data, Generate, Metric, Row, Task, UserError, choice_letter, hub, matching, rows, task

ANSWERS = ("Correct Answer", "Incorrect Answer 1", "Incorrect Answer 2", "Incorrect Answer 3")
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


def _cot(config: str, max_tokens: int, order: str) -> Task:
    if order not in ("question", "lm-eval"):
        raise UserError(f"unknown order of choices `{order}`", hint="known: `question`, `lm-eval`")
    data = hub("Idavidrein/gpqa", config, split="train")
    order_of = _by_question if order == "question" else _as_lm_eval(data)

    def sample(row: Row) -> Generate:
        answers = [_clean(row[column]) for column in order_of(row)]
        lines = [f"({letter}) {answer}" for letter, answer in zip("ABCD", answers, strict=True)]
        question = f"What is the correct answer to this question:{row['Question']}"
        right = f"({'ABCD'[answers.index(_clean(row['Correct Answer']))]})"
        return Generate(
            "\n".join([question, "Choices:", *lines, "Let's think step by step: "]),
            [f"The answer is {right}.", right],
            stop=("</s>",),
            max_tokens=max_tokens,
            meta={"choices": answers},
        )

    return Task(data=data, sample=sample, metrics=[strict, choice_letter])


@task
def gpqa_diamond_cot(*, max_tokens: int = 256, order: str = "question") -> Task:
    """The 198 graduate questions that experts agree on and others get wrong, reasoned aloud.

    Args:
        max_tokens: Where an answer is cut; lm-evaluation-harness's 256 are few.
        order: Of the choices: `question` (each question's own) or `lm-eval`.
    """
    return _cot("gpqa_diamond", max_tokens, order)


@task
def gpqa_main_cot(*, max_tokens: int = 256, order: str = "question") -> Task:
    """448 graduate questions, reasoned aloud.

    Args:
        max_tokens: Where an answer is cut; lm-evaluation-harness's 256 are few.
        order: Of the choices: `question` (each question's own) or `lm-eval`.
    """
    return _cot("gpqa_main", max_tokens, order)


@task
def gpqa_extended_cot(*, max_tokens: int = 256, order: str = "question") -> Task:
    """All 546 graduate questions, reasoned aloud.

    Args:
        max_tokens: Where an answer is cut; lm-evaluation-harness's 256 are few.
        order: Of the choices: `question` (each question's own) or `lm-eval`.
    """
    return _cot("gpqa_extended", max_tokens, order)
