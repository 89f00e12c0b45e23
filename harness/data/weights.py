"""The weight files of a checkpoint: which of them transformers loads, and whether all of them are there."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from harness.errors import UserError
from harness.storage import inside, read_json

_INDEX = ".index.json"
_LOADED = ("model.safetensors", "model.safetensors" + _INDEX)
"""Names that transformers looks for, in this order."""
_OTHERS = ("*.safetensors", "*.gguf", "*.h5", "*.msgpack", "*.npz", "*.onnx")
"""Weights of other names and formats."""
_POINTER = b"version https://git-lfs"


def check_weights(name: str, folder: Path, config: Mapping[str, Any]) -> list[Path]:
    """Checks that the weights of a checkpoint are complete.

    Args:
        name: The checkpoint, for messages.
        folder: Its folder.
        config: Its `config.json`, which may name the weight file.

    Returns:
        The files that are loaded.

    Raises:
        UserError: There are no weights that transformers loads, or a file is missing.
    """
    named = config.get("transformers_weights")
    found = next((file for file in ([str(named)] if named else _LOADED) if (folder / file).is_file()), None)
    if found is None:
        raise _no_weights(name, folder, str(named or _LOADED[0]))
    files = [found] if not found.endswith(_INDEX) else [found, *_shards(name, folder / found)]
    for file in files:
        if not inside(folder, file).is_file():
            raise UserError(
                f"`{name}` lacks the weights `{file}`, which {found} names",
                hint="was the download interrupted? download or save it again",
            )
        with (folder / file).open("rb") as opened:
            if opened.read(len(_POINTER)) == _POINTER:
                raise UserError(
                    f"`{folder / file}` is a pointer of Git LFS, not the weights", hint="fetch them: `git lfs pull`"
                )
    return [folder / file for file in files]


def _shards(name: str, index: Path) -> list[str]:
    """The files that an index names."""
    try:
        content = read_json(index)
        weights, _ = content["weight_map"].values(), content["metadata"]  # transformers needs both
        if not weights or not all(isinstance(file, str) for file in weights):
            raise ValueError("`weight_map` names no files")
    except (OSError, ValueError, LookupError, TypeError, AttributeError) as error:
        missing = f"it has no {error}" if isinstance(error, KeyError) else str(error)
        raise UserError(
            f"the index of the weights of `{name}`, `{index.name}`, cannot be used: {missing}",
            hint="save the model again with `save_pretrained`, or download it again",
        ) from error
    return sorted(set(weights))


def _no_weights(name: str, folder: Path, wanted: str) -> UserError:
    others = sorted({path.name for pattern in _OTHERS for path in folder.glob(pattern) if path.is_file()})
    if not others:
        return UserError(
            f"`{name}` has no weights ({wanted})", hint="was the download interrupted? download or save it again"
        )
    ggufs = [file for file in others if file.lower().endswith(".gguf")]
    if ggufs:
        hint = f"give the GGUF file itself: `{folder / ggufs[0]}`"
    elif any(file.endswith(".safetensors") for file in others):
        hint = f"rename a file of all weights to {wanted}, or save the model again with `save_pretrained`"
    else:
        hint = (
            "load it with the library that wrote it, and save the tensors with `safetensors.torch.save_file` as"
            f" {wanted}, under the names of transformers"
        )
    return UserError(f"`{name}` has no {wanted}, only {', '.join(others[:3])}{' …' if len(others) > 3 else ''}", hint)
