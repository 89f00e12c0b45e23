"""Generates with vLLM, in process, under its own interpreter: `python vllm_side.py SPEC.json RESULT.json`.

Token ids in, token ids out; texts are made of the ids and cut at stop strings as on the other sides. Each text ends after as many
tokens as its true answer has.
"""

import json
import os
import sys
import time
from pathlib import Path
from typing import Any

os.environ |= {
    "VLLM_ENABLE_V1_MULTIPROCESSING": "0",  # so that its processor time is this process's
    "VLLM_CPU_OMP_THREADS_BIND": "nobind",
    "VLLM_NO_USAGE_STATS": "1",
    "VLLM_LOGGING_LEVEL": "ERROR",
}

from meter import status
from transformers import AutoTokenizer
from vllm import LLM, SamplingParams  # type: ignore[import-not-found,unused-ignore]

_CACHE_BYTES = 1 << 30


def main(spec: dict[str, Any]) -> dict[str, Any]:
    """Times one call that generates all texts, after one that warms up."""
    rows = json.loads(Path(spec["requests"]).read_text(encoding="utf-8"))
    tokenizer = AutoTokenizer.from_pretrained(spec["model"])
    before = status("VmRSS")
    engine = LLM(
        model=spec["model"],
        dtype=spec["dtype"],
        max_model_len=spec["max_length"],
        max_num_seqs=min(256, len(rows)),
        enforce_eager=True,
        enable_prefix_caching=True,
        generation_config="vllm",
        kv_cache_memory_bytes=_CACHE_BYTES,
        seed=0,
    )
    engine.generate([{"prompt_token_ids": [3, 4, 5]}], SamplingParams(temperature=0, max_tokens=2), use_tqdm=False)
    started = time.process_time()  # with the imports, as in whole processes
    cpu, wall = time.process_time(), time.perf_counter()
    prompts = [{"prompt_token_ids": tokenizer(row["contexts"][0])["input_ids"]} for row in rows]
    asked = [SamplingParams(temperature=0, max_tokens=row["max_tokens"], stop=row["stop"]) for row in rows]
    outputs = engine.generate(prompts, asked, use_tqdm=False)
    texts = [tokenizer.decode(output.outputs[0].token_ids, skip_special_tokens=True) for output in outputs]
    cut = [_cut(text, row["stop"]) for text, row in zip(texts, rows, strict=True)]
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    weights = sum(path.stat().st_size for path in Path(spec["model"]).glob("*.safetensors"))
    peak = status("VmHWM") - before - weights
    scores = [[[], [], [text]] for text in cut]
    return {"wall": wall, "cpu": cpu, "start_cpu": started, "peak_bytes": peak, "scores": scores}


def _cut(text: str, stops: list[str]) -> str:
    return text[: min([at for stop in stops if (at := text.find(stop)) >= 0], default=len(text))]


if __name__ == "__main__":
    wanted = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
    Path(sys.argv[2]).write_text(json.dumps(main(wanted)), encoding="utf-8")
