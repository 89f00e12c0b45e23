"""Facts about invented countries (English) and people (Chinese), and questions about them with four choices.

Documents state facts about all entities, but ask only about the first `TRAIN_ENTITIES`, and only in plain words. The test
rows ask about the others, mostly in forms that no document has. So the model can know an answer while the question is new.
"""

import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from harness.tiny import words as w
from harness.tiny.items import Split, TinyRow

Entity = dict[str, str]

ENTITIES: Final = 130
TRAIN_ENTITIES: Final = 70


@dataclass(frozen=True)
class Lore:
    """Entities, the facts about each, and the templates that state them in their language."""

    entities: list[Entity]
    facts: dict[str, tuple[str, ...]]
    questions: dict[str, tuple[str, ...]]
    values: dict[str, list[str]]
    introduction: str
    answer: str
    space: str

    def of_split(self, split: Split) -> list[Entity]:
        """The entities that a split may ask about."""
        return self.entities[:TRAIN_ENTITIES] if split == "train" else self.entities[TRAIN_ENTITIES:]

    def state(self, rng: random.Random) -> str:
        """A document of three facts about one entity or several."""
        one, several = rng.choice(self.entities), rng.random() < 0.5
        kinds = rng.sample(list(self.facts), 3)
        return self.space.join(
            self.statement(rng, rng.choice(self.entities) if several else one, kind) for kind in kinds
        )

    def statement(self, rng: random.Random, entity: Entity, kind: str) -> str:
        """A sentence that states one fact about one entity."""
        return rng.choice(self.facts[kind][1:]).format(e=entity["name"], v=entity[kind])

    def ask(self, rng: random.Random) -> str:
        """A document of two questions with answers, only about entities of the train split."""
        about = [(rng.choice(self.of_split("train")), rng.choice(list(self.facts))) for _ in range(2)]
        answered = [f"{self.question_text(entity, kind)}\n{self.answer}{entity[kind]}" for entity, kind in about]
        if rng.random() < 0.5:
            answered[:0] = [self.introduction.format(kind=about[0][1])]
        return "\n\n".join(answered)

    def question_text(self, entity: Entity, kind: str) -> str:
        """The question about one fact about one entity."""
        return self.facts[kind][0].format(e=entity["name"])

    def row(self, rng: random.Random, entity: Entity, kind: str, question: str, split: Split) -> TinyRow:
        """A row: the question about one fact about one entity, with three wrong choices.

        If the question names another entity, that is one of the split with another value, which is a wrong choice.
        """
        right = entity[kind]
        wrong = [value for value in self.values[kind] if value != right]
        other = rng.choice([each for each in self.of_split(split) if each[kind] != right])
        if "{o}" in question:
            choices = [right, other[kind], *rng.sample([value for value in wrong if value != other[kind]], 2)]
        else:
            choices = [right, *rng.sample(wrong, 3)]
        rng.shuffle(choices)
        return {
            "question": question.format(e=entity["name"], o=other["name"]),
            "choices": choices,
            "answer": choices.index(right),
            "subject": kind,
        }

    def rows(self, rng: random.Random, split: Split, count: int) -> list[TinyRow]:
        """All facts about all entities of the split, shuffled, and in other words in each round until there are `count` rows."""
        about = [
            (entity, kind, i + j) for i, entity in enumerate(self.of_split(split)) for j, kind in enumerate(self.facts)
        ]
        found = list[TinyRow]()
        while len(found) < count:
            turn = len(found) // len(about)
            for entity, kind, place in rng.sample(about, len(about)):
                words = self.questions[kind]
                found.append(self.row(rng, entity, kind, words[(place + turn) % len(words)], split))
        return found[:count]


def countries(rng: random.Random) -> Lore:
    """Invented countries, described in English."""
    names = _distinct(lambda: rng.choice(w.BEGINNINGS) + rng.choice(w.ENDINGS))
    entities = [{"name": name} | {kind: rng.choice(values) for kind, values in w.VALUES.items()} for name in names]
    return Lore(entities, w.FACTS, w.QUESTIONS, w.VALUES, w.INTRODUCTION, "Answer: ", " ")


def people(rng: random.Random) -> Lore:
    """Invented people, described in Chinese."""
    names = _distinct(lambda: rng.choice(w.SURNAMES) + rng.choice(w.GIVEN) + rng.choice(w.GIVEN))
    entities = [{"name": name} | {kind: rng.choice(values) for kind, values in w.VALUES_ZH.items()} for name in names]
    return Lore(entities, w.FACTS_ZH, w.QUESTIONS_ZH, w.VALUES_ZH, w.INTRODUCTION_ZH, "答案：", "")


def _distinct(make: Callable[[], str]) -> list[str]:
    found: dict[str, None] = {}  # a dict keeps the insertion order, a set does not
    while len(found) < ENTITIES:
        found.setdefault(make())
    return list(found)
