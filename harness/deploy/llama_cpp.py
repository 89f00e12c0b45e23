"""The converter and the quantizer of llama.cpp: where they are, their version, and one call for each.

The converter, `convert_hf_to_gguf.py`, comes with llama.cpp's source and with no wheel: `HARNESS_LLAMA_CPP` names the folder
of the source, which is also in the source package of llama-cpp-python on PyPI. The quantizer is `llama-quantize` of a build of
that source or on the PATH, else the installed package llama-cpp-python.
"""

from __future__ import annotations

import os
import re
import shutil
import sys
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path

from harness.data.digests import file_sha256
from harness.deploy.programs import ProgramFailed, run_program
from harness.errors import UserError

VARIABLE = "HARNESS_LLAMA_CPP"
"""Environment variable with the folder of llama.cpp's source."""
CONVERTED = {"F32": "f32", "F16": "f16", "BF16": "bf16", "Q8_0": "q8_0"}
"""Types that the converter itself writes, with its names for them."""
_CONVERTER = "convert_hf_to_gguf.py"
_HOW = (
    "`pip download --no-deps --no-binary :all: llama-cpp-python`, unpack the archive, and set"
    f" {VARIABLE} to its folder `vendor/llama.cpp`; a checkout of llama.cpp does as well"
)
_QUANTIZER = Path(__file__).with_name("gguf_quantizer.py")
_SUPERBLOCK, _BLOCK = 256, 32
"""Weights of a row that K and IQ4_XS types, and the older types, store together."""


@dataclass(frozen=True)
class LlamaCpp:
    """Places of the two programs; both are looked for when they are needed."""

    converter: Path
    quantizer: tuple[str, ...]
    """Command, to which the two files and the type are added."""
    version: str
    """Digest of the converter and version of the quantizer, for the key of what they make."""


def find_llama_cpp(kind: str) -> LlamaCpp:
    """Finds the programs that make a GGUF file of a type.

    Args:
        kind: The type, such as `Q4_K_M`.

    Raises:
        UserError: The converter is missing, or the quantizer if the type needs it; the hint says how to get it.
    """
    named = os.environ.get(VARIABLE)
    if not named:
        raise UserError(f"`@gguf:{kind}` needs llama.cpp's converter, and {VARIABLE} is not set", hint=_HOW)
    folder = Path(named).expanduser()
    places = (folder, folder / "vendor" / "llama.cpp")
    source = next((place for place in places if (place / _CONVERTER).is_file()), None)
    if source is None:
        raise UserError(f"`{folder}` ({VARIABLE}) has no {_CONVERTER}", hint=_HOW)
    digests = [file_sha256(path) for path in sorted([source / _CONVERTER, *(source / "conversion").glob("*.py")])]
    made_by = f"converter {text_digest(digests)}"
    if kind in CONVERTED:
        return LlamaCpp(source / _CONVERTER, (), made_by)
    binary = next((str(path) for path in _binaries(source) if os.access(path, os.X_OK)), shutil.which("llama-quantize"))
    if binary is not None:
        return LlamaCpp(source / _CONVERTER, (binary,), f"{made_by}, llama-quantize {file_sha256(Path(binary))[:12]}")
    if find_spec("llama_cpp") is None:
        raise UserError(
            f"`@gguf:{kind}` needs llama.cpp's quantizer, and there is neither `llama-quantize` nor the package"
            " llama-cpp-python",
            hint="pip install 'finetune-harness[llamacpp]' (it is compiled, which takes some 10 minutes), or choose a type"
            f" that the converter writes: {', '.join(CONVERTED)}",
        )
    command = (sys.executable, "-I", str(_QUANTIZER))
    return LlamaCpp(source / _CONVERTER, command, f"{made_by}, llama-cpp-python {version('llama-cpp-python')}")


def text_digest(parts: list[str]) -> str:
    """Twelve hex digits for several digests."""
    from harness.data.digests import text_sha256

    return text_sha256("".join(parts))[:12]


def _binaries(source: Path) -> list[Path]:
    return [source / "build" / "bin" / "llama-quantize", source / "llama-quantize"]


def convert(checkpoint: Path, output: Path, kind: str, dtype: str, *, beat: Callable[[], None] = lambda: None) -> None:
    """Converts a checkpoint to a GGUF file of a type.

    Args:
        checkpoint: Folder with config.json, safetensors and tokenizer. The converter runs code that its files name, so it
            must be a `staged` one.
        output: The new file.
        kind: The type.
        dtype: Precision of the checkpoint, which the file has that is quantized.
        beat: See `run_program`.

    Raises:
        UserError: The converter does not know the architecture or the tokenizer, or a program failed.
    """
    tools = find_llama_cpp(kind)
    exact = {"float16": "f16", "bfloat16": "bf16"}.get(dtype, "f32")
    whole = output if kind in CONVERTED else output.with_name(f"whole-{output.name}")
    arguments: list[str | Path] = ["--outfile", whole, "--outtype", CONVERTED.get(kind, exact)]
    try:
        run_program([sys.executable, tools.converter, checkpoint, *arguments], beat=beat, variables={"PYTHONPATH": ""})
    except ProgramFailed as error:
        raise _converter_error(error) from error
    if whole is output:
        return
    threads = str(len(os.sched_getaffinity(0)))
    try:
        run_program([*tools.quantizer, whole, output, kind, threads], beat=beat)
    except ProgramFailed as error:
        raise UserError(f"llama.cpp could not quantize the model to {kind}: {error}") from error
    finally:
        whole.unlink(missing_ok=True)


def _converter_error(error: ProgramFailed) -> UserError:
    unknown = next(
        (line for line in error.output.splitlines() if "is not supported" in line and "Model " in line), None
    )
    if unknown:
        name = unknown.partition("Model ")[2].partition(" is not supported")[0]
        return UserError(
            f"llama.cpp's converter does not know the architecture {name}",
            hint=f"a newer llama.cpp may ({VARIABLE}); `@torchao:int8wo` and `@gptq` take any architecture",
        )
    missing = re.search(r"No module named '([\w.]+)'", error.output)
    if missing:
        return UserError(
            f"llama.cpp's converter needs the Python package `{missing[1]}`, which is not installed",
            hint="pip install 'finetune-harness[gguf]'" if missing[1] in ("gguf", "sentencepiece") else None,
        )
    if "BPE pre-tokenizer was not recognized" in error.output:
        return UserError(
            "llama.cpp's converter does not know the tokenizer of this model (its pre-tokenizer)",
            hint=f"a newer llama.cpp may ({VARIABLE}); `@torchao:int8wo` and `@gptq` take any tokenizer",
        )
    return UserError(f"llama.cpp's converter failed: {error}", hint=f"is the llama.cpp in {VARIABLE} whole and recent?")


def fallback_note(file: Path, kind: str) -> str | None:
    """Says how many matrices of a GGUF file have another type because their rows do not fit the blocks of the type.

    Args:
        file: The file.
        kind: The type that was asked for.
    """
    if kind in ("F32", "F16", "BF16"):
        return None
    from gguf import GGUFReader

    block = _SUPERBLOCK if "_K" in kind or kind == "IQ4_XS" else _BLOCK
    matrices = [tensor for tensor in GGUFReader(file).tensors if len(tensor.shape) > 1]
    others = Counter(tensor.tensor_type.name for tensor in matrices if int(tensor.shape[0]) % block)
    if not others:
        return None
    types = ", ".join(f"{count} in {name}" for name, count in others.most_common())
    return (
        f"{others.total()} of {len(matrices)} matrices are not in {kind}, since their rows are not multiples of {block}"
        f" weights: {types}"
    )
