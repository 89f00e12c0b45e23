"""Files of models and adapters: finds or downloads them, checks that they are complete, and computes their digests.

The parent process resolves every model and adapter here, without torch and before any child starts, so that a misspelt
path or a model that was never downloaded is reported in the first second.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from harness.data.architecture import refuse_other_architectures
from harness.data.digests import files_sha256, text_sha256
from harness.data.files import expand
from harness.data.gguf import check_gguf, is_gguf
from harness.data.weights import WEIGHT_FILES, check_weights
from harness.errors import UserError, did_you_mean

TOKENIZER_FILES = ("tokenizer.json", "tokenizer.model", "vocab.json", "spiece.model", "tekken.json")
_DIGESTED = (".json", ".safetensors", ".bin", ".model", ".txt", ".jinja", ".py", ".tiktoken")
_FETCHED = ["*.json", "*.safetensors", "*.model", "*.txt", "*.jinja", "*.py", "*.tiktoken"]
_HUB_FILE = re.compile(r"(?P<repo>[A-Za-z0-9][\w.-]*/[\w-][\w.-]*):(?P<file>[\w./ -]+\.gguf)", re.ASCII)
_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[\w-][\w.-]*", re.ASCII)


@dataclass(frozen=True)
class Snapshot:
    """The files of one model or adapter at one revision."""

    name: str
    """As the user wrote it."""
    folder: Path
    """A folder, or a GGUF file."""
    revision: str | None = None
    """Commit on the Hub; None for a local folder."""

    @cached_property
    def digest(self) -> str:
        """Digest of the Hub's commit, else of the names and contents of the files."""
        if self.revision:
            return text_sha256(f"{self.name}@{self.revision}")
        if is_gguf(self.folder):
            return files_sha256([self.folder])
        return files_sha256(
            [path for path in sorted(self.folder.iterdir()) if path.is_file() and path.suffix in _DIGESTED]
        )

    @cached_property
    def weights_digest(self) -> str:
        """Digest of the weight files only, so that records such as the training time do not change it."""
        return files_sha256(sorted(path for pattern in WEIGHT_FILES for path in self.folder.glob(pattern)))

    @cached_property
    def config(self) -> dict[str, Any]:
        """`adapter_config.json` of an adapter, else `config.json` of a model; nothing of a GGUF file.

        Raises:
            UserError: The file is not a JSON object.
        """
        for name in ("adapter_config.json", "config.json"):
            if (self.folder / name).is_file():
                return _json_object(self.folder / name)
        return {}

    @property
    def quantization(self) -> str | None:
        """Format in which a checkpoint's weights are quantized on disk, such as `gptq` or `bitsandbytes`."""
        for config in (self.config, self.config.get("text_config")):
            given = config.get("quantization_config") if isinstance(config, dict) else None
            if isinstance(given, dict) and given.get("quant_method"):
                return str(given["quant_method"])
        return None

    @property
    def is_adapter(self) -> bool:
        """Whether the folder has a PEFT adapter or a delta, not a whole model."""
        return (self.folder / "adapter_config.json").is_file() or (self.folder / "method.json").is_file()


def find_model(name: str, *, revision: str | None = None) -> Snapshot:
    """Finds the model `name`: `tiny`, a folder, a GGUF file, or a Hub id, which is downloaded if it is not in the cache.

    A GGUF file on the Hub is named `owner/name:file.gguf`.

    Raises:
        UserError: There is no such folder or repository, it has no config, no tokenizer or no weights, or is
            no causal language model.

    Example:
        >>> find_model("tiny").folder.name
        'model'
    """
    if name == "tiny":
        from harness.tiny import MODEL

        return Snapshot("tiny", MODEL)
    snapshot = find_files(name, "model", revision=revision)
    folder = snapshot.folder
    if is_gguf(folder):
        return snapshot
    if snapshot.is_adapter and not (folder / "config.json").is_file():
        base = snapshot.config.get("base_model_name_or_path") or "its base"
        raise UserError(
            f"`{name}` is an adapter, not a model",
            hint=f"give its base as the model and the adapter as a variant: `--model {base}` and `{name}`",
        )
    if not (folder / "config.json").is_file():
        if ggufs := sorted(folder.glob("*.gguf")):
            raise UserError(f"`{name}` is a folder of GGUF files", hint=f"give one of them: `{ggufs[0]}`")
        raise UserError(
            f"`{name}` has no config.json", hint=f"save a model there: `model.save_pretrained({str(folder)!r})`"
        )
    config = _json_object(folder / "config.json")
    refuse_other_architectures(name, config)
    if not any((folder / file).is_file() for file in TOKENIZER_FILES):
        raise UserError(
            f"`{name}` has no tokenizer ({', '.join(TOKENIZER_FILES[:3])} …)",
            hint=f"save the tokenizer in the same folder: `tokenizer.save_pretrained({str(folder)!r})`",
        )
    check_weights(name, folder, config)
    if (folder / "generation_config.json").is_file():
        _json_object(folder / "generation_config.json")  # transformers would leave out one that it cannot read
    return snapshot


