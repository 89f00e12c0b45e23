"""Compares the writers, our engine and vLLM, on GSM8K: processor seconds, what vLLM's start costs, and equal texts.

HARNESS_VLLM=/opt/vllm/bin/python python tests/perf/writers.py FOLDER/s8k own.json shared.json

The model is one that `models.py` made, the files are those that `prompts.py` wrote (kinds `gsm8k-apart` and `gsm8k`). vLLM has the
questions with own shots first, so that its cache has nothing of the shared ones.
"""

import json
import resource
import sys
import time
from pathlib import Path
from typing import Any

from ours import read_requests

from harness.engine.runner import Runner
from harness.jobs import Base, Packed, Recipe, ScoreJob, ScoreVariant, TaskRequests
from harness.models.load import count_parameters, load_base
from harness.serving.vllm_installation import find_vllm
from harness.serving.vllm_plan import work_of
from harness.tokens.encode import Encoder
from harness.tokens.tokenizer import load_tokenizer
from harness.worker.server import keep_freed_memory
from harness.worker.vllm_writer import VllmWriter
from harness.worker.watchdog import processor_seconds


def main(folder: Path, files: dict[str, str]) -> dict[str, Any]:
    """Generates the answers with both writers.

    Args:
        folder: The model.
        files: The files of requests, `own` and `shared`.
    """
    keep_freed_memory()
    base = Base(folder, "cpu", "float32")
    model, tokenizer = load_base(base), load_tokenizer(folder)
    encoder = Encoder(tokenizer, 2048)
    tasks = {name: TaskRequests(name, read_requests(file)) for name, file in files.items()}
    encoded = {name: encoder.encode(task) for name, task in tasks.items()}
    variant = ScoreVariant("base", Recipe(base), list(tasks.values()))
    job = ScoreJob([variant], "auto", "fp32", 512, None, 0, vllm=find_vllm(), vllm_always=True)
    assert job.vllm is not None, "vLLM is not here: set HARNESS_VLLM"
    made: dict[tuple[str, str, int], Any] = {}
    found: dict[str, Any] = {"vllm": str(job.vllm), "parameters": count_parameters(model)[0]}
    for name, items in encoded.items():
        runner = Runner(model, tokenizer, engine="auto", numerics="fp32", token_budget=512, max_rows=None, seed=0)
        runner.generation  # noqa: B018 - the self-check
        began = time.process_time()
        for pack in runner.plan(items):
            made |= {("slots", name, raw.index): raw.texts for raw in runner.run(pack)}
        found[name] = {"slots": time.process_time() - began}
    writer = VllmWriter(job, tokenizer)
    writer.plan(job, model, 2048, lambda task: encoded[task.task])
    writer.start()
    server = writer.process
    found["start"] = processor_seconds(server)

    def send(event: Any) -> None:
        if isinstance(event, Packed):
            made.update({("vllm", event.task, raw.index): raw.texts for raw in event.raws})

    for name, items in encoded.items():
        began, ours = processor_seconds(server), time.process_time()
        writer.write(variant, tasks[name], items, model, send)
        work = work_of([items])
        found[name] |= {
            "vllm": processor_seconds(server) - began,
            "client": time.process_time() - ours,
            "questions": len(items),
            "read": work.read,
            "generated": sum(len(tokenizer(made["slots", name, item.index][0])["input_ids"]) for item in items),
            "equal": sum(made["slots", name, item.index] == made["vllm", name, item.index] for item in items),
        }
        saved = (found[name]["slots"] - found[name]["vllm"] - found[name]["client"]) / len(items)
        found[name]["break_even_questions"] = found["start"] / saved if saved > 0 else None
    writer.close()
    found["peak_rss_of_children"] = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * 1024
    return found


if __name__ == "__main__":
    print(json.dumps(main(Path(sys.argv[1]), {"own": sys.argv[2], "shared": sys.argv[3]}), indent=1))
