"""Programs of converters: quiet, ended with their parent, and one line about why they failed."""

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from harness.deploy.programs import ProgramFailed, run_program


def test_output_is_returned_and_the_network_is_off() -> None:
    program = "import os; print(os.environ['HF_HUB_OFFLINE'], os.environ.get('PYTHONPATH'))"
    assert run_program([sys.executable, "-c", program], variables={"PYTHONPATH": ""}) == "1 None\n"


@pytest.mark.parametrize(
    ("program", "message"),
    [
        ("raise ValueError('too odd')", "ValueError: too odd"),
        ("import sys; print('ERROR: Model X is not supported'); print('bye'); sys.exit(1)", "Model X is not supported"),
        ("import os; os.kill(os.getpid(), 9)", "it was ended by signal 9"),
        ("import sys; sys.exit(3)", "it ended with code 3"),
    ],
)
def test_failures_are_one_line(program: str, message: str) -> None:
    with pytest.raises(ProgramFailed, match=message):
        run_program([sys.executable, "-c", program])


def test_a_missing_program_is_a_failure() -> None:
    with pytest.raises(ProgramFailed):
        run_program(["/nowhere/at/all"])


def test_it_ends_with_its_parent(tmp_path: Path) -> None:
    mark = tmp_path / "pid"
    inner = f"import os, time; open({str(mark)!r}, 'w').write(str(os.getpid())); time.sleep(60)"
    outer = (
        f"from harness.deploy.programs import run_program; import sys; run_program([sys.executable, '-c', {inner!r}])"
    )
    parent = subprocess.Popen([sys.executable, "-c", outer])
    while not (mark.is_file() and mark.read_text()):
        time.sleep(0.02)
    parent.kill()
    parent.wait()
    child = int(mark.read_text())
    for _ in range(500):
        if not Path(f"/proc/{child}").exists() or b"\nState:\tZ" in Path(f"/proc/{child}/status").read_bytes():
            return
        time.sleep(0.02)
    os.kill(child, 9)
    pytest.fail("the program outlived its parent")
