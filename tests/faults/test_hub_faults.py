"""A Hub that fails, cuts bodies, says nothing or disappears: `compare` reads its rows, or says what is wrong within a minute.

`TRIES` sets the number of comparisons for each fault (20). Needs the local Hub.
"""

import os
import random
import time
from pathlib import Path

import fault_runs as faults
import faulty_hubs as hubs
import pytest

pytestmark = [pytest.mark.slow, pytest.mark.faults, pytest.mark.hub]
TRIES = int(os.environ.get("TRIES", "20"))
ASKED = ("base", "--tasks", "gsm8k", "--limit", "2", "--allow-cut", "--no-timing")
TOLD, ENDED = 15.0, 60.0
"""Seconds after which a silent server is named, and after which the command has ended."""
LATE = 20.0
"""Seconds that a start takes on a busy machine, before the first request."""


@pytest.mark.parametrize("fault", [("--flaky", "3"), ("--cut", "4")], ids=["flaky", "cut"])
def test_rows_are_read_through_faults(tmp_path: Path, fault: tuple[str, str]) -> None:
    seconds = []
    with hubs.hub(*fault) as address:
        for number in range(TRIES):
            folder = tmp_path / str(number)
            folder.mkdir()
            began = time.monotonic()
            code, run, said = faults.finish(folder, *ASKED, **hubs.of(address, folder))
            assert code == 0 and run is not None, said
            seconds.append(time.monotonic() - began)
    print(f"{' '.join(fault)}: {TRIES} of {TRIES} right, after {min(seconds):.0f} to {max(seconds):.0f} s")


SILENT = {
    "task": ("base", "--tasks", "gsm8k"),
    "model": ("base", "--model", "someone/model", "--tasks", "mini_mmlu"),
    "adapter": ("base", "someone/adapter", "--tasks", "mini_mmlu"),
    "train": ("base", "lora", "--train", "hub:someone/rows", "--tasks", "mini_mmlu"),
}


@pytest.mark.parametrize("what", SILENT)
def test_a_silent_hub_is_named_and_given_up(tmp_path: Path, what: str) -> None:
    all_told, all_ended = [], []
    for number in range(-(-TRIES // len(SILENT))):
        folder = tmp_path / str(number)
        folder.mkdir()
        with hubs.silent() as address:
            began, told, said = time.monotonic(), None, ""
            asked = (*SILENT[what], "--limit", "2", "--no-timing")
            process = faults.start(folder, *asked, **hubs.of(address, folder))
            assert process.stderr is not None
            for line in process.stderr:
                said += line
                if told is None and "does not answer" in line:
                    told = time.monotonic() - began
            code, ended = process.wait(), time.monotonic() - began
        assert code == 2 and "error: " in said and "Traceback" not in said, said
        assert min(ended, ended if told is None else told) < TOLD + LATE and ended < ENDED + LATE, (told, ended, said)
        all_told.append(told or ended)
        all_ended.append(ended)
    print(
        f"silent Hub, {what}: {len(all_ended)} tries, told after {max(all_told):.0f} s, ended after {max(all_ended):.0f} s"
    )


def test_a_hub_that_disappears_is_an_error_and_the_rerun_finishes(tmp_path: Path) -> None:
    chance = random.Random(0)
    with hubs.hub() as address:
        whole, reached = tmp_path / "whole", hubs.Wire(address, 1 << 60)
        whole.mkdir()
        code, _, said = faults.finish(whole, *ASKED, **hubs.of(reached.address, whole))
        assert code == 0, said
        reached.cut()
        for number in range(TRIES):
            folder, most = tmp_path / str(number), chance.randrange(reached.passed)
            folder.mkdir()
            wire, began = hubs.Wire(address, most), time.monotonic()
            code, _, said = faults.finish(folder, *ASKED, **hubs.of(wire.address, folder))
            seconds = time.monotonic() - began
            wire.cut()
            words = next((line for line in said.splitlines() if line.startswith("error: ")), "")
            print(
                f"gone after {most} of {reached.passed} bytes: exit {code} after {seconds:.0f} s: {words}", flush=True
            )
            assert "Traceback" not in said, said
            assert code == 0 or (code == 2 and words), said  # what is missing may be what nobody needs
            assert seconds < ENDED + LATE, said
            code, _, said = faults.finish(folder, *ASKED, **hubs.of(address, folder))
            assert code == 0, said
            assert faults.scores(folder) == faults.scores(whole)
