"""The child process of the sandbox: restricts itself, runs one program, reports how it ended. See `harness.sandbox.run`.

It runs in a bare interpreter and imports little of the standard library and nothing else of this package. It reads its job
from standard input, gives up permanently every right that it does not need, and reports on the pipe that was standard
output:

    ready {'network': 'none (seccomp)', …}     the active protections; the wall-time limit starts now
    refused network                            the program tried this and was refused (once per kind)
    fault exception ValueError: …              how the program ended, if it did not reach its end
    done …                                     it reached its end; followed by the answer to the parent's question
"""

from __future__ import annotations

import errno
import fcntl
import marshal
import os
import sys

TYPE_CHECKING = False  # importing `typing` takes longer than everything else here
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from typing import Any, NoReturn

# Audit events of Python that are always refused, with the kind that is reported.
REFUSED = {
    **dict.fromkeys(("os.fork", "os.forkpty", "os.exec", "os.posix_spawn", "os.spawn", "os.system"), "processes"),
    **dict.fromkeys(("subprocess.Popen", "pty.spawn"), "processes"),
    **dict.fromkeys(("socket.bind", "socket.connect", "socket.sendto", "socket.getaddrinfo"), "network"),
    **dict.fromkeys(("socket.gethostbyname", "socket.gethostbyaddr", "socket.getnameinfo"), "network"),
    **dict.fromkeys(("os.kill", "os.killpg"), "signals"),
}
# Audit events that change files, with the positions of the paths among their arguments. Without seccomp, they are refused
# for paths outside the folder.
CHANGES = {
    **dict.fromkeys(("os.remove", "os.rmdir", "os.mkdir", "os.truncate", "os.chmod", "os.chown", "os.utime"), (0,)),
    **dict.fromkeys(("os.rename", "os.link", "os.symlink"), (0, 1)),
    **dict.fromkeys(("os.setxattr", "os.removexattr", "os.chflags", "shutil.rmtree", "sqlite3.connect"), (0,)),
}
# The answer to the parent's question is the question with all bits inverted, so echoing the question does not pass.
ANSWER = bytes(255 - byte for byte in range(256))


def main(lock_in: Callable[[Mapping[str, Any]], dict[str, str]]) -> NoReturn:
    """Reads the job, restricts this process (`harness.sandbox.kernel.lock_in`), runs the program."""
    job = marshal.loads(_read_exactly(0, int.from_bytes(_read_exactly(0, 8), "little")))
    question, report = _move(0, job["descriptors"][0]), _move(1, job["descriptors"][1])
    null = os.open(os.devnull, os.O_RDWR)
    os.dup2(null, 0)
    os.dup2(null, 1)
    protections = lock_in(job)
    os.dup2(null, 2)  # only now, so that the parent receives the traceback of a failure above
    os.close(null)
    sys.dont_write_bytecode = True
    announce = _announcer(report)
    sys.stdin = _NoInput(announce)
    sys.addaudithook(_hook(announce, None if "(seccomp)" in protections["processes"] else job["folder"]))
    _forget_own_modules(job["own_folder"])
    sys.path += job["packages"]
    os.write(report, f"ready {protections!r}\n".encode())
    run(job["source"], question, report)


def _forget_own_modules(folder: str) -> None:
    """Removes these modules and their folder from everywhere that the program could import them from.

    `import kernel` in a program must find the program's own package of that name, or none.
    """
    sys.path.remove(folder)
    sys.path_importer_cache.pop(folder, None)
    start = vars(sys.modules["__main__"])
    for name in ("child", "kernel"):
        del sys.modules[name], start[name]


def run(source: str, question: int, report: int) -> NoReturn:
    """Runs the program and reports whether it reached its end, or why not.

    As in lm-evaluation-harness, the program runs with an empty dictionary of names, so `__name__` is not `__main__`.
    Functions needed afterwards are bound to local names first: the program may replace them in their modules.
    """
    read, write, leave, answer, describe = os.read, os.write, os._exit, ANSWER, _describe
    reserve = bytearray(4 << 20)  # freed to report on a program that has used up the memory
    try:
        exec(compile(source, "<program>", "exec"), {})
    except BaseException as error:
        del reserve
        write(report, describe(error))
    else:
        write(report, b"done " + read(question, 16).translate(answer) + b"\n")
    leave(0)


def _describe(error: BaseException) -> bytes:
    try:
        detail = f"{type(error).__name__}: {error}"[:300].replace("\n", " ")
    except BaseException:  # the program can define exceptions whose `__str__` raises
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
    """An audit hook that announces refused operations.

    Args:
        announce: Reports one kind of operation.
        folder: The program's folder if there is no seccomp: the hook then refuses the operations itself. None: it only
            announces them.
    """

    def hook(event: str, arguments: tuple[Any, ...]) -> None:
        kind = REFUSED.get(event)
        if event == "socket.__new__" and arguments[1] != 1:  # 1 is AF_UNIX: asyncio needs a pair of local sockets
            kind = "network"
        if kind:
            announce(kind)
        if folder is not None and (kind or _is_outside(event, arguments, folder)):
            raise PermissionError(1, f"not allowed here ({event})")

    return hook


def _is_outside(event: str, arguments: tuple[Any, ...], folder: str) -> bool:
    """Whether an event changes a file outside the folder, or uses foreign functions (ctypes), which could do so."""
    if event.startswith("ctypes."):
        return True
    if event == "open":
        writing = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC
        paths = arguments[:1] if (arguments[2] or 0) & writing and arguments[0] != os.devnull else ()
    else:
        paths = tuple(arguments[position] for position in CHANGES.get(event, ()))
    inside = os.path.realpath(folder) + os.sep
    return any(
        not os.path.realpath(os.fsdecode(path)).startswith(inside) for path in paths if not isinstance(path, int)
    )


def _announcer(report: int) -> Callable[[str], None]:
    write, announced = os.write, set[str]()

    def announce(kind: str) -> None:
        if kind not in announced:
            announced.add(kind)
            write(report, f"refused {kind}\n".encode())

    return announce


class _NoInput:
    """A standard input that raises on every access, as in lm-evaluation-harness."""

    def __init__(self, announce: Callable[[str], None]) -> None:
        self._announce = announce

    def __getattr__(self, name: str) -> Any:
        self._announce("stdin")
        raise OSError("there is no standard input")

    def __iter__(self) -> Any:
        return self.readline()


def _move(descriptor: int, number: int) -> int:
    """Moves a descriptor to `number` or the next free one: numbers drawn by the parent are harder to guess than 0 and 1."""
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
