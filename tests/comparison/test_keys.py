"""Keys: two configurations that differ in one thing that decides a value never share its key; what decides nothing changes none."""

import os
import random
import shutil
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest
from keyed_world import CHANGES, NOT_UNDONE, Change, Place, World

STEPS = 60
"""Changes after which a new world is made."""


def pairs(folder: Path, count: int) -> Iterator[tuple[str, set[str], set[str]]]:
    """Walks through worlds by single random changes: yields each change, and the keys that it had to change and has changed."""
    order: list[int] = []
    for start in range(0, count, STEPS):
        chance = random.Random(start)
        with pytest.MonkeyPatch.context() as patch:
            (folder / "world").mkdir()
            world = World.make(folder / "world", patch, chance)
            before = world.keys()
            for _ in range(min(STEPS, count - start)):
                if not order:
                    order = chance.sample(range(len(CHANGES)), len(CHANGES))
                change = CHANGES[order.pop()]
                change.apply(world, chance)
                after = world.keys()
                names = before.keys() | after.keys()
                changed = {name for name in names if before.get(name) != after.get(name)}
                yield change.name, change.expected(set(names)), changed
                before = after
        shutil.rmtree(folder / "world")


def judge(found: Iterable[tuple[str, set[str], set[str]]]) -> None:
    """Counts the keys that should have changed and did not, and those that changed without a reason."""
    hits: list[str] = []
    misses: list[str] = []
    kinds: list[str] = []
    for name, expected, changed in found:
        kinds.append(name)
        hits += [f"{name}: {key}" for key in sorted(expected - changed)]
        misses += [f"{name}: {key}" for key in sorted(changed - expected)]
    print(
        f"{len(kinds)} pairs, {len(set(kinds))} kinds of change: {len(hits)} cross hits, {len(misses)} needless misses"
    )
    assert hits == [], "keys that stayed the same though what decides their value changed"
    assert misses == [], "keys that changed though nothing that decides their value did"


def test_a_single_change_alters_the_keys_of_what_it_decides_and_no_others(tmp_path: Path) -> None:
    judge(pairs(tmp_path, len(CHANGES)))


def test_changes_that_are_made_and_undone_give_the_keys_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys.modules[__name__], "SWITCHES", 3)
    judge(cube_pairs(tmp_path, random.Random(1)))


SWITCHES = 8
"""Changes of a cube: each of its 2^8 states differs from eight others in one change, so a state serves four pairs."""


def switches(world: World, chance: random.Random) -> list[tuple[Change, dict[Place, tuple[Any, Any]]]]:
    """Random changes that can be made and undone in any order: each with what it alters, before and after."""
    found: list[tuple[Change, dict[Place, tuple[Any, Any]]]] = []
    taken: set[Place] = set()
    for change in chance.sample(CHANGES, len(CHANGES)):
        if len(found) == SWITCHES:
            break
        if change.name in NOT_UNDONE:
            continue
        before = world.state()
        change.apply(world, chance)
        after = world.state()
        places = {place for place in before.keys() | after.keys() if before.get(place) != after.get(place)}
        altered = {place: (before.get(place), after.get(place)) for place in places}
        for place, (value, _) in altered.items():
            world.put(place, value)
        if altered and not places & taken:
            found.append((change, altered))
            taken |= places
    return found


def cube_pairs(folder: Path, chance: random.Random) -> Iterator[tuple[str, set[str], set[str]]]:
    """Makes a world, and yields every pair of its states that differ in one change; for the values see `pairs`."""
    with pytest.MonkeyPatch.context() as patch:
        (folder / "world").mkdir()
        world = World.make(folder / "world", patch, chance)
        chosen = switches(world, chance)
        known: dict[int, dict[str, str]] = {0: world.keys()}
        state = 0
        for number in range(1, 1 << len(chosen)):
            switch = (number & -number).bit_length() - 1  # a Gray code: the next state differs in one change
            state ^= 1 << switch
            for place, values in chosen[switch][1].items():
                world.put(place, values[state >> switch & 1])
            known[state] = world.keys()
            for other, (change, _) in enumerate(chosen):
                before, after = known.get(state ^ 1 << other), known[state]
                if before is not None:
                    names = before.keys() | after.keys()
                    changed = {name for name in names if before.get(name) != after.get(name)}
                    yield change.name, change.expected(set(names)), changed
    shutil.rmtree(folder / "world")


@pytest.mark.slow
@pytest.mark.faults
def test_ten_thousand_single_changes(tmp_path: Path) -> None:
    """`PAIRS` sets another number, `SEED` another walk."""
    left, chance = int(os.environ.get("PAIRS", "10000")), random.Random(int(os.environ.get("SEED", "0")))
    while left > 0:
        found = list(cube_pairs(tmp_path, chance))
        judge(found)
        left -= len(found)
