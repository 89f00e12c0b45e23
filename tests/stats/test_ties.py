"""Tie groups: two variants share a letter exactly if they are not shown to differ."""

from __future__ import annotations

import random

import pytest

from harness.stats.ties import letters, tie_groups


@pytest.mark.parametrize("seed", range(12))
def test_variants_share_a_letter_exactly_if_they_are_not_shown_to_differ(seed: int) -> None:
    draw = random.Random(seed)
    names = [f"v{number}" for number in range(draw.randint(1, 14))]
    differ = {frozenset((a, b)) for a in names for b in names if a < b and draw.random() < seed / 12}
    found = tie_groups(names, lambda a, b: frozenset((a, b)) in differ)
    assert list(found) == names and all(found.values())
    for a in names:
        for b in names:
            assert (frozenset((a, b)) not in differ) == bool(set(found[a]) & set(found[b])) or a == b
    members = [
        frozenset(name for name in names if group in found[name]) for group in range(1 + max(map(max, found.values())))
    ]
    assert all(members) and len(set(members)) == len(members), "no group is empty or repeated"
    assert not any(one < other for one in members for other in members), "no group is part of another"


def test_groups_are_numbered_from_the_best() -> None:
    ordered = {"full": 3, "lora": 2, "qlora": 1, "base": 0}
    found = tie_groups(list(ordered), lambda a, b: abs(ordered[a] - ordered[b]) > 1)
    assert found == {"full": (0,), "lora": (0, 1), "qlora": (1, 2), "base": (2,)}
    assert [letters(groups) for groups in found.values()] == ["a", "ab", "bc", "c"]


def test_nothing_and_one_variant() -> None:
    assert tie_groups([], lambda a, b: True) == {}
    assert tie_groups(["base"], lambda a, b: True) == {"base": (0,)}
    assert letters([]) == "" and letters([25, 26, 52]) == "za2a3"
