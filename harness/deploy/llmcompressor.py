"""Rounds weights to 4 or 8 bits with llmcompressor, which needs an environment of its own, named by HARNESS_LLMCOMPRESSOR."""

from __future__ import annotations

import functools
import json
import os
import tempfile
from collections.abc import Callable, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from harness.deploy.programs import ProgramFailed, run_program
from harness.errors import UserError
from harness.jobs import DeployedForm

VARIABLE = "HARNESS_LLMCOMPRESSOR"
"""Environment variable with the interpreter of that environment."""
CALIBRATION_ROWS, CALIBRATION_TOKENS = 256, 512
"""Most training rows to calibrate on, and most tokens of each."""
_HOW = (
    "make one: `python -m venv ~/llmcompressor && ~/llmcompressor/bin/pip install llmcompressor`, and set"
    f" {VARIABLE}=~/llmcompressor/bin/python"
)
_PROGRAM = Path(__file__).with_name("llmcompressor_program.py")
_VERSIONS = (
    "from importlib.metadata import version;"
    "print('found', *(f'{name} {version(name)}' for name in ('llmcompressor', 'compressed-tensors', 'transformers', 'torch')), sep=';')"
)


@functools.cache
def llmcompressor_version(tool: str) -> str:
    """The version of llmcompressor and of what it stands on, for the key of what it makes.

    Args:
        tool: `gptq` or `awq`, for messages.

    Raises:
        UserError: The environment is missing or has no llmcompressor, or compressed-tensors is missing in this one.
    """
    if find_spec("compressed_tensors") is None:
        raise UserError(
            f"`@{tool}` is read by compressed-tensors, which is not installed",
            hint="pip install 'finetune-harness[quantized]'",
        )
    try:
        said = run_program([interpreter(tool), "-I", "-c", _VERSIONS])
    except ProgramFailed as error:
        raise UserError(f"`{os.environ[VARIABLE]}` ({VARIABLE}) cannot run llmcompressor: {error}", _HOW) from error
    return next(line for line in said.splitlines() if line.startswith("found;")).removeprefix("found;")


def interpreter(tool: str) -> Path:
    """The interpreter of llmcompressor's environment.

    Raises:
        UserError: It is not set, or there is none.
    """
    named = os.environ.get(VARIABLE)
    if not named:
        raise UserError(
            f"`@{tool}` needs llmcompressor, which cannot be installed beside this transformers, and {VARIABLE} is not set",
            hint=_HOW,
        )
    path = Path(named).expanduser()
    if not os.access(path, os.X_OK) or path.is_dir():
        raise UserError(f"{VARIABLE} is `{named}`, which is not an interpreter", hint=_HOW)
    return path.absolute()


def compress(
    checkpoint: Path,
    output: Path,
    form: DeployedForm,
    rows: Sequence[Sequence[int]],
    *,
    dtype: str,
    device: str,
    seed: int,
    threads: int,
    beat: Callable[[], None] = lambda: None,
) -> list[str]:
    """Rounds the linear layers of a checkpoint, except the output head, and saves it; returns notes for the report.

    Args:
        checkpoint: Folder of the model.
        output: Folder of the new checkpoint, which exists.
        form: The tool and the type.
        rows: Token ids of the calibration rows.
        dtype: Precision in which the model runs.
        device: Its device.
        seed: For the program's random numbers.
        threads: Of the program.
        beat: See `run_program`.

    Raises:
        UserError: The program failed.
    """
    settings = {
        "tool": form.tool,
        "bits": int(form.type[1]),
        "symmetric": not form.type.endswith("_ASYM"),
        "checkpoint": str(checkpoint),
        "output": str(output),
        "rows": [list(row) for row in rows],
        "dtype": dtype,
        "device": device,
        "seed": seed,
        "threads": threads,
    }
    with tempfile.TemporaryDirectory(prefix="harness-calibration-") as folder:
        file = Path(folder) / "settings.json"
        file.write_text(json.dumps(settings), encoding="utf-8")
        try:
            said = run_program(
                [interpreter(form.tool), "-I", _PROGRAM, file],
                beat=beat,
                variables={"OMP_NUM_THREADS": str(threads)},
            )
        except ProgramFailed as error:
            raise UserError(f"llmcompressor could not round the weights: {error}", hint=_hint(error)) from error
    found: dict[str, Any] = json.loads(said.splitlines()[-1])
    notes = [f"rounded on {len(rows)} training rows"]
    if found["group"] is None:
        notes.append("one scale for each row of weights, since rows are not multiples of 16 weights")
    elif found["group"] != 128:
        notes.append(f"one scale for {found['group']} weights, not 128, since rows are not multiples of 128")
    return notes


def _hint(error: ProgramFailed) -> str | None:
    if "accelerator" in error.output and "none is available" in error.output:
        return "it needs a GPU; on a CPU use `@gptq` or `@gguf:Q4_K_M`"
    if "out of memory" in error.output.lower():
        return "the model does not fit into memory beside its calibration"
    return None
