"""Compares our training with plain PEFT on transformers' Trainer and with TRL's SFTTrainer: `make bench-training`, `ROWS=ragged-lora`.

Each side of each row runs in its own process, the sides in turn, one or more times by size; the fastest run of each counts.
All have the same model, the same rows, adapter, learning rate, effective batch size and seed, in float32 on one thread. Each
peer runs with its best options: micro-batches, rows grouped by length, packing and padding-free batches are tried on a part of
the rows. Equal losses are asserted for all options that keep the rows of a batch; times and memory are only reported. TRL runs
under the interpreter in HARNESS_PEER_PYTHON.
"""

from __future__ import annotations

import argparse
import fnmatch
import importlib.util
import json
import os
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bench import HERE, KEEPS_FREED_MEMORY, ROOT, found_hub, run_process
from outcome import commit_line, machine, refuse_a_mixture

BATCH = 16
TOLERANCE = 2e-4
"""Largest relative distance of two loss curves: float32 sums are added in different orders, step after step."""
PEERS = ("trainer", "trl")
OPTIONS: dict[str, dict[str, tuple[dict[str, Any], ...]]] = {
    "uniform": {
        "trainer": ({"micro": 16}, {"micro": 4}, {"micro": 1}),
        "trl": ({"micro": 16}, {"micro": 4}, {"micro": 4, "padding_free": True}),
    },
    "ragged": {
        "trainer": ({"micro": 4}, {"micro": 1}, {"micro": 4, "grouped": True}, {"micro": 2, "grouped": True}),
        "trl": ({"micro": 1}, {"micro": 4, "padding_free": True}, {"micro": 1, "packing": True}),
    },
}
"""Options of each peer that are tried, by the kind of rows."""
_PART = 4
"""They are tried on this part of the steps."""
TITLE = "## Training beside PEFT + Trainer and TRL"


@dataclass(frozen=True)
class Row:
    """One line of the table."""

    name: str
    method: str
    model: str
    kind: str
    """`uniform` or `ragged`."""
    checkpointing: bool = False
    quick: bool = False


ROWS = (
    Row("uniform-lora", "lora", "8k", "uniform"),
    Row("ragged-lora", "lora", "8k", "ragged", quick=True),
    Row("ragged-full", "full", "8k", "ragged", quick=True),
    Row("ragged-qlora", "qlora", "8k", "ragged", quick=True),
    Row("uniform-128k", "lora", "128k", "uniform"),
    Row("ragged-128k", "lora", "128k", "ragged"),
    Row("ragged-151k", "lora", "151k", "ragged"),
    Row("uniform-128k-ckpt", "lora", "128k", "uniform", True),
    Row("ragged-128k-ckpt", "lora", "128k", "ragged", True, quick=True),
    Row("full-128k-ckpt", "full", "128k", "uniform", True),
    Row("qlora-128k-ckpt", "qlora", "128k", "ragged", True),
)
_SIZES = {"quick": ("t", 3, 1), "usual": ("", 4, 1), "full": ("", 8, 3)}
"""For each size: prefix of the models' names, number of steps, runs of each side."""
_MODELS = {"8k": "s8k", "128k": "w128k", "151k": "w151k", "t8k": "t8k", "t128k": "t128k", "t151k": "t151k"}


