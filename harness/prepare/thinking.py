"""The key `think` of a variant: an option of the chat template, and a budget of tokens for a thought.

| value | option `enable_thinking` | tokens of a thought, in addition to the task's `max_tokens` |
| --- | --- | --- |
| not given | the template's default | 0 |
| `off` | false | 0 |
| `on` | true | 8,192 |
| a number | true | that number |
"""

from __future__ import annotations

from harness.errors import UserError
from harness.prompts.chat import ChatTemplate

ON_TOKENS = 8192
"""Tokens of a thought with `think=on`: the smaller of the usual budgets, which go up to 32,768."""


def thinking_template(where: str, template: ChatTemplate, think: str | None) -> ChatTemplate:
    """The chat template with the option that a variant's `think` asks for.

    Args:
        where: The variant, for messages.
        template: The model's chat template.
        think: `on`, `off`, a number of tokens, or None.

    Raises:
        UserError: The template has no such option.
    """
    if think is None:
        return template
    if template.thought is None:
        raise UserError(f"{where}: the chat template of the model knows no thoughts", hint="leave out `think`")
    if template.has_switch:
        return template.with_options(enable_thinking=think != "off")
    if think == "off" and template.thought_state != "closed":
        raise UserError(
            f"{where}: the chat template of the model cannot switch thoughts off (it has no `enable_thinking`)",
            hint="leave out `think`, or give a number of tokens",
        )
    return template


def thought_budget(think: str | None) -> int:
    """Tokens of a thought.

    Example:
        >>> thought_budget("off"), thought_budget("on"), thought_budget("512")
        (0, 8192, 512)
    """
    return 0 if think in (None, "off") else ON_TOKENS if think == "on" else int(str(think))
