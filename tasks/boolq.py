"""BoolQ: yes-or-no questions asked by people, each with a paragraph that answers it.

Dataset: https://huggingface.co/datasets/aps/super_glue (config `boolq`; train 9,427 rows, validation 3,270; the answers
of test are hidden), CC-BY-SA-3.0 licence.
Paper: Clark et al., "BoolQ: Exploring the Surprising Difficulty of Natural Yes/No Questions", 2019 (arXiv 1905.10044).
Protocol: lm-evaluation-harness's `boolq`: log-likelihood of ` no` and ` yes`; 0 shots by default; `-f N` draws shots
from train.
Chance: 0.5 (always `yes` scores 0.62).

Example:
    Tea -- Tea is a drink made by pouring hot water over the leaves of a shrub. It contains caffeine.
    Question: does tea contain caffeine?
    Answer: yes
"""

from harness import Choose, Row, Task, acc, hub, label, task


def _question(row: Row) -> Choose:
    prompt = f"{row['passage']}\nQuestion: {row['question']}?\nAnswer:"
    return Choose(prompt, ["no", "yes"], label(row, "label", "01"))


@task
def boolq() -> Task:
    """Yes-or-no questions, each with a paragraph that answers it."""
    return Task(
        data=hub("aps/super_glue", "boolq", split="validation"),
        train=hub("aps/super_glue", "boolq", split="train"),
        shots_from=hub("aps/super_glue", "boolq", split="train"),
        shots_order="lm-eval-spare",
        sample=_question,
        metrics=[acc],
    )
