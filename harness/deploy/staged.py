"""A copy of a checkpoint for the programs of others, without its code: a converter runs the code that a tokenizer names."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

from harness.errors import UserError
from harness.storage import read_json

_LINKED = (".safetensors", ".model", ".tiktoken")
_COPIED = (".json", ".jinja", ".txt")
_CODE_KEYS = ("auto_map", "custom_pipelines")
"""Keys of JSON files that name classes in Python files."""


def stage(checkpoint: Path, into: Path, *, trust_remote_code: bool = False) -> None:
    """Puts the files of a checkpoint into a folder: weights as links, settings as copies that name no code.

    Args:
        checkpoint: Folder of a model; its `*.py` files are left out.
        into: An existing folder.
        trust_remote_code: Whether the user allows the checkpoint's code: then it is copied too.

    Raises:
        UserError: A JSON file of the checkpoint cannot be read.
    """
    for path in sorted(checkpoint.iterdir()):
        target = into / path.name
        if path.suffix in _LINKED:
            target.symlink_to(path.resolve())
        elif path.suffix == ".json" and not trust_remote_code and not path.name.endswith(".index.json"):
            _without_code(path, target)
        elif path.suffix in _COPIED or (path.suffix == ".py" and trust_remote_code):
            shutil.copyfile(path, target)


def _without_code(path: Path, target: Path) -> None:
    try:
        content: Any = read_json(path)
    except (OSError, ValueError) as error:
        raise UserError(f"`{path}` cannot be read: {error}", hint="download or save the model again") from error
    if isinstance(content, dict) and any(key in content for key in _CODE_KEYS):
        content = {key: value for key, value in content.items() if key not in _CODE_KEYS}
        target.write_text(json.dumps(content, ensure_ascii=False, indent=1), encoding="utf-8")
    else:
        shutil.copyfile(path, target)
