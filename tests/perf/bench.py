"""Compares our engine with the hf backend of lm-evaluation-harness on the same prompts: `make bench`, or `make bench ROWS=mmlu`.

Each side of each row runs in its own process, one after the other. The models are made for the benchmark; the questions come
from the Hub, or from the folder that HARNESS_TEST_HUB names. The peer runs under the interpreter in HARNESS_PEER_PYTHON.
Equal scores are asserted; times are only reported.
"""

from __future__ import annotations

import argparse
import fnmatch
import importlib.util
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from outcome import Outcome, agreement, write_results

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
CONTEXT, WINDOW = 2048, 1024
NO_PEER = "lm_eval is not installed: pip install -e '.[parity]'"


@dataclass(frozen=True)
class Row:
    """One line of the table."""

    name: str
    kind: str
    model: str
    work: str
    """Description, with a place for the count."""
    counts: tuple[int, int, int]
    """Numbers of questions with `--quick`, by default, and with `--full`."""
    batches: tuple[int, ...] = (1,)
    """Batch sizes of the peer: the one found to be fastest, or several to try on an eighth of the rows."""
    shots: int | None = None


ROWS = (
    Row("mmlu", "mmlu", "s8k", "MMLU 5-shot, 4 subjects × {} questions", (5, 40, 100)),
    Row("mmlu-128k", "mmlu", "m128k", "MMLU 5-shot, 4 × {}", (1, 4, 25)),
    Row("mmlu-qwen3", "mmlu", "qwen3", "MMLU 5-shot, 4 × {}", (2, 6, 25)),
    Row("mmlu-gpt2", "mmlu", "gpt2", "MMLU 5-shot, 4 × {}", (2, 6, 25)),
    Row("hellaswag", "hellaswag", "s8k", "HellaSwag-shaped 0-shot, {} questions", (8, 60, 200), (8,)),
    Row("hellaswag-10", "hellaswag", "s8k", "HellaSwag-shaped 10-shot, {} questions", (2, 10, 40), (1, 8), shots=10),
    Row("gsm8k", "gsm8k", "s8k", "GSM8K 8-shot greedy, true answer lengths, {} questions", (4, 24, 64), (8,)),
    Row("gsm8k-apart", "gsm8k-apart", "s8k", "GSM8K, 8 other examples for each of {} questions", (2, 12, 32), (8,)),
    Row("lora", "lora", "s8k", "base + {loras} LoRA, 4 tasks × {}, whole processes", (2, 6, 48)),
    Row("wikitext", "wikitext", "s8k", "WikiText rolling perplexity, window 1024, {} pages", (1, 4, 16)),
    Row("wikitext-128k", "wikitext", "m128k", "WikiText rolling perplexity, window 1024, {} pages", (1, 2, 4)),
    Row("memory", "memory", "m128k", "{} × 1,024 tokens, four letters each", (1, 4, 4), (4,)),
    Row("growth", "growth", "tiny", "{} short questions, ours alone", (1000, 10_000, 10_000)),
    Row("growth-variants", "mmlu", "s8k", "MMLU 5-shot, 4 × {}, 1 … 4 variants, ours alone", (1, 6, 12)),
)
_LORAS = {"quick": 1, "usual": 3, "full": 3}
_SIZES = tuple(_LORAS)


@dataclass(frozen=True)
class Finished:
    """Cost of a process that has ended."""

    wall: float
    cpu: float
    peak_bytes: int


