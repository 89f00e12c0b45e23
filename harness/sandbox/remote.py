"""The program's process and its objects, as the process of the tests sees them. See `harness.sandbox.examiner`."""

from __future__ import annotations

import _signal  # type: ignore[import-not-found]
import builtins
import os
import sys
import time

from harness.sandbox.values import decode, encode

TYPE_CHECKING = False  # importing `typing` takes longer than everything else here
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

MOST_BYTES = 256 << 20
"""Size of the largest answer of a program that is read."""
FUNCTION_TYPES: tuple[type, ...] = (
    type(lambda: None),
    type(len),
    type(Exception.with_traceback),
    type("".join),
    type([].append),
)
UNARY = ("neg", "pos", "abs", "invert", "index")
BINARY = ("add", "sub", "mul", "truediv", "floordiv", "mod", "matmul", "pow", "and_", "or_", "xor", "lshift", "rshift")
COMPARISONS = ("lt", "le", "eq", "ne", "gt", "ge")
FUNCTIONS = ("len", "str", "repr", "bool", "iter", "next", "int", "float", "complex", "round", "reversed", "dir")


class Gone(BaseException):
    """The program's process has ended, or has answered with nonsense."""

    def __init__(self, kind: str, detail: str) -> None:
        super().__init__(detail)
        self.fault = kind, detail


class Program:
    """The program's process, as the tests' process sees it.

    Args:
        process: Its number.
        channel: Descriptors to read answers from and to write requests to.
        cpu_seconds: Its limit.
    """

    def __init__(self, process: int, channel: tuple[int, int], cpu_seconds: int) -> None:
        self._process, self._cpu_seconds = process, cpu_seconds
        self._answers, self._requests = channel
        self._functions: list[Callable[..., Any]] = []
        self._remotes: dict[int, Remote] = {}
        self.gone: Gone | None = None

    def ask(self, operation: str, *arguments: Any) -> Any:
        """Has an operation done, and returns its value.

        Raises:
            Exception: The operation raises this in the program, or the nearest exception of Python's own.
            Gone: The program has ended.
        """
        self._send(operation, arguments)
        return self.answer()

    def answer(self) -> Any:
        """Waits for the answer, and runs functions of the tests that the program calls until then."""
        while True:
            content = self._receive()
            value = decode(content[1:], self._resolve)
            if content[:1] == b"V":
                return value
            if content[:1] != b"C":
                raise _exception(*value)
            number, arguments, named = value
            try:
                self._send("return", (self._functions[number](*arguments, **named),))
            except Exception as error:
                self._send("raise", (type(error).__name__, str(error)))

    def _send(self, operation: str, arguments: tuple[Any, ...]) -> None:
        content = encode((operation, arguments), self._refer)
        unsent = memoryview(len(content).to_bytes(8, "little") + content)
        try:
            while unsent:
                unsent = unsent[os.write(self._requests, unsent) :]
        except BrokenPipeError:
            raise self._end() from None

    def _receive(self) -> bytes:
        size = int.from_bytes(self._exactly(8), "little")
        if size > MOST_BYTES:
            self.gone = Gone("memory" if size >> 32 == 0 else "exit", f"the program sent an answer of {size >> 20} MiB")
            raise self.gone
        return self._exactly(size)

    def _exactly(self, size: int) -> bytes:
        parts = bytearray()
        while len(parts) < size:
            part = os.read(self._answers, min(size - len(parts), 1 << 20))
            if not part:
                raise self._end()
            parts += part
        return bytes(parts)

    def _end(self) -> Gone:
        """Remembers that the program is gone, also if the tests catch every exception."""
        self.gone = self.gone or self._why()
        return self.gone

    def _why(self) -> Gone:
        """Waits for the end of the program, and says how it ended; the harness ends one that goes on without its pipes."""
        number = signal_of(self._process)
        if not number:
            return Gone("exit", "exited before the last statement")
        if number == _signal.SIGXCPU or (number == _signal.SIGKILL and _cpu_of(self._process) >= self._cpu_seconds):
            return Gone("timeout", "out of processor time")
        from signal import Signals  # imports `enum`, which takes a millisecond

        return Gone("crash", f"ended by {Signals(number).name}")

    def _refer(self, value: Any) -> bytes:
        """Encodes an object that is no data: one of the program's, one of Python's own, or a function of the tests."""
        if type(value) is Remote:
            return b"o%d;" % number_of(value)
        name = getattr(value, "__name__", None)
        if isinstance(name, str) and vars(builtins).get(name) is value:
            return b"g" + name.encode() + b";"
        if type(value) in FUNCTION_TYPES:
            self._functions.append(value)
            return b"k%d;" % (len(self._functions) - 1)
        raise TypeError(
            f"the tests give the program an object of their own ({type(value).__name__}), which stays in their process"
        )

    def _resolve(self, kind: bytes, name: bytes) -> Any:
        if kind != b"o":
            raise ValueError("malformed value")
        number = int(name)
        if number not in self._remotes:
            self._remotes[number] = Remote(self, number)
        return self._remotes[number]


