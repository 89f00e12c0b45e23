"""Runs SmolLM2 beside lm-evaluation-harness: `python beside.py ROWS MODEL OUT`, with `tests/parity` on the path.

ROWS is the folder of `rows.lay_out`. Both sides read its datasets as local folders, so the process changes to it and asks
no Hub. Verdicts go to OUT, one line of JSON each.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from time import perf_counter

from cases import ACC, ACC_NORM, GSM8K, MMLU, Case
from job import quiet
from ours import Engine, answers, prepared
from peer import load_peer, their_side
from verdict import compare, failed

NATS = RELATIVE = 5e-5
"""Bounds for a log-likelihood, which is the sum over the tokens of a continuation or page: 5e-5 nats or 5e-5 of itself."""
PLAIN = 2
"""Samples for the plain engine, which runs the whole prompt again for every choice and every token; none with shots."""
_PERPLEXITIES = {
    "word_ppl": "word_perplexity,none",
    "byte_ppl": "byte_perplexity,none",
    "bits_per_byte": "bits_per_byte,none",
}


def cases() -> Iterator[Case]:
    """Every task with no shots and with 5, as text and with the chat template."""
    for chat in (False, True):
        for shots in (0, 5):
            mmlu = {subject: f"mmlu_{subject}" for subject in MMLU}
            yield Case(f"mmlu:{'+'.join(MMLU)}", mmlu, ACC, shots, limit=12 if shots else 24, chat=chat)
            yield Case("hellaswag", {"": "hellaswag"}, ACC_NORM, shots, limit=6 if shots else 24, chat=chat)
            yield Case("gsm8k", {"": "gsm8k"}, GSM8K, shots, limit=6, max_tokens=48, chat=chat)
    yield Case("wikitext", {"": "wikitext"}, _PERPLEXITIES, limit=2)


def main(rows: Path, model: Path, out: Path) -> None:
    """Runs all cases."""
    quiet()
    os.chdir(rows)
    peer = load_peer(model)
    with out.open("w", encoding="utf-8") as file:
        for case in cases():
            began = perf_counter()
            verdicts = []
            try:
                theirs = their_side(case, peer)
                middle = perf_counter()
                ours = prepared(case, model)
                engines: tuple[Engine, ...] = ("auto",) if case.shots else ("auto", "plain")
                for engine in engines:
                    raws = answers(ours, model, engine, PLAIN if engine == "plain" else None)
                    side = ours.side(raws)
                    verdicts.append(compare(case, "smollm2", engine, side, theirs, nats=NATS, relative=RELATIVE))
            except Exception as error:  # the other cases still run
                middle = perf_counter()
                verdicts.append(failed(case, "smollm2", f"{type(error).__name__}: {error}"))
            for verdict in verdicts:
                print(json.dumps(asdict(verdict)), file=file, flush=True)
            states = "; ".join(each.difference or f"{each.engine} agrees" for each in verdicts)
            print(
                f"{case.id}: {states} (theirs {middle - began:.0f} s, ours {perf_counter() - middle:.0f} s)", flush=True
            )


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:]))
