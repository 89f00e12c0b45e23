"""Runs every case on every shape: `python job.py FOLDER PAGE`. Verdicts go to FOLDER, one line of JSON each, and the table to PAGE.

It runs in its own process, since libraries read the Hub's address when they are imported.
"""

from __future__ import annotations

import json
import logging
import sys
import traceback
import warnings
from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path
from time import perf_counter
from typing import Any

import transformers
from cases import CASES, Case
from ours import Engine, answers, prepared
from peer import load_peer, their_side
from script import script, scripted_peer
from shapes import SHAPES, save_shape
from table import page
from verdict import Verdict, compare, failed

ENGINES: tuple[Engine, ...] = ("auto", "plain")
PLAIN_TEXTS = 8
"""Texts for the plain engine, which is slow: it runs the whole text again for every token."""


def main(folder: Path, table: Path) -> None:
    """Writes `folder/verdicts.jsonl` and the page."""
    quiet()
    verdicts = []
    with (folder / "verdicts.jsonl").open("w") as file:
        for shape in (None, *SHAPES):
            models = {}
            if shape is not None:
                save_shape(folder / shape, shape)
                models = {twin: load_peer(folder / shape / twin) for twin in ("chooses", "generates")}
            for case in CASES:
                began = perf_counter()
                for verdict in run(case, shape, folder, models):
                    verdicts.append(verdict)
                    print(json.dumps(asdict(verdict)), file=file, flush=True)
                    state = "agree" if verdict.holds else f"DIFFER: {verdict.difference}"
                    print(f"{verdict.shape} {verdict.engine} {case.id}: {state}", flush=True)
                print(f"      {perf_counter() - began:.0f} s", flush=True)
    table.write_text(page(verdicts), encoding="utf-8")


def run(case: Case, shape: str | None, folder: Path, models: Mapping[str, Any]) -> list[Verdict]:
    """Runs their side once and ours with both engines; without a shape, both sides get scripted answers."""
    verdicts = []
    try:
        if shape is None:
            case = replace(case, max_tokens=None)  # the original limits of both sides
            ours = prepared(case)
            raws = script(ours)
            theirs = their_side(case, scripted_peer(ours, raws))
            return [compare(case, "script", "", ours.side(raws), theirs)]
        ours, theirs = prepared(case), their_side(case, models[case.twin])
        for engine in ENGINES:
            limit = PLAIN_TEXTS if engine == "plain" and case.max_tokens else None
            raws = answers(ours, folder / shape / case.twin, engine, limit)
            verdicts.append(compare(case, shape, engine, ours.side(raws), theirs))
    except Exception as error:  # the other cases still run
        traceback.print_exc()
        verdicts.append(failed(case, shape or "script", f"{type(error).__name__}: {error}"))
    return verdicts


def quiet() -> None:
    """Turns off warnings and progress of the libraries."""
    warnings.filterwarnings("ignore")
    transformers.logging.set_verbosity_error()
    for name in ("lm_eval", "datasets", "huggingface_hub"):
        logging.getLogger(name).setLevel(logging.ERROR)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
