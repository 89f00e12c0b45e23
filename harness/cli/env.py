"""`harness env`: machine and versions, for a bug report. Imports none of the libraries that it lists."""

from __future__ import annotations

import importlib.metadata
import json
import os
import platform
import subprocess
from pathlib import Path

from harness import __version__
from harness.cli.options import Flags, takes
from harness.cli.output import echo

_PACKAGES = ("torch", "transformers", "peft", "bitsandbytes", "datasets", "accelerate", "tokenizers", "scipy", "numpy")
_VARIABLES = ("HARNESS_", "HF_", "CUDA_", "OMP_", "MKL_", "TRANSFORMERS_", "NO_COLOR", "TOKENIZERS_")
_SECRET = ("TOKEN", "KEY", "SECRET", "PASSWORD")


@takes("format")
def env(flags: Flags) -> None:
    """Print versions, device, threads and the environment variables that matter."""
    facts = {
        "harness": __version__,
        "python": platform.python_version(),
        "platform": platform.platform(),
        "cpu": _cpu(),
        "threads": str(len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()),
        "memory": _memory(),
        "gpu": _gpu(),
        **{name: _version(name) for name in _PACKAGES},
        **{name: _shown(name) for name in sorted(os.environ) if name.startswith(_VARIABLES)},
    }
    if flags.format == "json":
        echo(json.dumps(facts, indent=1))
        return
    width = max(map(len, facts))
    for name, value in facts.items():
        echo(f"{name:<{width}}  {value}")


def _version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "not installed"


def _shown(variable: str) -> str:
    return "(set)" if any(word in variable for word in _SECRET) else os.environ[variable]


def _cpu() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


def _memory() -> str:
    try:
        return f"{os.sysconf('SC_PAGE_SIZE') * os.sysconf('SC_PHYS_PAGES') / 1024**3:.1f} GiB"
    except (ValueError, OSError, AttributeError):
        return "unknown"


def _gpu() -> str:
    query = ["nvidia-smi", "--query-gpu=name,memory.total,driver_version", "--format=csv,noheader"]
    try:
        said = subprocess.run(query, capture_output=True, text=True, timeout=20, check=True).stdout
    except (OSError, subprocess.SubprocessError):
        return "none found"
    return "; ".join(line.strip() for line in said.splitlines() if line.strip()) or "none found"