@dataclass
class Outcome:
    """The numbers of a row by side: those of the fastest run, and the loss curve."""

    row: Row
    model: str
    tokens: int
    """Number of tokens in all steps, without padding."""
    steps: int
    sides: dict[str, dict[str, Any]] = field(default_factory=dict)
    options: dict[str, str] = field(default_factory=dict)
    """The best options of each peer."""
    tried: dict[str, dict[str, float]] = field(default_factory=dict)
    """For each peer, CPU seconds by options."""
    apart: dict[str, float] = field(default_factory=dict)
    """Largest relative distance of each peer's losses from ours, in runs that keep the rows of a batch."""
    error: str = ""

    def compare(self, peer: str, options: dict[str, Any], ours: Sequence[float], losses: Sequence[float]) -> None:
        """Takes the losses of one run of a peer, step by step, and ours on the same rows."""
        if not options.keys() & {"grouped", "packing"}:
            distances = [abs(a - b) / abs(a) for a, b in zip(ours, losses, strict=True)]
            self.apart[peer] = max(self.apart.get(peer, 0.0), *distances)

    @property
    def equal(self) -> bool:
        """Whether all losses are ours; TRL trains the adapters of a quantized base in bfloat16, so its are not."""
        return all(far <= TOLERANCE for peer, far in self.apart.items() if (peer, self.row.method) != ("trl", "qlora"))

    def line(self) -> str:
        """The row in Markdown."""
        if self.error:
            return f"{self.row.name} FAILED: {self.error}"
        ours = self.sides["ours"]
        cells = [f"`{self.row.name}`", self.row.method, self.model, f"{self.tokens:,} in {self.steps}"]
        cells += [
            f"{self.tokens / side['cpu']:,.0f}" if side else "–" for side in map(self.sides.get, ("ours", *PEERS))
        ]
        for key in ("cpu", "peak_bytes", "total_bytes"):
            found = [f"×{self.sides[peer][key] / ours[key]:.2f}" for peer in PEERS if peer in self.sides]
            cells.append(" / ".join(found) or "–")
        cells.append(" / ".join(f"{side['peak_bytes'] / 2**20:,.0f}" for side in self.sides.values()) + " MiB")
        cells += [" / ".join(f"{value:.0e}" for value in self.apart.values()) or "–"]
        cells += [" / ".join(self.options.get(peer, "") for peer in PEERS if peer in self.sides) or "–"]
        return "| " + " | ".join(cells) + " |"


_HEAD = (
    "row",
    "method",
    "model",
    "real tokens in steps",
    "ours, tokens a CPU second",
    "Trainer",
    "TRL",
    "CPU s: Trainer / TRL over ours",
    "peak over the loaded model",
    "peak with the model",
    "peaks: ours / Trainer / TRL",
    "losses apart",
    "options: Trainer / TRL",
)
_EXPLAINED = f"""The call that makes the steps is measured, `Loop.run` or `Trainer.train`: processor seconds of one thread, and the highest resident
memory over that of the loaded model, or over that of the process before it. Models are random Llamas (seed 0): s8k is 8 layers of 512, w128k 4 layers of 512 with
131,072 words and w151k 6 of 384 with 151,936, each with one matrix for head and embeddings. The effective batch is {BATCH} rows, LoRA has rank 16 on all linear layers, float32.
Uniform rows have 256 tokens, 192 of them learned; ragged ones have the lengths of alpaca's, up to 1,024. A peer has the best of the options
listed below, each tried on a quarter of the steps: micro-batches of 16, 4, 2 or 1 rows, rows grouped by length (Trainer), padding-free batches and packs of
1,024 tokens, best fit first (TRL). Ours is left to cut a batch by itself. Ratios are theirs over ours; all sides see each row once. Without grouping and packing, the rows of a
batch are the same on all sides, and so are the losses, step by step; TRL trains the adapters of qlora in bfloat16. TRL counts entropy and token accuracy with every step, as it does by default. glibc keeps freed memory for
all sides, as `harness` asks it to for its own processes.
"""


