"""Variables of the chat template that the user sets with `--template-option`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from harness.errors import UserError, did_you_mean
from harness.prompts.chat import ChatTemplate


def with_template_options(model: str, template: ChatTemplate | None, options: Mapping[str, Any]) -> ChatTemplate | None:
    """The chat template of a model with the user's options.

    Args:
        model: The model, for messages.
        template: Its chat template; None: it has none.
        options: Values by name of the variable.

    Raises:
        UserError: There is no template, or it does not read one of the variables.

    Example:
        >>> template = ChatTemplate("{{ reasoning_effort }}", {})
        >>> with_template_options("m", template, {"reasoning_effort": "high"}).render([])
        'high'
    """
    if not options:
        return template
    if template is None:
        raise UserError(
            f"`{model}` has no chat template, so `template_options` change nothing",
            hint="leave out `--template-option`, or use an instruct model",
        )
    for name in options:
        if name not in template.variables:
            raise UserError(
                f"the chat template of `{model}` reads no variable `{name}`",
                hint=did_you_mean(name, template.variables - {"enable_thinking"}, listing="it reads no variables"),
            )
    return template.with_options(**options)
