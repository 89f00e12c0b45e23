"""Artifacts that another run has trained already: found by their key, adopted by hard links."""

from __future__ import annotations

import json
import math
import os
import shutil
from pathlib import Path

from harness.jobs import TRAINED_FILE, Trained
from harness.storage import writing


def find_trained(output: Path, train_key: str, *, figures_only: bool = False) -> tuple[Path, Trained] | None:
    """The artifact of an earlier training with the same key, in any run.

    Args:
        output: Where runs are kept.
        train_key: Of the training.
        figures_only: Whether one will do whose weights were thrown away, as those of rates that lost are.
    """
    records = (file for file in output.glob(f"*/*/*/{TRAINED_FILE}") if not file.parent.name.endswith(".partial"))
    for file in sorted(records, key=_modified, reverse=True):
        try:
            record = json.loads(file.read_text(encoding="utf-8"))
            if record["train_key"] == train_key and (figures_only or _has_weights(file.parent)):
                return file.parent, Trained(**record["trained"])
        except (OSError, ValueError, KeyError, TypeError):  # torn, or written by another version: train anew
            continue
    return None


def adopt(artifact: Path, into: Path) -> bool:
    """Takes another run's artifact into this one, by hard links where the disk allows, so that each run stands alone.

    Returns:
        False where another process has thrown the artifact away meanwhile.
    """
    if artifact == into:
        return True
    aside = into.with_name(into.name + ".partial")
    shutil.rmtree(aside, ignore_errors=True)
    with writing(into):
        try:
            shutil.copytree(artifact, aside, copy_function=os.link)
        except OSError:
            shutil.rmtree(aside, ignore_errors=True)
            try:
                shutil.copytree(artifact, aside)
            except OSError:
                if _has_weights(artifact):
                    raise
                shutil.rmtree(aside, ignore_errors=True)
        if not _has_weights(aside):
            shutil.rmtree(aside, ignore_errors=True)
            return False
        shutil.rmtree(into, ignore_errors=True)  # an artifact of other versions of torch or peft
        aside.rename(into)
    return True


def throw_weights(artifact: Path) -> None:
    """Leaves of an artifact the figures of its training alone; whoever copies it meanwhile finds it gone, not halved."""
    aside = artifact.with_name(artifact.name + ".partial")
    shutil.rmtree(aside, ignore_errors=True)
    artifact.rename(aside)
    for path in aside.iterdir():
        if path.is_file() and path.name != TRAINED_FILE:
            path.unlink()
    aside.rename(artifact)


def _has_weights(artifact: Path) -> bool:
    return next(artifact.glob("*.safetensors"), None) is not None


def _modified(file: Path) -> float:
    """When a file was written; 0 for one that another process has removed meanwhile."""
    try:
        return file.stat().st_mtime
    except OSError:
        return 0.0


def folder_bytes(path: Path) -> int:
    """Bytes of an artifact's files, our own record left out."""
    return sum(p.stat().st_size for p in path.rglob("*") if p.is_file() and p.name not in (TRAINED_FILE, "README.md"))


def folder_numbers(path: Path) -> int | None:
    """Numbers in an artifact's weight files, read off their headers; None where they cannot be read."""
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
