"""What runs inside the guard: locks itself in, runs one program, says how it ended. See `harness.sandbox.run`.

Started as a script of its own with nothing imported: the standard library alone, little of it, and nothing of ours. It
reads its job on standard input, gives up every right that it can do without, each for good, and reports on what
was standard output:

    ready {'network': 'none (seccomp)', …}                what holds; the clock starts
    refused network                                       the program tried (once for each kind)
    fault exception ValueError: …                         how it ended, unless it
    done …                                                ran to its last statement: an answer to a question asked by the parent
"""

from __future__ import annotations

import errno
import fcntl
import marshal
import os
import sys

TYPE_CHECKING = False  # importing typing takes longer than all the rest
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from typing import Any, NoReturn

# Kinds of what is always refused, by the event of Python's that announces it.
ANNOUNCED = {
    **dict.fromkeys(("os.fork", "os.forkpty", "os.exec", "os.posix_spawn", "os.spawn", "os.system"), "processes"),
    **dict.fromkeys(("subprocess.Popen", "pty.spawn"), "processes"),
    **dict.fromkeys(("socket.bind", "socket.connect", "socket.sendto", "socket.getaddrinfo"), "network"),
    **dict.fromkeys(("socket.gethostbyname", "socket.gethostbyaddr", "socket.getnameinfo"), "network"),
    **dict.fromkeys(("os.kill", "os.killpg"), "signals"),
}
# Events with the places of the paths that they change; refused outside the folder where the kernel does not see to it.
CHANGES = {
    **dict.fromkeys(("os.remove", "os.rmdir", "os.mkdir", "os.truncate", "os.chmod", "os.chown", "os.utime"), (0,)),
    **dict.fromkeys(("os.rename", "os.link", "os.symlink"), (0, 1)),
    **dict.fromkeys(("os.setxattr", "os.removexattr", "os.chflags", "shutil.rmtree", "sqlite3.connect"), (0,)),
}
# The parent's question, its bits turned over, is the answer: an echo is none.
ANSWER = bytes(255 - byte for byte in range(256))


def main(lock_in: Callable[[Mapping[str, Any]], dict[str, str]]) -> NoReturn:
    """Reads the job, locks this process in (`harness.sandbox.kernel.lock_in`), runs the program."""
    job = marshal.loads(_read_exactly(0, int.from_bytes(_read_exactly(0, 8), "little")))
    question, report = _hide(0, job["descriptors"][0]), _hide(1, job["descriptors"][1])
    null = os.open(os.devnull, os.O_RDWR)
    os.dup2(null, 0)
    os.dup2(null, 1)
    held = lock_in(job)
    os.dup2(null, 2)  # so far the parent would have heard of a failure
    os.close(null)
    sys.dont_write_bytecode = True
    announce = _announcer(report)
    sys.stdin = _NoInput(announce)
    sys.addaudithook(_hook(announce, None if "(seccomp)" in held["processes"] else job["folder"]))
    sys.path[:] = [path for path in sys.path if path != job["here"]] + job["packages"]
    os.write(report, f"ready {held!r}\n".encode())
    run(job["source"], question, report)


def run(source: str, question: int, report: int) -> NoReturn:
    """Runs the program; says that it came to its end, or why not.

    The names that it runs under are those of lm-evaluation-harness: an empty dictionary, so `__name__` is not `__main__`.
    What is needed afterwards is held here, out of reach of a program that puts its own functions in place of Python's.
    """
    read, write, leave, answer, describe = os.read, os.write, os._exit, ANSWER, _describe
    room = bytearray(4 << 20)  # to speak with when the program has used up the memory
    try:
        exec(compile(source, "<program>", "exec"), {})
    except BaseException as error:
        del room
        write(report, describe(error))
    else:
        write(report, b"done " + read(question, 16).translate(answer) + b"\n")
    leave(0)


def _describe(error: BaseException) -> bytes:
    try:
        detail = f"{type(error).__name__}: {error}"[:300].replace("\n", " ")
    except BaseException:  # an exception of the program's own may not even print
        detail = "an exception that cannot be shown"
    kind = "exception"
    if isinstance(error, SystemExit):
        kind = "exit"
    elif isinstance(error, MemoryError):
        kind = "memory"
    elif isinstance(error, OSError) and error.errno in (errno.EFBIG, errno.ENOSPC):
        kind = "disk"
    elif isinstance(error, OSError) and error.errno in (errno.EPERM, errno.EACCES, errno.EROFS, errno.EXDEV):
        kind = "files"
    elif isinstance(error, RuntimeError) and "start new thread" in detail:
        kind = "processes"
    return f"fault {kind} {detail}\n".encode(errors="replace")


def _hook(announce: Callable[[str], None], folder: str | None) -> Callable[[str, tuple[Any, ...]], None]:
    """Tells of what is refused; with a folder, where the kernel refuses nothing, refuses it."""

    def hook(event: str, arguments: tuple[Any, ...]) -> None:
        kind = ANNOUNCED.get(event)
        if event == "socket.__new__" and arguments[1] != 1:  # a pair of local sockets is what asyncio lives on
            kind = "network"
        if kind:
            announce(kind)
        if folder is not None and (kind or _leaves(event, arguments, folder)):
            raise PermissionError(1, f"not allowed here ({event})")

    return hook


def _leaves(event: str, arguments: tuple[Any, ...], folder: str) -> bool:
    """Whether an event changes a file outside the folder, or reaches for foreign functions that could."""
    if event.startswith("ctypes."):
        return True
    if event == "open":
        writing = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC
        paths = arguments[:1] if (arguments[2] or 0) & writing and arguments[0] != os.devnull else ()
    else:
        paths = tuple(arguments[at] for at in CHANGES.get(event, ()))
    inside = os.path.realpath(folder) + os.sep
    return any(
        not os.path.realpath(os.fsdecode(path)).startswith(inside) for path in paths if not isinstance(path, int)
    )


def _announcer(report: int) -> Callable[[str], None]:
    write, told = os.write, set[str]()

    def announce(kind: str) -> None:
        if kind not in told:
            told.add(kind)
            write(report, f"refused {kind}\n".encode())

    return announce


class _NoInput:
    """A standard input that may not be read, as lm-evaluation-harness's."""

    def __init__(self, announce: Callable[[str], None]) -> None:
        self._announce = announce

    def __getattr__(self, name: str) -> Any:
        self._announce("stdin")
        raise OSError("there is no standard input")

    def __iter__(self) -> Any:
        return self.readline()


def _hide(descriptor: int, number: int) -> int:
    moved = fcntl.fcntl(descriptor, fcntl.F_DUPFD_CLOEXEC, number)
    os.close(descriptor)
    return moved


def _read_exactly(descriptor: int, size: int) -> bytes:
    parts = bytearray()
    while len(parts) < size:
        part = os.read(descriptor, min(size - len(parts), 1 << 20))
        if not part:
            os._exit(1)
        parts += part
    return bytes(parts)
