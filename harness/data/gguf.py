"""GGUF files: a model with its weights, configuration and tokenizer in one file, in the format of llama.cpp.

A run unpacks such a file once, into a plain checkpoint in the harness's cache, and loads that: transformers reads the header
of a GGUF file at 13,000 tokens a second and unpacks 25 million weights a second.
"""

from __future__ import annotations

import re
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from harness.data.digests import file_sha256
from harness.errors import UserError
from harness.storage import home, key

_MAGIC = b"GGUF"
_READ_RIGHTLY = "5.19"
"""Release of transformers from which the beginning and end tokens of a Llama-like GGUF file are not swapped."""
_PART = re.compile(r"-\d{5}-of-\d{5}\.gguf$", re.IGNORECASE)


def is_gguf(path: Path) -> bool:
    """Whether a path names a GGUF file.

    Example:
        >>> is_gguf(Path("models/x.Q8_0.gguf"))
        True
    """
    return path.suffix.lower() == ".gguf"


def plain_copy(path: Path, dtype: str) -> Path:
    """The folder of the checkpoint that a GGUF file is unpacked to.

    Args:
        path: The GGUF file.
        dtype: Type of the unpacked weights.
    """
    return _copies(path) / dtype


def pretrained(path: Path) -> dict[str, Any]:
    """Arguments by which transformers finds the configuration of a model.

    Args:
        path: A folder, or a GGUF file.

    Returns:
        The folder; of a GGUF file, its plain copy if there is one.

    Example:
        >>> pretrained(Path("models/llama"))
        {'pretrained_model_name_or_path': PosixPath('models/llama')}
    """
    if not is_gguf(path):
        return {"pretrained_model_name_or_path": path}
    copy = next(iter(sorted(_copies(path).glob("*/config.json"))), None)
    if copy is not None:
        return {"pretrained_model_name_or_path": copy.parent}
    return {"pretrained_model_name_or_path": path.parent, "gguf_file": path.name}


def check_gguf(path: Path) -> Path:
    """Checks that a GGUF file can be read here; returns it.

    Raises:
        UserError: The package `gguf` is missing, transformers is too old, or the file is no whole GGUF file.
    """
    if find_spec("gguf") is None:
        raise UserError(
            f"`{path}` is a GGUF file, and the package `gguf` is not installed",
            hint="pip install 'finetune-harness[gguf]'",
        )
    from packaging.version import Version

    if Version(version("transformers")) < Version(_READ_RIGHTLY):
        raise UserError(
            f"`{path}` is a GGUF file, and transformers before {_READ_RIGHTLY} reads a wrong end-of-sequence token from it",
            hint=f"pip install 'transformers>={_READ_RIGHTLY}'",
        )
    if _PART.search(path.name):
        raise UserError(
            f"`{path}` is one part of a GGUF file that was split",
            hint="join the parts: `llama-gguf-split --merge FIRST_PART OUTPUT.gguf`",
        )
    try:
        with path.open("rb") as file:
            start = file.read(len(_MAGIC))
    except OSError as error:
        raise UserError(f"could not read `{path}`: {error.strerror}", hint="check the path") from error
    if start != _MAGIC:
        raise UserError(
            f"`{path}` is no GGUF file: it does not start with `GGUF`",
            hint="was the download interrupted, or is it a pointer of Git LFS (`git lfs pull`)?",
        )
    return path


def _copies(path: Path) -> Path:
    digest = key(file=file_sha256(path), versions=[version(name) for name in ("transformers", "gguf")])
    return home() / "gguf" / f"{path.stem}-{digest[:12]}"
