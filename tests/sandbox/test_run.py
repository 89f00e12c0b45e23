"""The sandbox contains generated programs: each attack is stopped, named, and leaves nothing behind."""

import resource
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from sandbox_host import Host

from harness.errors import UserError
from harness.sandbox import run
from harness.sandbox.run import Limits, protections, run_program

SHORT = Limits(wall_seconds=0.5)
PATIENT = Limits(wall_seconds=30, memory_bytes=256 << 20)
KERNEL = "(seccomp)" in protections()["processes"]
LANDLOCK = "Landlock" in protections()["files"]
needs_seccomp = pytest.mark.skipif(not KERNEL, reason="guard: this kernel has no seccomp")
needs_landlock = pytest.mark.skipif(not LANDLOCK, reason="guard: this kernel has no Landlock")


def test_a_program_that_reaches_its_end_passes_and_one_that_raises_does_not(host: Host) -> None:
    assert run_program("assert 1 + 1 == 2") == run.Outcome(passed=True)
    failed = run_program("assert 1 + 1 == 3, 'no'")
    assert (failed.passed, failed.fault, failed.detail) == (False, "exception", "AssertionError: no")


def test_a_program_has_the_standard_library_threads_and_a_folder_of_its_own(host: Host) -> None:
    program = """
import asyncio, collections, datetime, hashlib, heapq, json, math, os, random, re, threading, typing
async def seven(): return 7
assert asyncio.run(seven()) == 7
threads = [threading.Thread(target=os.getcwd) for _ in range(20)]
[thread.start() for thread in threads]
[thread.join() for thread in threads]
assert os.listdir() == [] and os.path.samefile(os.getcwd(), os.environ["HOME"])
"""
    assert run_program(program).passed


@needs_landlock
def test_a_program_may_write_in_its_folder(host: Host) -> None:
    program = "import os\nopen('a', 'w').write('x')\nos.rename('a', 'b')\nassert open('b').read() == 'x'\nos.mkdir('c')"
    assert run_program(program).passed


def test_no_process_can_be_started(host: Host) -> None:
    """One `fork`, tested before the fork bombs below."""
    outcome = run_program("import os\nif os.fork() == 0: os._exit(0)")
    assert (outcome.passed, outcome.fault, outcome.refused) == (False, "processes", ("processes",))


