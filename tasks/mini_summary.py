"""mini_summary: one sentence that summarizes a short story.

The pretraining data has stories that end with `In short: …`. The labels `Text:` and `Summary:` and the stories are new
to the model. Half of the reference summaries contain one fact and half another, so no model can score 1.

Example:
    Text: Yesterday Mia met Bob at school. It was cold. Mia saw four blue chairs. They were tired. Then Bob went home.
    Summary: Mia met Bob at school and saw blue chairs.
"""

from harness import Generate, Task, packaged, rouge1, rougeL, task


@task
def mini_summary() -> Task:
    """One sentence that summarizes a story."""
    return Task(
        data=packaged("harness.tiny", "data/mini_summary.test.jsonl"),
        train=packaged("harness.tiny", "data/mini_summary.train.jsonl"),
        shots_from=packaged("harness.tiny", "data/mini_summary.train.jsonl"),
        sample=lambda row: Generate(f"Text: {row['text']}\nSummary:", row["summary"], stop=("\n",), max_tokens=32),
        metrics=[rougeL, rouge1],
    )
