"""Measures everything that needs a GPU, for `GPU.md`: `make gpu`, or `python tests/perf/gpu.py --prepare FOLDER` and later `--inputs FOLDER`.

Prompts and tokenizer are made where the Hub can be reached; the models are random and made on the GPU's machine, which needs no
network. Every step is a process with a time limit of its own, so a failure hides nothing else; steps that no longer fit into
`--minutes` are left out and named. Figures of each finished step are in `gpu.json` at once.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from gpu_page import page

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
ROWS: dict[str, tuple[int, tuple[int, ...]]] = {
    "mmlu": (2048, (8, 16, 32, 64)),
    "gsm8k-shared": (2048, (64,)),
    "gsm8k-own": (2048, (64,)),
    "hellaswag": (2048, (32, 128)),
    "wikitext": (1024, (1, 8)),
}
"""Longest prompt in tokens, and batch sizes that the peer tries."""
COUNTS = {"mmlu": 100, "gsm8k-shared": 256, "gsm8k-own": 128, "hellaswag": 400, "wikitext": 40}
TESTS = (
    "tests/engine/test_engine_on_gpu.py",
    "tests/finetune/training/test_training_on_gpu.py",
    "tests/models/test_measure.py",
)
METHODS = ("lora", "full", "qlora")
STEPS, BATCH = 20, 32
UNIFORM_STEPS, HALF = 4, 256
"""Steps with rows of one length, whose peak `harness plan` predicts, and tokens of prompt and of answer in each."""
_KILL_AFTER = 5


class Session:
    """Runs steps one after the other until the time is over.

    Args:
        inputs: Folder that `prepare` has filled.
        output: For figures and logs.
        work: For models and runs.
        minutes: Time for all steps.
    """

    def __init__(self, inputs: Path, output: Path, work: Path, minutes: float) -> None:
        self.inputs, self.output, self.work = inputs.resolve(), output.resolve(), work.resolve()
        self.ends = time.monotonic() + 60 * minutes
        self.figures: dict[str, Any] = {"machine": machine(), "steps": {}}
        for folder in (self.output, self.work):
            folder.mkdir(parents=True, exist_ok=True)
        self.log = self.output / "log.txt"
        self.log.write_text("", encoding="utf-8")

    def run(self, name: str, limit: float, command: Sequence[str], read: Callable[[], Any] = lambda: None) -> Any:
        """Runs one step as a process; returns what `read` finds after it, None if it failed or was left out."""
        left = self.ends - time.monotonic()
        step: dict[str, Any] = {"status": "left out: no time", "seconds": 0.0}
        self.figures["steps"][name] = step
        found = None
        if left > min(limit, 40) / 2:
            began = time.monotonic()
            status, text = _process(command, min(limit, left), self.work)
            step.update(status=status, seconds=round(time.monotonic() - began, 1))
            with self.log.open("a", encoding="utf-8") as log:
                log.write(f"\n===== {name}: {status}, {step['seconds']} s: {' '.join(command)}\n{text[-12000:]}\n")
            try:
                found = read()
            except (OSError, ValueError, KeyError) as error:
                step["status"] += f"; no result: {type(error).__name__}"
            step["result"] = found
        print(f"{name}: {step['status']}, {step['seconds']} s", flush=True)
        self._save()
        return found

    def side(self, name: str, limit: float, do: str, **spec: Any) -> Any:
        """Runs a function of `gpu_sides.py` as a step."""
        files = [self.work / f"{name}.{kind}.json" for kind in ("spec", "result")]
        files[1].unlink(missing_ok=True)
        files[0].write_text(json.dumps({"do": do, **spec}), encoding="utf-8")
        command = [sys.executable, str(HERE / "gpu_sides.py"), *map(str, files)]
        return self.run(name, limit, command, lambda: json.loads(files[1].read_text(encoding="utf-8")))

    def _save(self) -> None:
        kept = json.dumps(self.figures, default=str)
        (self.output / "gpu.json").write_text(kept, encoding="utf-8")
        (self.output / "GPU.md").write_text(page(json.loads(kept)), encoding="utf-8")

    def compared(self, name: str) -> None:
        """Replaces the scores of a row's two sides by how far they agree."""
        steps = self.figures["steps"]
        sides = [steps.get(f"{name}-{side}", {}).get("result") for side in ("ours", "peer")]
        if all(side and "scores" in side for side in sides):
            steps[f"{name}-ours"]["agreement"] = _agreement(sides[0]["scores"], sides[1]["scores"])
        for side in sides:
            if side:
                side.pop("scores", None)
        self._save()


