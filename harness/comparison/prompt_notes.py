"""Notes on prompts: what a variant's chat template could not show as the task says."""

from __future__ import annotations

from collections.abc import Sequence

from harness.api import Text
from harness.prepare.prepare import Prepared, PreparedVariant
from harness.report.numbers import listing


def prompt_notes(prepared: Prepared, variants: Sequence[PreparedVariant]) -> list[str]:
    """Says which texts are in the first user turn because the chat template has no system turn."""
    moved: dict[str, None] = {}
    for variant in variants:
        template = variant.prompting.template
        if template is None or template.has_system_turn:
            continue
        if variant.prompting.system:
            moved["the system prompt"] = None
        moved |= {f"the description of {task.name}": None for task in prepared.tasks if task.task.description}
        own = [task.name for task in prepared.tasks if _has_system_turn(variant, task.name)]
        moved |= {f"the system turn of {name}": None for name in own}
    if not moved:
        return []
    return [f"the chat template has no system turn: the first user turn begins with {listing(list(moved))}"]


def _has_system_turn(variant: PreparedVariant, task: str) -> bool:
    prompts = [item.sample.prompt for item in variant.items[task] if not isinstance(item.sample, Text)]
    return any(
        not isinstance(message, str) and message["role"] == "system"
        for prompt in prompts
        if not isinstance(prompt, str)
        for message in prompt
    )
