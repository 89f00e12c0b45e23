"""Files of models and adapters: finds or downloads them, checks that they are complete, and computes their digests.

The parent process resolves every model and adapter here, without torch and before any child starts, so that a misspelt
path or a model that was never downloaded is reported in the first second.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from harness.data.architecture import refuse_other_architectures
from harness.data.digests import file_sha256, files_sha256, text_sha256
from harness.data.files import expand
from harness.data.gguf import check_gguf, is_gguf
from harness.data.patience import be_patient
from harness.data.weights import check_weights
from harness.errors import UserError, did_you_mean, printable
from harness.jobs import SERVED_PREFIX, TRAINED_FILE
from harness.storage import inside, read_json, refuse_links_out

TOKENIZER_FILES = ("tokenizer.json", "tokenizer.model", "vocab.json", "spiece.model", "tekken.json")
WEIGHT_FILES = ("*.safetensors",)
"""Only safetensors: reading a pickled file (`*.bin`, `*.pt`) can run code."""
_PROSE = (".md", ".rst", ".pdf", ".png", ".jpg", ".svg", ".pyc")
"""Files in a model's folder that decide nothing: cards, pictures, compiled code."""
_NO_PART = re.compile(r"\..*|__pycache__|checkpoint-\d+|runs|logs|LICENSE.*|NOTICE.*")
"""Names of folders and files in a model's folder that are no part of the model: other checkpoints, logs, licences."""
_FETCHED = ["*.json", "*.safetensors", "*.model", "*.txt", "*.jinja", "*.tiktoken"]
_CODE = "*.py"
"""Fetched from the Hub only with `--trust-remote-code`."""
_HUB_FILE = re.compile(r"(?P<repo>[A-Za-z0-9][\w.-]*/[\w-][\w.-]*):(?P<file>[\w./ -]+\.gguf)", re.ASCII)
_INDICES = ("model.safetensors.index.json", "adapter_model.safetensors.index.json")
_PICKLED = ("*.bin", "*.pt", "*.pth", "*.ckpt")
_PATHS = ("base_model_name_or_path", "_name_or_path")
"""Keys of an adapter's and a model's settings that hold where it was made from; the digest of that is part of a key itself."""
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
        """Digest of the Hub's commit, else of the names and contents of all files that can be a part of the model."""
        if self.revision:
            return text_sha256(f"{self.name}@{self.revision}")
        if is_gguf(self.folder):
            return files_sha256([self.folder], self.folder.parent)
        return files_sha256(_parts(self.folder), self.folder)

    @cached_property
    def artifact_digest(self) -> str:
        """Digest of what a training run has made: weights and settings, without the paths that an adapter records.

        Equal training runs in two run folders have equal digests.
        """
        settings = [path for path in _parts(self.folder) if path.suffix == ".json"]
        return text_sha256(
            files_sha256([path for path in _parts(self.folder) if path.suffix != ".json"], self.folder)
            + "".join(f"{path.relative_to(self.folder)}:{_settings_sha256(path)}\n" for path in settings)
        )

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


