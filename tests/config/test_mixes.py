"""Training data of several parts: how it is written, and exactly how often each row is taken."""

from collections import Counter
from pathlib import Path

import pytest

from harness import UserError
from harness.config.mixes import Part, parse_mix, weighted


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("", [Part("")]),
        ("gsm8k", [Part("gsm8k")]),
        ("gsm8k*3", [Part("gsm8k", 3.0)]),
        ("gsm8k * 3 + data.jsonl", [Part("gsm8k", 3.0), Part("data.jsonl")]),
        ("a/b.csv*0.5 + hub:o/n:one+two:train*2e1", [Part("a/b.csv", 0.5), Part("hub:o/n:one+two:train", 20.0)]),
        ("c++.jsonl + b", [Part("c++.jsonl"), Part("b")]),
        ("a+b.jsonl", [Part("a+b.jsonl")]),
        ("  a  +\tb ", [Part("a"), Part("b")]),
        ("./*.py@x", [Part("./*.py@x")]),
    ],
)
def test_parts_stand_apart_and_bring_their_weights(text: str, parts: list[Part]) -> None:
    assert parse_mix(text) == tuple(parts)


def test_a_file_of_that_very_name_is_no_mix(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("a + b.jsonl", "x*2"):
        Path(name).write_text("")
        assert parse_mix(name) == (Part(name),)


@pytest.mark.parametrize("text", ["a + ", "+ a", "a + + b", "a*0", "a*-1", "a*x", "a*", "a*nan", "a*inf + b"])
def test_what_is_no_mix_is_refused(text: str) -> None:
    with pytest.raises(UserError, match=r"has an empty part|is no weight"):
        parse_mix(text)


@pytest.mark.parametrize(("weight", "count"), [(1, 10), (3, 30), (0.5, 5), (2.5, 25), (0.04, 0), (0.26, 3)])
def test_a_weight_is_how_often_rows_are_taken(weight: float, count: int) -> None:
    taken = weighted(range(10), weight)
    assert len(taken) == count == len(weighted(range(10), weight))
    assert set(Counter(taken).values()) <= {int(weight), int(weight) + 1}
    assert taken == weighted(range(10), weight)


def test_no_rows_weigh_nothing() -> None:
    assert weighted([], 3) == []
