"""A child process that answers one line of JSON with another: models that judge, out of the way of what is measured.

Example:
    >>> Helper("harness.metrics.entailment_model", "cross-encoder/nli-deberta-v3-base").ask([["A dog sleeps.", "An animal sleeps."]])  # doctest: +SKIP
    [0.99]
"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable
from typing import Any

from harness.errors import UserError
from harness.storage import import_path
from harness.user_code import waiting


class HelperFailed(Exception):
    """The child process reported an error, or ended."""


class Helper:
    """The parent's end: the child starts when it is first asked, and ends with its parent.

    Args:
        module: Run as `python -m MODULE ARGUMENT…`; calls `answer_lines`.
        *arguments: What it is to load.
    """

    def __init__(self, module: str, *arguments: str) -> None:
        self._command = [sys.executable, "-P", "-m", module, *arguments]
        self._lock = threading.Lock()
        self._child: subprocess.Popen[str] | None = None
        self._said = tempfile.TemporaryFile("w+", encoding="utf-8")  # noqa: SIM115 - read when the child has failed

    def ask(self, question: Any) -> list[float]:
        """The answer to anything that JSON can hold.

        Raises:
            HelperFailed: The child cannot answer, or its process ended.
        """
        with self._lock:
            if self._child is None:
                self._child = subprocess.Popen(
                    self._command,
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    stderr=self._said,
                    text=True,
                    encoding="utf-8",
                    env={**os.environ, **import_path()},
                )
            with waiting():  # for a model that is loaded
                answer = self._exchange(self._child, json.dumps(question))
        if isinstance(answer, str):
            raise HelperFailed(answer)
        return answer

    def _exchange(self, child: subprocess.Popen[str], line: str) -> list[float] | str:
        assert child.stdin is not None and child.stdout is not None
        try:
            child.stdin.write(line + "\n")
            child.stdin.flush()
            answer: list[float] | str = json.loads(child.stdout.readline())
        except (OSError, ValueError):
            child.kill()
            child.wait()
            self._child = None
            self._said.seek(0)
            last = [text for text in self._said.read().splitlines() if text.strip()][-1:]
            return f"its process ended ({''.join(last)[:300] or child.returncode})"
        return answer


def answer_lines(load: Callable[[], Callable[[Any], list[float]]]) -> None:
    """The child: a line of JSON in, a line of numbers (or what is wrong) out, until there is no more.

    Args:
        load: Gives what answers; called when the first line comes.
    """
    answers = sys.stdout
    answer: Callable[[Any], list[float]] | None = None
    with contextlib.redirect_stdout(sys.stderr):  # what libraries print is no answer
        for line in sys.stdin:
            said: list[float] | str
            try:
                answer = answer or load()
                said = answer(json.loads(line))
            except (Exception, SystemExit) as error:  # any failure of the library's is the parent's to tell
                hint = f" ({error.hint})" if isinstance(error, UserError) and error.hint else ""
                said = " ".join((str(error) + hint).split())[:600] or type(error).__name__
            print(json.dumps(said), file=answers, flush=True)
