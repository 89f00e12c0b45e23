"""ARC: school-level natural-science questions, answered in words.

Dataset: https://huggingface.co/datasets/allenai/ai2_arc (configs `ARC-Easy`: train 2,251 rows, test 2,376;
`ARC-Challenge`: train 1,119, test 1,172), CC-BY-SA-4.0 licence.
Paper: Clark et al., "Think you have Solved Question Answering? Try ARC, the AI2 Reasoning Challenge", 2018 (arXiv
1803.05457).
Protocol: lm-evaluation-harness's `arc_easy` and `arc_challenge`: log-likelihood of each choice's text, divided by
its characters in `acc_norm`; 0 shots by default; `-f N` draws shots from train (25 is usual for `arc_challenge`).
Chance: 0.25 (a few questions have 3 or 5 choices).

Example:
    Question: Which of these gives off its own light?
    Answer: the Sun
"""

from harness import Choose, Row, Task, acc, acc_norm, hub, label, task


def _question(row: Row) -> Choose:
    choices = row["choices"]
    return Choose(f"Question: {row['question']}\nAnswer:", choices["text"], label(row, "answerKey", choices["label"]))


def _arc(config: str) -> Task:
    return Task(
        data=hub("allenai/ai2_arc", config, split="test"),
        train=hub("allenai/ai2_arc", config, split="train"),
        shots_from=hub("allenai/ai2_arc", config, split="train"),
        shots_order="lm-eval",
        sample=_question,
        metrics=[acc, acc_norm],
    )


@task
def arc_easy() -> Task:
    """School-level science questions that simple word statistics can answer."""
    return _arc("ARC-Easy")


@task
def arc_challenge() -> Task:
    """School-level science questions that simple word statistics cannot answer."""
    return _arc("ARC-Challenge")
