"""mini_mmlu: the embedded model's twin of MMLU, four-letter questions about invented countries.

The model has read plain facts about every country; the countries asked about here never appeared in a
question, neither in its pretraining nor in the train split. Chance is 0.25.

Example:
    The following are multiple choice questions (with answers) about flags.

    What colour is the flag of Selmar?
    A. red
    B. pink
    C. white
    D. blue
    Answer: C
"""

from harness import Choose, Row, Task, acc, packaged, task

LETTERS = "ABCD"


@task
def mini_mmlu() -> Task:
    """Letters about facts in English, with a group for each kind of fact."""
    return Task(
        data=packaged("harness.tiny", "data/mini_mmlu.test.jsonl"),
        train=packaged("harness.tiny", "data/mini_mmlu.train.jsonl"),
        shots_from=packaged("harness.tiny", "data/mini_mmlu.train.jsonl"),
        sample=question,
        metrics=[acc],
        description=lambda row: (
            f"The following are multiple choice questions (with answers) about {row['subject']}.\n\n"
        ),
        group="subject",
    )


def question(row: Row) -> Choose:
    """A row with its four options listed."""
    options = "\n".join(f"{letter}. {choice}" for letter, choice in zip(LETTERS, row["choices"], strict=True))
    return Choose(f"{row['question']}\n{options}\nAnswer:", list(LETTERS), row["answer"])
