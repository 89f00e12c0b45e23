"""PIQA: choose the better of two ways to reach an everyday goal.

Dataset: https://huggingface.co/datasets/baber/piqa (train 16,113 rows, validation 1,838; the answers of test are
hidden), AFL-3.0 licence.
Paper: Bisk et al., "PIQA: Reasoning about Physical Commonsense in Natural Language", 2019 (arXiv 1911.11641).
Protocol: lm-evaluation-harness's `piqa`: log-likelihood of each way, divided by its characters in `acc_norm`; 0 shots
by default; `-f N` draws shots from train.
Chance: 0.5.

Example:
    Question: How do you keep a door from closing?
    Answer: Push a wedge under it.
"""

from harness import Choose, Row, Task, acc, acc_norm, hub, label, task


def _question(row: Row) -> Choose:
    return Choose(f"Question: {row['goal']}\nAnswer:", [row["sol1"], row["sol2"]], label(row, "label", "01"))


@task
def piqa() -> Task:
    """Choosing the better of two ways to reach an everyday goal."""
    return Task(
        data=hub("baber/piqa", split="validation"),
        train=hub("baber/piqa", split="train"),
        shots_from=hub("baber/piqa", split="train"),
        shots_order="lm-eval-spare",
        sample=_question,
        metrics=[acc, acc_norm],
    )
