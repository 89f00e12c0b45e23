"""HumanEval for chat models: a request for the function, with the beginning of the answer given.

Dataset: https://huggingface.co/datasets/openai/openai_humaneval (config `openai_humaneval`; test 164 rows), MIT
licence.
Paper: Chen et al., "Evaluating Large Language Models Trained on Code", 2021 (arXiv 2107.03374).
Protocol: lm-evaluation-harness's `humaneval_instruct`: the answer starts with the prompt in a code block, and the
model's text up to the end of the block is tested; greedy, 1,024 tokens, pass@1. In lm-evaluation-harness generation
continues after the block and the text is cut afterwards; here generation stops at the end of the block.
`-T samples=64 -T temperature=0.2 -T top_p=0.95 -T k=2+8+16+32+64` is its `humaneval_64_instruct`.

Example:
    user: Write a solution to the following problem and make sure that it passes the tests:
    ```python
    def truncate_number(number: float) -> float:
        …
    ```
    assistant: Here is the completed function:
    ```python
    def truncate_number(number: float) -> float:
        …
        return number % 1.0
"""

from collections.abc import Sequence

from harness import Generate, Row, Task, UserError, hub, task

ASKED = "Write a solution to the following problem and make sure that it passes the tests:\n```python\n{}\n```\n"
BEGUN = "Here is the completed function:\n```python\n{}\n"


@task
def humaneval_instruct(
    *, samples: int = 1, temperature: float = 0.0, top_p: float = 1.0, k: Sequence[int] = (1,)
) -> Task:
    """HumanEval for chat models."""
    if max(k) > samples:
        raise UserError(
            f"pass@{max(k)} needs at least {max(k)} samples, not {samples}",
            hint=f"draw enough samples: `-T samples={max(k)} -T temperature=0.2`",
        )

    def sample(row: Row) -> Generate:
        return Generate(
            [
                {"role": "user", "content": ASKED.format(row["prompt"])},
                {"role": "assistant", "content": BEGUN.format(row["prompt"])},
            ],
            row["canonical_solution"],
            stop=("```", "\nclass", "\ndef", "\n#", "\nif", "\nprint"),
            max_tokens=1024,
            samples=samples,
            temperature=temperature,
            top_p=top_p,
            id=row["task_id"],
            meta={"before": row["prompt"], "after": f"\n{row['test']}\ncheck({row['entry_point']})"},
        )

    return Task(
        data=hub("openai/openai_humaneval", split="test"),
        sample=sample,
        metrics=[f"pass@{each}" for each in k],
        delimiter="",
        executes_code=True,
    )
