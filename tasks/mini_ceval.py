"""mini_ceval: C-Eval for the embedded model, questions in Chinese about fictional people with four choices.

The pretraining data has plain facts about every person. The people of the test questions are in no question of the
pretraining data or the solved examples. All questions have words that are new to the model, and two in three name
another person, whose value is a wrong choice. There is no train split: training on other tasks can help here or do
harm. Unlike in C-Eval, the choices are scored as texts and not as letters (see mini_mmlu). Chance is 0.25.

Example:
    以下是关于城市的问题。

    王芳去找黄刚文。黄刚文住哪个地方？
    答案：广州
"""

from harness import Choose, Task, acc, packaged, task


@task
def mini_ceval() -> Task:
    """Facts in Chinese, without a train split: shows what training on other tasks does to them."""
    return Task(
        data=packaged("harness.tiny", "data/mini_ceval.test.jsonl"),
        shots_from=packaged("harness.tiny", "data/mini_ceval.train.jsonl"),
        sample=lambda row: Choose(f"{row['question']}\n答案：", row["choices"], row["answer"]),
        metrics=[acc],
        description=lambda row: f"以下是关于{row['subject']}的问题。\n\n",
        delimiter="",
        group="subject",
        version=2,
    )
