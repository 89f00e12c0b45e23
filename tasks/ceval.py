"""C-Eval: multiple choice with four letters in Chinese over 52 subjects, from middle school to professional level.

Dataset: https://huggingface.co/datasets/ceval/ceval-exam (52 configs; val 1,346 rows, dev 260; the answers of test are
hidden), CC-BY-NC-SA-4.0 licence.
Paper: Huang et al., "C-Eval: A Multi-Level Multi-Discipline Chinese Evaluation Suite for Foundation Models", 2023
(arXiv 2305.08322).
Protocol: lm-evaluation-harness's `ceval-valid`: log-likelihood of ` A` … ` D`; 0 shots by default, `-f 5` uses the
subject's five examples. The score is over questions (micro); the unweighted mean over subjects, which the leaderboard
shows, is also reported (macro). `-T space=false` scores the letters without the space, as in the authors' examples; for
most Chinese tokenizers these are different tokens.
Chance: 0.25.

Example:
    以下是中国关于高中历史的单项选择题，请选出其中的正确答案。

    秦始皇统一六国是在
    A. 公元前475年
    B. 公元前221年
    C. 公元前206年
    D. 公元9年
    答案： B
"""

from harness import Choose, Row, Task, acc, acc_norm, hub, label, task

SUBJECTS = {
    "computer_network": "计算机网络",
    "operating_system": "操作系统",
    "computer_architecture": "计算机组成",
    "college_programming": "大学编程",
    "college_physics": "大学物理",
    "college_chemistry": "大学化学",
    "advanced_mathematics": "高等数学",
    "probability_and_statistics": "概率统计",
    "discrete_mathematics": "离散数学",
    "electrical_engineer": "注册电气工程师",
    "metrology_engineer": "注册计量师",
    "high_school_mathematics": "高中数学",
    "high_school_physics": "高中物理",
    "high_school_chemistry": "高中化学",
    "high_school_biology": "高中生物",
    "middle_school_mathematics": "初中数学",
    "middle_school_biology": "初中生物",
    "middle_school_physics": "初中物理",
    "middle_school_chemistry": "初中化学",
    "veterinary_medicine": "兽医学",
    "college_economics": "大学经济学",
    "business_administration": "工商管理",
    "marxism": "马克思主义基本原理",
    "mao_zedong_thought": "毛泽东思想和中国特色社会主义理论体系概论",
    "education_science": "教育学",
    "teacher_qualification": "教师资格",
    "high_school_politics": "高中政治",
    "high_school_geography": "高中地理",
    "middle_school_politics": "初中政治",
    "middle_school_geography": "初中地理",
    "modern_chinese_history": "近代史纲要",
    "ideological_and_moral_cultivation": "思想道德修养与法律基础",
    "logic": "逻辑学",
    "law": "法学",
    "chinese_language_and_literature": "中国语言文学",
    "art_studies": "艺术学",
    "professional_tour_guide": "导游资格",
    "legal_professional": "法律职业资格",
    "high_school_chinese": "高中语文",
    "high_school_history": "高中历史",
    "middle_school_history": "初中历史",
    "civil_servant": "公务员",
    "sports_science": "体育学",
    "plant_protection": "植物保护",
    "basic_medicine": "基础医学",
    "clinical_medicine": "临床医学",
    "urban_and_rural_planner": "注册城乡规划师",
    "accountant": "注册会计师",
    "fire_engineer": "注册消防工程师",
    "environmental_impact_assessment_engineer": "环境影响评价工程师",
    "tax_accountant": "税务师",
    "physician": "医师资格",
}
"""Subject names in the prompts, by config."""


def _question(row: Row) -> Choose:
    lines = [f"{letter}. {row[letter]}" for letter in "ABCD"]
    return Choose("\n".join([row["question"].strip(), *lines, "答案："]), "ABCD", label(row, "answer", "ABCD"))


@task
def ceval(*, space: bool = True) -> Task:
    """Multiple choice with four letters in Chinese over 52 subjects.

    Args:
        space: Whether there is a space before the letter.
    """
    return Task(
        data=hub("ceval/ceval-exam", list(SUBJECTS), split="val"),
        shots_from=hub("ceval/ceval-exam", list(SUBJECTS), split="dev"),
        description=lambda row: f"以下是中国关于{SUBJECTS[row['config']]}的单项选择题，请选出其中的正确答案。\n\n",
        delimiter=" " if space else "",
        group="config",
        sample=_question,
        metrics=[acc, acc_norm],
    )