def find_model(name: str, *, revision: str | None = None, trust_remote_code: bool = False) -> Snapshot:
    """Finds the model `name`: `tiny`, a folder, a GGUF file, or a Hub id, which is downloaded if it is not in the cache.

    A GGUF file on the Hub is named `owner/name:file.gguf`.

    Args:
        name: As the user wrote it.
        revision: As for `find_files`.
        trust_remote_code: As for `find_files`.

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
    snapshot = find_files(name, "model", revision=revision, trust_remote_code=trust_remote_code)
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
    if snapshot.is_adapter:
        raise UserError(
            f"`{name}` holds a model and an adapter, which transformers would load together as one model",
            hint=f"give the adapter as a variant of its base; to score the model alone, remove `{folder / 'adapter_config.json'}`",
        )
    config = _json_object(folder / "config.json")
    refuse_other_architectures(name, config)
    if not any((folder / file).is_file() for file in TOKENIZER_FILES):
        raise UserError(
            f"`{name}` has no tokenizer ({', '.join(TOKENIZER_FILES[:3])} …)",
            hint=f"save the tokenizer in the same folder: `tokenizer.save_pretrained({str(folder)!r})`",
        )
    refuse_pickled(name, folder)
    check_weights(name, folder, config)
    if (folder / "generation_config.json").is_file():
        _json_object(folder / "generation_config.json")  # transformers would leave out one that it cannot read
    return snapshot


def require_safetensors(name: str, folder: Path) -> None:
    """Refuses a folder without weights in safetensors files.

    Args:
        name: The model or adapter, for the message.
        folder: Its folder.

    Raises:
        UserError: There are none.
    """
    refuse_pickled(name, folder)
    if not any(next(folder.glob(pattern), None) for pattern in WEIGHT_FILES):
        raise UserError(
            f"`{name}` has no weights (*.safetensors)", hint="was the download interrupted? download or save it again"
        )


def refuse_pickled(name: str, folder: Path) -> None:
    """Refuses a folder whose weights are only in pickled files.

    Args:
        name: The model or adapter, for the message.
        folder: Its folder.

    Raises:
        UserError: They are.
    """
    pickled = next((path for pattern in _PICKLED for path in sorted(folder.glob(pattern))), None)
    if pickled is not None and not any(next(folder.glob(pattern), None) for pattern in WEIGHT_FILES):
        raise UserError(
            f"`{name}` has its weights in `{pickled.name}`, a pickled file, which can run code when it is read",
            hint="use a copy with *.safetensors; if you trust the file, load it with transformers or peft yourself, and"
            " save it with `save_pretrained`",
        )


def find_files(
    name: str, what: str, *, revision: str | None = None, weights: bool = True, trust_remote_code: bool = False
) -> Snapshot:
    """Finds the files of a model or adapter.

    Args:
        name: A folder, a GGUF file, a Hub id, or a GGUF file on the Hub: `owner/name:file.gguf`.
        what: What it is, for messages: `model`, `adapter`.
        revision: A commit, branch or tag on the Hub; None: the newest commit.
        weights: Whether to download the weights too.
        trust_remote_code: Whether to download Python files too.

    Raises:
        UserError: `name` is neither a folder nor a repository that is cached or can be reached, a file in it names or
            links a file outside of the folder, or a GGUF file cannot be read.
    """
    if name.startswith(SERVED_PREFIX):
        raise UserError(
            f"`{printable(name)}` is a served model, which gives neither weights nor configuration",
            hint="name a folder or a Hub id with `--model`; served models can be scored: `harness compare`, `harness eval`",
        )
    path = expand(Path(name))
    try:
        if is_gguf(path) and path.is_file():
            return Snapshot(name, check_gguf(path.parent.resolve() / path.name))
        if path.is_dir():
            return _checked(Snapshot(name, path.resolve()))
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
    wanted = [*(each for each in _FETCHED if weights or each not in WEIGHT_FILES), *[_CODE] * trust_remote_code]
    return _checked(_from_hub(name, what, revision, wanted))


def _checked(snapshot: Snapshot) -> Snapshot:
    """Refuses a folder that names or links files outside of it."""
    refuse_links_out(snapshot.folder)
    for index in _INDICES:
        if (snapshot.folder / index).is_file():
            places = _json_object(snapshot.folder / index).get("weight_map")
            for name in sorted(set(map(str, places.values()))) if isinstance(places, dict) else ():
                inside(snapshot.folder, name)
    return snapshot


def _parts(folder: Path) -> list[Path]:
    """The files of a local folder that can be a part of a model, in subfolders too (code, for example), sorted."""
    found: list[Path] = []
    seen: set[Path] = set()
    for where, folders, files in os.walk(folder, followlinks=True):
        if Path(where).resolve() in seen:  # a link to a folder above it
            folders.clear()
            continue
        seen.add(Path(where).resolve())
        folders[:] = [name for name in folders if not _NO_PART.fullmatch(name)]
        paths = [Path(where, name) for name in files if name != TRAINED_FILE and not _NO_PART.fullmatch(name)]
        found += [path for path in paths if path.suffix.lower() not in _PROSE and path.is_file()]
    return sorted(found)


def _settings_sha256(file: Path) -> str:
    """Digest of a JSON file without the paths of other artifacts, which differ between run folders."""
    try:
        content = read_json(file)
    except ValueError:
        return file_sha256(file)
    if isinstance(content, dict):
        content = {key: _ordered(file, value) for key, value in content.items() if key not in _PATHS}
    return text_sha256(json.dumps(content, sort_keys=True))


def _ordered(file: Path, value: Any) -> Any:
    """A value of a settings file; peft keeps names of modules in sets and writes them in any order."""
    names = file.name == "adapter_config.json" and isinstance(value, list) and all(isinstance(v, str) for v in value)
    return sorted(value) if names else value


def _json_object(file: Path) -> dict[str, Any]:
    try:
        content = read_json(file)
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

    be_patient()
    try:
        folder = Path(snapshot_download(name, revision=revision, allow_patterns=list(wanted)))
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
