"""Mixes of training data: their syntax, and how often each row is used."""

from collections import Counter
from pathlib import Path

import pytest

from harness import UserError
from harness.config.mixes import MixPart, parse_mix, weighted


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("", [MixPart("")]),
        ("gsm8k", [MixPart("gsm8k")]),
        ("gsm8k*3", [MixPart("gsm8k", 3.0)]),
        ("gsm8k * 3 + data.jsonl", [MixPart("gsm8k", 3.0), MixPart("data.jsonl")]),
        ("a/b.csv*0.5 + hub:o/n:one+two:train*2e1", [MixPart("a/b.csv", 0.5), MixPart("hub:o/n:one+two:train", 20.0)]),
        ("c++.jsonl + b", [MixPart("c++.jsonl"), MixPart("b")]),
        ("a+b.jsonl", [MixPart("a+b.jsonl")]),
        ("  a  +\tb ", [MixPart("a"), MixPart("b")]),
        ("./*.py@x", [MixPart("./*.py@x")]),
    ],
)
def test_parts_are_split_at_spaced_plus_signs_with_their_weights(text: str, parts: list[MixPart]) -> None:
    assert parse_mix(text) == tuple(parts)


def test_an_existing_file_of_that_name_is_one_part(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("a + b.jsonl", "x*2"):
        Path(name).write_text("")
        assert parse_mix(name) == (MixPart(name),)


@pytest.mark.parametrize("text", ["a + ", "+ a", "a + + b", "a*0", "a*-1", "a*x", "a*", "a*nan", "a*inf + b"])
def test_a_malformed_mix_is_refused(text: str) -> None:
    with pytest.raises(UserError, match=r"has an empty part|is not a weight"):
        parse_mix(text)


@pytest.mark.parametrize(("weight", "count"), [(1, 10), (3, 30), (0.5, 5), (2.5, 25), (0.04, 0), (0.26, 3)])
def test_a_weight_is_how_often_rows_are_used(weight: float, count: int) -> None:
    taken = weighted(range(10), weight)
    assert len(taken) == count == len(weighted(range(10), weight))
    assert set(Counter(taken).values()) <= {int(weight), int(weight) + 1}
    assert taken == weighted(range(10), weight)


def test_no_rows_stay_no_rows() -> None:
    assert weighted([], 3) == []
