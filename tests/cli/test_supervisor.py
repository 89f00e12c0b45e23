"""The command line keeps its exit code and its stdout, whatever the code of a task file does."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

PROGRAM = """
import ctypes, os, signal, sys, threading, time
from harness.cli import _fail, _signals
from harness.cli.supervisor import supervised
from harness.user_code import user_code

def run():
    {before}
    with user_code("t.py", "`sample` on row 3"):
        {code}
    print("data")
    {after}
    return 7

sys.exit(supervised(run, _fail))
"""


def program(code: str = "pass", *, before: str = "pass", after: str = "pass") -> list[str]:
    return [sys.executable, "-c", PROGRAM.format(code=code, before=before, after=after)]


def outcome(code: str = "pass", **parts: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "HARNESS_USER_CODE_SECONDS": "0.5"}
    return subprocess.run(
        program(code, **parts), capture_output=True, text=True, check=False, timeout=60, env=environment
    )


def test_a_command_returns_its_code_and_prints_its_data() -> None:
    done = outcome()
    assert (done.returncode, done.stdout, done.stderr) == (7, "data\n", "")


@pytest.mark.parametrize(
    "code",
    [
        "print('noise')",
        "os.write(1, b'noise')",
        "os.system('echo noise')",
        "sys.__stdout__.write('noise')",
        "import atexit; atexit.register(print, 'noise')",
        "threading.Timer(0.2, print, ['noise']).start(); after = time.sleep(0.4)",
    ],
)
def test_what_user_code_prints_goes_to_stderr(code: str) -> None:
    done = outcome(code)
    assert (done.returncode, done.stdout) == (7, "data\n") and "noise" in done.stderr


@pytest.mark.parametrize(
    ("code", "words"),
    [
        ("os._exit(0)", "the command ended with code 0 while it ran code of `t.py` in `sample` on row 3"),
        ("ctypes.string_at(0)", "was killed by SIGSEGV while it ran code of `t.py`"),
        ("os.kill(os.getpid(), signal.SIGKILL)", "was killed by SIGKILL while it ran code of `t.py`"),
        ("time.sleep(1e6)", "`t.py` in `sample` on row 3 did not return within 0.5 s"),
        ("9 ** 9 ** 9", "`t.py` in `sample` on row 3 did not return within 0.5 s"),
    ],
)
def test_an_end_or_a_hang_in_user_code_names_its_file(code: str, words: str) -> None:
    if code.startswith("9"):
        code = "n = 9; n ** n ** n"  # not a constant for the compiler
    done = outcome(code)
    assert done.returncode == 2 and done.stdout == "" and words in done.stderr and "hint: " in done.stderr


def test_handlers_of_user_code_do_not_change_a_reported_code() -> None:
    done = outcome("import atexit; atexit.register(os._exit, 0)")
    assert (done.returncode, done.stdout) == (7, "data\n")


def test_an_end_outside_of_user_code_is_no_success() -> None:
    done = outcome(after="os._exit(0)")
    assert done.returncode == 3 and "the command ended with code 0 before it was done" in done.stderr


def test_bytes_on_every_pipe_are_no_report() -> None:
    code = (
        "[os.write(int(fd), bytes(40)) for fd in os.listdir('/proc/self/fd')"
        " if int(fd) > 2 and 'pipe:' in os.path.realpath(f'/proc/self/fd/{fd}')]"
    )
    assert outcome(code).returncode == 7
    assert outcome(code, after="os._exit(0)").returncode == 3


def started(**parts: str) -> subprocess.Popen[str]:
    code = program(before=f"print('ready', file=sys.stderr, flush=True); {parts.get('before', 'pass')}")
    process = subprocess.Popen(code, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True)
    assert process.stderr is not None and process.stderr.readline() == "ready\n"
    return process


WAITS = """
    with _signals([], for_good=True):
        try:
            print('waiting', file=sys.stderr, flush=True)
            time.sleep(20)
        except KeyboardInterrupt:
            time.sleep(0.5)
            os.write(2, b'interrupted')
            return 130
"""


@pytest.mark.parametrize("to_group", [False, True])
def test_an_interrupt_reaches_the_command_once(to_group: bool) -> None:
    process = started(before=WAITS)
    assert process.stderr is not None and process.stderr.readline() == "waiting\n"
    (os.killpg if to_group else os.kill)(process.pid, signal.SIGINT)
    _, err = process.communicate(timeout=20)
    assert process.returncode == 130 and err == "interrupted"


def test_a_request_to_end_is_passed_on() -> None:
    process = started(before="time.sleep(20)")
    process.terminate()
    assert process.wait(20) == -signal.SIGTERM


def test_the_command_dies_with_its_parent() -> None:
    process = started(before="print(os.getpid(), file=sys.stderr, flush=True); time.sleep(20)")
    assert process.stderr is not None
    child = int(process.stderr.readline())
    process.kill()
    process.wait()
    for _ in range(100):
        if not Path(f"/proc/{child}").exists() or "zombie" in Path(f"/proc/{child}/status").read_text():
            return
        time.sleep(0.05)
    pytest.fail("the command outlived its parent")
