"""mini_ceval: the embedded model's twin of C-Eval, four-letter questions in Chinese about invented people.

The model has read plain facts about everybody; the people asked about here never appeared in a question,
neither in its pretraining nor in the train split. Chance is 0.25.

Example:
    以下是关于城市的单项选择题。

    刘军芳住在哪里？
    A. 北京
    B. 广州
    C. 成都
    D. 武汉
    答案：A
"""

from harness import Choose, Row, Task, acc, packaged, task

LETTERS = "ABCD"


@task
def mini_ceval() -> Task:
    """Letters about facts in Chinese, with a group for each kind of fact."""
    return Task(
        data=packaged("harness.tiny", "data/mini_ceval.test.jsonl"),
        train=packaged("harness.tiny", "data/mini_ceval.train.jsonl"),
        shots_from=packaged("harness.tiny", "data/mini_ceval.train.jsonl"),
        sample=question,
        metrics=[acc],
        description=lambda row: f"以下是关于{row['subject']}的单项选择题。\n\n",
        delimiter="",
        group="subject",
    )


def question(row: Row) -> Choose:
    """A row with its four options listed."""
    options = "\n".join(f"{letter}. {choice}" for letter, choice in zip(LETTERS, row["choices"], strict=True))
    return Choose(f"{row['question']}\n{options}\n答案：", list(LETTERS), row["answer"])
