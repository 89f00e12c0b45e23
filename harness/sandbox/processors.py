"""The number of processors that this process may use: its affinity, and the quota of its control groups (containers)."""

from __future__ import annotations

import os
from pathlib import Path


def processors(root: Path = Path("/")) -> int:
    """Returns how many processors this process may use at the same time, at least 1.

    Args:
        root: The root of the file system, which tests replace.

    Example:
        >>> 1 <= processors() <= (os.cpu_count() or 1)
        True
    """
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    quotas = [quota for folder in _groups(root) if (quota := _quota(folder))]
    return max(1, int(min([allowed, *quotas])))


def _groups(root: Path) -> list[Path]:
    """The folders of this process's control groups and of all groups around them, of version 1 and 2."""
    try:
        lines = (root / "proc/self/cgroup").read_text().splitlines()
    except OSError:
        return []
    found: dict[Path, None] = {}
    mounts = root / "sys/fs/cgroup"
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if controllers and "cpu" not in controllers.split(","):
            continue
        # In a container the path may be the host's, which does not exist here: the groups around it then include ours.
        for mount in (mounts / controllers, mounts / "cpu") if controllers else (mounts, mounts / "unified"):
            inner = mount / path.lstrip("/")
            found |= dict.fromkeys(folder for folder in (inner, *inner.parents) if folder.is_relative_to(mount))
    return list(found)


def _quota(folder: Path) -> float | None:
    """The processors that a control group may use; None without a limit."""
    try:
        if (folder / "cpu.max").exists():
            quota, period = (folder / "cpu.max").read_text().split()
        else:
            quota = (folder / "cpu.cfs_quota_us").read_text().strip()
            period = (folder / "cpu.cfs_period_us").read_text().strip()
        return int(quota) / int(period) if int(quota) > 0 else None
    except (OSError, ValueError, ZeroDivisionError):  # no such file; `max`
        return None
