"""Samples in the training data are found in any wrapping; common phrases do not count."""

import random

import pytest

from harness import Choose, Generate, Text
from harness.prepare.overlap import OverlapMatches, find_overlap, own_texts, words_of

WORDS = [
    a + b
    for a in ["ba", "be", "bi", "bo", "bu", "da", "de", "di", "do", "du"]
    for b in ["l", "m", "n", "r", "s", "t", "ka", "ke", "ki", "ko"]
]


def question(seed: int, words: int = 20) -> str:
    return " ".join(random.Random(seed).choices(WORDS, k=words))


def prompted(seed: int, words: int = 20) -> tuple[str, str, str]:
    return str(seed), f"Question: {question(seed, words)}?\nAnswer:", f"the answer is {seed}"


def ids(found: OverlapMatches) -> list[str]:
    return [match.sample for match in found.contained]


SAMPLES = [prompted(seed) for seed in range(40)]
UNRELATED = [f"Question: {question(seed)}?\nAnswer: the answer is {seed}" for seed in range(100, 140)]


@pytest.mark.parametrize(
    "wrapped",
    [
        "Question: {}?\nAnswer: the answer is 7",
        "{}",
        "Some text before. {} And some after it.",
        '{{"instruction": "{}", "output": "7"}}',
        "user\n\n{}\n\nassistant\n\nseven",
    ],
)
def test_a_question_is_found_in_any_form(wrapped: str) -> None:
    for form in (str, str.upper, lambda text: text.replace(" ", ",  \n")):
        found = find_overlap(SAMPLES, [*UNRELATED, wrapped.format(form(question(7)))])
        assert ids(found) == ["7"]
        assert found.matches[0].row == 40 and question(7) in found.matches[0].text


def test_unrelated_texts_share_nothing() -> None:
    assert find_overlap(SAMPLES, UNRELATED).matches == ()


def test_a_template_of_all_texts_does_not_count() -> None:
    template = "You are a careful assistant who reads the following question twice before you answer it in one word "
    samples = [(id, template + asked, answer) for id, asked, answer in SAMPLES]
    assert find_overlap(samples, [template + text for text in UNRELATED]).matches == ()
    assert find_overlap(samples[:2], [template + text for text in UNRELATED[:2]]).matches == ()


def test_a_phrase_of_many_rows_does_not_count_but_a_repeated_row_does() -> None:
    phrase = question(7)
    assert find_overlap(SAMPLES, [f"{phrase} {question(seed)}" for seed in range(200, 211)]).matches == ()
    assert ids(find_overlap(SAMPLES, [f"{phrase} end"] * 50)) == ["7"]


def test_part_of_a_question_is_shared_but_not_contained() -> None:
    half = " ".join(question(7).split()[:14])
    (shared,) = find_overlap(SAMPLES, [f"{half} and then something else"]).matches
    assert shared.sample == "7" and shared.part == pytest.approx(14 / 20) and shared.text == half
    assert ids(find_overlap(SAMPLES, [f"{half} and then something else"])) == []


def test_the_row_that_has_most_of_a_sample_is_named() -> None:
    half = " ".join(question(7).split()[:14])
    assert find_overlap(SAMPLES, [half + " x", question(7) + " y"]).matches[0].row == 1


def test_the_length_of_an_ngram_follows_the_questions() -> None:
    assert find_overlap([prompted(seed, 40) for seed in range(9)], []).words == 13
    assert find_overlap([prompted(seed, 10) for seed in range(9)], []).words == 10
    assert find_overlap([prompted(seed, 3) for seed in range(9)], []).words == 8


def test_a_short_question_counts_with_its_answer_at_the_end_of_a_row() -> None:
    samples = [(str(seed), f"Q: {question(seed, 3)}\nA:", f"{question(seed + 50, 2)}") for seed in range(20)]
    asked, answer = question(3, 3), question(53, 2)
    assert ids(find_overlap(samples, [f"Description.\n\nQ: {asked}\nA: {answer}"])) == ["3"]
    assert ids(find_overlap(samples, [f"{asked}? {answer}!"])) == ["3"]
    assert ids(find_overlap(samples, [f"{asked}? something else", f"{asked}? {answer} and more"])) == []


def test_a_very_short_sample_does_not_count() -> None:
    assert find_overlap([("0", "Yes?", "no"), ("1", "Why?", "so")], ["Yes? no"]).matches == ()


def test_chinese_is_compared_by_character() -> None:
    rng = random.Random(0)
    texts = ["".join(chr(rng.randrange(0x4E00, 0x5E00)) for _ in range(40)) for _ in range(10)]
    samples = [(str(place), f"问题：{text}？\n答案：", "甲") for place, text in enumerate(texts)]
    found = find_overlap(samples, [f"请看：{texts[4]}。"])
    assert ids(found) == ["4"] and found.words == 26
    assert find_overlap(samples, [texts[4][:20]]).matches == ()


def test_words_are_alike_in_every_width_and_case() -> None:
    assert words_of("Ｓtraße_42, ＡＢＣ — 数学!") == ["strasse", "42", "abc", "数", "学"]
    assert words_of(" \n…") == []


def test_the_own_text_of_a_sample_is_its_question_and_right_answer() -> None:
    assert own_texts(Generate("1 + 1 =", ["2", "two"])) == ("1 + 1 =", "2")
    assert own_texts(Choose("Which?", ["a", "b"], answer=1)) == ("Which?", "b")
    assert own_texts(Choose(["it a", "it b"], ["big"], answer=0)) == ("it a", "big")
    assert own_texts(Generate([{"role": "user", "content": "Hi"}], "Ho")) == ("Hi", "Ho")
    assert own_texts(Text("A text.")) == ("A text.", "")


@pytest.mark.parametrize(
    ("samples", "training"),
    [([], []), ([], ["a b c"]), (SAMPLES, []), (SAMPLES, ["", " \n"]), ([("0", "", "")], ["", question(0)])],
)
def test_empty_texts_share_nothing(samples: list[tuple[str, str, str]], training: list[str]) -> None:
    assert find_overlap(samples, training).matches == ()


def test_a_single_sample_has_no_template() -> None:
    assert ids(find_overlap(SAMPLES[7:8], [SAMPLES[7][1] + " x"])) == ["7"]


def test_a_copy_is_found_among_thousands() -> None:
    samples = [prompted(seed, 60) for seed in range(500)]
    training = [question(seed, 100) for seed in range(1000, 4000)] + [question(3, 60)]
    assert ids(find_overlap(samples, training)) == ["3"]
