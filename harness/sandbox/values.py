"""Values that cross between a generated program and its tests, as bytes that are safe to decode.

The program may send any bytes. Decoding them makes plain data of exactly Python's own types and of a few types of the standard
library, so that no comparison in the tests calls code of the program. Everything else crosses as the number of an object that
stays in its own process.

It runs in the processes of the sandbox: it imports nothing at its start, because `json` alone takes longer than a fork.
"""

from __future__ import annotations

TYPE_CHECKING = False  # importing `typing` takes longer than everything else here
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

SEQUENCES: dict[type, bytes] = {list: b"l", tuple: b"t", set: b"e", frozenset: b"z"}
BUILDERS: dict[bytes, Callable[[list[Any]], Any]] = {b"l": list, b"t": tuple, b"e": set, b"z": frozenset}
BASES = (int, float, complex, str, bytes, tuple, frozenset, set, list, dict)
"""Values of subclasses cross as values of these types: `Counter` as `dict`, named tuples as `tuple`."""
STANDARD: dict[tuple[str, str], Callable[[Any], tuple[Any, ...]]] = {
    ("builtins", "range"): lambda value: (value.start, value.stop, value.step),
    ("builtins", "slice"): lambda value: (value.start, value.stop, value.step),
    ("builtins", "bytearray"): lambda value: (bytes(value),),
    ("builtins", "dict_keys"): lambda value: (list(value),),
    ("builtins", "dict_values"): lambda value: (list(value),),
    ("builtins", "dict_items"): lambda value: (list(value),),
    ("collections", "deque"): lambda value: (list(value), value.maxlen),
    ("decimal", "Decimal"): lambda value: (str(value),),
    ("fractions", "Fraction"): lambda value: (value.numerator, value.denominator),
    ("datetime", "date"): lambda value: (value.year, value.month, value.day),
    ("datetime", "time"): lambda value: (value.hour, value.minute, value.second, value.microsecond),
    ("datetime", "datetime"): lambda value: (*value.timetuple()[:6], value.microsecond),
    ("datetime", "timedelta"): lambda value: (value.days, value.seconds, value.microseconds),
    ("numpy", "ndarray"): lambda value: (value.tolist(), value.dtype.str),
}
"""Types that are made again from arguments: module and name to the arguments of a value."""
PLAIN = "biufcSU"
"""Kinds of numpy's types whose values are data: numbers and texts."""
VIEWS: dict[str, Callable[[list[Any]], Any]] = {
    "dict_keys": lambda items: dict.fromkeys(items).keys(),
    "dict_values": lambda items: dict(enumerate(items)).values(),
    "dict_items": lambda items: dict(items).items(),
}


def encode(value: Any, refer: Callable[[Any], bytes]) -> bytes:
    """Encodes a value.

    Args:
        value: The value.
        refer: Encodes an object that is no data.

    Example:
        >>> encode([1, "a"], repr)
        b'l2;i1;s1;a'
    """
    parts: list[bytes] = []
    _write(value, parts.append, refer)
    return b"".join(parts)


def _write(value: Any, add: Callable[[bytes], None], refer: Callable[[Any], bytes]) -> None:
    kind = type(value)
    if value is None or kind is bool:
        add({None: b"N", True: b"T", False: b"F"}[value])
    elif kind is int:
        add(b"i%x;" % value)
    elif kind is float:
        add(b"f" + value.hex().encode() + b";")
    elif kind is complex:
        add(b"c" + value.real.hex().encode() + b";" + value.imag.hex().encode() + b";")
    elif kind is str or kind is bytes:
        content = value if kind is bytes else value.encode("utf-8", "surrogatepass")
        add((b"b%x;" if kind is bytes else b"s%x;") % len(content))
        add(content)
    elif kind in SEQUENCES:
        add(SEQUENCES[kind] + b"%x;" % len(value))
        for each in value:
            _write(each, add, refer)
    elif kind is dict:
        add(b"d%x;" % len(value))
        for key, each in value.items():
            _write(key, add, refer)
            _write(each, add, refer)
    else:
        _write_other(value, add, refer)


def _write_other(value: Any, add: Callable[[bytes], None], refer: Callable[[Any], bytes]) -> None:
    """Encodes a value of another type: as data if it is of a known type, else as a reference."""
    kind = type(value)
    place = (kind.__module__, kind.__name__)
    for base in BASES:
        if base in kind.__mro__:
            _write(str.__str__(value) if base is str else base(value), add, refer)
            return
    if place in STANDARD and getattr(value, "tzinfo", None) is None and _is_plain_array(value):
        add(b"n")
        _write((*place, STANDARD[place](value)), add, refer)
    elif (
        kind.__module__ == "numpy"
        and kind.__name__ != "ndarray"
        and hasattr(value, "dtype")
        and value.dtype.kind in "biufc"
    ):
        _write(value.item(), add, refer)
    else:
        add(refer(value))


def _is_plain_array(value: Any) -> bool:
    """Whether a value is no array of numpy, or one of numbers or texts."""
    return type(value).__name__ != "ndarray" or value.dtype.kind in PLAIN


def decode(data: bytes, resolve: Callable[[bytes, bytes], Any]) -> Any:
    """Decodes a value; the memory that it takes is bounded by a multiple of the data's size.

    Args:
        data: The bytes, which may be malformed.
        resolve: Finds the object for a reference: a letter and a name or number.

    Raises:
        Exception: The bytes are malformed.

    Example:
        >>> decode(b"l2;i1;s1;a", print)
        [1, 'a']
    """
    at = 0

    def word() -> bytes:
        nonlocal at
        end = data.index(b";", at)
        found, at = data[at:end], end + 1
        return found

    def size() -> int:
        found = int(word(), 16)
        if not 0 <= found <= len(data):
            raise ValueError("malformed value")
        return found

    def content() -> bytes:
        nonlocal at
        end = size() + at
        found, at = data[at:end], end
        return found

    def read() -> Any:
        nonlocal at
        kind, at = data[at : at + 1], at + 1
        if kind in BUILDERS:
            return BUILDERS[kind]([read() for _ in range(size())])
        if kind == b"i":
            return int(word(), 16)
        if kind == b"f":
            return float.fromhex(word().decode())
        if kind == b"s":
            return content().decode("utf-8", "surrogatepass")
        if kind == b"b":
            return content()
        if kind == b"d":
            return {key: value for key, value in ((read(), read()) for _ in range(size()))}
        if kind == b"c":
            return complex(float.fromhex(word().decode()), float.fromhex(word().decode()))
        if kind == b"n":
            return _build(read())
        if kind in CONSTANTS:
            return CONSTANTS[kind]
        return resolve(kind, word())

    return read()


CONSTANTS = {b"N": None, b"T": True, b"F": False}


def _build(description: tuple[str, str, tuple[Any, ...]]) -> Any:
    module, name, arguments = description
    if (module, name) not in STANDARD:
        raise ValueError("malformed value")
    if name in VIEWS:
        return VIEWS[name](*arguments)
    made = __import__(module)
    if name == "ndarray":
        kind = made.dtype(arguments[1])
        if kind.kind not in PLAIN:
            raise ValueError("malformed value")
        return made.array(arguments[0], dtype=kind)
    return getattr(made, name)(*arguments)
