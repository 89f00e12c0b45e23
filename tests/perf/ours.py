"""Runs our side in its own process: `python ours.py SPEC.json RESULT.json`."""

import itertools
import json
import sys
import time
from pathlib import Path
from typing import Any

from meter import Meter, gemm_peak

from harness.engine.runner import Runner
from harness.jobs import Base, Event, Packed, Raw, Recipe, Request, ScoreJob, ScoreVariant, TaskRequests
from harness.models.load import load_base
from harness.tokens.encode import Encoder
from harness.tokens.tokenizer import load_tokenizer
from harness.tokens.trie import size
from harness.worker.server import keep_freed_memory, run_job

TOKEN_BUDGET = 512
"""Tokens that `harness compare` feeds at a time on CPU."""


def read_requests(path: str) -> list[Request]:
    """Reads the requests that `prompts.py` wrote."""
    rows: list[dict[str, Any]] = json.loads(Path(path).read_text(encoding="utf-8"))
    for row in rows:
        row.update({key: tuple(row[key]) for key in ("contexts", "continuations", "stop")})
    return [Request(**row) for row in rows]


def score(spec: dict[str, Any]) -> dict[str, Any]:
    """Scores the requests on a loaded model, as the scoring child does, with the self-check of the fast path."""
    model = load_base(Base(Path(spec["model"]), "cpu", spec["dtype"]))
    tokenizer = load_tokenizer(Path(spec["model"]))
    requests = read_requests(spec["requests"])
    peak = gemm_peak()
    raws: list[Raw] = []
    with Meter(model) as meter:
        encoded = Encoder(tokenizer, spec["max_length"]).encode(TaskRequests("bench", requests))
        runner = Runner(
            model,
            tokenizer,
            engine="auto",
            numerics="fp32",
            token_budget=TOKEN_BUDGET,
            max_rows=None,
            seed=0,
        )
        packs = runner.plan(encoded)
        ready = time.perf_counter()
        for pack in packs:
            raws += runner.run(pack)
        ran = time.perf_counter() - ready
    raws.sort(key=lambda raw: raw.index)
    generated = sum(max(0, raw.tokens - 1) for raw in raws if raw.texts)  # the last token is not fed
    rows = [row.ids for item in encoded for row in item.rows] + [item.prompt for item in encoded if item.prompt]
    return {
        **meter.figures(),
        "planning": meter.wall - ran,
        "needed": size(rows) + generated,
        "whole_rows": sum(map(len, rows)) + generated,
        "gemm": max(peak, gemm_peak()),
        "ways": sorted({pack.way for pack in packs}),
        "notes": runner.notes,
        "scores": [[raw.loglikelihoods, raw.is_greedy, raw.texts] for raw in raws],
    }


def grow(spec: dict[str, Any]) -> dict[str, Any]:
    """Times encoding, planning and running for 1 %, 10 % and all of the questions."""
    model = load_base(Base(Path(spec["model"]), "cpu", spec["dtype"]))
    tokenizer = load_tokenizer(Path(spec["model"]))
    requests = read_requests(spec["requests"])
    options: dict[str, Any] = {"engine": "auto", "numerics": "fp32", "token_budget": TOKEN_BUDGET}
    runner = Runner(model, tokenizer, max_rows=None, seed=0, **options)
    steps = []
    for count in (len(requests) // 100, len(requests) // 100, len(requests) // 10, len(requests)):  # the first warms up
        ticks = [time.perf_counter()]
        encoded = Encoder(tokenizer, spec["max_length"]).encode(TaskRequests("bench", requests[:count]))
        ticks.append(time.perf_counter())
        packs = runner.plan(encoded)
        ticks.append(time.perf_counter())
        for pack in packs:
            runner.run(pack)
        ticks.append(time.perf_counter())
        steps.append([count, *(after - before for before, after in itertools.pairwise(ticks))])
    return {"steps": steps[1:]}


def grow_variants(spec: dict[str, Any]) -> dict[str, Any]:
    """Seconds from the start of a scoring job to the end of each of its variants: the base, then the adapters."""
    base = Base(Path(spec["model"]), "cpu", spec["dtype"])
    task = TaskRequests("bench", read_requests(spec["requests"]))
    recipes = [Recipe(base), *(Recipe(base, Path(adapter)) for adapter in spec["adapters"])]
    variants = [ScoreVariant(str(number), recipe, [task]) for number, recipe in enumerate(recipes)]
    done: dict[str, float] = {}
    began = time.perf_counter()

    def take(event: Event) -> None:
        if isinstance(event, Packed):
            done[event.variant] = time.perf_counter() - began

    run_job(ScoreJob(variants, "auto", "fp32", TOKEN_BUDGET, None, 0), take)
    return {"seconds": list(done.values())}


if __name__ == "__main__":
    keep_freed_memory()
    wanted = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
    work = {"score": score, "grow": grow, "variants": grow_variants}[wanted["do"]]
    Path(sys.argv[2]).write_text(json.dumps(work(wanted)), encoding="utf-8")
