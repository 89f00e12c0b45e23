"""A folder with a small converter in place of llama.cpp's: the same name and arguments, for Llama models with a byte-level tokenizer."""

from __future__ import annotations

import os
from pathlib import Path

_HELPERS = Path(__file__).parent
_PROGRAM = f"""
import argparse, json, sys
from pathlib import Path
from types import SimpleNamespace

sys.path[:0] = [{str(_HELPERS)!r}]
parser = argparse.ArgumentParser()
parser.add_argument("folder", type=Path)
parser.add_argument("--outfile", type=Path)
parser.add_argument("--outtype")
given = parser.parse_args()
{{before}}
from gguf_files import write_gguf
from safetensors.numpy import load_file

read = lambda name: json.loads((given.folder / name).read_text())
words, named = read("tokenizer.json"), read("tokenizer_config.json")
ids = {{{{**words["model"]["vocab"], **{{{{each["content"]: each["id"] for each in words["added_tokens"]}}}}}}}}
texts = {{{{number: text for text, number in ids.items()}}}}

class Words(SimpleNamespace):
    def __len__(self):
        return len(texts)

config = SimpleNamespace(**read("config.json"))
config.rope_parameters = vars(config).get("rope_parameters") or {{{{"rope_theta": config.rope_theta}}}}
tokenizer = Words(
    convert_ids_to_tokens=lambda some: [texts[number] for number in some],
    all_special_ids=[each["id"] for each in words["added_tokens"] if each["special"]],
    backend_tokenizer=SimpleNamespace(to_str=lambda: json.dumps(words)),
    **{{{{f"{{{{each}}}}_token_id": ids.get(named.get(f"{{{{each}}}}_token")) for each in ("bos", "eos", "pad")}}}},
)
model = SimpleNamespace(config=config, state_dict=lambda: load_file(given.folder / "model.safetensors"))
kind = {{{{"f32": "F32", "f16": "F16", "bf16": "BF16", "q8_0": "Q8_0"}}}}[given.outtype]
write_gguf(given.outfile, model, tokenizer, quantized=kind)
"""
_QUANTIZER = """#!/bin/sh
cp "$1" "$2"
"""


def write_llama_cpp(folder: Path, *, before: str = "", quantizer: bool = False) -> Path:
    """Writes the folder.

    Args:
        folder: The new folder.
        before: Lines of Python that the converter runs first, to fail for example.
        quantizer: Whether there is a `llama-quantize`, which copies the file as it is.
    """
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "convert_hf_to_gguf.py").write_text(_PROGRAM.format(before=before), encoding="utf-8")
    if quantizer:
        program = folder / "build" / "bin" / "llama-quantize"
        program.parent.mkdir(parents=True)
        program.write_text(_QUANTIZER, encoding="utf-8")
        os.chmod(program, 0o755)  # noqa: PTH101
    return folder
