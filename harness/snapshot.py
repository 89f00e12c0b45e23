"""A model's files on this disk: found or fetched, checked, digested. No torch.

The parent process resolves every model and adapter here, before any child starts, so that a misspelt path or a model that
was never downloaded fails in the first second.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from harness.data import file_sha256
from harness.errors import UserError, did_you_mean

TOKENIZER_FILES = ("tokenizer.json", "tokenizer.model", "vocab.json", "spiece.model", "tekken.json")
WEIGHT_FILES = ("*.safetensors", "*.bin")
_FETCHED = ["*.json", "*.safetensors", "*.model", "*.txt", "*.jinja", "*.py", "*.tiktoken"]


@dataclass(frozen=True)
class Snapshot:
    """The files of one model or adapter at one revision."""

    name: str
    """As the user wrote it."""
    folder: Path
    revision: str | None = None
    """Commit on the Hub; None for a local folder."""

    @cached_property
    def digest(self) -> str:
        """The Hub's commit, else a hash over the files' names and contents."""
        if self.revision:
            return hashlib.sha256(f"{self.name}@{self.revision}".encode()).hexdigest()
        hasher = hashlib.sha256()
        for path in sorted(self.folder.iterdir()):
            if path.is_file() and path.suffix in (".json", ".safetensors", ".bin", ".model", ".txt", ".jinja", ".py"):
                hasher.update(f"{path.name}:{file_sha256(path)}\n".encode())
        return hasher.hexdigest()

    @cached_property
    def config(self) -> dict[str, Any]:
        """`config.json` of a model, or `adapter_config.json` of an adapter."""
        for name in ("adapter_config.json", "config.json"):
            if (self.folder / name).is_file():
                content: dict[str, Any] = json.loads((self.folder / name).read_text(encoding="utf-8"))
                return content
        return {}

    @property
    def is_adapter(self) -> bool:
        """Whether this is what a PEFT method saved, or a delta of ours, rather than a whole model."""
        return (self.folder / "adapter_config.json").is_file() or (self.folder / "method.json").is_file()


def find_model(name: str, *, revision: str | None = None) -> Snapshot:
    """The model called `name`: `tiny`, a folder, or a Hub id; fetched when it is not in the cache.

    Raises:
        UserError: There is no such folder or repository, or it lacks a config, a tokenizer or weights.

    Example:
        >>> find_model("tiny").folder.name
        'model'
    """
    if name == "tiny":
        from harness.tiny import MODEL

        return Snapshot("tiny", MODEL)
    snapshot = find_files(name, "model", revision=revision)
    folder = snapshot.folder
    if snapshot.is_adapter and not (folder / "config.json").is_file():
        base = snapshot.config.get("base_model_name_or_path") or "its base"
        raise UserError(
            f"`{name}` is an adapter, not a model",
            hint=f"compare it on its base: `--model {base}` and variant `{name}`",
        )
    if not (folder / "config.json").is_file():
        raise UserError(f"`{name}` has no config.json", hint="save a model there with `save_pretrained`")
    if not any((folder / file).is_file() for file in TOKENIZER_FILES):
        raise UserError(
            f"`{name}` has no tokenizer ({', '.join(TOKENIZER_FILES[:3])} …)",
            hint=f"save it beside the weights: `tokenizer.save_pretrained({str(folder)!r})`",
        )
    if not any(next(folder.glob(pattern), None) for pattern in WEIGHT_FILES):
        raise UserError(f"`{name}` has no weights (*.safetensors)", hint="was the download interrupted?")
    return snapshot


def find_files(name: str, what: str, *, revision: str | None = None) -> Snapshot:
    """The files of a model or adapter, given by folder or Hub id.

    Raises:
        UserError: Neither a folder nor a repository that can be reached or is in the cache.
    """
    path = Path(name).expanduser()
    if path.is_dir():
        return Snapshot(name, path.resolve())
    if name.startswith((".", "/", "~")) or name.count("/") != 1:
        known = [p.name for p in path.parent.iterdir() if p.is_dir()] if path.parent.is_dir() else []
        hint = did_you_mean(path.name, known) if known else "give a folder, or a Hub id such as Qwen/Qwen3-0.6B"
        raise UserError(f"no {what} at `{name}`", hint=hint)
    return _from_hub(name, what, revision)


def _from_hub(name: str, what: str, revision: str | None) -> Snapshot:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import (
        GatedRepoError,
        HfHubHTTPError,
        LocalEntryNotFoundError,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    try:
        folder = Path(snapshot_download(name, revision=revision, allow_patterns=_FETCHED))
        if not next(folder.glob("*.safetensors"), None):
            folder = Path(snapshot_download(name, revision=revision, allow_patterns=[*_FETCHED, "*.bin"]))
    except GatedRepoError as error:
        raise UserError(
            f"the {what} `{name}` is gated", hint=f"ask for access on its page ({name}), then `hf auth login`"
        ) from error
    except RevisionNotFoundError as error:
        raise UserError(f"the {what} `{name}` has no revision `{revision}`") from error
    except RepositoryNotFoundError as error:
        raise UserError(
            f"no {what} `{name}` on the Hub, and no such folder here",
            hint="check the spelling; a private one needs `hf auth login`",
        ) from error
    except (LocalEntryNotFoundError, HfHubHTTPError, OSError) as error:
        raise UserError(
            f"the {what} `{name}` is not in the cache and the Hub cannot be reached",
            hint=f"once online: `hf download {name}`; or give a folder",
        ) from error
    return Snapshot(name, folder, revision=folder.name)
