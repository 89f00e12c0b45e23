"""The number of processors that this process may use: its affinity, and the quota of its control groups (containers)."""

from __future__ import annotations

import os
from pathlib import Path

from harness.sandbox.control_groups import groups


def processors(root: Path = Path("/")) -> int:
    """Returns how many processors this process may use at the same time, at least 1.

    Args:
        root: The root of the file system, which tests replace.

    Example:
        >>> 1 <= processors() <= (os.cpu_count() or 1)
        True
    """
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    quotas = [quota for folder in groups("cpu", root) if (quota := _quota(folder))]
    return max(1, int(min([allowed, *quotas])))


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
