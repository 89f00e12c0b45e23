"""`kill -9` of a process of an `--until-decided` run at a random moment of scoring: the rerun takes the same decisions.

`TRIES` sets the number of kills (a fifth of it, at least one for each process).
"""

from __future__ import annotations

import os
import random
import signal
import time
from collections.abc import Iterable
from pathlib import Path

import fault_runs as faults
import pytest

from harness.results import Comparison, Run

pytestmark = [pytest.mark.slow, pytest.mark.faults]
TRIES = int(os.environ.get("TRIES", "100")) // 20
TASK = """
from harness import Choose, Metric, Task, task

WORDS = ("red", "blue", "green", "white", "black", "three", "seven", "ten")
ROWS = [{"id": str(n), "one": WORDS[n * 5 % 8], "other": WORDS[(n * 3 + 1 + n // 8) % 8]} for n in range(200)]
likely = Metric("likely", score=lambda output, sample: float(output.loglikelihoods[0] > -10.5), bounds=(0, 1))

def sample(row):
    return Choose(f"Question {row['id']}: {row['one']} or {row['other']}? Answer:", [row["one"], "four"], 0, id=row["id"])

@task
def sharp() -> Task:
    return Task(data=ROWS[:180], sample=sample, metrics=[likely], shots_from=ROWS[180:], train=ROWS[180:])
"""
"""The untrained model finds some answers likely; four training steps change that, solved examples do not."""
ASKED = (
    *("base", "lora", "fewshot=base:shots=4", "--tasks", "./sharp.py", "--steps", "4"),
    *("--until-decided", "--smallest", "10pts", "--no-timing"),
)
VICTIMS = {"command": 1, "server": 2, "child": 3}
"""Processes by their distance from the one that was started."""


def comparisons(folder: Path) -> list[Comparison]:
    (document,) = (folder / "runs").glob("*/run.json")
    return list(Run.model_validate_json(document.read_text()).comparisons)


def descendant(session: int, distance: int) -> Iterable[int]:
    """A process of a session, by its distance from the first."""
    parents, chosen = faults.processes(session), [session]
    for _ in range(distance):
        chosen = [each for each, parent in parents.items() if parent in chosen]
    return chosen[:1]


def kill_at(run: faults.Watched, victim: str, seconds: float) -> bool:
    """Kills a process after some seconds of scoring, or as soon as it exists after them; False if the run ended before."""
    run.wait_for("Eval")
    deadline = time.monotonic() + seconds
    while run.process.poll() is None:
        for each in descendant(run.process.pid, VICTIMS[victim]) if time.monotonic() > deadline else ():
            os.kill(each, signal.SIGKILL)
            return True
        time.sleep(0.01)
    return False


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, float]:
    """The folder of a run that nobody kills, and the seconds for which it scored."""
    folder = tmp_path_factory.mktemp("undisturbed")
    (folder / "sharp.py").write_text(TASK)
    with faults.Watched(folder, *ASKED) as run:
        assert run.process.wait() == 0
    early = {each.a: each.early for each in comparisons(folder)}
    assert early["lora"] and early["fewshot"] and early["lora"].outcome == "shown"
    assert early["lora"].n < early["fewshot"].n, "the packs after a decision are tested, too"
    return folder, run.seconds()["Eval"]


@pytest.mark.parametrize("victim", VICTIMS)
def test_a_killed_run_takes_the_decisions_of_an_undisturbed_one(
    tmp_path: Path, undisturbed: tuple[Path, float], victim: str
) -> None:
    whole, lasts = undisturbed
    chance, hits = random.Random(victim), 0
    for number in range(max(1, TRIES * 4 // len(VICTIMS))):
        folder = tmp_path / str(number)
        folder.mkdir()
        (folder / "sharp.py").write_text(TASK)
        with faults.Watched(folder, *ASKED) as run:
            hits += kill_at(run, victim, chance.uniform(0, 0.9 * lasts))
            run.process.wait(timeout=300)
        faults.wait_until_gone(run.process.pid)
        assert "Traceback" not in run.said, run.said
        for _ in range(2):  # a row whose child was killed has failed, and is tried again
            code, _, said = faults.finish(folder, *ASKED)
            if code == 0:
                break
        assert code == 0, said
        assert comparisons(folder) == comparisons(whole)
        assert faults.samples(folder) == faults.samples(whole)
        assert faults.scores(folder) == faults.scores(whole)
        assert faults.leftovers(folder) == []
        faults.refuse_held_lock(folder)
    assert hits
    print(f"kill -9 of the {victim} while packs were scored: {hits} kills, the same decisions and the same bytes")