class Bench:
    """One run of the benchmark.

    Args:
        folder: For models, prompts and results.
        size: `quick`, `usual` or `full`.
        threads: Number for each side.
    """

    def __init__(self, folder: Path, size: str, threads: int) -> None:
        self.folder, self.size = folder, size
        self.adapters = [str(folder / f"s8k-lora{number}") for number in range(_LORAS[size])]
        self.peer, self.versions = find_peer()
        self.environment = {
            **os.environ,
            **dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "RAYON_NUM_THREADS"), str(threads)),
            "TOKENIZERS_PARALLELISM": "true" if threads > 1 else "false",
            "HF_HUB_DISABLE_PROGRESS_BARS": "1",
            "HARNESS_HOME": str(folder / "home"),
        }
        self.environment["PYTHONPATH"] = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])

    def count(self, row: Row) -> int:
        """Number of questions at this size."""
        return row.counts[_SIZES.index(self.size)]

    def prepare(self, rows: Sequence[Row]) -> None:
        """Makes the models and writes the prompts."""
        models = sorted({row.model + "+loras" * (row.name in ("lora", "growth-variants")) for row in rows})
        prompts = {
            row.name: {"kind": row.kind, "count": self.count(row), "tokenizer": str(self.folder / row.model)}
            | ({} if row.shots is None else {"shots": row.shots})
            for row in rows
        }
        with found_hub(self.folder, self.environment) as environment:
            for script, arguments in (("models.py", models), ("prompts.py", [json.dumps(prompts)])):
                run_process(
                    [sys.executable, str(HERE / script), str(self.folder), *arguments], environment, self.folder
                )

    def run(self, row: Row) -> Outcome:
        """Runs both sides of a row, ours first; if a process fails, only this row fails."""
        try:
            return self._run_row(row)
        except RuntimeError as error:
            return Outcome(row.name, row.model, row.work, error=str(error))

    def _run_row(self, row: Row) -> Outcome:
        work = row.work.format(f"{self.count(row):,}", loras=len(self.adapters))
        outcome = Outcome(row.name, row.model, work)
        if row.kind == "lora":
            self._whole_processes(row, outcome)
        elif row.name.startswith("growth"):
            outcome.ours = self._side(row, "grow" if row.name == "growth" else "variants")
        else:
            outcome.ours = self._side(row, "score")
            if self.peer:
                outcome.peer = self._side(row, "peer")
                outcome.agreement = agreement(outcome.ours.pop("scores"), outcome.peer.pop("scores"))
        return outcome

    def _side(self, row: Row, do: str) -> dict[str, Any]:
        spec = {
            "do": do,
            "model": str(self.folder / row.model),
            "requests": str(self.folder / f"{row.name}.json"),
            "max_length": WINDOW if row.kind == "wikitext" else CONTEXT,
            "batches": row.batches,
            "adapters": self.adapters,
        }
        files = [self.folder / f"{row.name}.{do}.{name}.json" for name in ("spec", "result")]
        files[0].write_text(json.dumps(spec), encoding="utf-8")
        program = [str(self.peer), HERE / "peer.py"] if do == "peer" else [sys.executable, HERE / "ours.py"]
        process = run_process([*map(str, program), *map(str, files)], self._of(do == "peer"), self.folder)
        result: dict[str, Any] = json.loads(files[1].read_text(encoding="utf-8"))
        trial = sum(result.get("tried", {}).values())
        return {**result, "process": process.wall - trial}

    def _whole_processes(self, row: Row, outcome: Outcome) -> None:
        """Runs one process of ours, and the peer's command once per variant; compares the logged samples one by one."""
        tasks, model = self.folder / row.name, self.folder / row.model
        output = tasks / f"runs-{self.size}-{time.time_ns()}"
        output.mkdir()
        spec = {
            "variants": ["base", *self.adapters],
            "model": str(model),
            "tasks": str(tasks / "subjects.py"),
            "output": str(output / "ours"),
        }
        files = [output / "spec.json", output / "result.json"]
        files[0].write_text(json.dumps(spec), encoding="utf-8")
        ours = run_process([sys.executable, str(HERE / "whole.py"), *map(str, files)], self._of(False), self.folder)
        scores = json.loads(files[1].read_text(encoding="utf-8"))["scores"]
        outcome.ours = {"wall": ours.wall, "cpu": ours.cpu, "peak_bytes": ours.peak_bytes, "process": ours.wall}
        if not self.peer:
            return
        names = sorted(path.stem for path in tasks.glob("*.yaml"))
        each = []
        for number, adapter in enumerate([None, *self.adapters]):
            arguments = f"pretrained={model},dtype=float32" + (f",peft={adapter}" if adapter else "")
            command = ["-m", "lm_eval", "run", "--model", "hf", "--model_args", arguments, "--device", "cpu"]
            command += ["--tasks", ",".join(names), "--include_path", str(tasks), "--batch_size", "1", "--log_samples"]
            command += ["--output_path", str(output / f"peer{number}")]
            each.append(run_process([str(self.peer), *command], self._of(True), self.folder))
        wall, cpu = sum(p.wall for p in each), sum(p.cpu for p in each)
        peak = max(p.peak_bytes for p in each)
        outcome.peer = {"wall": wall, "cpu": cpu, "peak_bytes": peak, "process": wall, "batch": 1}
        outcome.agreement = agreement(scores, _peer_samples(output, names, len(each)))

    def _of(self, peer: bool) -> dict[str, str]:
        environment = dict(self.environment)
        if peer:  # it has its own packages
            del environment["PYTHONPATH"]
        return environment | {"HF_HUB_OFFLINE": "1", "HF_HOME": str(self.folder / "hf")}


