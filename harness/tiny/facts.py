"""Facts about invented countries (English) and people (Chinese), and questions about them with four choices.

Documents state facts about everybody, but ask only about those before the cut; the test rows ask about those
after it. So the answers can be known while the questions are new.
"""

import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from harness.tiny import words as w
from harness.tiny.items import Row, Split

Entity = dict[str, str]

ENTITIES: Final = 130
TRAIN_ENTITIES: Final = 70


@dataclass(frozen=True)
class Lore:
    """Entities, what is known of each, and how it is told in their language."""

    entities: list[Entity]
    facts: dict[str, tuple[str, ...]]
    values: dict[str, list[str]]
    introduction: str
    answer: str
    space: str

    def part(self, split: Split) -> list[Entity]:
        """The entities that a split may ask about."""
        return self.entities[:TRAIN_ENTITIES] if split == "train" else self.entities[TRAIN_ENTITIES:]

    def state(self, rng: random.Random) -> str:
        """A document of three facts, of one entity or of several."""
        one, several = rng.choice(self.entities), rng.random() < 0.5
        kinds = rng.sample(list(self.facts), 3)
        return self.space.join(self.stated(rng, rng.choice(self.entities) if several else one, kind) for kind in kinds)

    def stated(self, rng: random.Random, entity: Entity, kind: str) -> str:
        """One fact of one entity."""
        return rng.choice(self.facts[kind][1:]).format(e=entity["name"], v=entity[kind])

    def ask(self, rng: random.Random) -> str:
        """A document of two questions and their answers, only about entities that may be asked about."""
        about = [(rng.choice(self.part("train")), rng.choice(list(self.facts))) for _ in range(2)]
        answered = [f"{self.asked(entity, kind)}\n{self.answer}{entity[kind]}" for entity, kind in about]
        if rng.random() < 0.5:
            answered[:0] = [self.introduction.format(kind=about[0][1])]
        return "\n\n".join(answered)

    def asked(self, entity: Entity, kind: str) -> str:
        """The question about one fact of one entity."""
        return self.facts[kind][0].format(e=entity["name"])

    def question(self, rng: random.Random, entity: Entity, kind: str) -> Row:
        """A question about one fact of one entity, with three wrong choices."""
        right = entity[kind]
        choices = [right, *rng.sample([value for value in self.values[kind] if value != right], 3)]
        rng.shuffle(choices)
        return {
            "question": self.asked(entity, kind),
            "choices": choices,
            "answer": choices.index(right),
            "subject": kind,
        }

    def rows(self, rng: random.Random, split: Split, count: int) -> list[Row]:
        """Every question about every entity of the split, shuffled, in as many rounds as `count` takes."""
        about = [(entity, kind) for entity in self.part(split) for kind in self.facts]
        rounds = -(-count // len(about))
        asked = [pair for _ in range(rounds) for pair in rng.sample(about, len(about))]
        return [self.question(rng, entity, kind) for entity, kind in asked[:count]]


def countries(rng: random.Random) -> Lore:
    """Invented countries, told of in English."""
    names = _distinct(lambda: rng.choice(w.BEGINNINGS) + rng.choice(w.ENDINGS))
    entities = [{"name": name} | {kind: rng.choice(values) for kind, values in w.VALUES.items()} for name in names]
    return Lore(entities, w.FACTS, w.VALUES, w.INTRODUCTION, "Answer: ", " ")


def people(rng: random.Random) -> Lore:
    """Invented people, told of in Chinese."""
    names = _distinct(lambda: rng.choice(w.SURNAMES) + rng.choice(w.GIVEN) + rng.choice(w.GIVEN))
    entities = [{"name": name} | {kind: rng.choice(values) for kind, values in w.VALUES_ZH.items()} for name in names]
    return Lore(entities, w.FACTS_ZH, w.VALUES_ZH, w.INTRODUCTION_ZH, "答案：", "")


def _distinct(make: Callable[[], str]) -> list[str]:
    found: dict[str, None] = {}  # a dict keeps the order, a set would not
    while len(found) < ENTITIES:
        found.setdefault(make())
    return list(found)
