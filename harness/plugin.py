r"""A failure in a user's file, told in the user's own lines.

Example:
    >>> str(plugin_error(Path("bad.py"), ValueError("no such split")))
    'could not load `bad.py`\n\n  ValueError: no such split'
"""

from __future__ import annotations

import traceback
from pathlib import Path

from harness.errors import UserError


def plugin_error(
    path: Path, error: BaseException, *, hint: str | None = None, what: str = "could not load"
) -> UserError:
    """A `UserError` that shows the frames of `error` in the folder of `path`, and no others.

    Args:
        path: The user's file.
        error: What was raised while it was imported or called.
        hint: How to see more; a `UserError` keeps its own.
        what: What went wrong with the file.
    """
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if _is_users(frame.filename, path)]
    if isinstance(error, UserError):
        where = f" ({Path(frames[-1].filename).name}:{frames[-1].lineno})" if frames else ""
        return UserError(error.message + where, error.hint)
    lines = [f"{what} `{path.name}`", ""]
    for frame in frames:
        lines.append(f"  {Path(frame.filename).name}:{frame.lineno} in {frame.name}")
        lines.append(f"    {frame.line}")
    said = "".join(traceback.TracebackException.from_exception(error).format_exception_only()).strip()
    lines += [f"  {line}" for line in said.splitlines()]
    return UserError("\n".join(lines), hint)


def _is_users(filename: str, path: Path) -> bool:
    """Whether a frame is of the user's folder: not Python's, not a library's, not ours."""
    folder, file = path.resolve().parent, Path(filename).resolve()
    if filename.startswith("<") or folder not in file.parents:
        return False
    inner = file.relative_to(folder).parts
    return "site-packages" not in inner and "harness" not in inner
