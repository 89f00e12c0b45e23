"""A Hub that fails, cuts bodies or says nothing: `compare` reads its rows, or says what is wrong within a minute.

`TRIES` sets the number of comparisons for each fault (20). Needs the local Hub.
"""

import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import fault_runs as faults
import pytest

pytestmark = [pytest.mark.slow, pytest.mark.faults, pytest.mark.hub]
TRIES = int(os.environ.get("TRIES", "20"))
ASKED = ("base", "--tasks", "gsm8k", "--limit", "2", "--allow-cut", "--no-timing")
TOLD, ENDED = 15.0, 60.0
"""Seconds after which a silent server is named, and after which the command has ended."""
LATE = 10.0
"""Seconds that a start takes on a busy machine before the first request."""


@contextmanager
def hub(*fault: str) -> Iterator[str]:
    """The address of a local Hub with a fault."""
    serve = Path(os.environ["HARNESS_TEST_HUB"]) / "serve"
    command = [sys.executable, str(serve), "--port", "0", *fault]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout is not None
        try:
            yield server.stdout.readline().strip()
        finally:
            server.terminate()


def of(address: str, folder: Path) -> dict[str, str]:
    """Variables of a command that knows only this Hub and has empty caches."""
    return {
        "HF_ENDPOINT": address,
        "HF_HOME": str(folder / "hf"),
        "HF_HUB_DISABLE_XET": "1",
        "HARNESS_HOME": str(folder / "home"),
    }


@pytest.mark.parametrize("fault", [("--flaky", "3"), ("--cut", "4")], ids=["flaky", "cut"])
def test_rows_are_read_through_faults(tmp_path: Path, fault: tuple[str, str]) -> None:
    with hub(*fault) as address:
        for number in range(TRIES):
            folder = tmp_path / str(number)
            folder.mkdir()
            began = time.monotonic()
            code, run, said = faults.finish(folder, *ASKED, **of(address, folder))
            assert code == 0 and run is not None, said
            print(f"{' '.join(fault)}: right after {time.monotonic() - began:.0f} s")


SILENT = {
    "task": ("base", "--tasks", "gsm8k"),
    "model": ("base", "--model", "someone/model", "--tasks", "mini_mmlu"),
    "adapter": ("base", "someone/adapter", "--tasks", "mini_mmlu"),
    "train": ("base", "lora", "--train", "hub:someone/rows", "--tasks", "mini_mmlu"),
}


@pytest.mark.parametrize("what", SILENT)
def test_a_silent_hub_is_named_and_given_up(tmp_path: Path, what: str) -> None:
    with socket.create_server(("127.0.0.1", 0), backlog=64) as listening:  # accepts, and never answers
        address = f"http://127.0.0.1:{listening.getsockname()[1]}"
        began, told, said = time.monotonic(), None, ""
        process = faults.start(tmp_path, *SILENT[what], "--limit", "2", "--no-timing", **of(address, tmp_path))
        assert process.stderr is not None
        for line in process.stderr:
            said += line
            if told is None and "does not answer" in line:
                told = time.monotonic() - began
        code, ended = process.wait(), time.monotonic() - began
    print(f"silent Hub, {what}: told after {told or -1:.0f} s, ended after {ended:.0f} s\n{said}")
    assert code == 2 and "error: " in said and "Traceback" not in said, said
    assert min(ended, ended if told is None else told) < TOLD + LATE and ended < ENDED + LATE