ATTACKS = {
    "fork bomb": ("processes", "import os\nwhile True: os.fork()"),
    "shell": ("processes", "import os\nos.execv('/bin/sh', ['sh', '-c', 'echo > ' + CANARY])"),
    "subprocess": ("processes", "import subprocess\nsubprocess.run(['rm', CANARY])"),
    "os.system": ("processes", "import os\nassert os.system('rm ' + CANARY) == 0"),
    "pool": ("processes", "import multiprocessing\nmultiprocessing.get_context('fork').Process(target=print).start()"),
    "daemon": (
        "processes",
        "import os, time\nif os.fork() == 0:\n  os.setsid()\n  if os.fork() == 0: time.sleep(600)\n  os._exit(0)",
    ),
    "50 GB at once": ("memory", "block = bytearray(50 << 30)"),
    "50 GB in steps": ("memory", "blocks = []\nwhile True: blocks.append(bytearray(16 << 20))"),
    "loop for ever": ("timeout", "while True: pass"),
    "sleep for ever": ("timeout", "import time\ntime.sleep(600)"),
    "wait for a thread": (
        "timeout",
        "import threading, time\nt = threading.Thread(target=time.sleep, args=(600,))\nt.start()\nt.join()",
    ),
    "loop that ignores signals": (
        "timeout",
        "import signal\nfor number in range(1, 65):\n"
        "  try: signal.signal(number, signal.SIG_IGN)\n  except (OSError, ValueError): pass\nwhile True: pass",
    ),
    "loop with closed pipes": ("timeout", "import os\nos.closerange(0, 4096)\nwhile True: pass"),
    "catch everything": ("timeout", "while True:\n  try: 1 / 0\n  except BaseException: pass"),
    "recursion": ("exception", "def f(): f()\nf()"),
    "input()": ("stdin", "input()"),
    "read stdin": ("stdin", "import sys\nsys.stdin.read()"),
    "delete a file": ("files", "import os\nos.remove(CANARY)"),
    "delete a home": ("files", "import os, shutil\nhome = os.path.dirname(CANARY)\nos.chdir('/')\nshutil.rmtree(home)"),
    "overwrite a file": ("files", "open(CANARY, 'w').write('dead')"),
    "move a file": ("files", "import os\nos.rename(CANARY, 'mine')"),
    "change a mode": ("files", "import os\nos.chmod(CANARY, 0)"),
    "change a time": ("files", "import os\nos.utime(CANARY, (1, 1))"),
    "connect": ("network", "import socket\nsocket.create_connection(('127.0.0.1', PORT))"),
    "download": ("network", "import urllib.request\nurllib.request.urlopen('http://127.0.0.1:PORT/')"),
    "datagram": ("network", "import socket\nsocket.socket(type=socket.SOCK_DGRAM).sendto(b'x', ('127.0.0.1', PORT))"),
    "look up": ("network", "import socket\nsocket.getaddrinfo('example.org', 80)"),
    "kill everybody": ("signals", "import os\nos.kill(-1, 9)"),
    "kill the harness": ("signals", "import os\nos.kill(os.getppid(), 9)"),
    "huge file": ("disk", "with open('big', 'wb') as file:\n  while True: file.write(b'x' * (1 << 20))"),
    "sys.exit": ("exit", "import sys\nsys.exit(0)"),
    "exit": ("exception", "exit(0)"),
    "raise SystemExit": ("exit", "raise SystemExit"),
    "os._exit": ("exit", "import os\nos._exit(0)"),
    "close everything": ("exit", "import os\nos.closerange(0, 4096)"),
    "guess the report": (
        "exit",
        "import os\nfor number in range(4096):\n  try: os.write(number, b'done ok\\ndone\\npassed\\n')\n  except OSError: pass\n"
        "os._exit(0)",
    ),
    "echo the question": (
        "timeout",
        "import fcntl, os\nfor number in range(3, 256):\n  try:\n"
        "    said = os.read(number, 99)\n    for other in range(3, 256):\n"
        "      try: os.write(other, b'done ' + said + b'\\n')\n      except OSError: pass\n"
        "  except OSError: pass\nos._exit(0)",
    ),
    "flood the report": (
        "exit",
        "import os\nwhile True:\n  for number in range(3, 256):\n"
        "    try: os.write(number, b'x' * 4096)\n    except OSError: pass",
    ),
    "an exception that cannot be shown": ("exception", "class E(Exception):\n  def __str__(self): 1 / 0\nraise E"),
    "an exception that says passed": (
        "exception",
        "class E(BaseException):\n  __str__ = lambda self: 'x\\ndone\\n' * 9999\nraise E",
    ),
    "not Python": ("exception", "def f(:"),
    "half a character": ("exception", "x = '\ud83d'"),
}


@pytest.mark.parametrize(("fault", "source"), ATTACKS.values(), ids=ATTACKS)
def test_an_attack_is_contained_and_named(host: Host, fault: str, source: str) -> None:
    outcome = run_program(host.fill(source), limits=SHORT if fault == "timeout" else PATIENT)
    assert (outcome.passed, outcome.fault) == (False, fault), outcome
    assert outcome.detail


@needs_landlock
@pytest.mark.parametrize("path", ["CANARY", "'/etc/passwd'", "'/proc/self/environ'"])
def test_files_that_are_not_its_own_cannot_be_read(host: Host, path: str) -> None:
    assert run_program(host.fill(f"open({path}).read()")).fault == "files"


@needs_landlock
def test_many_files_do_not_fill_the_disk(host: Host) -> None:
    if "memory" not in protections()["folder"]:
        pytest.skip("guard: no disk of its own here")
    many = "for number in range(4096):\n  with open(str(number), 'wb') as file: file.write(b'x' * (8 << 20))"
    assert run_program(many, limits=Limits(wall_seconds=30)).fault == "disk"


