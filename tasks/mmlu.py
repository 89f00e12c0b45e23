"""MMLU: four-letter multiple choice over 57 subjects, from school to profession.

Dataset: https://huggingface.co/datasets/cais/mmlu (config `all`; test 14,042 rows, dev 285), MIT licence.
Paper: Hendrycks et al., "Measuring Massive Multitask Language Understanding", 2021 (arXiv 2009.03300).
Protocol: lm-evaluation-harness's `mmlu`: log-likelihood of ` A` … ` D`, no solved examples unless `-f 5` asks for the
subject's five; the score is over questions (micro), the unweighted mean over subjects stands beside it (macro).

Example:
    The following are multiple choice questions (with answers) about abstract algebra.

    Find the degree for the given field extension Q(sqrt(2), sqrt(3), sqrt(18)) over Q.
    A. 0
    B. 4
    C. 2
    D. 6
    Answer: B
"""

from harness import Choose, Row, Task, acc, hub, task


def _question(row: Row) -> Choose:
    lines = [f"{letter}. {choice}" for letter, choice in zip("ABCD", row["choices"], strict=True)]
    return Choose("\n".join([row["question"].strip(), *lines, "Answer:"]), "ABCD", row["answer"])


@task
def mmlu() -> Task:
    """Four-letter multiple choice over 57 subjects."""
    return Task(
        data=hub("cais/mmlu", "all", split="test"),
        shots_from=hub("cais/mmlu", "all", split="dev"),
        description=lambda row: (
            f"The following are multiple choice questions (with answers) about {row['subject'].replace('_', ' ')}.\n\n"
        ),
        group="subject",
        sample=_question,
        metrics=[acc],
    )
