"""mini_mmlu: MMLU for the embedded model, questions about fictional countries with four choices.

The pretraining data has plain facts about every country. The countries of the test questions are in no question of the
pretraining data or the train split. One question in four has the words of the pretraining data. The others name two
countries, whose values are both among the choices, and the model can learn from the train split which one they ask about.
Unlike in MMLU, the choices are scored as texts and not as letters: such a small model learns facts within minutes, but
not the meaning of a letter. Chance is 0.25.

Example:
    The following are questions (with answers) about food.

    People of Dursulu visit Zoreno. What do they eat there?
    Answer: beans
"""

from harness import Choose, Task, acc, packaged, task


@task
def mini_mmlu() -> Task:
    """Facts about one of two countries, with a group for each kind of fact."""
    return Task(
        data=packaged("harness.tiny", "data/mini_mmlu.test.jsonl"),
        train=packaged("harness.tiny", "data/mini_mmlu.train.jsonl"),
        shots_from=packaged("harness.tiny", "data/mini_mmlu.train.jsonl"),
        sample=lambda row: Choose(f"{row['question']}\nAnswer:", row["choices"], row["answer"]),
        metrics=[acc],
        description=lambda row: f"The following are questions (with answers) about {row['subject']}.\n\n",
        group="subject",
        version=2,
    )
