"""Python's audit hook in a process of the sandbox: announces operations that are refused, and refuses them without seccomp.

It runs in the processes of the sandbox. See `harness.sandbox.child`.
"""

from __future__ import annotations

import os

TYPE_CHECKING = False  # importing `typing` takes longer than everything else here
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

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


def hook(announce: Callable[[str], None], folder: str | None) -> Callable[[str, tuple[Any, ...]], None]:
    """An audit hook that announces refused operations.

    Args:
        announce: Reports one kind of operation.
        folder: The program's folder if there is no seccomp: the hook then refuses the operations itself. None: it only
            announces them.
    """

    def check(event: str, arguments: tuple[Any, ...]) -> None:
        kind = REFUSED.get(event)
        if event == "socket.__new__" and arguments[1] != 1:  # 1 is AF_UNIX: asyncio needs a pair of local sockets
            kind = "network"
        if kind:
            announce(kind)
        if folder is not None and (kind or _is_outside(event, arguments, folder)):
            raise PermissionError(1, f"not allowed here ({event})")

    return check


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


def announcer(notes: int) -> Callable[[str], None]:
    """A function that writes each kind of refused operation once to a descriptor."""
    write, announced = os.write, set[str]()

    def announce(kind: str) -> None:
        if kind not in announced:
            announced.add(kind)
            write(notes, f"refused {kind}\n".encode())

    return announce
