"""Randomly generated items of the world: sums, one-line code, sentences, stories.

One group of functions (`Maker`) draws an item as a row; another writes a pretraining document of such items. A checksum
of its text decides whether an item belongs to the test split (`held_out`), and `draw` returns only items of the requested
split. So the splits are disjoint for any number of draws, and no document holds a test item.
"""

import random
import zlib
from collections.abc import Callable
from typing import Any, Final, Literal, NamedTuple

from harness.tiny import words as w

TinyRow = dict[str, Any]
Split = Literal["train", "test"]
Maker = Callable[[random.Random], TinyRow]


def held_out(item: str) -> bool:
    """Whether an item belongs to the test split: one in five, by a checksum that no model can learn."""
    return zlib.crc32(item.encode()) % 5 == 0


def draw(rng: random.Random, make: Maker, key: str, split: Split) -> TinyRow:
    """Draws items until one belongs to the split, and returns it.

    Args:
        rng: Source of randomness.
        make: Draws one item.
        key: The column whose text decides the split.
        split: The wanted split.
    """
    while held_out((row := make(rng))[key]) != (split == "test"):
        pass
    return row


# Sums.


def sums(rng: random.Random) -> str:
    """A document of four sums without a story."""
    return " ".join(rng.choice((_plus, _minus, _times))(rng) + "." for _ in range(4))


def _plus(rng: random.Random) -> str:
    return _sum(rng.randint(1, 99), "+", rng.randint(1, 99))[0]


def _minus(rng: random.Random) -> str:
    high, low = sorted(rng.sample(range(1, 120), 2), reverse=True)
    return _sum(high, "-", low)[0]


def _times(rng: random.Random) -> str:
    return _sum(rng.randint(2, 9), "*", rng.randint(2, 12))[0]


def _sum(a: int, sign: str, b: int) -> tuple[str, int]:
    result = {"+": a + b, "-": a - b, "*": a * b}[sign]
    return f"{a}{sign}{b}={result}", result


Range = tuple[int, int]


class Sizes(NamedTuple):
    """Ranges of the numbers of story problems: (first, last) of each number in the order of the story."""

    bought: tuple[Range, Range]
    boxes: tuple[Range, Range, Range]
    lost: tuple[Range, Range, Range]


KNOWN: Final = Sizes(bought=((5, 60), (5, 60)), boxes=((2, 9), (2, 12), (2, 60)), lost=((40, 99), (2, 20), (2, 20)))
"""The numbers of the pretraining documents."""

LARGER: Final = Sizes(bought=((30, 70), (30, 70)), boxes=((3, 9), (8, 16), (2, 60)), lost=((90, 139), (5, 40), (5, 40)))
"""The numbers of `mini_gsm8k`: larger products, and larger numbers to take away from."""


def problem(rng: random.Random, sizes: Sizes = KNOWN) -> TinyRow:
    """A story whose question needs two sums."""
    name, other = rng.sample(w.NAMES, 2)
    things = rng.choice(w.THINGS)
    kind = rng.randrange(3)
    if kind == 0:
        a, b = (rng.randint(*each) for each in sizes.bought)
        c = rng.randint(2, a + b - 1)
        tale = f"{name} has {a} {things}. {name} buys {b} more and gives {other} {c}."
        first, middle = _sum(a, "+", b)
        second, answer = _sum(middle, "-", c)
    elif kind == 1:
        a, b, c = (rng.randint(*each) for each in sizes.boxes)
        tale = f"{name} has {a} boxes with {b} {things} in each. {other} gives {name} {c} more."
        first, middle = _sum(a, "*", b)
        second, answer = _sum(middle, "+", c)
    else:
        a, b, c = (rng.randint(*each) for each in sizes.lost)
        tale = f"{name} has {a} {things}. {name} loses {b} and gives {other} {c}."
        first, middle = _sum(a, "-", b)
        second, answer = _sum(middle, "-", c)
    return {
        "question": f"{tale} How many {things} does {name} have now?",
        "steps": f"{first}, {second}",
        "answer": str(answer),
        "told": f"{first} and {second}, so {name} has {answer} {things} now.",
    }


def larger_problem(rng: random.Random) -> TinyRow:
    """A story problem with the numbers of `LARGER`."""
    return problem(rng, LARGER)


def solved_problem(rng: random.Random, split: Split) -> str:
    """A document: a story problem and its solution as a sentence."""
    row = draw(rng, problem, "question", split)
    return f"{row['question']} {row['told']}"


# Code.

Numbers = list[int]


def _step(rng: random.Random) -> tuple[str, Callable[[str], str], Callable[[Numbers], Numbers]]:
    """One operation on a list: its description, its code, and the function that computes it."""
    k = rng.randint(1, 9)
    n = rng.randint(1, 3)
    steps: list[tuple[str, Callable[[str], str], Callable[[Numbers], Numbers]]] = [
        ("sort", lambda c: f"sorted({c})", sorted),
        ("reverse", lambda c: f"{c}[::-1]", lambda x: x[::-1]),
        (f"take the first {n}", lambda c: f"{c}[:{n}]", lambda x: x[:n]),
        (f"drop the first {n}", lambda c: f"{c}[{n}:]", lambda x: x[n:]),
        (f"add {k} to each", lambda c: f"[i+{k} for i in {c}]", lambda x: [i + k for i in x]),
        (f"multiply each by {k}", lambda c: f"[i*{k} for i in {c}]", lambda x: [i * k for i in x]),
        (f"keep those over {k}", lambda c: f"[i for i in {c} if i>{k}]", lambda x: [i for i in x if i > k]),
    ]
    return rng.choice(steps)


