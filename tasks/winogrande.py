"""WinoGrande: choose the name that fills the gap in a sentence, out of two.

Dataset: https://huggingface.co/datasets/allenai/winogrande (config `winogrande_xl`; train 40,398 rows, validation
1,267; the answers of test are hidden), CC-BY licence.
Paper: Sakaguchi et al., "WinoGrande: An Adversarial Winograd Schema Challenge at Scale", 2019 (arXiv 1907.10641).
Protocol: lm-evaluation-harness's `winogrande`: the log-likelihood of the text after the gap, given the sentence with
each name; 0 shots by default; `-f N` draws shots from train (5 is usual).
Chance: 0.5.

Example:
    The trophy did not fit into the suitcase because the trophy was too large.
"""

from harness import Choose, Row, Task, UserError, acc, hub, label, task


def _sentence(row: Row) -> Choose:
    before, gap, after = row["sentence"].partition("_")
    if not gap:
        raise UserError("the column `sentence` has no gap `_` to fill")
    names = [row["option1"], row["option2"]]
    return Choose([before + name for name in names], [after.strip()] * 2, label(row, "answer", "12"))


@task
def winogrande() -> Task:
    """Choosing the name that fills the gap in a sentence, out of two."""
    return Task(
        data=hub("allenai/winogrande", "winogrande_xl", split="validation"),
        train=hub("allenai/winogrande", "winogrande_xl", split="train"),
        shots_from=hub("allenai/winogrande", "winogrande_xl", split="train"),
        shots_order="lm-eval-spare",
        sample=_sentence,
        metrics=[acc],
    )
