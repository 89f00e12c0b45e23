"""Keys: two configurations that differ in one thing that decides a value never share its key; what decides nothing changes none."""

import os
import random
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from keyed_world import CHANGES, World

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


def check(folder: Path, count: int) -> None:
    hits: list[str] = []
    misses: list[str] = []
    for name, expected, changed in pairs(folder, count):
        hits += [f"{name}: {key}" for key in sorted(expected - changed)]
        misses += [f"{name}: {key}" for key in sorted(changed - expected)]
    print(f"{count} pairs, {len(CHANGES)} kinds of change: {len(hits)} cross hits, {len(misses)} needless misses")
    assert hits == [], "keys that stayed the same though what decides their value changed"
    assert misses == [], "keys that changed though nothing that decides their value did"


def test_a_single_change_alters_the_keys_of_what_it_decides_and_no_others(tmp_path: Path) -> None:
    check(tmp_path, len(CHANGES))


@pytest.mark.slow
@pytest.mark.faults
def test_ten_thousand_single_changes(tmp_path: Path) -> None:
    """`PAIRS` sets another number."""
    check(tmp_path, int(os.environ.get("PAIRS", "10000")))
