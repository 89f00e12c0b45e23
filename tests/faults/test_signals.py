"""SIGTERM, SIGHUP and Ctrl-C, once and twice, at each stage: one sentence, no traceback, nothing left, and the rerun finishes."""

import os
import signal
import time
from pathlib import Path

import fault_runs as faults
import pytest

pytestmark = [pytest.mark.slow, pytest.mark.faults]
STAGES = ("Start", "Train", "Eval", "Time")
SIGNALS = {"SIGTERM": signal.SIGTERM, "SIGHUP": signal.SIGHUP, "Ctrl-C": signal.SIGINT}


@pytest.mark.parametrize("times", [1, 2])
@pytest.mark.parametrize("stage", STAGES)
@pytest.mark.parametrize("name", SIGNALS)
def test_a_signal_ends_a_run_in_one_sentence(tmp_path: Path, name: str, stage: str, times: int) -> None:
    process = faults.start(tmp_path)
    assert process.stderr is not None
    said = ""
    while stage not in said:
        assert process.poll() is None, said
        said = process.stderr.readline()
    for _ in range(times):
        os.killpg(process.pid, SIGNALS[name])
        time.sleep(0.05)
    rest = process.stderr.read()
    assert process.wait(timeout=60) == 128 + SIGNALS[name]
    assert rest.count("interrupted; finished work is kept. To continue: harness compare") == 1
    assert "Traceback" not in rest and "error:" not in rest
    faults.wait_until_gone(process.pid)
    code, run, said = faults.finish(tmp_path)
    assert code == 0 and run is not None, said
    assert {variant.status for variant in run.variants} == {"done"}
    assert faults.leftovers(tmp_path) == []
