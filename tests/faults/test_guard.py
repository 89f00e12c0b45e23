"""A hundred generated programs at once on a busy machine: no attack passes or harms, every right program passes.

`TRIES` sets the number of programs at once (100). Prints a table of outcomes.
"""

import os
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from attacks import ATTACKS, GIVEN, LOOPS, RIGHT, TESTS
from sandbox_host import Host

from harness.sandbox.attempts import judge
from harness.sandbox.processors import processors
from harness.sandbox.run import Limits

pytestmark = [pytest.mark.slow, pytest.mark.faults]
TRIES = int(os.environ.get("TRIES", "100"))
BRIEF = Limits(cpu_seconds=1, wall_seconds=3)


@pytest.fixture
def busy() -> Iterator[None]:
    """Four processes that loop on each processor."""
    loops = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(4 * processors())]
    yield
    for loop in loops:
        loop.kill()
        loop.wait()


@pytest.mark.usefixtures("busy")
def test_right_programs_pass_on_a_busy_machine() -> None:
    """32 programs, 16 at once, each of which needs some tenths of a second."""
    work = (
        "    total = 0\n    for number in range(4_000_000): total += number\n    return {2: 731, 5: 902, 3: 350}[x]\n"
    )
    began = time.monotonic()
    with ThreadPoolExecutor(16) as pool:
        found = list(pool.map(lambda number: judge(f"{GIVEN}{work}# {number}", TESTS, given=GIVEN), range(32)))
    passed = sum(outcome.passed for outcome in found)
    print(f"right programs on a busy machine: {passed} of 32 pass, {time.monotonic() - began:.0f} s")
    assert passed == 32


@pytest.mark.usefixtures("busy")
def test_attacks_and_right_programs_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    host = Host(tmp_path)
    chosen = [(name, body, False) for name, body in {**ATTACKS, **LOOPS}.items()]
    right = [(name, body, True) for name, body in RIGHT.items()]
    mixed = [
        pair
        for attack, number in zip(chosen, range(len(chosen)), strict=True)
        for pair in (attack, right[number % len(right)])
    ]
    with ThreadPoolExecutor(TRIES) as pool:
        found = list(pool.map(lambda each: judge(GIVEN + host.fill(each[1]), TESTS, BRIEF, given=GIVEN), mixed))
    table = Counter(
        (is_right, outcome.fault or "passed") for (_, _, is_right), outcome in zip(mixed, found, strict=True)
    )
    for (is_right, what), count in sorted(table.items()):
        print(f"{'right' if is_right else 'attack':8} {what:12} {count:4}")
    wrong = [name for (name, _, is_right), outcome in zip(mixed, found, strict=True) if outcome.passed != is_right]
    assert wrong == []
    host.assert_unharmed()
    host.server.close()
