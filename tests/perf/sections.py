"""Writes the sections of RESULTS.md below the table: `python tests/perf/sections.py`, after `make bench` has made the models.

Every model: the result of the self-check on a small random model of each architecture. Precision: the distance of scores in
bfloat16 from those in float32. Profile: processor time of the fast path by operator.
"""

from __future__ import annotations

import argparse
import statistics
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import torch

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent / "helpers"))

from architectures import SHAPES, random_model  # noqa: E402
from ours import TOKEN_BUDGET, read_requests  # noqa: E402
from torch.profiler import ProfilerActivity, profile  # noqa: E402

from harness.engine.attention import Unsupported  # noqa: E402
from harness.engine.prefix_cache import Prefixes  # noqa: E402
from harness.engine.runner import Runner  # noqa: E402
from harness.engine.self_check import slots_fault, tree_fault  # noqa: E402
from harness.jobs import Base, Raw, TaskRequests  # noqa: E402
from harness.models.load import load_base  # noqa: E402
from harness.tokens.encode import Encoder  # noqa: E402
from harness.tokens.tokenizer import load_tokenizer  # noqa: E402

QUESTIONS = 48
GEMMS = ("aten::addmm", "aten::mm", "aten::bmm", "aten::linear")


def every_model() -> str:
    """Table of the self-check's results."""
    lines = ["| architecture | scored in packed trees | generated in slots |", "| --- | --- | --- |"]
    for shape in SHAPES:
        model = random_model(shape)
        try:
            prefixes = Prefixes(model)
            found = tree_fault(model, prefixes), slots_fault(model, prefixes)
            by_block = prefixes.by_block
        except Unsupported as error:
            found, by_block = (str(error), str(error)), False
        scores = found[0] or ("yes, block by block" if by_block else "yes, under one mask")
        lines.append(f"| {shape} | {scores} | {found[1] or 'yes'} |")
    return "\n".join(lines)


def scored(folder: Path, dtype: str, numerics: str, count: int = QUESTIONS) -> list[Raw]:
    """Scores the first MMLU questions."""
    model, tokenizer = load_base(Base(folder / "s8k", "cpu", dtype)), load_tokenizer(folder / "s8k")
    requests = read_requests(str(folder / "mmlu.json"))[:count]
    encoded = Encoder(tokenizer, 2048).encode(TaskRequests("bench", requests))
    runner = Runner(
        model, tokenizer, engine="auto", numerics=numerics, token_budget=TOKEN_BUDGET, max_rows=None, seed=0
    )
    raws = [raw for pack in runner.plan(encoded) for raw in runner.run(pack)]
    return sorted(raws, key=lambda raw: raw.index)


def precision(folder: Path) -> str:
    """Distances from float32 for our numerics and for those of lm-evaluation-harness (softmax in bfloat16, padded rows)."""
    truth = scored(folder, "float32", "fp32")
    lines = ["| bfloat16 | median | largest | other answers |", "| --- | --- | --- | --- |"]
    for name, numerics in (("ours", "fp32"), ("`--numerics lm-eval`", "lm-eval")):
        found = scored(folder, "bfloat16", numerics)
        apart = [
            abs(a - b) / abs(b)
            for ours, true in zip(found, truth, strict=True)
            for a, b in zip(ours.loglikelihoods, true.loglikelihoods, strict=True)
        ]
        flips = sum(_best(a.loglikelihoods) != _best(b.loglikelihoods) for a, b in zip(found, truth, strict=True))
        lines.append(f"| {name} | {statistics.median(apart):.1e} | {max(apart):.1e} | {flips} of {len(truth)} |")
    return "\n".join(lines)


def where_the_time_goes(folder: Path) -> str:
    """Shares of processor time by operator, largest first."""
    with profile(activities=[ProfilerActivity.CPU]) as seen:
        scored(folder, "float32", "fp32")
    spent: Counter[str] = Counter()
    for event in seen.key_averages():
        name = "matrix products" if event.key in GEMMS else event.key.removeprefix("aten::")
        spent["attention" if "attention" in name or "flash" in name else name] += event.self_cpu_time_total
    total = sum(spent.values())
    return ", ".join(f"{name} {100 * time / total:.0f} %" for name, time in spent.most_common(7))


def _best(values: Sequence[float]) -> int:
    return max(range(len(values)), key=values.__getitem__)


def main() -> None:
    """Writes the sections below the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", type=Path, default=HERE.parents[1] / "build" / "bench")
    options = parser.parse_args()
    torch.set_num_threads(1)
    parts = {
        "Every model": "The self-check at the start, on a random model of each architecture (with windows of 8 or 64 tokens, where"
        " it has windows).\nWhere the result is not `yes`, the run says so and uses padded packs.\n\n" + every_model(),
        "Precision": f"The first {QUESTIONS} MMLU questions on s8k: log-likelihoods relative to those in float32.\n\n"
        + precision(options.folder),
        "Profile": f"The same questions in float32, processor time by operator: {where_the_time_goes(options.folder)}.",
    }
    path = HERE / "RESULTS.md"
    table, *others = path.read_text(encoding="utf-8").rstrip("\n").split("\n## ")
    kept = [section for section in others if section.partition("\n")[0] not in parts]
    own = [f"{title}\n\n{body}\n" for title, body in parts.items()]
    path.write_text("\n## ".join([table.rstrip("\n") + "\n", *own, *kept]).rstrip("\n") + "\n", encoding="utf-8")
    print("\n".join(own))


if __name__ == "__main__":
    main()
