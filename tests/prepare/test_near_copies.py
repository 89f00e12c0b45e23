"""Near copies are found with their similarity, whatever else the texts share."""

import random

from harness.prepare.near_copies import SIMILAR, near_copies

WORDS = [f"word{number}" for number in range(2000)]


def text(seed: int, words: int = 100) -> str:
    return " ".join(random.Random(seed).choices(WORDS, k=words))


def similarity(one: str, other: str) -> float:
    runs = [{tuple(words[n : n + 3]) for n in range(len(words) - 2)} for words in (one.split(), other.split())]
    return len(runs[0] & runs[1]) / len(runs[0] | runs[1])


def changed(original: str, words: int) -> str:
    """The text with some words replaced, evenly spread."""
    parts = original.split()
    for place in range(0, len(parts), len(parts) // words)[:words] if words else ():
        parts[place] = "other"
    return " ".join(parts)


def test_texts_are_near_copies_from_the_documented_similarity_on() -> None:
    for replaced in range(12):
        pair = [text(1), changed(text(1), replaced)]
        exact = similarity(*pair)
        found = near_copies(pair)
        assert bool(found) == (exact >= SIMILAR)
        if found:
            assert (found[0].text, found[0].of) == (1, 0) and abs(found[0].similarity - exact) < 1e-9


def test_case_and_punctuation_make_no_difference() -> None:
    (found,) = near_copies([text(1), text(1).upper().replace(" ", ", ")])
    assert found.similarity == 1


def test_every_near_copy_among_many_texts_is_found_and_no_other() -> None:
    texts = [text(seed) for seed in range(300)]
    found = near_copies([*texts, *(changed(each, 2) for each in texts)])
    assert [(each.text, each.of) for each in found] == [(300 + place, place) for place in range(300)]


def test_a_shared_template_makes_no_near_copies() -> None:
    shared = text(0, 500)
    assert near_copies([f"{shared} {text(seed, 30)}" for seed in range(1, 60)]) == []


def test_short_and_empty_texts_are_compared_whole() -> None:
    assert near_copies(["", "", "a b", "b a"]) == []
    assert [(each.text, each.of) for each in near_copies(["yes it is", "no", "Yes, it is!"])] == [(2, 0)]
