"""A Hub that answers every third request with 503, or cuts every fourth body: `compare` reads its rows all the same.

`TRIES` sets the number of comparisons for each fault (20). Needs the local Hub.
"""

import os
import subprocess
import sys
import time
from pathlib import Path

import fault_runs as faults
import pytest

pytestmark = [pytest.mark.slow, pytest.mark.faults, pytest.mark.hub]
TRIES = int(os.environ.get("TRIES", "20"))
ASKED = ("base", "--tasks", "gsm8k", "--limit", "2", "--allow-cut", "--no-timing")


@pytest.mark.parametrize("fault", [("--flaky", "3"), ("--cut", "4")], ids=["flaky", "cut"])
def test_rows_are_read_through_faults(tmp_path: Path, fault: tuple[str, str]) -> None:
    serve = Path(os.environ["HARNESS_TEST_HUB"]) / "serve"
    with subprocess.Popen(
        [sys.executable, str(serve), "--port", "0", *fault], stdout=subprocess.PIPE, text=True
    ) as server:
        assert server.stdout is not None
        address = server.stdout.readline().strip()
        try:
            for number in range(TRIES):
                folder = tmp_path / str(number)
                folder.mkdir()
                began = time.monotonic()
                hub = {"HF_ENDPOINT": address, "HF_HOME": str(folder / "hf"), "HF_HUB_DISABLE_XET": "1"}
                code, run, said = faults.finish(folder, *ASKED, HARNESS_HOME=str(folder / "home"), **hub)
                assert code == 0 and run is not None, said
                print(f"{' '.join(fault)}: right after {time.monotonic() - began:.0f} s")
        finally:
            server.terminate()