class Bench:
    """One run of the benchmark.

    Args:
        folder: For models, rows and results.
        size: `quick`, `usual` or `full`.
    """

    def __init__(self, folder: Path, size: str) -> None:
        self.folder = folder
        self.models, self.steps, self.times = _SIZES[size]
        self.peer, self.versions = find_trl()
        self.environment = {
            **os.environ,
            **KEEPS_FREED_MEMORY,
            **dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "RAYON_NUM_THREADS"), "1"),
            "TOKENIZERS_PARALLELISM": "false",
            "HF_HUB_DISABLE_PROGRESS_BARS": "1",
            "HARNESS_HOME": str(folder / "home"),
            "PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")]),
        }

    def prepare(self, rows: Sequence[Row]) -> None:
        """Makes the models, and enough rows for every step."""
        wanted = {self._data(row): [self._model(row), row.kind, BATCH * self.steps] for row in rows}
        with found_hub(self.folder, self.environment) as environment:
            command = [sys.executable, str(HERE / "training_inputs.py"), str(self.folder), json.dumps(wanted)]
            run_process(command, environment, self.folder)

    def run(self, row: Row) -> Outcome:
        """Runs all sides of a row in turn; if a process fails, only this row fails."""
        data = json.loads((self.folder / self._data(row)).read_text(encoding="utf-8"))
        outcome = Outcome(row, self._model(row), sum(len(each["input_ids"]) for each in data), self.steps)
        try:
            best = self._best(row, outcome)
            for _ in range(self.times):
                for side, options in ({"ours": {}} | best).items():
                    found = self._side(row, side, options, self.steps)
                    before = outcome.sides.setdefault(side, found)
                    outcome.sides[side] = before | {
                        key: min(before[key], found[key]) for key in found if key != "losses"
                    }
            for peer, options in best.items():
                outcome.compare(peer, options, outcome.sides["ours"]["losses"], outcome.sides[peer]["losses"])
        except RuntimeError as error:
            outcome.error = str(error)
        return outcome

    def _best(self, row: Row, outcome: Outcome) -> dict[str, dict[str, Any]]:
        """For each peer, the options with which it takes the least processor time on a part of the rows."""
        steps = max(1, self.steps // _PART)
        ours = self._side(row, "ours", {}, steps)["losses"]
        best = {}
        for peer in PEERS if self.peer else ("trainer",):
            tried = outcome.tried.setdefault(peer, {})
            for options in OPTIONS[row.kind][peer]:
                found = self._side(row, peer, options, steps)
                tried[_named(options)] = found["cpu"]
                outcome.compare(peer, options, ours, found["losses"])
            outcome.options[peer] = min(tried, key=tried.__getitem__)
            best[peer] = next(each for each in OPTIONS[row.kind][peer] if _named(each) == outcome.options[peer])
        return best

    def _side(self, row: Row, side: str, options: dict[str, Any], steps: int) -> dict[str, Any]:
        """Runs one side on the first rows, as many as the steps take."""
        spec = {
            "side": side,
            "method": row.method,
            "model": str(self.folder / self._model(row)),
            "rows": str(self.folder / self._data(row)),
            "batch_size": BATCH,
            "options": options,
            "checkpointing": row.checkpointing,
            "steps": steps,
        }
        files = [self.folder / f"{row.name}.{side}.{name}.json" for name in ("spec", "result")]
        files[0].write_text(json.dumps(spec), encoding="utf-8")
        environment = dict(self.environment) | {"HF_HUB_OFFLINE": "1"}
        if side == "trl":  # it has its own packages
            del environment["PYTHONPATH"]
        program = [str(self.peer) if side == "trl" else sys.executable, str(HERE / "training_sides.py")]
        run_process([*program, *map(str, files)], environment, self.folder)
        found: dict[str, Any] = json.loads(files[1].read_text(encoding="utf-8"))
        return found

    def _model(self, row: Row) -> str:
        return _MODELS[self.models + row.model]

    def _data(self, row: Row) -> str:
        return f"rows-{self._model(row)}-{row.kind}-{self.steps}.json"


def _named(options: dict[str, Any]) -> str:
    return " ".join([name.replace("_", "-") for name in options if name != "micro"] + [f"{options['micro']} at once"])


def find_trl() -> tuple[str | None, dict[str, str]]:
    """Finds an interpreter with trl, and its versions; None if there is none."""
    named = os.environ.get("HARNESS_PEER_PYTHON")
    if not named and importlib.util.find_spec("trl") is None:
        return None, {}
    names = ("trl", "torch", "transformers", "peft")
    code = f"import importlib.metadata as m; print(*(m.version(n) for n in {names}))"
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    done = subprocess.run(
        [named or sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False
    )
    if done.returncode:
        return None, {}
    return named or sys.executable, dict(zip(names, done.stdout.split(), strict=True))


def write_section(path: Path, outcomes: Sequence[Outcome], size: str, versions: dict[str, str]) -> None:
    """Writes the table into its section of the page; lines of rows that did not run stay if machine, versions and size are the same."""
    how = [
        commit_line(),
        *machine(1),
        f"- TRL: {', '.join(f'{k} {v}' for k, v in versions.items()) or 'not installed'}",
        f"- Size: {size}",
    ]
    whole = path.read_text(encoding="utf-8") if path.is_file() else ""
    front, _, rest = whole.partition(TITLE)
    old, mark, behind = rest.partition("\n## ")
    kept = {}
    if "\n".join(how) in old:
        kept = {line.split("`")[1]: line for line in old.splitlines() if line.startswith("| `")}
    lines = kept | {outcome.row.name: outcome.line() for outcome in outcomes if not outcome.error}
    ordered = [lines[row.name] for row in ROWS if row.name in lines]
    table = ["| " + " | ".join(_HEAD) + " |", "|" + " --- |" * len(_HEAD), *ordered]
    tries = [
        f"- {outcome.row.name}: CPU s of {peer}: " + ", ".join(f"{name} {spent:.1f}" for name, spent in tried.items())
        for outcome in outcomes
        for peer, tried in outcome.tried.items()
    ]
    text = "\n".join([TITLE, "", "Written by `make bench-training`.", "", *how, "", _EXPLAINED, *table, "", *tries, ""])
    path.write_text(front.rstrip("\n") + "\n\n" * bool(front) + text + mark + behind, encoding="utf-8")


def main(arguments: Sequence[str] | None = None) -> list[Outcome]:
    """Runs the chosen rows, prints the table, and writes it to the page unless `--quick` is given."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", default="*", help=f"comma-separated, * allowed: {', '.join(r.name for r in ROWS)}")
    size = parser.add_mutually_exclusive_group()
    size.add_argument(
        "--quick",
        dest="size",
        action="store_const",
        const="quick",
        help="small models for a minute, to see that it runs",
    )
    size.add_argument(
        "--full", dest="size", action="store_const", const="full", help="each side three times, with more steps"
    )
    parser.add_argument("--folder", type=Path, default=ROOT / "build" / "bench", help="folder where models are kept")
    parser.add_argument("--results", type=Path, help="default: RESULTS.md beside this file; none with --quick")
    options = parser.parse_args(arguments)
    quick = options.size == "quick"
    asked = options.rows.split(",")
    chosen = [row for row in ROWS if any(fnmatch.fnmatch(row.name, each) for each in asked)]
    chosen = [row for row in chosen if row.quick or not quick or options.rows != "*"]
    if not chosen:
        parser.error(f"no row is called {options.rows}")
    folder = options.folder.resolve()
    folder.mkdir(parents=True, exist_ok=True)
    bench = Bench(folder, options.size or "usual")
    path = options.results or (None if quick else HERE / "RESULTS.md")
    if path == HERE / "RESULTS.md":
        section = path.read_text(encoding="utf-8").partition(TITLE)[2].partition("\n## ")[0]
        refuse_a_mixture(section, len(chosen) == len(ROWS))
    bench.prepare(chosen)
    outcomes: list[Outcome] = []
    for row in chosen:
        outcomes.append(bench.run(row))
        print(outcomes[-1].line(), flush=True)
        if path is not None:  # after every row, so that nothing measured is lost
            write_section(path, outcomes, options.size or "usual", bench.versions)
    if not bench.peer:
        print("trl is not installed: pip install -e '.[parity]', or HARNESS_PEER_PYTHON=its interpreter")
    failed = [outcome.row.name for outcome in outcomes if outcome.error]
    assert not failed, f"rows failed: {', '.join(failed)}"
    unequal = [outcome.row.name for outcome in outcomes if not outcome.equal]
    assert not unequal, f"loss curves differ: {', '.join(unequal)}"
    return outcomes


if __name__ == "__main__":
    main()
