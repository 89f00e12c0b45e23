"""Renders chat templates in a process of their own: a template comes with a model and is a program, so it gets limits.

One process serves all templates of its parent. It has little memory, and each rendering, compilation included, has little
processor time; what exceeds a limit ends that process, not the run. A conversation of twelve turns takes about 0.2 ms.

    parent ──pickle: template, variables──▶ process ──status, length, text──▶ parent
"""

from __future__ import annotations

import functools
import os
import pickle
import resource
import select
import signal
import struct
import subprocess
import sys
import threading
from contextlib import suppress
from typing import Any, BinaryIO

from harness.errors import UserError
from harness.storage import import_path

CPU_SECONDS = 2.0
"""Processor time of one rendering; those of real models take 0.4 ms for a short conversation."""
MEMORY_BYTES = 1_500_000_000
"""Address space of the process."""
TEXT_BYTES = 64 << 20
"""Longest text of one rendering; a conversation of a million tokens has about 4 MB."""
TEMPLATE_BYTES = 1 << 20
"""Longest template; the longest of well-known models has 17 KB."""
_WALL_SECONDS = 120
"""Time after which the process is given up, whatever its processor time: it may have been stopped."""
_START = "from harness.prompts.template_process import serve; serve()"
_HEADER = struct.Struct("<BQ")
_DONE, _REFUSED, _TOO_MUCH = range(3)


class TemplateRefuses(Exception):
    """The template raised an exception for these variables; the message is the template's."""


class LimitedTemplate:
    """A template that is rendered within limits.

    Args:
        text: The template.

    Example:
        >>> LimitedTemplate("{{ a }}!").render(a="hi")
        'hi!'
    """

    def __init__(self, text: str) -> None:
        self._text = text
        self._fault: UserError | None = None

    def render(self, **variables: Any) -> str:
        """Renders the template.

        Args:
            **variables: The variables that it can read.

        Raises:
            TemplateRefuses: The template raised an exception.
            UserError: It is too long, or exceeded a limit, in this rendering or an earlier one.
        """
        if self._fault is None:
            try:
                if len(self._text) > TEMPLATE_BYTES:
                    raise _too_much(f"has {len(self._text):,} characters; at most {TEMPLATE_BYTES:,} are read")
                return _process().render(self._text, variables)
            except UserError as error:
                self._fault = error
        raise UserError(self._fault.message, self._fault.hint)


@functools.cache
def limited(text: str) -> LimitedTemplate:
    """The template with this text; its failures are remembered."""
    return LimitedTemplate(text)


class _Process:
    """The parent's end of the process, which starts when it is first used, and again after it ended."""

    def __init__(self) -> None:
        self.parent = os.getpid()
        self._lock = threading.Lock()
        self._child: subprocess.Popen[bytes] | None = None

    def render(self, text: str, variables: dict[str, Any]) -> str:
        question = pickle.dumps((CPU_SECONDS, text, variables), protocol=pickle.HIGHEST_PROTOCOL)
        with self._lock:
            child = self._child = self._child or _started()
            try:
                status, answer = _asked(child, question)
            except BaseException:  # Ctrl-C between question and answer: the next answer would be the old one
                self._end()
                raise
            if status is None:
                self._end()
                raise _ended(child.returncode)
        if status == _DONE:
            return answer.decode("utf-8", "surrogatepass")
        said = answer.decode("utf-8", "replace")
        raise TemplateRefuses(said) if status == _REFUSED else _too_much(said)

    def _end(self) -> None:
        child, self._child = self._child, None
        if child is not None:
            child.kill()
            for stream in (child.stdin, child.stdout):
                if stream is not None:
                    with suppress(OSError):
                        stream.close()
            child.wait()


def _started() -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, "-P", "-c", _START],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env={**os.environ, **import_path()},
    )


def _asked(child: subprocess.Popen[bytes], question: bytes) -> tuple[int | None, bytes]:
    """The status and the text of an answer; the status is None if the process ended instead."""
    assert child.stdin is not None and child.stdout is not None
    try:
        child.stdin.write(struct.pack("<Q", len(question)) + question)
        child.stdin.flush()
        if not select.select([child.stdout], [], [], _WALL_SECONDS)[0]:
            child.kill()
        status, size = _HEADER.unpack(child.stdout.read(_HEADER.size))
        answer = child.stdout.read(size) if size <= TEXT_BYTES else b""
        if len(answer) == size:
            return status, answer
    except (BrokenPipeError, struct.error):
        pass
    with suppress(subprocess.TimeoutExpired):
        child.wait(1)
    return None, b""


def _ended(code: int | None) -> UserError:
    if code in (-signal.SIGPROF, -signal.SIGKILL):
        return _too_much(f"takes more than {CPU_SECONDS:g} s for one prompt")
    return _too_much(f"ended the process that renders it (code {code})")


def _too_much(what: str) -> UserError:
    return UserError(
        f"the model's chat template {what}",
        hint="a template is a program that comes with the model: read it, or use a copy of the model with another one",
    )


_OURS: _Process | None = None


def _process() -> _Process:
    """The process of this process: a forked child must not share that of its parent."""
    global _OURS
    if _OURS is None or _OURS.parent != os.getpid():
        _OURS = _Process()
    return _OURS


def serve() -> None:
    """Main function of the process: answers questions until its parent closes them, or a limit ends it."""
    from harness.prompts.template_environment import compiled

    compiled("{{ 1 }}")  # imports jinja2
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent handles Ctrl-C
    for what, limit in ((resource.RLIMIT_AS, MEMORY_BYTES), (resource.RLIMIT_CORE, 0), (resource.RLIMIT_FSIZE, 0)):
        resource.setrlimit(what, (limit, limit))
    questions, answers = sys.stdin.buffer, sys.stdout.buffer
    while size := questions.read(8):
        status, answer = _answer(questions, *struct.unpack("<Q", size))
        answers.write(_HEADER.pack(status, len(answer)) + answer)
        answers.flush()


def _answer(questions: BinaryIO, size: int) -> tuple[int, bytes]:
    from harness.prompts.template_environment import compiled

    try:
        seconds, text, variables = pickle.loads(questions.read(size))
        signal.setitimer(signal.ITIMER_PROF, seconds)  # ends the process, even inside one long operation of C
        answer = compiled(text).render(**variables).encode("utf-8", "surrogatepass")
        if len(answer) > TEXT_BYTES:
            return _TOO_MUCH, f"makes a prompt of {len(answer):,} bytes; at most {TEXT_BYTES:,} are read".encode()
        return _DONE, answer
    except MemoryError:
        return _TOO_MUCH, f"takes more than {MEMORY_BYTES / 1e9:g} GB of memory for one prompt".encode()
    except Exception as error:  # a template is a program: it can raise any exception
        return _REFUSED, str(error)[:1000].encode("utf-8", "surrogatepass")
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
