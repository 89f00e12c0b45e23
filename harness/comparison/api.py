"""The Python API: `compare()`, `evaluate()` and `train()` do what the commands of the same names do."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from harness.comparison.run import run
from harness.comparison.training import train_only
from harness.config.parse import configure
from harness.report.progress import Progress
from harness.results import Run, Variant


def compare(
    *variants: str,
    model: str = "tiny",
    tasks: Sequence[str] | None = None,
    progress: Progress | None = None,
    fresh: bool = False,
    **settings: Any,
) -> Run:
    """Compares variants, as `harness compare` does.

    Args:
        *variants: Specs: `"base"`, `"lora:rank=8"`, `"mine=./x.py@rslora@4bit"`.
        model: `tiny`, a folder, a Hub id, or a served model: `endpoint:http://HOST:PORT/v1#NAME`.
        tasks: Names or paths; the `mini_*` tasks when the model is `tiny`.
        progress: Receives progress events; None: shows nothing.
        fresh: Start again even if there is an earlier run of the same configuration.
        **settings: Fields of `harness.config.config.Config`; `train` is a mapping.

    Raises:
        UserError: The configuration, a file or a plugin has a mistake that the user can fix.

    Example:
        >>> run = compare("base", "lora", limit=20, train={"steps": 20})  # doctest: +SKIP
        >>> run.variant("lora").scores[0].delta.verdict  # doctest: +SKIP
        'better'
    """
    config = configure(variants, model=model, tasks=tasks, **settings)
    return run(config, progress=progress, fresh=fresh, command=f"harness.compare({', '.join(map(repr, variants))}, …)")


def evaluate(variant: str = "base", **settings: Any) -> Variant:
    """Scores one variant, as `harness eval` does, and returns its results.

    Raises:
        UserError: The configuration, a file or a plugin has a mistake that the user can fix.

    Example:
        >>> evaluate("base", tasks=["mini_mmlu"], limit=20).scores[0].value  # doctest: +SKIP
        0.85
    """
    return compare(variant, **settings).variants[0]


def train(variant: str, *, progress: Progress | None = None, **settings: Any) -> Path:
    """Trains one variant once, as `harness train` does, and returns the folder of its artifact.

    Raises:
        UserError: The configuration, a file or a plugin has a mistake that the user can fix, or the training run failed.

    Example:
        >>> train("lora:rank=8", train={"data": "data.jsonl"})  # doctest: +SKIP
        PosixPath('runs/tiny-20261120-235501/adapters/lora-rank-8-1a2b3c')
    """
    return train_only(configure([variant], **settings), progress=progress).artifact
