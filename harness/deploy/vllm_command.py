"""The command that serves an export with vLLM, and which adapters vLLM serves beside their base."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from typing import Any

RANKS = (1, 8, 16, 32, 64, 128, 256, 320, 512)
"""Values that vLLM takes for `--max-lora-rank`."""


def why_not_served(adapter: Mapping[str, Any]) -> str | None:
    """Says why vLLM does not serve an adapter beside its base; None: it does.

    Args:
        adapter: Its adapter_config.json.
    """
    kind = str(adapter.get("peft_type", "")).upper()
    if kind != "LORA":
        return f"vLLM serves adapters of the type LORA, and this one is of the type {kind or 'unknown'}"
    if adapter.get("use_dora"):
        return "vLLM does not serve DoRA"
    if adapter.get("bias", "none") != "none":
        return "vLLM does not serve adapters with biases"
    for option in ("modules_to_save", "trainable_token_indices", "target_parameters", "layer_replication"):
        if adapter.get(option):
            return f"vLLM does not serve adapters with `{option}`"
    if int(adapter.get("r", 0)) > RANKS[-1]:
        return f"vLLM serves ranks up to {RANKS[-1]}, and this adapter's is {adapter['r']}"
    return None


def serve_command(model: str, *, name: str, dtype: str, adapter: str | None = None, rank: int = 0) -> str:
    """Writes the command.

    Args:
        model: Folder or Hub id of the model.
        name: Name under which clients ask for it.
        dtype: Precision of the weights.
        adapter: Folder of a LoRA that is served beside the model, under `name`; None: the model itself has that name.
        rank: Of the LoRA.

    Example:
        >>> serve_command("./model", name="lora", dtype="float32")
        'vllm serve ./model --dtype float32 --served-model-name lora'
    """
    words = ["vllm", "serve", model, "--dtype", dtype]
    if adapter is None:
        return shlex.join([*words, "--served-model-name", name])
    allowed = next(each for each in RANKS if each >= rank)
    words += ["--enable-lora", "--max-lora-rank", str(allowed), "--lora-modules", f"{name}={adapter}"]
    return shlex.join(words)


def serve_script(command: str, *, title: str) -> str:
    """A shell script that runs the command in its own folder, with further arguments of the caller."""
    return f'#!/bin/sh\n# {" ".join(title.split())}\ncd "$(dirname "$0")" && exec {command} "$@"\n'
