r"""qa: questions with short answers, with or without a passage.

Dataset: https://huggingface.co/datasets/rajpurkar/squad (config `plain_text`; validation 10,570 rows, train 87,599)
unless `data` names another, CC BY-SA 4.0 licence.
Paper: Rajpurkar et al., "SQuAD: 100,000+ Questions for Machine Comprehension of Text", EMNLP 2016 (arXiv 1606.05250).
Protocol: our own, greedy, one line. `data` and `train` are files or `hub:OWNER/NAME:CONFIG:SPLIT`; `context`,
`question` and `answer` are columns, `context=none` asks without a passage. An answer is a text, a list of texts of
which any is right, or SQuAD's `{"text": [...]}`. In a row without an answer, the passage does not answer the question,
and the right answer is `unanswerable`. `em` and `f1` are the numbers of the official SQuAD script; questions about one
passage form a cluster.

Example:
    Passage: The Amazon rainforest covers most of the Amazon basin of South America.
    Question: Which continent is the Amazon basin on?
    Answer: South America
"""

from collections.abc import Mapping, Sequence
from typing import Any

from harness import Generate, Row, Task, UserError, em, f1, task

SQUAD = "hub:rajpurkar/squad:plain_text:validation"


@task
def qa(
    *,
    data: str = SQUAD,
    train: str | None = None,
    context: str | None = "context",
    question: str = "question",
    answer: str = "answers",
    unanswerable: str = "unanswerable",
    max_tokens: int = 32,
) -> Task:
    """Extractive or short answers: EM and F1 as in SQuAD."""
    if data == SQUAD:
        train = train or "hub:rajpurkar/squad:plain_text:train"

    def sample(row: Row) -> Generate:
        passage = f"Passage: {str(row[context]).strip()}\n" if context else ""
        return Generate(
            f"{passage}Question: {str(row[question]).strip()}\nAnswer:",
            _answers(row[answer], answer) or [unanswerable],
            stop=("\n",),
            max_tokens=max_tokens,
        )

    return Task(data, sample, [em, f1], train=train, shots_from=train, cluster=context)


def _answers(cell: Any, column: str) -> Sequence[str]:
    """Returns the different answers of a cell, in order; empty if the question has no answer."""
    given = cell.get("text", ()) if isinstance(cell, Mapping) else cell
    texts = [given] if isinstance(given, str) else list(given or ())
    if not all(isinstance(text, str) for text in texts):
        raise UserError(f"the column `{column}` is {cell!r}: an answer is a text, or a list of texts")
    return list(dict.fromkeys(text.strip() for text in texts if text.strip()))