@needs_seccomp
def test_foreign_functions_get_no_further(host: Host) -> None:
    """Calls of C functions, which Python's audit hook does not see."""
    program = """
import ctypes, os, platform
libc = ctypes.CDLL(None, use_errno=True)
for _ in range(100):
    assert libc.fork() == libc.vfork() == -1
assert libc.socket(2, 1, 0) == libc.socket(1, 1, 0) == -1
assert libc.kill(os.getppid(), 0) == libc.kill(-1, 0) == -1
assert libc.unlink(CANARY.encode()) == libc.chmod(CANARY.encode(), 0) == -1
assert libc.open(CANARY.encode(), os.O_RDWR) == -1
assert libc.unshare(0x10000000) == libc.setuid(0) == libc.ptrace(16, os.getppid(), 0, 0) == -1
for call in (424, 425, 435, 437, 443, 500, 0x40000000 + 57):
    assert libc.syscall(call, 0, 0, 0, 0) == -1
"""
    assert run_program(host.fill(program)) == run.Outcome(passed=True)


@needs_seccomp
def test_a_fork_bomb_that_ignores_errors_is_stopped_by_the_time_limit(host: Host) -> None:
    bomb = "import os\nwhile True:\n  try: os.fork()\n  except OSError: pass"
    outcome = run_program(bomb, limits=SHORT)
    assert (outcome.fault, outcome.refused) == ("timeout", ("processes",))


def test_the_number_of_threads_is_limited(host: Host) -> None:
    if not protections()["threads"].isdigit():
        pytest.skip("guard: no user namespace to count threads in")
    many = "import threading, time\nfor _ in range(99): threading.Thread(target=time.sleep, args=(60,), daemon=True).start()"
    assert run_program(many, limits=Limits(wall_seconds=30)).fault == "processes"


def test_a_crashed_interpreter_is_a_fault_of_the_program(host: Host) -> None:
    outcome = run_program("import faulthandler, os\nos.abort()")
    assert (outcome.fault, outcome.detail) == ("crash", "ended by SIGABRT")


def test_processor_time_is_limited_too(host: Host) -> None:
    outcome = run_program("while True: pass", limits=Limits(wall_seconds=60, cpu_seconds=1))
    assert (outcome.fault, outcome.detail) == ("timeout", "out of processor time")


def test_a_gigabyte_of_output_is_discarded(host: Host) -> None:
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    loud = "import os\nblock = b'x' * (4 << 20)\nfor _ in range(128):\n  assert os.write(1, block) == os.write(2, block) == len(block)"
    assert run_program(loud, limits=Limits(wall_seconds=60)).passed
    assert run_program("print('x' * (64 << 20))", limits=Limits(wall_seconds=60)).passed
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 64 << 10  # KiB on Linux, bytes on macOS


def test_a_program_that_replaces_python_functions_is_still_judged_correctly(host: Host) -> None:
    breaks = (
        "import builtins, os, sys\nos.write = os.read = os._exit = lambda *a: None\nsys.modules.clear()\n"
        "for name in ('exec', 'compile', 'bytes', 'type', 'isinstance', 'print', 'open'): setattr(builtins, name, None)\n"
    )
    assert run_program(breaks).passed
    assert not run_program(breaks + "1 / 0").passed
    assert not run_program("import builtins\nbuiltins.AssertionError = SystemExit\nassert False").passed


def test_a_thread_cannot_end_the_program(host: Host) -> None:
    program = "import sys, threading\nt = threading.Thread(target=sys.exit)\nt.start()\nt.join()\nassert False, 'after the thread'"
    assert run_program(program).detail == "AssertionError: after the thread"


