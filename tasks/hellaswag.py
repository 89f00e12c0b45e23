r"""HellaSwag: choose the sentence that continues a scene, out of four.

Dataset: https://huggingface.co/datasets/Rowan/hellaswag (train 39,905 rows, validation 10,042; the answers of test are
hidden), MIT licence.
Paper: Zellers et al., "HellaSwag: Can a Machine Really Finish Your Sentence?", 2019 (arXiv 1905.07830).
Protocol: lm-evaluation-harness's `hellaswag`: log-likelihood of each ending, divided by its characters in `acc_norm`,
which is the number that papers report; 0 shots by default; `-f N` draws shots from train (10 is usual). WikiHow's marks
(`[title]`, `[step]`) are removed.
Chance: 0.25.

Example:
    Washing dishes: A woman stands at a sink full of plates. She picks up a plate and rinses it under the tap.
"""

import re

from harness import Choose, Row, Task, acc, acc_norm, hub, label, task


def _clean(text: str) -> str:
    return re.sub(r"\[.*?\]", "", text.strip().replace(" [title]", ". ")).replace("  ", " ")


def _scene(row: Row) -> Choose:
    scene = f"{row['activity_label']}: {row['ctx_a']} {row['ctx_b'].capitalize()}"
    return Choose(_clean(scene), [_clean(ending) for ending in row["endings"]], label(row, "label", "0123"))


@task
def hellaswag() -> Task:
    """Choosing the sentence that continues a scene, out of four."""
    return Task(
        data=hub("Rowan/hellaswag", split="validation"),
        train=hub("Rowan/hellaswag", split="train"),
        shots_from=hub("Rowan/hellaswag", split="train"),
        shots_order="lm-eval-spare",
        sample=_scene,
        metrics=[acc_norm, acc],
    )
