"""mini_mmlu: the embedded model's twin of MMLU, questions about invented countries with four choices.

The model has read plain facts about every country; the countries asked about here never appeared in a
question, neither in its pretraining nor in the train split. Unlike MMLU, the choices are scored as texts and
not as letters: so small a model learns facts within minutes, but not what a letter stands for. Chance is 0.25.

Example:
    The following are questions (with answers) about food.

    What do people in Zoreno eat?
    Answer: beans
"""

from harness import Choose, Task, acc, packaged, task


@task
def mini_mmlu() -> Task:
    """Facts in English, with a group for each kind of fact."""
    return Task(
        data=packaged("harness.tiny", "data/mini_mmlu.test.jsonl"),
        train=packaged("harness.tiny", "data/mini_mmlu.train.jsonl"),
        shots_from=packaged("harness.tiny", "data/mini_mmlu.train.jsonl"),
        sample=lambda row: Choose(f"{row['question']}\nAnswer:", row["choices"], row["answer"]),
        metrics=[acc],
        description=lambda row: f"The following are questions (with answers) about {row['subject']}.\n\n",
        group="subject",
    )
