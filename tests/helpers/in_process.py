"""Cheaper comparisons: jobs run in this process, and timing is short.

A worker takes 6 s of CPU time to import torch, transformers and peft; timing three variants of the tiny model takes 20 s.
Tests that check neither use these helpers. The real worker and the full timing are tested in tests/worker and in
tests/comparison/test_comparison.py.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from functools import partial
from typing import Any, Self

import pytest

from harness.comparison import dry_run, memory_plan, recipes
from harness.comparison import run as comparison
from harness.errors import UserError
from harness.storage import DiskFull
from harness.worker import server
from harness.worker.server import JobFailed, run_job

SHORT_TIMING: Mapping[str, Any] = {
    "prompt_tokens": 8,
    "new_tokens": 2,
    "warmup": 0,
    "repeats": 1,
    "batch_sizes": (1,),
}
ONE_REPEAT: Mapping[str, Any] = {"warmup": 0, "repeats": 1}
"""The default lengths and batch sizes, each timed once."""

_PROGRAM = """
import json, sys
from functools import partial
from harness.cli import main
from harness.comparison import recipes

recipes.BenchJob = partial(recipes.BenchJob, **json.loads(sys.argv.pop(1)))
sys.exit(main())
"""


def command(*arguments: str, timing: Mapping[str, Any] | None = SHORT_TIMING) -> list[str]:
    """Returns the command line of `harness` in a process of its own.

    Args:
        *arguments: What follows `harness`.
        timing: Fields of `BenchJob`; None starts `python -m harness` itself.
    """
    if timing is None:
        return [sys.executable, "-m", "harness", *arguments]
    return [sys.executable, "-c", _PROGRAM, json.dumps(timing), *arguments]


class InProcess:
    """A stand-in for `Server`: runs each job in this process, which has imported torch already, and reports errors alike."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def hold(self, descriptor: int) -> None:
        pass

    def run(self, job: Any, on_event: Any = lambda event: None) -> Any:
        try:
            return run_job(job, on_event)
        except UserError:
            raise
        except Exception as error:
            failed = server._failure(error, getattr(job, "output", None))
            users = DiskFull if failed.disk_full else UserError
            kind = users(failed.error, failed.hint) if failed.is_users else JobFailed(failed.error, failed.traceback)
            raise kind from error


def use(patch: pytest.MonkeyPatch) -> None:
    """Has every comparison and memory plan of this process run its jobs here, and time them briefly."""
    for module in (comparison, memory_plan, dry_run):
        patch.setattr(module, "Server", InProcess)
    patch.setattr(recipes, "BenchJob", partial(recipes.BenchJob, **SHORT_TIMING))
