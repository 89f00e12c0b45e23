"""Finds the control groups of this process, with which containers and batch systems limit it."""

from __future__ import annotations

from pathlib import Path


def groups(controller: str, root: Path = Path("/")) -> list[Path]:
    """The folders of this process's control groups and of all groups around them, of version 1 and 2.

    Args:
        controller: `cpu` or `memory`.
        root: The root of the file system, which tests replace.
    """
    try:
        lines = (root / "proc/self/cgroup").read_text().splitlines()
    except OSError:
        return []
    found: dict[Path, None] = {}
    mounts = root / "sys/fs/cgroup"
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if controllers and controller not in controllers.split(","):
            continue
        # In a container the path may be the host's, which does not exist here: the groups around it then include ours.
        for mount in (mounts / controllers, mounts / controller) if controllers else (mounts, mounts / "unified"):
            inner = mount / path.lstrip("/")
            found |= dict.fromkeys(folder for folder in (inner, *inner.parents) if folder.is_relative_to(mount))
    return list(found)
