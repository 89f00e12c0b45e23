"""MMLU: multiple choice with four letters over 57 subjects, from school to professional level.

Dataset: https://huggingface.co/datasets/cais/mmlu (config `all`; test 14,042 rows, dev 285), MIT licence.
Paper: Hendrycks et al., "Measuring Massive Multitask Language Understanding", 2021 (arXiv 2009.03300).
Protocol: lm-evaluation-harness's `mmlu`: log-likelihood of ` A` … ` D`; 0 shots by default, `-f 5` uses the subject's
five examples. The score is over questions (micro); the unweighted mean over subjects is also reported (macro).
`mmlu_stem`, `mmlu_humanities`, `mmlu_social_sciences` and `mmlu_other` are its four categories; `mmlu:virology+anatomy`
selects subjects.
Chance: 0.25.

Example:
    The following are multiple choice questions (with answers) about abstract algebra.

    Find the degree for the given field extension Q(sqrt(2), sqrt(3), sqrt(18)) over Q.
    A. 0
    B. 4
    C. 2
    D. 6
    Answer: B
"""

from collections.abc import Sequence

from harness import Choose, Row, Task, acc, hub, label, task

CATEGORIES = {
    "stem": (
        "abstract_algebra anatomy astronomy college_biology college_chemistry college_computer_science"
        " college_mathematics college_physics computer_security conceptual_physics electrical_engineering"
        " elementary_mathematics high_school_biology high_school_chemistry high_school_computer_science"
        " high_school_mathematics high_school_physics high_school_statistics machine_learning"
    ),
    "humanities": (
        "formal_logic high_school_european_history high_school_us_history high_school_world_history international_law"
        " jurisprudence logical_fallacies moral_disputes moral_scenarios philosophy prehistory professional_law"
        " world_religions"
    ),
    "social_sciences": (
        "econometrics high_school_geography high_school_government_and_politics high_school_macroeconomics"
        " high_school_microeconomics high_school_psychology human_sexuality professional_psychology public_relations"
        " security_studies sociology us_foreign_policy"
    ),
    "other": (
        "business_ethics clinical_knowledge college_medicine global_facts human_aging management marketing"
        " medical_genetics miscellaneous nutrition professional_accounting professional_medicine virology"
    ),
}
"""Subjects by category, as in lm-evaluation-harness; the paper puts anatomy in the category `other`."""


def _question(row: Row) -> Choose:
    lines = [f"{letter}. {choice}" for letter, choice in zip("ABCD", row["choices"], strict=True)]
    prompt = "\n".join([row["question"].strip(), *lines, "Answer:"])
    return Choose(prompt, "ABCD", label(row, "answer", "0123"))


def _over(configs: str | Sequence[str]) -> Task:
    return Task(
        data=hub("cais/mmlu", configs, split="test"),
        shots_from=hub("cais/mmlu", configs, split="dev"),
        description=lambda row: (
            f"The following are multiple choice questions (with answers) about {row['subject'].replace('_', ' ')}.\n\n"
        ),
        group="subject",
        sample=_question,
        metrics=[acc],
    )


@task
def mmlu() -> Task:
    """Multiple choice with four letters over 57 subjects."""
    return _over("all")


@task
def mmlu_stem() -> Task:
    """The 19 subjects of MMLU in science, technology, engineering and mathematics."""
    return _over(CATEGORIES["stem"].split())


@task
def mmlu_humanities() -> Task:
    """The 13 subjects of MMLU in history, law, philosophy and religion."""
    return _over(CATEGORIES["humanities"].split())


@task
def mmlu_social_sciences() -> Task:
    """The 12 subjects of MMLU in economics, politics, psychology and society."""
    return _over(CATEGORIES["social_sciences"].split())


@task
def mmlu_other() -> Task:
    """The 13 subjects of MMLU in business, health and everything else."""
    return _over(CATEGORIES["other"].split())
