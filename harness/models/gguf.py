"""Unpacks GGUF files to plain checkpoints, which can be trained, quantized and saved like any other."""

from __future__ import annotations

import tempfile
from contextlib import suppress
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM

from harness.data.gguf import plain_copy
from harness.jobs import Base
from harness.models.artifacts import save_checkpoint
from harness.models.report import UNREADABLE, cannot_be_loaded, read_report
from harness.tokens.tokenizer import load_tokenizer


def unpacked(base: Base) -> Path:
    """The folder of the plain checkpoint of a GGUF file, which is unpacked if it has not been before.

    Args:
        base: A base whose `folder` is a GGUF file; its weights are unpacked to `dtype`.

    Raises:
        UserError: The file cannot be read, or lacks weights or a tokenizer.
    """
    folder = plain_copy(base.folder, base.dtype)
    if folder.is_dir():
        return folder
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=".") as temporary:
        unpack_into(base, Path(temporary))
        with suppress(OSError):  # another process has just unpacked the same file
            Path(temporary).rename(folder)
    return folder


def unpack_into(base: Base, folder: Path) -> None:
    """Unpacks a GGUF file to a plain checkpoint in a folder.

    Args:
        base: See `unpacked`.
        folder: An existing folder.

    Raises:
        UserError: See `unpacked`.
    """
    from transformers import GgufConfig  # transformers 5.16 has none

    try:
        model, report = AutoModelForCausalLM.from_pretrained(
            base.folder.parent,
            gguf_file=base.folder.name,
            dtype=getattr(torch, base.dtype),
            quantization_config=GgufConfig(dequantize=True),
            output_loading_info=True,
            ignore_mismatched_sizes=True,
        )
    except UNREADABLE as error:
        raise cannot_be_loaded(base.folder, error) from error
    read_report(base.folder, type(model).__name__, report)
    save_checkpoint(model, load_tokenizer(base.folder), folder)
