"""HumanEval: Python functions generated from signature and docstring, checked by tests.

Dataset: https://huggingface.co/datasets/openai/openai_humaneval (config `openai_humaneval`; test 164 rows), MIT
licence.
Paper: Chen et al., "Evaluating Large Language Models Trained on Code", 2021 (arXiv 2107.03374).
Protocol: lm-evaluation-harness's `humaneval`: the unchanged prompt, greedy, 1,024 tokens, pass@1, 0 shots;
`-T samples=64 -T temperature=0.2 -T top_p=0.95 -T k=2+8+16+32+64` is its `humaneval_64`.

Example:
    def truncate_number(number: float) -> float:
        \"\"\" Given a positive floating point number, it can be decomposed into … Return the decimal part of the number. …
        \"\"\"
        return number % 1.0
"""

from collections.abc import Sequence

from harness import Generate, Task, UserError, hub, task


@task
def humaneval(*, samples: int = 1, temperature: float = 0.0, top_p: float = 1.0, k: Sequence[int] = (1,)) -> Task:
    """Python functions from signature and docstring, checked by tests."""
    if max(k) > samples:
        raise UserError(
            f"pass@{max(k)} needs at least {max(k)} samples, not {samples}",
            hint=f"draw enough samples: `-T samples={max(k)} -T temperature=0.2`",
        )
    return Task(
        data=hub("openai/openai_humaneval", split="test"),
        sample=lambda row: Generate(
            row["prompt"],
            row["canonical_solution"],
            stop=("\nclass", "\ndef", "\n#", "\nif", "\nprint"),
            max_tokens=1024,
            samples=samples,
            temperature=temperature,
            top_p=top_p,
            id=row["task_id"],
            meta={"before": row["prompt"], "after": f"\n{row['test']}\ncheck({row['entry_point']})"},
        ),
        metrics=[f"pass@{each}" for each in k],
        delimiter="",
        executes_code=True,
    )
