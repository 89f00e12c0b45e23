"""mini_gsm8k: GSM8K for the embedded model, word problems with two steps.

The pretraining data has such problems with smaller numbers, solved in a sentence. The form `steps, #### answer` is new to
the model, so that it scores 0 before training.

Example:
    Question: Tom has 8 boxes with 12 coins in each. Lily gives Tom 20 more. How many coins does Tom have now?
    Answer: 8*12=96, 96+20=116
    #### 116
"""

from harness import Generate, Task, flexible, packaged, strict, task


@task
def mini_gsm8k() -> Task:
    """Word problems with two steps, then `#### answer`."""
    return Task(
        data=packaged("harness.tiny", "data/mini_gsm8k.test.jsonl"),
        train=packaged("harness.tiny", "data/mini_gsm8k.train.jsonl"),
        shots_from=packaged("harness.tiny", "data/mini_gsm8k.train.jsonl"),
        sample=lambda row: Generate(
            f"Question: {row['question']}\nAnswer:",
            f"{row['steps']}\n#### {row['answer']}",
            stop=("\n\n",),
            max_tokens=36,
        ),
        metrics=[strict, flexible],
        version=2,
    )
