"""GSM8K with chains of thought: the same problems after eight worked examples, or after an instruction to think.

Dataset: https://huggingface.co/datasets/openai/gsm8k (config `main`; test 1,319 rows, train 7,473), MIT licence.
Paper: Wei et al., "Chain-of-Thought Prompting Elicits Reasoning in Large Language Models", 2022 (arXiv 2201.11903);
Kojima et al., "Large Language Models are Zero-Shot Reasoners", 2022 (arXiv 2205.11916), for `gsm8k_cot_zeroshot`.
Protocol: lm-evaluation-harness's `gsm8k_cot` (the paper's eight examples) and `gsm8k_cot_zeroshot`: greedy, 256 tokens;
`strict` requires `The answer is 18.`, `flexible` takes the last number. The training data, which is our own, ends
answers in this form.

Example:
    Q: There are 15 trees in the grove. Grove workers will plant trees in the grove today. After they are done, there …
    A: There are 15 trees originally. Then there were 21 trees after some more were planted. … The answer is 6.
"""

import re

from harness import Generate, Metric, Row, Task, flexible, hub, matching, task

SHOTS = [
    {
        "question": "There are 15 trees in the grove. Grove workers will plant trees in the grove today. After they are done, "
        "there will be 21 trees. How many trees did the grove workers plant today?",
        "target": "There are 15 trees originally. Then there were 21 trees after some more were planted. So there must have "
        "been 21 - 15 = 6. The answer is 6.",
    },
    {
        "question": "If there are 3 cars in the parking lot and 2 more cars arrive, how many cars are in the parking lot?",
        "target": "There are originally 3 cars. 2 more cars arrive. 3 + 2 = 5. The answer is 5.",
    },
    {
        "question": "Leah had 32 chocolates and her sister had 42. If they ate 35, how many pieces do they have left in total?",
        "target": "Originally, Leah had 32 chocolates. Her sister had 42. So in total they had 32 + 42 = 74. After eating 35, "
        "they had 74 - 35 = 39. The answer is 39.",
    },
    {
        "question": "Jason had 20 lollipops. He gave Denny some lollipops. Now Jason has 12 lollipops. How many lollipops did "
        "Jason give to Denny?",
        "target": "Jason started with 20 lollipops. Then he had 12 after giving some to Denny. So he gave Denny 20 - 12 = 8. "
        "The answer is 8.",
    },
    {
        "question": "Shawn has five toys. For Christmas, he got two toys each from his mom and dad. How many toys does he have "
        "now?",
        "target": "Shawn started with 5 toys. If he got 2 toys each from his mom and dad, then that is 4 more toys. 5 + 4 = 9. "
        "The answer is 9.",
    },
    {
        "question": "There were nine computers in the server room. Five more computers were installed each day, from monday to "
        "thursday. How many computers are now in the server room?",
        "target": "There were originally 9 computers. For each of 4 days, 5 more computers were added. So 5 * 4 = 20 computers "
        "were added. 9 + 20 is 29. The answer is 29.",
    },
    {
        "question": "Michael had 58 golf balls. On tuesday, he lost 23 golf balls. On wednesday, he lost 2 more. How many golf "
        "balls did he have at the end of wednesday?",
        "target": "Michael started with 58 golf balls. After losing 23 on tuesday, he had 58 - 23 = 35. After losing 2 more, he "
        "had 35 - 2 = 33 golf balls. The answer is 33.",
    },
    {
        "question": "Olivia has $23. She bought five bagels for $3 each. How much money does she have left?",
        "target": "Olivia had 23 dollars. 5 bagels for 3 dollars each will be 5 x 3 = 15 dollars. So she has 23 - 15 dollars "
        "left. 23 - 15 is 8. The answer is 8.",
    },
]

strict = Metric(
    "strict", score=matching(r"The answer is (\-?[0-9\.\,]+).", ignore=(",", r"\$", r"(?s).*#### ", r"\.$"))
)


def _sample(row: Row, question: str) -> Generate:
    if "target" in row:  # one of the eight examples
        return Generate(question, row["target"])
    steps, _, number = row["answer"].rpartition("####")
    steps = " ".join(re.sub(r"<<.*?>>", "", steps).split())
    return Generate(
        question,
        [f"{steps} The answer is {number.strip()}.", number.strip()],
        stop=("Q:", "</s>", "<|im_end|>"),
        max_tokens=256,
    )


@task
def gsm8k_cot() -> Task:
    """Grade-school math word problems after eight worked examples."""
    return Task(
        data=hub("openai/gsm8k", "main", split="test"),
        train=hub("openai/gsm8k", "main", split="train"),
        shots=8,
        shots_from=SHOTS,
        sample=lambda row: _sample(row, f"Q: {row['question']}\nA:"),
        metrics=[strict, flexible],
    )


@task
def gsm8k_cot_zeroshot() -> Task:
    """Grade-school math word problems after an instruction to think step by step."""
    return Task(
        data=hub("openai/gsm8k", "main", split="test"),
        train=hub("openai/gsm8k", "main", split="train"),
        sample=lambda row: _sample(row, f"Q: {row['question']}\nA: Let's think step by step."),
        metrics=[strict, flexible],
    )
