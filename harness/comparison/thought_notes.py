"""Notes on thoughts: texts that end inside one, and how the chat template treats them."""

from __future__ import annotations

from collections.abc import Mapping

from harness.comparison.samples import SampleRows


def unfinished_thoughts(rows: Mapping[str, Mapping[str, SampleRows]]) -> list[str]:
    """A note for each variant and task with texts that end inside a thought.

    Args:
        rows: Samples by variant, then by task.

    Example:
        >>> unfinished_thoughts({"base": {"gsm8k": [{"outputs": ["<think> 41"], "unfinished_thoughts": 1}]}})
        ['base: on gsm8k, 1 of 1 text ends inside a thought and counts as no answer']
    """
    notes = []
    for name, tasks in rows.items():
        for task, samples in tasks.items():
            count = sum(row.get("unfinished_thoughts", 0) for row in samples)
            texts = sum(len(row["outputs"]) for row in samples)
            ends = "text ends inside a thought and counts" if texts == 1 else "texts end inside a thought and count"
            if count:
                notes.append(f"{name}: on {task}, {count} of {texts} {ends} as no answer")
    return notes
