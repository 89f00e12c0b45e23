"""`UserError`, the one exception that users see as a message without a traceback.

Everything that a user can fix (a misspelt task, a missing file, a full disk) is a `UserError`: the command line prints
`error: …` and `hint: …` and exits with code 2. Any other exception is a bug in this package (exit code 3).
"""

from __future__ import annotations

import difflib
import json
import re
import traceback
from collections.abc import Iterable, Sequence
from pathlib import Path

MOST_FRAMES = 12
"""Frames of a user's file that an error shows: the first and the last ones of an endless recursion."""


class UserError(Exception):
    """An error that the user can fix.

    Args:
        message: What is wrong; names the file, the field or the word at fault. No full stop.
        hint: How to fix it.

    Example:
        >>> raise UserError("unknown task `gsm9k`", hint="did you mean `gsm8k`?")
        Traceback (most recent call last):
        ...
        harness.errors.UserError: unknown task `gsm9k`
    """

    problems: tuple[UserError, ...] = ()
    """The single errors, if this one lists several (`together`)."""

    def __init__(self, message: str, hint: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    @property
    def sentence(self) -> str:
        """Message and hint on one line, for the row of a table."""
        return " ".join(self.message.split()) + (f"; {self.hint}" if self.hint else "")

    def __reduce__(self) -> tuple[type[UserError], tuple[str, str | None]]:
        return (type(self), (self.message, self.hint))


def did_you_mean(word: str, known: Iterable[str], *, listing: str = "") -> str:
    """A hint for a misspelt word: the most similar known words, else how to list all of them.

    Example:
        >>> did_you_mean("gsm9k", ["gsm8k", "mmlu"])
        'did you mean `gsm8k`?'
    """
    names = sorted(set(map(str, known)))
    if not names:
        return listing or "none are defined"
    close = difflib.get_close_matches(word, names, n=3, cutoff=0.6)
    if close:
        return "did you mean " + " or ".join(f"`{name}`" for name in close) + "?"
    shown = ", ".join(f"`{name}`" for name in names[:20])
    return f"known: {shown}" + (f"; {listing}" if listing else "")


def together(problems: Sequence[UserError]) -> UserError:
    r"""One error that lists several, so that the user can fix all of them at once.

    Example:
        >>> together([UserError("unknown task `a`"), UserError("unknown method `b`", hint="known: lora")]).message
        '2 problems\n\n  unknown task `a`\n  unknown method `b`; known: lora'
    """
    single = tuple(each for problem in problems for each in problem.problems or (problem,))
    if len(single) == 1:
        return single[0]
    lines = [problem.message + (f"; {problem.hint}" if problem.hint else "") for problem in single]
    error = UserError(f"{len(single)} problems\n\n" + "\n".join(f"  {line}" for line in lines))
    error.problems = single
    return error


def brief(error: BaseException) -> str:
    r"""The beginning of an error's message on one line; where its first line only announces the next one, both.

    Example:
        >>> brief(ValueError("Error(s) in loading state_dict:\n\tsize mismatch for lm_head\n\tsize mismatch for norm"))
        'Error(s) in loading state_dict: size mismatch for lm_head'
    """
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    shown = lines[: 2 if lines and lines[0].endswith(":") else 1]
    return " ".join(shown)[:300]


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an exception says that host or device memory ran out."""
    text = str(error).lower()
    in_message = any(
        words in text for words in ("out of memory", "can't allocate memory", "not enough memory", "alloc_failed")
    )
    return in_message or isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError"


def plugin_error(
    path: Path, error: BaseException, *, hint: str | None = None, what: str = "could not load"
) -> UserError:
    """A `UserError` that shows only those frames of `error` that are in the folder of `path`.

    Args:
        path: The user's file.
        error: The exception that was raised while the file was imported or called.
        hint: How to see more; if `error` is a `UserError`, its own hint is kept.
        what: What went wrong with the file.
    """
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if _is_users(frame.filename, path)]
    if isinstance(error, UserError):
        where = f" ({Path(frames[-1].filename).name}:{frames[-1].lineno})" if frames else ""
        return UserError(error.message + where, error.hint)
    lines = [f"{what} `{path.name}`", ""]
    hidden = len(frames) - MOST_FRAMES
    for number, frame in enumerate(frames):
        if MOST_FRAMES // 2 <= number < MOST_FRAMES // 2 + hidden:
            lines += [f"  … {hidden} more"] * (number == MOST_FRAMES // 2)
            continue
        lines.append(f"  {Path(frame.filename).name}:{frame.lineno} in {frame.name}")
        lines.append(f"    {frame.line}")
    message = "".join(traceback.TracebackException.from_exception(error).format_exception_only()).strip()
    lines += [f"  {line}" for line in message.splitlines()]
    return UserError("\n".join(lines), hint)


_CONTROLS = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u180e\u200b\u200e\u200f\u2028-\u202e\u2060-\u2064\u2066-\u206f\ufeff\ufff9-\ufffb"
    "\ud800-\udfff\U000e0000-\U000e007f]"
)
"""Characters that move a cursor, colour or reorder text, or are invisible; half characters; not tab and line feed."""


def printable(text: str) -> str:
    r"""Text from elsewhere for a screen or a report: control characters are written as escapes, which JSON reads back.

    Example:
        >>> printable("\x1b[31mred\u202e")
        '\\u001b[31mred\\u202e'
    """
    return _CONTROLS.sub(lambda found: json.dumps(found[0])[1:-1].replace("\x7f", "\\u007f"), text)


def one_line(error: Exception) -> str:
    """The message of an exception on one line, at most 300 characters; its class name if the message is empty."""
    return " ".join(str(error).split())[:300] or type(error).__name__


def _is_users(filename: str, path: Path) -> bool:
    """Whether a frame belongs to the user's folder, not to Python, a library or this package."""
    folder, file = path.resolve().parent, Path(filename).resolve()
    if filename.startswith("<") or folder not in file.parents:
        return False
    inner = file.relative_to(folder).parts
    return "site-packages" not in inner and "harness" not in inner