def steps_of(session: Session, shape: str) -> dict[str, Callable[[], Any]]:
    """All steps for a model of one shape, by name, the most telling first."""
    folder, words = session.work / shape, session.work / f"{shape}-words"
    model = {"model": str(folder)}
    made = model | {"shape": shape, "words": str(words), "tokenizer": str(session.inputs / "tokenizer")}
    mmlu = {"requests": str(session.inputs / "mmlu.json"), "max_length": ROWS["mmlu"][0]}
    found: dict[str, Callable[[], Any]] = {"make": lambda: session.side(f"{shape}-make", 120, "make", **made)}

    def add(name: str, limit: float, do: str, **spec: Any) -> None:
        found[name] = lambda: session.side(f"{shape}-{name}", limit, do, **spec)

    def add_row(row: str) -> None:
        spec = model | {"requests": str(session.inputs / f"{row}.json"), "max_length": ROWS[row][0]}
        add(f"{row}-ours", 120, "score", **spec)
        add(f"{row}-peer", 150, "peer", **spec, batches=ROWS[row][1])

    add("decode", 90, "decode", **model, rows=[1, 32, 256], profiled=32)
    for row in ("mmlu", "gsm8k-shared"):
        add_row(row)
    add("pack", 60, "pack_profile", **model, **mmlu)
    for method in METHODS:
        spec = {"model": str(words), "method": method, "rows": str(session.inputs / "train.json"), "batch": BATCH}
        spec |= {"dtype": "float32" if method == "full" else "bfloat16"}
        add(f"train-{method}-ours", 90, "ours_trains", **spec, steps=STEPS)
        add(f"train-{method}-peer", 90, "trainer_trains", **spec, steps=STEPS)
    for method in METHODS:
        spec = {
            "model": str(words),
            "method": method,
            "rows": str(session.inputs / "train-uniform.json"),
            "batch": BATCH,
        }
        spec |= {"dtype": "float32" if method == "full" else "bfloat16"}
        add(f"peak-{method}", 90, "ours_trains", **spec, steps=UNIFORM_STEPS)
    plan = f"{sys.executable} -m harness plan {' '.join(METHODS)} -m {words} --device cuda --train-batch-size {BATCH}"
    file = session.work / f"{shape}-plan.json"
    plan += f" --max-length {2 * HALF} --format json -q > {file}"
    found["plan"] = lambda: session.run(
        f"{shape}-plan", 90, ["bash", "-c", plan], lambda: json.loads(file.read_text(encoding="utf-8"))
    )
    for row in ("gsm8k-own", "hellaswag", "wikitext"):
        add_row(row)
    add("lora-decode", 90, "decode", **model, rows=[1, 32, 256], lora=True)
    return {f"{shape}-{name}": step for name, step in found.items()}


