"""GSM8K: grade-school math word problems, solved step by step.

Dataset: https://huggingface.co/datasets/openai/gsm8k (config `main`; test 1,319 rows, train 7,473), MIT licence.
Paper: Cobbe et al., "Training Verifiers to Solve Math Word Problems", 2021 (arXiv 2110.14168).
Protocol: lm-evaluation-harness's `gsm8k`: greedy, 256 tokens, 5 shots drawn from the train split in the same way;
`strict` requires `#### 18`, `flexible` takes the last number.

Example:
    Question: Natalia sold clips to 48 of her friends in April, and then she sold half as many clips in May. How many …
    Answer: Natalia sold 48/2 = <<48/2=24>>24 clips in May. … #### 72
"""

from harness import Generate, Task, flexible, hub, strict, task


@task
def gsm8k() -> Task:
    """Grade-school math word problems, solved step by step."""
    return Task(
        data=hub("openai/gsm8k", "main", split="test"),
        train=hub("openai/gsm8k", "main", split="train"),
        shots=5,
        shots_from=hub("openai/gsm8k", "main", split="train"),
        shots_order="lm-eval",
        sample=lambda row: Generate(
            f"Question: {row['question']}\nAnswer:",
            row["answer"],
            stop=("Question:", "</s>", "<|im_end|>"),
            max_tokens=256,
        ),
        metrics=[strict, flexible],
        version=2,  # version 1 used the first five rows as shots
    )
