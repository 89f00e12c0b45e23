"""`kill -9` of any process of a run, or of all, at a random moment of every stage: the rerun ends as an undisturbed run does.

`TRIES` sets the number of kills (100). Prints which process was killed in which stage.
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


def wait_to_kill(run: faults.Watched, victim: str, seconds: float) -> bool:
    """Kills the victim after some seconds; a child that does not exist then is killed as soon as it does."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline and run.process.poll() is None:
        time.sleep(0.01)
    while run.process.poll() is None:
        if kill(victim, run.process.pid):
            return True
        time.sleep(0.01)
    return False


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, float]]:
    """The folder of a run that nobody kills, and the seconds of its stages."""
    folder = tmp_path_factory.mktemp("undisturbed")
    with faults.Watched(folder) as run:
        assert run.process.wait() == 0
    return folder, run.seconds()


@pytest.mark.parametrize("victim", VICTIMS)
def test_a_killed_run_ends_as_an_undisturbed_one(
    tmp_path: Path, undisturbed: tuple[Path, dict[str, float]], victim: str
) -> None:
    whole, lasts = undisturbed
    chance, found = random.Random(victim), Counter[str]()
    for number in range(-(-TRIES // len(VICTIMS))):
        stage = faults.STAGES[(number + VICTIMS.index(victim)) % len(faults.STAGES)]
        folder = tmp_path / str(number)
        folder.mkdir()
        with faults.Watched(folder) as run:
            run.wait_for(stage)
            hit = wait_to_kill(run, victim, chance.uniform(0, lasts[stage]))
            where = run.stage if hit else "ended before"
            run.process.wait(timeout=300)
        faults.wait_until_gone(run.process.pid)
        assert "Traceback" not in run.said, run.said
        for _ in range(2):  # a row whose child was killed has failed, and is tried again
            code, _, said = faults.finish(folder)
            if code == 0:
                break
        assert code == 0, said
        assert faults.scores(folder) == faults.scores(whole)
        assert faults.samples(folder) == faults.samples(whole)
        assert faults.artifacts(folder) == faults.artifacts(whole)
        assert faults.leftovers(folder) == []
        faults.refuse_held_lock(folder)
        found[where] += 1
        print(f"{victim} killed in {where}: same samples, weights and scores", flush=True)
    print(f"kill -9 of the {victim}: {found.total()} tries, all right: {dict(found)}")
