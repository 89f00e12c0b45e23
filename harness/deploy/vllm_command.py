"""The command that serves an export with vLLM."""

from __future__ import annotations

import shlex

from harness.serving.vllm_limits import RANKS


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