def test_the_environment_holds_nothing_of_ours(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", "secret")
    monkeypatch.setenv("PYTHONSTARTUP", "x.py")
    program = """
import os, sys
assert not {"HF_TOKEN", "PYTHONSTARTUP", "USER"} & set(os.environ) and "secret" not in str(os.environ)
assert os.environ["HOME"] == os.environ["TMPDIR"]
assert not [name for name in sys.modules if name == "harness" or name.startswith("harness.")]
"""
    assert run_program(program).passed


@pytest.mark.parametrize("name", ["child", "kernel", "run"])
def test_the_modules_of_the_sandbox_cannot_be_imported_by_their_names(host: Host, name: str) -> None:
    """A program may have, or install, a package called `kernel`."""
    program = f"""
import sys, __main__
assert {name!r} not in sys.modules and not hasattr(__main__, {name!r})
assert not [path for path in (*sys.path, *sys.path_importer_cache) if path.rstrip("/").endswith("sandbox")]
import {name}
"""
    assert run_program(program).detail == f"ModuleNotFoundError: No module named '{name}'"


@needs_landlock
def test_a_program_can_import_a_module_of_its_own_called_kernel(host: Host) -> None:
    program = "import os, sys\nopen('kernel.py', 'w').write('x = 7')\nsys.path.append(os.getcwd())\nimport kernel\nassert kernel.x == 7"
    assert run_program(program) == run.Outcome(passed=True)


def test_names_are_those_of_lm_evaluation_harness(host: Host) -> None:
    """`exec` with an empty dictionary: code under `if __name__ == "__main__":` is not run."""
    assert run_program("assert __name__ == 'builtins'\nif __name__ == '__main__': 1 / 0").passed


def test_hashes_are_the_same_in_every_run(host: Host) -> None:
    said = {run_program("raise ValueError(hash('a string'))").detail for _ in range(3)}
    assert len(said) == 1


def test_a_long_program_and_an_empty_one_run(host: Host) -> None:
    assert run_program("").passed
    assert run_program(
        f"x = '''{'é' * (3 << 20)}'''\nassert len(x) == {3 << 20}", limits=Limits(wall_seconds=60)
    ).passed


def test_parallel_programs_are_judged_independently(host: Host) -> None:
    programs = [f"assert {number} % 3" for number in range(24)]
    with ThreadPoolExecutor(8) as pool:
        passed = [outcome.passed for outcome in pool.map(run_program, programs)]
    assert passed == [number % 3 > 0 for number in range(24)]


def test_nothing_outlives_the_harness(host: Host) -> None:
    script = (
        f"import tempfile; tempfile.tempdir = {str(host.folder)!r}\n"
        "from harness.sandbox.run import Limits, run_program\n"
        "run_program('import time\\ntime.sleep(600)', limits=Limits(wall_seconds=600))"
    )
    with subprocess.Popen([sys.executable, "-c", script]) as harness:
        deadline = time.monotonic() + 30
        while not host.processes() and time.monotonic() < deadline:
            time.sleep(0.02)
        assert host.processes()
        harness.send_signal(signal.SIGKILL)
    deadline = time.monotonic() + 30
    while host.processes() and time.monotonic() < deadline:
        time.sleep(0.02)
    assert host.processes() == []
    for left in host.folder.glob("harness-guard-*"):  # no process was left to delete it; it is empty
        left.rmdir()


LAYERS = [("landlock", "seccomp"), ("seccomp",), ("namespaces",), ("landlock",), ()]


@pytest.mark.parametrize("layers", LAYERS, ids=lambda layers: "+".join(layers) or "none")
def test_with_fewer_kernel_features_the_same_is_refused(
    host: Host, layers: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(run, "LAYERS", layers)
    assert run_program("assert True").passed
    for name in ("delete a file", "delete a home", "overwrite a file", "move a file", "change a mode", "subprocess"):
        fault, source = ATTACKS[name]
        assert (name, run_program(host.fill(source)).fault) == (name, fault)
    for name in ("connect", "download", "kill the harness", "50 GB at once", "os._exit"):
        fault, source = ATTACKS[name]
        assert (name, run_program(host.fill(source)).fault) == (name, fault)
    assert run_program("import os\nif os.fork() == 0: os._exit(0)").fault == "processes"


def test_missing_protections_are_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run, "LAYERS", ())
    weak = protections.__wrapped__()
    assert {aspect for aspect, text in weak.items() if "only by Python" in text} == {"network", "processes", "files"}
    assert "disk" in weak["folder"] and weak["threads"] == "limited only by memory"
    assert set(weak) == set(protections())


def test_a_sandbox_that_cannot_start_is_an_error_and_no_outcome(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "executable", str(tmp_path / "no-python"))
    with pytest.raises(UserError, match="no process could be started"):
        run_program("pass")
    broken = tmp_path / "python"
    broken.write_text("#!/bin/sh\necho out of order\n")
    broken.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(broken))
    with pytest.raises(UserError, match="did not start: out of order"):
        run_program("pass" * (1 << 20))


def test_an_interrupt_leaves_nothing_behind(host: Host) -> None:
    """Ctrl-C while a program runs."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs ignore it
    try:
        threading.Timer(0.5, signal.pthread_kill, (threading.get_ident(), signal.SIGINT)).start()
        with pytest.raises(KeyboardInterrupt):
            run_program("import time\ntime.sleep(60)", limits=Limits(wall_seconds=20))
    finally:
        signal.signal(signal.SIGINT, before)