def _agreement(ours: Sequence[Any], theirs: Sequence[Any]) -> dict[str, Any]:
    """Equal choices and texts of two sides, and the distances of their log-likelihoods: in bf16 these depend on the batch."""
    pairs = list(zip(ours, theirs, strict=True))
    apart = sorted(
        abs(a - b) / max(abs(b), 1e-9) for mine, other in pairs for a, b in zip(mine[0], other[0], strict=True)
    )
    chosen = [_best(mine[0]) == _best(other[0]) for mine, other in pairs if len(mine[0]) > 1]
    texts = [list(mine[2]) == list(other[2]) for mine, other in pairs if mine[2]]
    found: dict[str, Any] = {"median": apart[len(apart) // 2], "largest": apart[-1]} if apart else {}
    found |= {"choices": f"{sum(chosen)}/{len(chosen)}"} if chosen else {}
    return found | ({"texts": f"{sum(texts)}/{len(texts)}"} if texts else {})


def _best(values: Sequence[float]) -> int:
    return max(range(len(values)), key=values.__getitem__)


def correct(session: Session) -> None:
    """Runs at the same time the tests that need a GPU, and the embedded comparison on the GPU and on the CPU."""
    tests = f"{sys.executable} -m pytest -m gpu -q -n 8 -p no:cacheprovider --tb=short "
    tests += " ".join(str(ROOT / test) for test in TESTS)
    compare = f"{sys.executable} -m harness compare base lora qlora full -q"
    runs = {place: session.work / f"demo-{place}" for place in ("cuda", "cuda16", "cpu")}
    script = f"""
export OMP_NUM_THREADS=2
({tests} > tests.txt 2>&1) &
({compare} --device cpu --no-timing -o {runs["cpu"]} > cpu.txt 2>&1) &
{compare} --device cuda --dtype float32 -o {runs["cuda"]}
{compare} --device cuda -o {runs["cuda16"]}
wait
cat cpu.txt; tail -c 9000 tests.txt"""
    session.run("correct", 200, ["bash", "-c", script], lambda: _outcome(session.work / "tests.txt", runs))


def _outcome(tests: Path, runs: dict[str, Path]) -> dict[str, Any]:
    """The last line of the tests, and scores and training figures of each run by variant."""
    lines = tests.read_text(encoding="utf-8", errors="replace").strip().splitlines()
    found: dict[str, Any] = {"tests": lines[-1] if lines else "nothing"}
    for place, folder in runs.items():
        try:
            found[place] = _scores(folder)
        except (OSError, ValueError) as error:
            found[place] = f"no run: {error}"
    return found


def _scores(folder: Path) -> dict[str, Any]:
    """The scores of a run, and its training figures, by variant."""
    (path,) = folder.glob("*/run.json")
    document = json.loads(path.read_text(encoding="utf-8"))
    return {
        variant["name"]: {
            "scores": {score["task"]: score["value"] for score in variant["scores"] or ()},
            "train": {key: (variant["train"] or {}).get(key) for key in ("train_seconds", "final_loss")},
            "status": variant["status"], "error": variant["error"],
        }
        for variant in document["variants"]
    }  # fmt: skip


def machine() -> dict[str, str]:
    """Describes the GPU and the packages."""
    asked = "import json, torch, transformers, peft, bitsandbytes as b; print(json.dumps({'gpu': torch.cuda.get_device_name() if torch.cuda.is_available() else 'none', 'torch': torch.__version__, 'transformers': transformers.__version__, 'peft': peft.__version__, 'bitsandbytes': b.__version__}))"
    done = subprocess.run([sys.executable, "-c", asked], capture_output=True, text=True, check=False)
    commit = (
        os.environ.get("HARNESS_COMMIT")
        or subprocess.run(
            ["git", "-C", str(ROOT), "describe", "--always", "--dirty"], capture_output=True, text=True, check=False
        ).stdout.strip()
    )
    lines = done.stdout.strip().splitlines()
    found: dict[str, str] = json.loads(lines[-1]) if lines else {"error": done.stderr[-2000:]}
    return found | {"commit": commit}


def _process(command: Sequence[str], limit: float, folder: Path) -> tuple[str, str]:
    path = [str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
    environment = os.environ | {
        "PYTHONPATH": os.pathsep.join(path), "HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1", "COLUMNS": "160",
        "HARNESS_HOME": str(folder / "home"), "TOKENIZERS_PARALLELISM": "true",
    }  # fmt: skip
    process = subprocess.Popen(
        command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, cwd=folder,
        start_new_session=True, errors="replace",
    )  # fmt: skip
    try:
        text, _ = process.communicate(timeout=limit)
        return "ok" if process.returncode == 0 else f"exit code {process.returncode}", text
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, 15)
        try:
            text, _ = process.communicate(timeout=_KILL_AFTER)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, 9)
            text, _ = process.communicate()
        return f"stopped after {limit:.0f} s", text


def prepare(folder: Path, small: bool) -> None:
    """Makes tokenizer, prompts and training rows, with the Hub or the folder that HARNESS_TEST_HUB names."""
    from bench import found_hub, run_process
    from training_inputs import lengths, make_rows

    folder.mkdir(parents=True, exist_ok=True)
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])}
    tokenizer = str(folder / "tokenizer")
    counts = {name: 4 if small else count for name, count in COUNTS.items()}
    prompts = {name: {"kind": name, "count": count, "tokenizer": tokenizer} for name, count in counts.items()}
    with found_hub(folder, environment) as found:
        made = "import sys; from pathlib import Path; from models import LARGE, _tokenizer; _tokenizer(Path(sys.argv[1]), LARGE).save_pretrained(sys.argv[2])"
        path = os.pathsep.join([str(HERE), found["PYTHONPATH"]])
        run_process([sys.executable, "-c", made, str(folder), tokenizer], found | {"PYTHONPATH": path}, folder)
        run_process([sys.executable, str(HERE / "prompts.py"), str(folder), json.dumps(prompts)], found, folder)
        os.environ.update({key: found[key] for key in found if key.startswith("HF_")})
        ragged = make_rows(lengths("ragged"), (2 if small else STEPS) * BATCH, 131_072)
    uniform = make_rows(itertools.repeat((HALF, HALF)), UNIFORM_STEPS * BATCH, 131_072)
    for name, rows in (("train", ragged), ("train-uniform", uniform)):
        (folder / f"{name}.json").write_text(json.dumps(rows), encoding="utf-8")
    for leftover in folder.glob("bpe-*.json"):
        leftover.unlink()