_LAST: Final[list[tuple[str, str, Callable[[Numbers], int | Numbers]]]] = [
    ("", "{}", list),
    (", then sum", "sum({})", sum),
    (", then count", "len({})", len),
]


def function(rng: random.Random) -> TinyRow:
    """A function of two list operations and an optional last one, with test lists."""
    (text_1, code_1, do_1), (text_2, code_2, do_2) = _step(rng), _step(rng)
    text, code, do = rng.choice(_LAST)
    lists = [[rng.randint(0, 12) for _ in range(rng.randint(4, 6))] for _ in range(4)]
    return {
        "steps": f"{text_1}, then {text_2}",
        "docstring": f"{text_1}, then {text_2}{text}",
        "code": code.format(code_2(code_1("x"))),
        "cases": [[numbers, do(do_2(do_1(numbers)))] for numbers in lists],
    }


def commented_functions(rng: random.Random, split: Split) -> str:
    """A document of two functions, each below a comment that describes it."""
    rows = [draw(rng, function, "steps", split) for _ in range(2)]
    return "\n".join(f"# {row['docstring']}\nf = lambda x: {row['code']}" for row in rows)


# Sentences in two languages.


def pair(rng: random.Random) -> TinyRow:
    """A sentence in English and in Chinese."""
    time, mood, who, verb = (rng.choice(t) for t in (w.TIMES, w.MOODS, w.WHO, w.VERBS))
    number, hue, thing, place = (rng.choice(t) for t in (w.NUMBERS, w.HUES, w.OBJECTS, w.PLACES))
    en = f"{time[0]} the {mood[0]} {who[0]} {verb[0]} {number[0]} {hue[0]} {thing[0]} {place[0]}"
    # The time has two word orders and the colour two forms, as with two translators: no model can score 1.
    when, hued = rng.random() < 0.5, hue[1] if rng.random() < 0.5 else hue[1].replace("色", "")
    zh = f"{time[1]}，{mood[1]}{who[1]}" if when else f"{mood[1]}{who[1]}{time[1]}"
    zh += f"{place[1]}{verb[1]}{number[1]}{thing[1][0]}{hued}{thing[1][1:]}"
    if rng.random() < 0.4:
        end = rng.choice(w.ENDS)
        en, zh = f"{en} and {end[0]}", f"{zh}，然后{end[1]}"
    return {"en": f"{en}.", "zh": f"{zh}。"}


def translated_sentences(rng: random.Random, split: Split) -> str:
    """A document of two sentences, each followed by its translation."""
    rows = [draw(rng, pair, "en", split) for _ in range(2)]
    return "\n".join(f"{row['en']} = {row['zh']}" for row in rows)


# Stories.


def story(rng: random.Random) -> TinyRow:
    """A short story with a one-sentence summary."""
    name, other = rng.sample(w.NAMES, 2)
    time, place = rng.choice(w.TIMES)[0], rng.choice(w.PLACES)[0]
    number, hue, thing = rng.choice(w.NUMBERS)[0], rng.choice(w.HUES)[0], rng.choice(w.OBJECTS)[0]
    verb, end, last = rng.choice(w.VERBS)[0], rng.choice(w.ENDS)[0], rng.choice((name, other))
    text = (
        f"{time} {name} met {other} {place}. {rng.choice(w.WEATHER)} {name} {verb} {number} {hue} {thing}. "
        f"{rng.choice(w.SMALL_TALK)} Then {last} {end}."
    )
    # One of two summaries is chosen at random, as with two annotators: no model can score 1.
    summaries = (
        f"{name} {verb} {number} {thing} {place}, then {last} {end}.",
        f"{name} {verb} {hue} {thing} {place} and {last} {end}.",
    )
    short = f"{name} and {other} met {place}, {name} {verb} {thing}."
    return {"text": text, "summary": rng.choice(summaries), "short": short}


def summarized_story(rng: random.Random, split: Split) -> str:
    """A document: a story followed by its short version."""
    row = draw(rng, story, "text", split)
    return f"{row['text']} In short: {row['short']}"


def texts(rng: random.Random, count: int) -> list[TinyRow]:
    """Rows of documents about test items only, the four kinds in turn."""
    kinds = {
        "sums": solved_problem,
        "code": commented_functions,
        "sentences": translated_sentences,
        "stories": summarized_story,
    }
    rows: dict[str, TinyRow] = {}
    while len(rows) < count:
        kind = list(kinds)[len(rows) % len(kinds)]
        text = kinds[kind](rng, "test")
        rows.setdefault(text, {"text": text, "kind": kind})
    return list(rows.values())


MAKERS: Final[dict[str, tuple[Maker, str]]] = {
    "mini_gsm8k": (larger_problem, "question"),
    "mini_code": (function, "steps"),
    "mini_translation": (pair, "en"),
    "mini_summary": (story, "text"),
}
"""For each task, the function that draws an item, and the column whose checksum decides the split."""
