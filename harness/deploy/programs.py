"""Runs the program of a converter or quantizer: quiet, without network, ended with this process."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from harness.errors import printable
from harness.storage import disk_full

_BEAT_SECONDS = 20.0
"""Time between two signs of life: a child that reports nothing for long is ended."""
_WITH_PARENT = (
    "import ctypes, os, sys; getattr(ctypes.CDLL(None), 'prctl', max)(1, 9); os.execv(sys.argv[1], sys.argv[1:])"
)
"""Asks the kernel for SIGKILL when the parent ends (PR_SET_PDEATHSIG), and becomes the program in its arguments."""
_ERROR_LINES = 12


class ProgramFailed(Exception):
    """A program ended with an error; the message is the last line that it wrote about it."""

    def __init__(self, message: str, output: str) -> None:
        super().__init__(message)
        self.output = output


def run_program(
    command: Sequence[str | Path],
    *,
    beat: Callable[[], None] = lambda: None,
    variables: Mapping[str, str] | None = None,
) -> str:
    """Runs a program to its end and returns what it wrote.

    Args:
        command: The program and its arguments.
        beat: Called every 20 seconds while it runs.
        variables: Further environment variables; an empty value removes one.

    Raises:
        ProgramFailed: It ended with an error, or could not be started.
        UserError: The disk is full.
    """
    words = list(map(str, command))
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1", **(variables or {})}
    try:
        process = subprocess.Popen(
            [sys.executable, "-I", "-c", _WITH_PARENT, *words],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            env={name: value for name, value in environment.items() if value},
        )
    except OSError as error:
        raise ProgramFailed(f"`{words[0]}` could not be started: {error.strerror}", "") from error
    output = ""
    with process:
        try:
            while True:
                try:
                    output = process.communicate(timeout=_BEAT_SECONDS)[0]
                    break
                except subprocess.TimeoutExpired:
                    beat()
        finally:
            process.kill()
    if process.returncode:
        if "no space left on device" in output.lower():
            raise disk_full()
        raise ProgramFailed(_said(output, process.returncode), output)
    return output


def _said(output: str, code: int) -> str:
    """The line of a program's output that says why it failed, without the name of an exception's module."""
    lines = [line.strip() for line in output.splitlines() if line.strip()][-_ERROR_LINES:]
    errors = [line for line in lines if "error" in line.lower() or "not supported" in line.lower()]
    ended = f"it was ended by signal {-code}" if code < 0 else f"it ended with code {code}"
    return printable((errors or lines or [ended])[-1][:300])
