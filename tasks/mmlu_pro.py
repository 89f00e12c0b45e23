"""MMLU-Pro: harder multiple choice with up to ten options over 14 categories, with a chain of thought.

Dataset: https://huggingface.co/datasets/TIGER-Lab/MMLU-Pro (config `default`; test 12,032 rows, validation 70), MIT
licence.
Paper: Wang et al., "MMLU-Pro: A More Robust and Challenging Multi-Task Language Understanding Benchmark", 2024 (arXiv
2406.01574).
Protocol: lm-evaluation-harness's `mmlu_pro`: greedy, 2,048 tokens, the category's first five validation rows as shots.
The first `answer is (X)` counts, and a text without one is wrong; the official script guesses instead, so its scores
are a little higher. The score is over questions (micro); the mean over categories is also reported (macro).
Chance: 0.11.

Example:
    Question:
    What is the SI unit of force?
    Options:
    A. Joule
    B. Newton
    Answer: Let's think step by step. Force is mass times acceleration. The answer is (B).
"""

from harness import Generate, Metric, Row, Task, hub, matching, task

exact_match = Metric("exact_match", score=matching(r"answer is \(?([ABCDEFGHIJ])\)?", punctuation=False))


def _question(row: Row) -> Generate:
    options = [f"{letter}. {option.strip()}" for letter, option in zip("ABCDEFGHIJ", row["options"], strict=False)]
    thoughts = row["cot_content"].replace("A: Let's think step by step. ", "")  # only validation rows have it
    return Generate(
        "\n".join(["Question:", row["question"], "Options:", *options, "Answer: Let's think step by step."]),
        [thoughts or f"The answer is ({row['answer']}).", row["answer"]],
        stop=("Question:",),
        max_tokens=2048,
    )


@task
def mmlu_pro() -> Task:
    """Multiple choice with up to ten options over 14 categories, with a chain of thought."""
    return Task(
        data=hub("TIGER-Lab/MMLU-Pro", "default", split="test"),
        shots=5,
        shots_from=hub("TIGER-Lab/MMLU-Pro", "default", split="validation"),
        description=lambda row: (
            "The following are multiple choice questions (with answers) about "
            f'{row["category"]}. Think step by step and then finish your answer with "the answer is (X)" where X is the '
            "correct letter choice.\n"
        ),
        group="category",
        sample=_question,
        metrics=[exact_match],
    )
