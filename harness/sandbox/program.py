"""The process of a generated program: runs the program, then does the operations that the tests ask for.

It never receives the text of the tests, and has no way to report a verdict. See `harness.sandbox.child`.
"""

from __future__ import annotations

import _operator
import builtins
import errno
import os
import sys

from harness.sandbox.refusals import announcer, hook
from harness.sandbox.values import decode, encode

TYPE_CHECKING = False  # importing `typing` takes longer than everything else here
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any, NoReturn

# The operations that tests may ask for, besides those of the module `operator` in OPERATORS.
FUNCTIONS = ("getattr", "setattr", "delattr", "len", "str", "repr", "bool", "iter", "next", "isinstance", "issubclass")
OPERATORS = """
lt le eq ne gt ge add sub mul truediv floordiv mod matmul pow and_ or_ xor lshift rshift neg pos abs invert index
getitem setitem delitem
"""
CONVERSIONS = ("int", "float", "complex", "round", "reversed", "dir")


def run(source: str, channel: tuple[int, int], notes: int, folder: str | None) -> NoReturn:
    """Runs the program, reports to the tests' process whether it reached its end, and serves the tests.

    As in lm-evaluation-harness, the program runs with an empty dictionary of names, so `__name__` is not `__main__`.

    Args:
        source: The program.
        channel: Descriptors to read requests from and to write answers to.
        notes: Descriptor on which refused operations are announced.
        folder: The program's folder if Python's audit hook has to refuse operations (`refusals.hook`).
    """
    for module in (globals(), encode.__globals__, hook.__globals__):  # the program may replace Python's functions
        module.update({name: value for name, value in vars(builtins).items() if name[:2] != "__"})
    announce = announcer(notes)
    sys.stdin = _NoInput(announce)
    sys.addaudithook(hook(announce, folder))
    server, leave = _Server(*channel), os._exit
    try:
        names: dict[str, Any] = {}
        exec(compile(source, "<program>", "exec"), names)
    except BaseException as error:
        server.answer(b"E", server.describe(error))
    else:
        server.names = names
        server.answer(b"V", None)
        server.serve()
    leave(0)


class _Server:
    """Does operations on the program's objects, which the tests know by numbers."""

    def __init__(self, requests: int, answers: int) -> None:
        # Bound here, because the program may replace functions in their modules.
        self._read, self._write, self._leave = os.read, os.write, os._exit
        self._requests, self._answers = requests, answers
        self._reserve = bytes(4 << 20)  # untouched memory, freed to report on a program that has used up the memory
        self._standard = sys.stdlib_module_names
        self.names: dict[str, Any] = {}
        self._objects: list[Any] = []
        self._numbers: dict[int, int] = {}
        self._own = dict(vars(builtins))
        self._operations: dict[str, Callable[..., Any]] = {
            **{name: getattr(_operator, name) for name in OPERATORS.split()},
            **{name: getattr(builtins, name) for name in (*FUNCTIONS, *CONVERSIONS)},
            "call": lambda function, arguments, named: function(*arguments, **named),
            "names": self._found,
        }

    def serve(self) -> Any:
        """Answers requests until the tests end, or until they return from a function that the program called."""
        while True:
            operation, arguments = decode(self._receive(), self._resolve)
            if operation == "return":
                return arguments[0]
            if operation == "raise":
                raise getattr(builtins, arguments[0], RuntimeError)(arguments[1])
            try:
                kind, content = b"V", encode(self._operations[operation](*arguments), self._refer)
            except BaseException as error:
                kind, content = b"E", encode(self.describe(error), self._refer)
            self._send(kind + content)

    def answer(self, kind: bytes, value: Any) -> None:
        """Sends one answer: `V` with a value, `E` with the description of an exception."""
        self._send(kind + encode(value, self._refer))

    def describe(self, error: BaseException) -> tuple[str, str, str]:
        """The kind of fault of an exception, one line about it, and the name of the nearest exception of Python's own."""
        self._reserve = b""
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
        nearest = [base.__name__ for base in type(error).__mro__ if self._own.get(base.__name__) is base]
        return kind, detail, nearest[0]

    def _found(self, wanted: list[str]) -> dict[str, tuple[Any, ...]]:
        """The values of names: modules and functions of the standard library by their names, all others as they are."""
        return {name: self._named(self.names[name]) for name in wanted if name in self.names}

    def _named(self, value: Any) -> tuple[str, str, str, Any]:
        """How a value is described: its kind, the module and the name under which others can import it, and the value."""
        if type(value) is type(sys):
            return "module", str(value.__name__), "", value
        module, name = getattr(value, "__module__", None), getattr(value, "__name__", None)
        if isinstance(module, str) and isinstance(name, str) and module.partition(".")[0] in self._standard:
            is_own = module == "builtins" and self._own.get(name) is not value  # the module of classes of the program
            return ("value", "", "", value) if is_own else ("standard", module, name, value)
        return "value", "", "", value

    def _refer(self, value: Any) -> bytes:
        number = self._numbers.get(id(value))
        if number is None:
            number = self._numbers[id(value)] = len(self._objects)
            self._objects.append(value)
        return b"o%d;" % number

    def _resolve(self, kind: bytes, name: bytes) -> Any:
        if kind == b"o":
            return self._objects[int(name)]
        if kind == b"g":
            return self._own[name.decode()]
        return self._calling(int(name))

    def _calling(self, number: int) -> Callable[..., Any]:
        """A function of the tests, as the program receives it."""

        def call(*arguments: Any, **named: Any) -> Any:
            self.answer(b"C", (number, arguments, named))
            return self.serve()

        return call

    def _receive(self) -> bytes:
        return self._exactly(int.from_bytes(self._exactly(8), "little"))

    def _exactly(self, size: int) -> bytes:
        parts = bytearray()
        while len(parts) < size:
            part = self._read(self._requests, min(size - len(parts), 1 << 20))
            if not part:
                self._leave(0)  # the tests have ended
            parts += part
        return bytes(parts)

    def _send(self, content: bytes) -> None:
        unsent = memoryview(len(content).to_bytes(8, "little") + content)
        while unsent:
            unsent = unsent[self._write(self._answers, unsent) :]


class _NoInput:
    """A standard input that raises on every access, as in lm-evaluation-harness."""

    def __init__(self, announce: Callable[[str], None]) -> None:
        self._announce = announce

    def __getattr__(self, name: str) -> Any:
        self._announce("stdin")
        raise OSError("there is no standard input")

    def __iter__(self) -> Any:
        return self.readline()
