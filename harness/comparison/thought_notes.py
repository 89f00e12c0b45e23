"""Notes on thoughts: texts that end inside one, and how the chat template treats them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from harness.comparison.samples import SampleRows
from harness.prepare.prepare import PreparedVariant

_STATES = {
    "none": "the model may begin a thought",
    "open": "prompts begin a thought",
    "closed": "prompts close an empty thought",
}


def default_thinking(variants: Sequence[PreparedVariant]) -> list[str]:
    """A note on the default of a chat template that knows thoughts, for the variants without `think`."""
    by_note: dict[str, list[str]] = {}
    for variant in variants:
        template = variant.prompting.template
        if template is None or template.thought is None or variant.prompting.think is not None:
            continue
        change = "`think=on`, `think=off` or `think=TOKENS` changes it"
        if not template.has_switch:
            change = "`think=TOKENS` gives a thought that number of tokens"
        note = f"thinking follows the chat template's default: {_STATES[template.thought_state]}; {change}"
        by_note.setdefault(note, []).append(variant.spec.name)
    return [f"{', '.join(names)}: {note}" for note, names in by_note.items()]


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
