"""mini_code: HumanEval for the embedded model, one line that completes a function.

The pretraining data has such lines after a comment. The docstring and the combinations of steps are new to the model. An
evaluator with a whitelist computes the generated line on a few lists, so the task does not run generated code.

Example:
    \"\"\"Keep those over 3, then reverse, then sum.\"\"\"
    f = lambda x: sum([i for i in x if i>3][::-1])
"""

from harness import Generate, Task, packaged, passes_cases, task


@task
def mini_code() -> Task:
    """One line that completes a function, checked on four lists."""
    return Task(
        data=packaged("harness.tiny", "data/mini_code.test.jsonl"),
        train=packaged("harness.tiny", "data/mini_code.train.jsonl"),
        shots_from=packaged("harness.tiny", "data/mini_code.train.jsonl"),
        sample=lambda row: Generate(
            f'"""{row["docstring"].capitalize()}."""\nf = lambda x:',
            row["code"],
            stop=("\n",),
            max_tokens=48,
            meta={"cases": row["cases"]},
        ),
        metrics=[passes_cases],
        version=2,
    )
