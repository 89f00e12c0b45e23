"""The process of the tests: runs them on the program in the other process, and reports the verdict.

No code of the program runs here. Its functions and objects are `Remote`s: calls and attributes are done in the program's
process, and plain data comes back, which the tests compare here. See `harness.sandbox.child`.
"""

from __future__ import annotations

import _signal
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
ALIASES = {"np": "numpy", "pd": "pandas", "plt": "matplotlib.pyplot"}
ANNOTATIONS, PARSE = 0x1000000, 0x400
"""Flags of the compiler: `from __future__ import annotations`, as helpers do not need the types they name; a tree, no code."""
FUNCTION_TYPES = (type(lambda: None), type(len), type(Exception.with_traceback), type("".join), type([].append))
CodeType = type((lambda: None).__code__)
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
        self._began = time.monotonic()
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
        """Waits for the answer; meanwhile, the program may call functions that the tests gave to it."""
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
        number = _signal_of(self._process)
        if not number:
            return Gone("exit", "exited before the last statement")
        if number == _signal.SIGXCPU or (
            number == _signal.SIGKILL and time.monotonic() - self._began >= self._cpu_seconds
        ):
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


def _signal_of(process: int) -> int:
    """Waits for the end of a process; returns the number of the signal that ended it, or 0."""
    if not hasattr(os, "waitid"):  # macOS with Python 3.12 and before
        return max(0, -os.waitstatus_to_exitcode(os.waitpid(process, 0)[1]))
    # WNOWAIT: until the harness has sent its last signal, the number of the process must not be given to another one.
    ended = os.waitid(os.P_PID, process, os.WEXITED | os.WNOWAIT)
    return 0 if ended is None or ended.si_code == os.CLD_EXITED else ended.si_status


def _exception(kind: str, detail: str, nearest: str) -> BaseException:
    """The exception that a program raised, as one of Python's own, with the fault to report if the tests do not catch it."""
    found = vars(builtins).get(nearest)
    if not (isinstance(found, type) and issubclass(found, BaseException)):
        raise ValueError("malformed value")
    try:
        made = found(detail.partition(": ")[2])
    except TypeError:  # UnicodeDecodeError and its kind need five arguments
        made = RuntimeError(detail)
    made.fault = str(kind), str(detail)  # type: ignore[attr-defined]
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
    return remote._Remote__program  # type: ignore[attr-defined, no-any-return]


def number_of(remote: Remote) -> int:
    """The number of an object in the program's process."""
    return remote._Remote__number  # type: ignore[attr-defined, no-any-return]


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


def examine(program: Program, tests: str, given: str) -> tuple[str, str] | None:
    """Waits for the program to reach its end, and runs the tests.

    Args:
        program: The program's process.
        tests: Source code of the tests.
        given: Beginning of the program that the task wrote. Its imports and complete functions are trusted.

    Returns:
        The fault and its description; None if the tests passed.
    """
    try:
        program.answer()
        if tests:
            code = compile(tests, "<tests>", "exec")
            exec(code, _names(program, _names_in(code), given))
    except BaseException as error:
        return program.gone.fault if program.gone else getattr(error, "fault", None) or _fault(error)
    return program.gone.fault if program.gone else None


def _fault(error: BaseException) -> tuple[str, str]:
    kind = {SystemExit: "exit", MemoryError: "memory"}.get(type(error), "exception")
    return kind, f"{type(error).__name__}: {error}"[:300]


def _names_in(code: CodeType) -> set[str]:
    """The names that code uses, also those of attributes, in all its functions."""
    found = set(code.co_names)
    for each in code.co_consts:
        if isinstance(each, CodeType):
            found |= _names_in(each)
    return found


def _names(program: Program, used: set[str], given: str) -> dict[str, Any]:
    """The names with which the tests begin: helpers that the task wrote, the standard library, and the program's objects.

    A name of Python's own stays Python's own (`abs`, `math`), unless it is the only name of the program that the tests use: it
    is then the function that they test, as `sum` in MBPP.
    """
    own = _helpers(given, used)
    wanted = used.union(*(_names_in(code) for code in own.values()))
    names: dict[str, Any] = {}
    special: dict[str, Any] = {}
    for name, (kind, module, attribute, value) in program.ask("names", sorted(wanted - own.keys())).items():
        is_special = name in vars(builtins) or name in sys.stdlib_module_names
        found = None
        if kind == "module" and module in (
            ALIASES.get(name),
            name if is_special else f"{module.rpartition('.')[0]}.{name}",
        ):
            found = _imported(module)
        elif kind == "standard" and attribute == name and module.partition(".")[0] in sys.stdlib_module_names:
            found = getattr(_imported(module), name, None)
        if found is not None:
            names[name] = found
        else:
            (special if is_special else names)[name] = value
    if not any(type(value) is Remote for value in names.values()):
        names |= special
    for code in own.values():
        exec(code, names)
    return names


def _imported(module: str) -> Any:
    """A module, or None if it is not installed; the program's folder is not among the places that are searched."""
    try:
        __import__(module)
    except ImportError:
        return None
    return sys.modules[module]


def _tree(given: str) -> Any:
    """The syntax tree of the beginning of a program; its last statement may be incomplete."""
    lines = given.splitlines(keepends=True)
    starts = [number for number, line in enumerate(lines) if not line[0].isspace()]
    for end in (len(lines), *reversed(starts)):
        beginning = "".join(lines[:end])
        try:
            return compile(beginning if end == len(lines) else f"{beginning}pass", "<given>", "exec", PARSE)
        except (SyntaxError, ValueError):  # a text of the model completes the last statement
            continue
    return compile("", "<given>", "exec", PARSE)


def _helpers(given: str, used: set[str]) -> dict[str, CodeType]:
    """The imports and complete functions at the beginning of a program that tests use, by name, each with its code."""
    tree = _tree(given)
    found: dict[str, CodeType] = {}
    for position, statement in enumerate(tree.body):
        kind = type(statement).__name__
        if kind in ("Import", "ImportFrom"):
            bound = [alias.asname or alias.name.partition(".")[0] for alias in statement.names]
        elif kind == "FunctionDef" and position + 1 < len(tree.body):
            bound = [statement.name]
        else:
            continue
        tree.body, body = [statement], tree.body
        code = compile(tree, "<given>", "exec", ANNOTATIONS)
        tree.body = body
        found |= dict.fromkeys(bound, code)
    needed, more = set[str](), used & found.keys()
    while more:
        needed |= more
        more = found.keys() & set[str]().union(*(_names_in(found[name]) for name in more)) - needed
    return {name: code for name, code in found.items() if name in needed}