def run_process(command: Sequence[str], environment: dict[str, str], folder: Path) -> Finished:
    """Runs a process to its end.

    Raises:
        RuntimeError: It failed; the message is the end of its output.
    """
    output = folder / f"output-{time.monotonic_ns()}.txt"
    began = time.perf_counter()
    with output.open("w") as file:
        process = subprocess.Popen(command, env=environment, stdout=file, stderr=subprocess.STDOUT, cwd=folder)
        _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise RuntimeError(f"{' '.join(command)}\n{output.read_text(errors='replace')[-3000:]}")
    output.unlink()
    return Finished(time.perf_counter() - began, usage.ru_utime + usage.ru_stime, usage.ru_maxrss * 1024)


@contextmanager
def found_hub(folder: Path, environment: dict[str, str]) -> Iterator[dict[str, str]]:
    """The environment for finding datasets: on the Hub, or on its local stand-in."""
    if not os.environ.get("HARNESS_TEST_HUB"):
        yield environment
        return
    command = [sys.executable, str(Path(os.environ["HARNESS_TEST_HUB"]) / "serve"), "--port", "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout is not None
        found = {"HF_ENDPOINT": server.stdout.readline().strip(), "HF_HUB_DISABLE_XET": "1"}
        try:
            yield environment | found | {"HF_HOME": str(folder / "hf"), "HF_HUB_OFFLINE": "0"}
        finally:
            server.terminate()


def find_peer() -> tuple[str | None, dict[str, str]]:
    """Finds an interpreter with lm_eval, and its versions; None if there is none."""
    named = os.environ.get("HARNESS_PEER_PYTHON")
    if not named and importlib.util.find_spec("lm_eval") is None:
        return None, {}
    code = "import importlib.metadata as m; print(*(m.version(n) for n in ('lm_eval', 'torch', 'transformers')))"
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    done = subprocess.run(
        [named or sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise SystemExit(f"HARNESS_PEER_PYTHON={named} has no lm_eval: {done.stderr.strip().splitlines()[-1]}")
    return named or sys.executable, dict(zip(("lm_eval", "torch", "transformers"), done.stdout.split(), strict=True))


def _peer_samples(folder: Path, tasks: Sequence[str], variants: int) -> list[Any]:
    """Scores by variant, task and sample, from the logs of lm_eval."""
    scores = []
    for number in range(variants):
        for task in tasks:
            (path,) = (folder / f"peer{number}").rglob(f"samples_{task}_*.jsonl")
            rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
            for row in sorted(rows, key=lambda row: row["doc_id"]):
                found = [answer[0] for answer in row["resps"]]
                scores.append([[float(ll) for ll, _ in found], [str(greedy) == "True" for _, greedy in found], []])
    return scores


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
        help="a tenth of the questions, to see that it runs",
    )
    size.add_argument(
        "--full", dest="size", action="store_const", const="full", help="the sizes of the published table"
    )
    parser.add_argument("--threads", type=int, default=int(os.environ.get("OMP_NUM_THREADS") or 1))
    batches = "batch size of lm_eval for every row but lora"
    parser.add_argument("--peer-batch", type=lambda text: (int(text),), metavar="N", help=batches)
    parser.add_argument("--folder", type=Path, default=ROOT / "build" / "bench", help="folder where models are kept")
    parser.add_argument("--results", type=Path, help="default: RESULTS.md beside this file; none with --quick")
    options = parser.parse_args(arguments)
    chosen = [replace(row, batches=options.peer_batch or row.batches) for row in ROWS]
    chosen = [row for row in chosen if any(fnmatch.fnmatch(row.name, each) for each in options.rows.split(","))]
    if not chosen:
        parser.error(f"no row is called {options.rows}")
    folder = options.folder.resolve()
    folder.mkdir(parents=True, exist_ok=True)
    bench = Bench(folder, options.size or "usual", options.threads)
    bench.prepare(chosen)
    quick = bench.size == "quick"
    path = options.results or (None if quick else HERE / "RESULTS.md")
    outcomes: list[Outcome] = []
    with ThreadPoolExecutor(
        2 if quick else 1
    ) as pool:  # times do not count with `--quick`, so rows may run in parallel
        for outcome in pool.map(bench.run, chosen):
            print(outcome.line(), flush=True)
            outcomes.append(outcome)
            if path is not None:  # after every row, so that nothing measured is lost
                write_results(path, outcomes, bench.size, options.threads, bench.versions)
    if not bench.peer:
        print(NO_PEER)
    if path is not None:
        print(f"written to {path}")
    failed = [outcome.name for outcome in outcomes if outcome.error]
    assert not failed, f"rows failed: {', '.join(failed)}"
    unequal = [outcome.name for outcome in outcomes if outcome.agreement is not None and not outcome.agreement.equal]
    assert not unequal, f"scores differ: {', '.join(unequal)}"
    return outcomes


if __name__ == "__main__":
    main()