def main() -> None:
    """Reads the command line, and prepares or measures."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--prepare", type=Path, metavar="FOLDER", help="make the inputs in this folder, and end")
    parser.add_argument("--inputs", type=Path, default=Path("gpu-inputs"), help="made if it does not exist")
    parser.add_argument("--output", type=Path, default=Path("gpu-results"), help="for GPU.md, gpu.json and log.txt")
    parser.add_argument("--work", type=Path, default=Path("/tmp/harness-gpu"), help="for models and runs")
    parser.add_argument("--shape", default="1b", help="tiny, 1b or 8b, or several: 1b,8b")
    parser.add_argument("--minutes", type=float, default=9.5)
    parser.add_argument(
        "--only",
        default="",
        help="steps to run, in this order, by their names or the beginnings of them: correct,1b-make,1b-gsm8k",
    )
    parser.add_argument("--small", action="store_true", help="prepare a few rows only, to try the program")
    options = parser.parse_args()
    if options.prepare:
        prepare(options.prepare.resolve(), options.small)
        return
    inputs = options.inputs
    if not inputs.is_dir():
        prepare(inputs.resolve(), options.small)
    session = Session(inputs, options.output, options.work, options.minutes)
    steps: dict[str, Callable[[], Any]] = {"correct": lambda: correct(session)}
    for shape in options.shape.split(","):
        steps |= steps_of(session, shape)
    wanted = [name for name in options.only.split(",") if name]
    chosen = [step for each in wanted for step in steps if step == each or step.startswith(f"{each}-")]
    for name in dict.fromkeys(chosen) if wanted else steps:
        steps[name]()
        row, _, side = name.rpartition("-")
        if side == "peer":
            session.compared(row)


if __name__ == "__main__":
    main()
