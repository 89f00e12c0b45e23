"""Splits on the Hub that a task reads, for `harness data fetch`."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Mapping
from typing import Any

from harness.data.hub import parse_hub, watched
from harness.data.offline import VARIABLE
from harness.data.sources import Hub, source
from harness.registry.find import find_all
from harness.registry.load import load_task
from harness.registry.task_spec import parse_task


def splits_of(name: str, parameters: Mapping[str, Any] | None = None) -> list[Hub]:
    """Lists the splits that a task reads, one configuration each: its samples, solved examples and train split.

    Args:
        name: A task as on the command line, or `hub:owner/name[:config[:split]][@revision]`.
        parameters: Values of `-T key=value`.

    Raises:
        UserError: There is no such task, or its function raises an exception.

    Example:
        >>> [str(split) for split in splits_of("gsm8k")]
        ['hub:openai/gsm8k:main:test', 'hub:openai/gsm8k:main:train']
    """
    if name.startswith("hub:"):
        return parse_hub(name).single_configurations
    spec = parse_task(name, parameters)
    found: dict[Hub, None] = {}
    with _without_copies(), watched() as seen:
        for entry in find_all("task", spec.source):
            task = load_task(entry, spec.parameters, spec.groups)
            for data in (task.data, task.shots_from, task.train):
                origin = source(data) if data is not None else None
                if isinstance(origin, Hub):
                    found.update(dict.fromkeys(origin.single_configurations))
    return [split for split in (found | seen) if not split.is_local]


@contextlib.contextmanager
def _without_copies() -> Iterator[None]:
    """Unsets `HARNESS_DATA` inside the block: a task that reads rows while it is being built gets them from the Hub."""
    before = os.environ.pop(VARIABLE, None)
    try:
        yield
    finally:
        if before is not None:
            os.environ[VARIABLE] = before
