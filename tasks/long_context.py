"""Long context: find a fact in a long text, for several lengths and depths, directly or over several steps.

Dataset: generated from a seed when the task is loaded: no download, and no model has been trained on it.
Paper: after Hsieh et al., "RULER: What's the Real Context Size of Your Long-Context Language Models?", 2024 (arXiv
2404.06654).
Protocol: our own, without an equivalent in lm-evaluation-harness: plain sentences without digits, and among them
`needles` codes of different people. The question asks for one code, `hops` steps away (a letter is passed on, and the
last holder has the code). The first step is at `depth` per cent of the text, the others are at random places. `lengths`
are in words; a word is about 1.4 tokens, depending on the tokenizer. `retrieved` is 1 if the first number in the answer
is the code. The groups are length × depth; a run shows them as a grid, and its notes count the prompts that were cut to
fit a model's context.

Example:
    Read the text, then answer the question.

    The old miller waited by the river in the morning. … The code of Alvira is 48213. … Nobody painted the gate.

    Question: What is the code of Alvira?
    Answer: The code is 48213
"""

import itertools
import random
import re
from collections.abc import Sequence

from harness import Generate, Metric, Row, Task, UserError, task

SUBJECTS = ["The old miller", "A young clerk", "The baker's daughter", "My neighbour", "Nobody", "A tired sailor"]
VERBS = ["waited", "sang quietly", "mended a basket", "counted the birds", "wrote a long list", "looked for the key"]
PLACES = ["by the river", "behind the mill", "near the station", "in the garden", "under the bridge", "on the hill"]
TIMES = ["in the morning", "after the rain", "before supper", "on a cold day", "at midnight", "as usual"]
HEADS = ["Al", "Be", "Cor", "Da", "El", "Fi", "Gar", "Ha", "Il", "Jo", "Ka", "Lu", "Mo", "Ne", "Or", "Pe"]
TAILS = ["vira", "ton", "mund", "lisa", "rick", "dora", "bert", "wen"]
NAMES = [head + tail for head in HEADS for tail in TAILS]


def _first_number(prediction: str, target: str) -> float:
    found = re.search(r"\d+", prediction)
    return float(found is not None and found[0] == target)


retrieved = Metric("retrieved", score=_first_number)


def _row(rng: random.Random, length: int, depth: int, needles: int, hops: int) -> Row:
    people = rng.sample(NAMES, needles + hops - 1)
    chain, others = people[:hops], people[hops:]
    codes = [str(code) for code in rng.sample(range(10_000, 100_000), needles)]
    steps = [f"{giver} hands the letter to {taker}." for giver, taker in itertools.pairwise(chain)]
    steps += [f"The code of {chain[-1]} is {codes[0]}."]
    loose = [f"The code of {name} is {code}." for name, code in zip(others, codes[1:], strict=True)]
    words = sum(len(fact.split()) for fact in steps + loose)
    text: list[str] = []
    while words < length:
        text.append(" ".join(map(rng.choice, (SUBJECTS, VERBS, PLACES, TIMES))) + ".")
        words += len(text[-1].split())
    for fact in steps[1:] + loose:
        text.insert(rng.randint(0, len(text)), fact)
    text.insert(round(len(text) * depth / 100), steps[0])
    question = f"What is the code of {chain[0]}?"
    if hops > 1:
        question = f"{chain[0]} has a letter. Who holds it at last, and what is the code of that person?"
    return {"text": " ".join(text), "question": question, "code": codes[0], "cell": f"{length} words × {depth} %"}


@task
def long_context(
    *,
    lengths: Sequence[int] = (250, 500, 1000, 2000, 4000),
    depths: Sequence[int] = (0, 25, 50, 75, 100),
    needles: int = 4,
    hops: int = 1,
    samples: int = 5,
    seed: int = 0,
) -> Task:
    """Finding a fact in a long text, for several lengths of the text and depths of the fact.

    Args:
        lengths: Words per text.
        depths: Positions of the fact, in per cent of the text.
        needles: Number of codes in the text, including the one in the question.
        hops: Number of facts to combine; with 1 the question asks for the code itself.
        samples: Samples per length and depth.
        seed: Seed of the texts.
    """
    if min(lengths, default=0) < 1 or not depths or not 0 <= min(depths) <= max(depths) <= 100 or samples < 1:
        raise UserError(
            "long_context: `lengths` and `samples` are 1 or more, `depths` 0 to 100", "for example `-T lengths=250+500`"
        )
    if needles < 1 or hops < 1 or needles + hops > len(NAMES):
        raise UserError(
            f"long_context: needles={needles}, hops={hops}", f"each is at least 1; together at most {len(NAMES)}"
        )
    cells = [(length, depth, number) for length in lengths for depth in depths for number in range(samples)]
    return Task(
        data=[_row(random.Random(f"{seed} {cell}"), *cell[:2], needles, hops) for cell in cells],
        sample=lambda row: Generate(
            f"Read the text, then answer the question.\n\n{row['text']}\n\nQuestion: {row['question']}\nAnswer: The code is",
            row["code"],
            stop=("\n",),
            max_tokens=12,
        ),
        group="cell",
        metrics=[retrieved],
    )