def find_files(name: str, what: str, *, revision: str | None = None, weights: bool = True) -> Snapshot:
    """Finds the files of a model or adapter.

    Args:
        name: A folder, a GGUF file, a Hub id, or a GGUF file on the Hub: `owner/name:file.gguf`.
        what: What it is, for messages: `model`, `adapter`.
        revision: A commit, branch or tag on the Hub; None: the newest commit.
        weights: Whether to download the weights too.

    Raises:
        UserError: `name` is neither a folder nor a repository that is cached or can be reached, or a GGUF file that
            cannot be read.
    """
    path = expand(Path(name))
    try:
        if is_gguf(path) and path.is_file():
            return Snapshot(name, check_gguf(path.parent.resolve() / path.name))
        if path.is_dir():
            return Snapshot(name, path.resolve())
        known = [p.name for p in path.parent.glob("*") if p.is_dir() or is_gguf(p)]
    except OSError as error:  # a name too long for the file system
        raise UserError(f"no {what} at `{name}`: {error.strerror}", hint="check the path") from error
    if file := _HUB_FILE.fullmatch(name):
        held = _from_hub(file["repo"], what, revision, [file["file"]])
        if not (held.folder / file["file"]).is_file():
            raise UserError(
                f"the repository `{file['repo']}` has no file `{file['file']}`",
                hint=f"its files are listed on https://huggingface.co/{file['repo']}/tree/main",
            )
        return Snapshot(name, check_gguf(held.folder / file["file"]), revision=held.revision)
    if not _HUB_ID.fullmatch(name):
        near = did_you_mean(path.name, known)
        hint = near if near.startswith("did") else "give a folder, or a Hub id such as Qwen/Qwen3-0.6B"
        raise UserError(f"no {what} at `{name}`", hint=hint)
    return _from_hub(name, what, revision, _FETCHED if weights else [p for p in _FETCHED if p not in WEIGHT_FILES])


def _json_object(file: Path) -> dict[str, Any]:
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(
            f"could not read `{file}`: {error}", hint="was the download interrupted? download or save it again"
        ) from error
    if not isinstance(content, dict):
        raise UserError(f"`{file}` is not a JSON object", hint="save the model again with `save_pretrained`")
    return content


def _from_hub(name: str, what: str, revision: str | None, wanted: Sequence[str]) -> Snapshot:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import (
        GatedRepoError,
        HfHubHTTPError,
        LocalEntryNotFoundError,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    try:
        folder = Path(snapshot_download(name, revision=revision, allow_patterns=list(wanted)))
        if wanted is _FETCHED and not next(folder.glob("*.safetensors"), None):
            folder = Path(snapshot_download(name, revision=revision, allow_patterns=[*_FETCHED, "*.bin"]))
    except GatedRepoError as error:
        raise UserError(
            f"the {what} `{name}` is gated",
            hint=f"ask for access on https://huggingface.co/{name}, then run `hf auth login`",
        ) from error
    except RevisionNotFoundError as error:
        raise UserError(
            f"the {what} `{name}` has no revision `{revision}`",
            hint=f"its revisions are listed on https://huggingface.co/{name}/tree/main",
        ) from error
    except RepositoryNotFoundError as error:
        raise UserError(
            f"no {what} `{name}` on the Hub, and no such folder here",
            hint=f"check the spelling; a private {what} needs `hf auth login`",
        ) from error
    except (LocalEntryNotFoundError, HfHubHTTPError, OSError) as error:
        raise UserError(
            f"there is no folder `{name}`, it is not in the cache, and the Hub cannot be reached",
            hint=f"check the path, or run `hf download {name}` when online",
        ) from error
    return Snapshot(name, folder, revision=folder.name)
