"""mini_text: perplexity on plain documents, the column that shows forgetting.

There is no train split. The documents have the forms of the pretraining data, which fine-tuning does not train on, and
are about held-out items only.

Example:
    Zoe has 4 boxes with 12 eggs in each. Leo gives Zoe 9 more. How many eggs does Zoe have now? 4*12=48 and
    48+9=57, so Zoe has 57 eggs now.
"""

from harness import Task, Text, bits_per_byte, byte_ppl, packaged, task


@task
def mini_text() -> Task:
    """Perplexity on plain documents: shows forgetting."""
    return Task(
        data=packaged("harness.tiny", "data/mini_text.test.jsonl"),
        sample=lambda row: Text(row["text"]),
        metrics=[byte_ppl, bits_per_byte],
        group="kind",
    )
