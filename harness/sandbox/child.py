"""The child process of the sandbox, which becomes two: one runs a generated program, the other its tests.

Both give up permanently every right that they do not need. The verdict comes from the process of the tests, which runs none
of the program's code. The process of the program is forked before the tests arrive, so their text is never in its memory.

They run in a bare interpreter and import little of the standard library, and of this package only modules of this folder. The
job comes on standard input, and the tests after it. The process of the tests reports on the pipe that was standard output:

    ready 4711 {'network': 'none (seccomp)', …}    the program's process, the active protections; the time limit starts now
    fault exception AssertionError: …              how program or tests ended, if they did not reach their end
    done …                                         they reached it; followed by the answer to the parent's question

Both announce what they were refused on the pipe that was standard error: `refused network`, once per kind. The parent kills
the program's process before it closes standard input, which ends the process of the tests.
"""

from __future__ import annotations

import fcntl
import marshal
import os
import sys

from harness.sandbox import examiner, program
from harness.sandbox.kernel import enter, give_up, hide
from harness.sandbox.refusals import announcer, hook
from harness.sandbox.remote import Program, signal_of

TYPE_CHECKING = False  # importing `typing` takes longer than everything else here
if TYPE_CHECKING:
    from typing import Any, NoReturn

# The answer to the parent's question is the question with all bits inverted, so echoing the question does not pass.
ANSWER = bytes(255 - byte for byte in range(256))


def main() -> NoReturn:
    """Reads the job, restricts this process, and becomes two."""
    job = marshal.loads(_message(0))
    commands, report = _move(0, job["descriptors"][0]), _move(1, job["descriptors"][1])
    null = os.open(os.devnull, os.O_RDWR)
    os.dup2(null, 0)
    os.dup2(null, 1)
    sys.dont_write_bytecode = True
    entered = enter(job)
    (requested, request), (answered, answer) = os.pipe(), os.pipe()
    tests = os.getpid()
    process = os.fork()
    if process == 0:
        for descriptor in (commands, report, request, answered):
            os.close(descriptor)
        protections = give_up(job, entered, tests)
        notes = _locked(job, null)
        os.write(answer, b"1")
        if os.read(requested, 1):
            program.run(job["source"], (requested, answer), notes, _refusing(protections, job))
        os._exit(1)
    os.close(requested)
    os.close(answer)
    hide()
    protections = give_up(job, entered, job["parent"])
    tests_source, given, question = marshal.loads(_message(commands))
    notes = _locked(job, null)
    sys.addaudithook(hook(announcer(notes), _refusing(protections, job)))
    _read_exactly(answered, 1)
    os.write(report, f"ready {process} {protections!r}\n".encode())
    os.write(request, b"1")
    peer = Program(process, (answered, request), job["cpu_seconds"])
    read, write, leave = os.read, os.write, os._exit
    fault = examiner.examine(peer, tests_source, given)
    if fault:
        write(report, "fault {} {}\n".format(fault[0], fault[1].replace("\n", " ")).encode(errors="replace"))
    else:
        write(report, b"done " + question.translate(ANSWER) + b"\n")
    read(commands, 1)
    signal_of(process)  # the parent has killed it
    leave(0)


def _refusing(protections: dict[str, str], job: dict[str, Any]) -> str | None:
    """The folder of the program, if Python's audit hook has to refuse operations because there is no seccomp."""
    return None if "(seccomp)" in protections["processes"] else job["folder"]


def _locked(job: dict[str, Any], null: int) -> int:
    """Removes what only the start needs; returns the descriptor for announcements, which was standard error till now."""
    notes = _move(2, job["descriptors"][2])
    os.dup2(null, 2)
    os.close(null)
    sys.path += job["packages"]
    sys.path_importer_cache.pop(job["own_folder"], None)
    for name in [each for each in sys.modules if each.partition(".")[0] == "harness"]:
        del sys.modules[name]
    start = vars(sys.modules["__main__"])
    for name in [each for each in start if not each.startswith("__")]:
        del start[name]
    return notes


def _move(descriptor: int, number: int) -> int:
    """Moves a descriptor to `number` or the next free one."""
    moved = fcntl.fcntl(descriptor, fcntl.F_DUPFD_CLOEXEC, number)
    os.close(descriptor)
    return moved


def _message(descriptor: int) -> bytes:
    return _read_exactly(descriptor, int.from_bytes(_read_exactly(descriptor, 8), "little"))


def _read_exactly(descriptor: int, size: int) -> bytes:
    parts = bytearray()
    while len(parts) < size:
        part = os.read(descriptor, min(size - len(parts), 1 << 20))
        if not part:
            os._exit(1)
        parts += part
    return bytes(parts)
