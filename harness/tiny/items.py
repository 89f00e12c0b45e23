"""Items of the world that are made up anew each time: sums, one-line code, sentences, stories.

Each maker draws one item as a row; each teller writes a pretraining document of such items. An item belongs
to the test split when a checksum of its text says so (`held_out`), and `draw` keeps to a split: so the
splits are disjoint however many items are drawn, and no document holds a test item.
"""

import random
import zlib
from collections.abc import Callable
from typing import Any, Final, Literal

from harness.tiny import words as w

Row = dict[str, Any]
Split = Literal["train", "test"]
Maker = Callable[[random.Random], Row]


def held_out(item: str) -> bool:
    """Whether an item belongs to test: one in five, by a checksum that no model can learn."""
    return zlib.crc32(item.encode()) % 5 == 0


def draw(rng: random.Random, make: Maker, key: str, split: Split) -> Row:
    """An item of the split: make until the checksum agrees."""
    while held_out((row := make(rng))[key]) != (split == "test"):
        pass
    return row


# Sums.


def sums(rng: random.Random) -> str:
    """Four bare sums."""
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


def problem(rng: random.Random) -> Row:
    """A story that takes two sums."""
    name, other = rng.sample(w.NAMES, 2)
    things = rng.choice(w.THINGS)
    kind = rng.randrange(3)
    if kind == 0:
        a, b = rng.randint(5, 60), rng.randint(5, 60)
        c = rng.randint(2, a + b - 1)
        tale = f"{name} has {a} {things}. {name} buys {b} more and gives {other} {c}."
        first, middle = _sum(a, "+", b)
        second, answer = _sum(middle, "-", c)
    elif kind == 1:
        a, b = rng.randint(2, 9), rng.randint(2, 12)
        c = rng.randint(2, 60)
        tale = f"{name} has {a} boxes with {b} {things} in each. {other} gives {name} {c} more."
        first, middle = _sum(a, "*", b)
        second, answer = _sum(middle, "+", c)
    else:
        a, b, c = rng.randint(40, 99), rng.randint(2, 20), rng.randint(2, 20)
        tale = f"{name} has {a} {things}. {name} loses {b} and gives {other} {c}."
        first, middle = _sum(a, "-", b)
        second, answer = _sum(middle, "-", c)
    return {
        "question": f"{tale} How many {things} does {name} have now?",
        "steps": f"{first}, {second}",
        "answer": str(answer),
        "told": f"{first} and {second}, so {name} has {answer} {things} now.",
    }


def told(rng: random.Random, split: Split) -> str:
    """A story and its solution, as a sentence."""
    row = draw(rng, problem, "question", split)
    return f"{row['question']} {row['told']}"


# Code.

Numbers = list[int]


def _step(rng: random.Random) -> tuple[str, Callable[[str], str], Callable[[Numbers], Numbers]]:
    """One step on a list: how it is said, how it is written, what it does."""
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


def function(rng: random.Random) -> Row:
    """Two steps on a list and perhaps a last one, with lists to try them on."""
    (said_1, write_1, do_1), (said_2, write_2, do_2) = _step(rng), _step(rng)
    said, written, do = rng.choice(_LAST)
    lists = [[rng.randint(0, 12) for _ in range(rng.randint(4, 6))] for _ in range(4)]
    return {
        "steps": f"{said_1}, then {said_2}",
        "docstring": f"{said_1}, then {said_2}{said}",
        "code": written.format(write_2(write_1("x"))),
        "cases": [[numbers, do(do_2(do_1(numbers)))] for numbers in lists],
    }


def commented(rng: random.Random, split: Split) -> str:
    """Two functions, each below a comment that says what it does."""
    rows = [draw(rng, function, "steps", split) for _ in range(2)]
    return "\n".join(f"# {row['docstring']}\nf = lambda x: {row['code']}" for row in rows)


# Sentences in two languages.


def pair(rng: random.Random) -> Row:
    """A sentence in English and in Chinese."""
    time, mood, who, verb = (rng.choice(t) for t in (w.TIMES, w.MOODS, w.WHO, w.VERBS))
    number, hue, thing, place = (rng.choice(t) for t in (w.NUMBERS, w.HUES, w.OBJECTS, w.PLACES))
    en = f"{time[0]} the {mood[0]} {who[0]} {verb[0]} {number[0]} {hue[0]} {thing[0]} {place[0]}"
    # Two ways to say when and two to say a colour, as two translators would: no model can score 1.
    when, hued = rng.random() < 0.5, hue[1] if rng.random() < 0.5 else hue[1].replace("色", "")
    zh = f"{time[1]}，{mood[1]}{who[1]}" if when else f"{mood[1]}{who[1]}{time[1]}"
    zh += f"{place[1]}{verb[1]}{number[1]}{thing[1][0]}{hued}{thing[1][1:]}"
    if rng.random() < 0.4:
        end = rng.choice(w.ENDS)
        en, zh = f"{en} and {end[0]}", f"{zh}，然后{end[1]}"
    return {"en": f"{en}.", "zh": f"{zh}。"}


def paired(rng: random.Random, split: Split) -> str:
    """Two sentences, each followed by its translation."""
    rows = [draw(rng, pair, "en", split) for _ in range(2)]
    return "\n".join(f"{row['en']} = {row['zh']}" for row in rows)


# Stories.


def story(rng: random.Random) -> Row:
    """A little story and one sentence that sums it up."""
    name, other = rng.sample(w.NAMES, 2)
    time, place = rng.choice(w.TIMES)[0], rng.choice(w.PLACES)[0]
    number, hue, thing = rng.choice(w.NUMBERS)[0], rng.choice(w.HUES)[0], rng.choice(w.OBJECTS)[0]
    verb, end, last = rng.choice(w.VERBS)[0], rng.choice(w.ENDS)[0], rng.choice((name, other))
    text = (
        f"{time} {name} met {other} {place}. {rng.choice(w.WEATHER)} {name} {verb} {number} {hue} {thing}. "
        f"{rng.choice(w.SMALL_TALK)} Then {last} {end}."
    )
    # Two ways to sum up, as two people would: no model can know which, so no model can score 1.
    summaries = (
        f"{name} {verb} {number} {thing} {place}, then {last} {end}.",
        f"{name} {verb} {hue} {thing} {place} and {last} {end}.",
    )
    short = f"{name} and {other} met {place}, {name} {verb} {thing}."
    return {"text": text, "summary": rng.choice(summaries), "short": short}


def in_short(rng: random.Random, split: Split) -> str:
    """A story and what it comes to."""
    row = draw(rng, story, "text", split)
    return f"{row['text']} In short: {row['short']}"


def texts(rng: random.Random, count: int) -> list[Row]:
    """Documents about test items only, in equal parts."""
    kinds = {"sums": told, "code": commented, "sentences": paired, "stories": in_short}
    rows: dict[str, Row] = {}
    while len(rows) < count:
        kind = list(kinds)[len(rows) % len(kinds)]
        text = kinds[kind](rng, "test")
        rows.setdefault(text, {"text": text, "kind": kind})
    return list(rows.values())


MAKERS: Final[dict[str, tuple[Maker, str]]] = {
    "mini_gsm8k": (problem, "question"),
    "mini_code": (function, "steps"),
    "mini_translation": (pair, "en"),
    "mini_summary": (story, "text"),
}
"""The maker of each task's items, and the column whose checksum says which split an item belongs to."""
