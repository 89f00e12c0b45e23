"""Trained artifacts of earlier runs: found by their key, taken into a new run by hard links."""

from __future__ import annotations

import math
import os
import shutil
from pathlib import Path

from harness.errors import UserError
from harness.jobs import TRAINED_FILE, Trained
from harness.storage import PARTIAL, partial, read_json, refuse_links_out, replace_folder, writing


def find_trained(output: Path, train_key: str, *, figures_only: bool = False) -> tuple[Path, Trained] | None:
    """Finds the artifact of an earlier training run with the same key, in any run folder.

    Args:
        output: The folder of all runs.
        train_key: The key of the training run.
        figures_only: Whether an artifact without weights is enough (learning-rate trials that lost keep only their figures).

    Returns:
        The newest artifact and the figures of its training run, or None.
    """
    records = (file for file in output.glob(f"*/*/*/{TRAINED_FILE}") if file.parent.suffix != PARTIAL)
    for file in sorted(records, key=_modified, reverse=True):
        try:
            record = read_json(file)
            if record["train_key"] == train_key and (figures_only or _has_weights(file.parent)):
                refuse_links_out(file.parent)
                return file.parent, Trained(**record["trained"])
        except (
            OSError,
            ValueError,
            KeyError,
            TypeError,
            UserError,
        ):  # incomplete, of a stranger, or written by another version: train again
            continue
    return None


def adopt(artifact: Path, into: Path) -> bool:
    """Copies the artifact of another run into this one, by hard links if the disk allows, so that each run is complete.

    Args:
        artifact: The folder to copy.
        into: Its place in this run; an artifact there (of other versions of torch or peft) is replaced.

    Returns:
        False if another process deleted the artifact's weights at the same time.

    Raises:
        UserError: `into` cannot be written.
    """
    if artifact == into:
        return True
    copy = partial(into)
    shutil.rmtree(copy, ignore_errors=True)
    with writing(into):
        try:
            shutil.copytree(artifact, copy, copy_function=os.link)
        except OSError:
            shutil.rmtree(copy, ignore_errors=True)
            try:
                shutil.copytree(artifact, copy)
            except OSError:
                if _has_weights(artifact):
                    raise
                shutil.rmtree(copy, ignore_errors=True)
        if not _has_weights(copy):
            shutil.rmtree(copy, ignore_errors=True)
            return False
        replace_folder(copy, into)
    return True


def delete_weights(artifact: Path) -> None:
    """Deletes everything in an artifact but the figures of its training run.

    The folder is renamed while files are deleted, so that another process never copies half of it.
    """
    hidden = partial(artifact)
    shutil.rmtree(hidden, ignore_errors=True)
    artifact.rename(hidden)
    for path in hidden.iterdir():
        if path.is_file() and path.name != TRAINED_FILE:
            path.unlink()
    hidden.rename(artifact)


def _has_weights(artifact: Path) -> bool:
    return next(artifact.glob("*.safetensors"), None) is not None


def _modified(file: Path) -> float:
    """Modification time of a file; 0 if another process has deleted it."""
    try:
        return file.stat().st_mtime
    except OSError:
        return 0.0


def folder_bytes(path: Path) -> int:
    """Bytes of an artifact's files, without the figures of its training run."""
    return sum(p.stat().st_size for p in path.rglob("*") if p.is_file() and p.name not in (TRAINED_FILE, "README.md"))


def folder_numbers(path: Path) -> int | None:
    """Count of the numbers in an artifact's weight files, read from their headers; None if a file cannot be read."""
    from safetensors import SafetensorError, safe_open

    count = 0
    for file in path.glob("*.safetensors"):
        try:
            with safe_open(file, "numpy") as tensors:
                names = tensors.keys()
                count += sum(math.prod(tensors.get_slice(name).get_shape()) for name in names)
        except (SafetensorError, OSError):
            return None
    return count
