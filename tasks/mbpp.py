"""MBPP: short Python functions generated from a sentence and three tests.

Dataset: https://huggingface.co/datasets/google-research-datasets/mbpp (config `full`; test 500 rows, train 374,
validation 90, prompt 10), CC-BY 4.0 licence.
Paper: Austin et al., "Program Synthesis with Large Language Models", 2021 (arXiv 2108.07732).
Protocol: lm-evaluation-harness's `mbpp`: 3 shots (tasks 2, 3 and 4, with the line ends of the data), greedy, 256
tokens, stop at `[DONE]`; pass@1 on the three tests; the column `test_setup_code` is not run.

Example:
    You are an expert Python programmer, and here is your task: Write a python function to identify non-prime numbers. Your …

    assert is_not_prime(2) == False
    assert is_not_prime(10) == True
    assert is_not_prime(35) == True
    [BEGIN]
    import math
    def is_not_prime(n):
        …
    [DONE]
"""

from collections.abc import Sequence

from harness import Generate, Row, Task, UserError, hub, task

SHOTS = (
    {
        "text": "Write a function to find the similar elements from the given two tuple lists.",
        "code": "def similar_elements(test_tup1, test_tup2):\r\n"
        "  res = tuple(set(test_tup1) & set(test_tup2))\r\n  return (res) ",
        "test_list": [
            "assert similar_elements((3, 4, 5, 6),(5, 7, 4, 10)) == (4, 5)",
            "assert similar_elements((1, 2, 3, 4),(5, 4, 3, 7)) == (3, 4)",
            "assert similar_elements((11, 12, 14, 13),(17, 15, 14, 13)) == (13, 14)",
        ],
        "end": "[DONE]",
    },
    {
        "text": "Write a python function to identify non-prime numbers.",
        "code": "import math\r\ndef is_not_prime(n):\r\n    result = False\r\n"
        "    for i in range(2,int(math.sqrt(n)) + 1):\r\n        if n % i == 0:\r\n            result = True\r\n"
        "    return result",
        "test_list": [
            "assert is_not_prime(2) == False",
            "assert is_not_prime(10) == True",
            "assert is_not_prime(35) == True",
        ],
        "end": "[DONE]",
    },
    {
        "text": "Write a function to find the largest integers from a given list of numbers using heap queue algorithm.",
        "code": "import heapq as hq\r\ndef heap_queue_largest(nums,n):\r\n"
        "  largest_nums = hq.nlargest(n, nums)\r\n  return largest_nums",
        "test_list": [
            "assert heap_queue_largest( [25, 35, 22, 85, 14, 65, 75, 22, 58],3)==[85, 75, 65] ",
            "assert heap_queue_largest( [25, 35, 22, 85, 14, 65, 75, 22, 58],2)==[85, 75] ",
            "assert heap_queue_largest( [25, 35, 22, 85, 14, 65, 75, 22, 58],5)==[85, 75, 65, 58, 35]",
        ],
        "end": "[DONE]",
    },
)
"""Tasks 2, 3 and 4 of the data, as in lm-evaluation-harness; `end` closes an example, and generation stops there."""


@task
def mbpp(*, samples: int = 1, temperature: float = 0.0, top_p: float = 1.0, k: Sequence[int] = (1,)) -> Task:
    """Short Python functions from a sentence and three tests."""
    if max(k) > samples:
        raise UserError(
            f"pass@{max(k)} needs at least {max(k)} samples, not {samples}",
            hint=f"draw enough samples: `-T samples={max(k)} -T temperature=0.2`",
        )

    def sample(row: Row) -> Generate:
        tests = "\n".join(row["test_list"][:3])
        return Generate(
            f"You are an expert Python programmer, and here is your task: {row['text']} Your code should pass these tests:"
            f"\n\n{tests}\n[BEGIN]\n",
            f"{row['code']}\n{row.get('end', '')}",
            stop=("[DONE]",),
            max_tokens=256,
            samples=samples,
            temperature=temperature,
            top_p=top_p,
            meta={"after": f"\n{tests}"},
        )

    return Task(
        data=hub("google-research-datasets/mbpp", "full", split="test"),
        train=hub("google-research-datasets/mbpp", "full", split="train"),
        sample=sample,
        shots=3,
        shots_from=SHOTS,
        metrics=[f"pass@{each}" for each in k],
        delimiter="",
        executes_code=True,
    )
