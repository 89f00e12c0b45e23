"""mini_code: the embedded model's twin of HumanEval, the one line that completes a function.

The model has read such lines below a comment; the docstring form is new to it, and so are the pairs of
steps. An evaluator with a whitelist judges what it writes on a few lists, so the task runs no foreign code.

Example:
    def f(x):
        \"\"\"Keep those over 3, then reverse, then sum.\"\"\"
        return sum([i for i in x if i>3][::-1])
"""

from harness import Generate, Task, packaged, passes_cases, task


@task
def mini_code() -> Task:
    """One line, judged on four lists."""
    return Task(
        data=packaged("harness.tiny", "data/mini_code.test.jsonl"),
        train=packaged("harness.tiny", "data/mini_code.train.jsonl"),
        shots_from=packaged("harness.tiny", "data/mini_code.train.jsonl"),
        sample=lambda row: Generate(
            f'def f(x):\n    """{row["docstring"].capitalize()}."""\n    return',
            row["code"],
            stop=("\n",),
            max_tokens=48,
            meta={"cases": row["cases"]},
        ),
        metrics=[passes_cases],
    )
