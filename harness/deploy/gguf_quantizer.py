"""Quantizes a GGUF file with the package llama-cpp-python; a program of its own: `gguf_quantizer.py IN OUT TYPE THREADS`."""

from __future__ import annotations

import ctypes
import sys
from typing import Any


def main(source: str, output: str, kind: str, threads: str) -> int:
    """Writes `output` and returns llama.cpp's code: 0 for success."""
    import llama_cpp

    library: Any = llama_cpp
    library.llama_backend_init()
    parameters = library.llama_model_quantize_default_params()
    parameters.nthread = int(threads)
    parameters.ftype = getattr(library, f"LLAMA_FTYPE_MOSTLY_{kind}")
    code: int = library.llama_model_quantize(source.encode(), output.encode(), ctypes.byref(parameters))
    return code


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
