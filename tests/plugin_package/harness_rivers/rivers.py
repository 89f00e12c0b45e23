"""Rivers: which sea a river flows into.

Dataset: four rows in this package, CC0 licence.
Paper: none.
Protocol: no solved examples; the text must be the sea's name.

Example:
    The Nile flows into the Mediterranean
"""

from harness import Generate, Task, exact_match, packaged, task


@task
def rivers(*, verb: str = "flows") -> Task:
    """Which sea a river flows into."""
    rows = packaged("harness_rivers", "rivers.jsonl")
    return Task(
        data=rows,
        train=rows,
        sample=lambda row: Generate(f"The {row['river']} {verb} into the", row["mouth"], stop=("\n",), max_tokens=8),
        metrics=[exact_match, "same_letter"],
    )
