"""Reads the report that transformers makes when it loads a checkpoint, and its errors where it cannot.

Weights that a checkpoint lacks, or has in another shape, are drawn at random by transformers: two loads of such a model
differ. They are refused here. Weights that the model has no place for are noted.
"""

from __future__ import annotations

import struct
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from huggingface_hub.errors import StrictDataclassError
from safetensors import SafetensorError

from harness.data.gguf import is_gguf
from harness.errors import UserError, brief

UNREADABLE = (
    ValueError,
    OSError,
    LookupError,
    ArithmeticError,
    RecursionError,
    EOFError,
    ImportError,
    NotImplementedError,
    SafetensorError,
    StrictDataclassError,
    struct.error,
)
"""Errors that transformers raises for files that it cannot read."""
_SCALES = ("SCB", "absmax", "qweight", "scales", "weight_packed", "weight_scale", "weight_scale_inv")
"""Last parts of the names of what quantized weights are multiplied with, or are stored as."""
_NAMED = 3
"""Weights that a message names."""


def cannot_be_loaded(path: Path, error: Exception) -> UserError:
    """Describes an error in `UNREADABLE` that transformers raised for a model."""
    if isinstance(error, ImportError):
        return UserError(f"the model in `{path}` cannot be loaded: {brief(error)}", hint="install the package")
    hint = "give a causal language model; one with its own code also needs `--trust-remote-code`"
    if isinstance(error, SafetensorError):
        hint = "was the download interrupted? download or save it again"
    elif is_gguf(path):
        hint = "was the download interrupted? transformers reads GGUF files of its own list of architectures alone"
    return UserError(f"the model in `{path}` cannot be loaded: {brief(error)}", hint=hint)


def read_report(folder: Path, kind: str, report: Mapping[str, Any]) -> list[str]:
    """Returns notes on a loaded checkpoint.

    Args:
        folder: The checkpoint.
        kind: The class of the model.
        report: The loading info of `from_pretrained`.

    Raises:
        UserError: A weight is missing or of another shape.
    """
    if report["mismatched_keys"]:
        name, in_file, in_model = min(report["mismatched_keys"])
        raise UserError(
            f"the checkpoint in `{folder}` does not fit its config.json: `{name}` has the shape {list(in_file)} in the file"
            f" and {list(in_model)} in `{kind}`{_more(report['mismatched_keys'])}",
            hint="config.json and the weights are of different models: download or save both again",
        )
    if report["missing_keys"]:
        raise UserError(
            f"the checkpoint in `{folder}` lacks weights of `{kind}`: {_listed(report['missing_keys'])}; they would be drawn"
            " at random",
            hint="give a checkpoint of the whole language model, saved by `save_pretrained` of the class that it was trained"
            " as",
        )
    if report["error_msgs"]:
        raise UserError(f"the checkpoint in `{folder}` cannot be loaded: {report['error_msgs'][0]}")
    if report["unexpected_keys"]:
        return [f"the checkpoint has weights that `{kind}` does not use: {_listed(report['unexpected_keys'])}"]
    return []


def refuse_packed(folder: Path, report: Mapping[str, Any]) -> None:
    """Refuses quantized weights that were loaded as plain ones, because config.json does not say that they are quantized.

    Args:
        folder: The checkpoint.
        report: The loading info of `from_pretrained`.

    Raises:
        UserError: The file has scales of such weights.
    """
    scales = [name for name in sorted(report["unexpected_keys"]) if name.rpartition(".")[2] in _SCALES]
    if scales:
        raise UserError(
            f"the checkpoint in `{folder}` has quantized weights (`{scales[0]}`), and its config.json does not say how they"
            " are quantized",
            hint="config.json needs the `quantization_config` that the weights were saved with: download or save both again",
        )


def untied_note(model: Any) -> list[str]:
    """Returns a note if config.json ties the output head to the embeddings, but the file has a head of its own."""
    head, embeddings = model.get_output_embeddings(), model.get_input_embeddings()
    tied = getattr(model.config.get_text_config(), "tie_word_embeddings", False)
    if not tied or head is None or head.weight is embeddings.weight:
        return []
    return [
        "config.json ties the output head to the embeddings, but the weights in the file differ: both are used, as transformers"
        " 5 does; other programs may drop the head (set `tie_word_embeddings` to false)"
    ]


def _listed(names: Collection[str]) -> str:
    shown = sorted(names)[:_NAMED]
    return ", ".join(f"`{name}`" for name in shown) + (
        f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
    )


def _more(names: Collection[Any]) -> str:
    return f", and {len(names) - 1} more" if len(names) > 1 else ""