def signal_of(process: int) -> int:
    """Waits for the end of a process; returns the number of the signal that ended it, or 0."""
    if not hasattr(os, "waitid"):  # macOS with Python 3.12 and before
        return max(0, -os.waitstatus_to_exitcode(os.waitpid(process, 0)[1]))
    # WNOWAIT: until the harness has sent its last signal, the number of the process must not be given to another one.
    ended = os.waitid(os.P_PID, process, os.WEXITED | os.WNOWAIT)
    return 0 if ended is None or ended.si_code == os.CLD_EXITED else ended.si_status


def _cpu_of(process: int) -> float:
    """Processor seconds of a process that has ended and still has its number (Linux; elsewhere 0)."""
    return (
        time.clock_gettime(~process << 3 | 2) if sys.platform == "linux" else 0.0
    )  # MAKE_PROCESS_CPUCLOCK, CPUCLOCK_SCHED


def _exception(kind: str, detail: str, nearest: str) -> BaseException:
    """The exception that a program raised, as one of Python's own, with the fault to report if the tests do not catch it."""
    found = vars(builtins).get(nearest)
    if not (isinstance(found, type) and issubclass(found, BaseException)):
        raise ValueError("malformed value")
    try:
        made = found(detail.partition(": ")[2])
    except TypeError:  # UnicodeDecodeError and its kind need five arguments
        made = RuntimeError(detail)
    made.fault = str(kind)[:20], str(detail)[:300]  # type: ignore[attr-defined]
    return made


class Remote:
    """An object of the program.

    Operators between two objects of the program are the program's. With a value of the tests there is no operator: the
    object would receive the expected value, and decide the comparison. It is equal to no such value.
    """

    __slots__ = ("__number", "__program")

    def __init__(self, program: Program, number: int) -> None:
        object.__setattr__(self, "_Remote__program", program)
        object.__setattr__(self, "_Remote__number", number)

    def __call__(self, *arguments: Any, **named: Any) -> Any:
        return program_of(self).ask("call", self, arguments, named)

    def __getattr__(self, name: str) -> Any:
        return program_of(self).ask("getattr", self, name)

    def __setattr__(self, name: str, value: Any) -> None:
        program_of(self).ask("setattr", self, name, value)

    def __delattr__(self, name: str) -> None:
        program_of(self).ask("delattr", self, name)

    def __getitem__(self, key: Any) -> Any:
        return program_of(self).ask("getitem", self, key)

    def __setitem__(self, key: Any, value: Any) -> None:
        program_of(self).ask("setitem", self, key, value)

    def __delitem__(self, key: Any) -> None:
        program_of(self).ask("delitem", self, key)

    def __instancecheck__(self, value: Any) -> Any:
        return type(value) is Remote and program_of(self).ask("isinstance", value, self)

    def __subclasscheck__(self, value: Any) -> Any:
        return type(value) is Remote and program_of(self).ask("issubclass", value, self)

    def __hash__(self) -> int:
        return hash(number_of(self))


def program_of(remote: Remote) -> Program:
    """The process of an object."""
    return remote._Remote__program  # type: ignore[no-any-return]


def number_of(remote: Remote) -> int:
    """The number of an object in the program's process."""
    return remote._Remote__number  # type: ignore[no-any-return]


def _add_operators() -> None:
    """Adds the special methods of `Remote` that only pass an operation on."""

    def alone(operation: str) -> Callable[..., Any]:
        return lambda self, *rest: program_of(self).ask(operation, self, *rest)

    def with_another(operation: str) -> Callable[[Remote, Any], Any]:
        return lambda self, other: (
            program_of(self).ask(operation, self, other) if type(other) is Remote else NotImplemented
        )

    for name in (*UNARY, *FUNCTIONS):
        setattr(Remote, f"__{name}__", alone(name))
    for name in (*BINARY, *COMPARISONS):
        setattr(Remote, f"__{name.rstrip('_')}__", with_another(name))


_add_operators()
