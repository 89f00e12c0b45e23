"""`kill -9` of any process of a run, or of all, at random moments: the rerun ends as an undisturbed run does.

`TRIES` sets the number of kills (100). Prints a table of victims and outcomes.
"""

import os
import random
import signal
import time
from collections import Counter
from pathlib import Path

import fault_runs as faults
import pytest

pytestmark = [pytest.mark.slow, pytest.mark.faults]
TRIES = int(os.environ.get("TRIES", "100"))
VICTIMS = ("supervisor", "command", "server", "child", "group")
"""The processes of a run, each started by the one before it; `child` does the job."""


def kill(victim: str, session: int) -> bool:
    """Kills one process of a run, or all; False if it does not exist at this moment."""
    if victim == "group":
        os.killpg(session, signal.SIGKILL)
        return True
    parents, chosen = faults.processes(session), [session]
    for _ in range(VICTIMS.index(victim)):
        chosen = [each for each, parent in parents.items() if parent in chosen]
    for each in chosen[:1]:
        os.kill(each, signal.SIGKILL)
    return bool(chosen)


def test_a_killed_run_ends_as_an_undisturbed_one(tmp_path: Path) -> None:
    undisturbed = tmp_path / "undisturbed"
    undisturbed.mkdir()
    began = time.monotonic()
    code, whole, _ = faults.finish(undisturbed)
    assert code == 0
    seconds = time.monotonic() - began
    chance, table = random.Random(0), Counter[tuple[str, str]]()
    for number in range(TRIES):
        victim = VICTIMS[number % len(VICTIMS)]
        folder = tmp_path / str(number)
        folder.mkdir()
        process = faults.start(folder)
        time.sleep(chance.uniform(0, seconds))
        hit = process.poll() is None and kill(victim, process.pid)
        _, said = process.communicate(timeout=300)
        faults.wait_until_gone(process.pid)
        assert "Traceback" not in said, said
        for _ in range(2):  # a row whose child was killed has failed, and is tried again
            code, run, said = faults.finish(folder)
            if code == 0:
                break
        assert code == 0, said
        assert faults.scores(run) == faults.scores(whole)
        assert faults.samples(folder) == faults.samples(undisturbed)
        assert faults.leftovers(folder) == []
        table[victim, "killed" if hit else "not there"] += 1
    for (victim, what), count in sorted(table.items()):
        print(f"{victim:10} {what:10} {count:3}: same samples and scores")
