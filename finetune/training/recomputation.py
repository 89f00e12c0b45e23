"""Turns on activation checkpointing, under the name that the installed transformers has for it."""

from __future__ import annotations

from typing import Any

from transformers import TrainingArguments

ARGUMENT = (
    "activation_checkpointing"
    if "activation_checkpointing" in TrainingArguments.__dataclass_fields__
    else "gradient_checkpointing"
)
"""Field of `TrainingArguments`; its older name is deprecated in transformers 5.23."""


def recompute_activations(model: Any) -> None:
    """Makes a model recompute the activations of each layer in the backward pass instead of keeping them.

    Raises:
        ValueError: The architecture does not support it.
    """
    enable = getattr(model, f"{ARGUMENT}_enable")
    enable({"use_reentrant": False})
