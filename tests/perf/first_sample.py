"""Times a warm `compare` up to its first scored sample, against imports and weights alone: `python first_sample.py [MODEL] [TASK]`.

The first run trains and fills every cache. Then, in fresh processes and in turn, the same command runs until its first
pack is scored, and the imports of a scoring child and the loading of the weights are timed alone.
"""

import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

REPEATS = 3
MOST = 1.5
"""Largest ratio to aim for."""

COMPARE = """
import sys, time
from pathlib import Path
began = time.perf_counter()
from harness.comparison.receive import Receiver
from harness.comparison.run import RunInProgress
from harness.config.parse import configure
from harness.report.progress import Progress

model, task, folder, fresh = sys.argv[1:]
take = Receiver.take

def first(self, event):
    take(self, event)
    if type(event).__name__ == "Packed":
        print("seconds", time.perf_counter() - began, flush=True)
        raise KeyboardInterrupt

if not fresh:
    Receiver.take = first
train = {"steps": 2}
config = configure(["base", "lora"], model=model, tasks=[task], limit=8, device="cpu", output_dir=Path(folder), train=train)
try:
    with RunInProgress.open(config, Progress(), fresh=True, command="") as comparison:
        comparison.train_all()
        comparison.score_all()
        comparison.conclude()
except KeyboardInterrupt:
    pass
"""
NEEDED = """
import sys, time
from pathlib import Path
began = time.perf_counter()
import peft.tuners.lora, torch, transformers
from harness.jobs import Base
from harness.data.model_files import find_model
from harness.models.load import load_base
load_base(Base(find_model(sys.argv[1]).folder, "cpu", sys.argv[2]))
print("seconds", time.perf_counter() - began)
"""


def seconds(program: str, *arguments: str) -> float:
    """Runs a program and returns the seconds that it prints."""
    done = subprocess.run([sys.executable, "-c", program, *arguments], capture_output=True, text=True, check=True)
    said = [line.split()[1] for line in done.stdout.splitlines() if line.startswith("seconds")]
    return float(said[0]) if said else 0.0


def main(model: str, task: str) -> float:
    """Prints both times and their ratio; medians of several runs in turn."""
    with tempfile.TemporaryDirectory() as folder:
        seconds(COMPARE, model, task, folder, "fresh")
        ours, needed = [], []
        for _ in range(REPEATS):
            ours.append(seconds(COMPARE, model, task, folder, ""))
            needed.append(seconds(NEEDED, model, "float32"))
    ratio = statistics.median(ours) / statistics.median(needed)
    print(f"first sample after {statistics.median(ours):.2f} s: {' '.join(f'{each:.2f}' for each in ours)}")
    print(f"imports and weights {statistics.median(needed):.2f} s: {' '.join(f'{each:.2f}' for each in needed)}")
    print(f"ratio {ratio:.2f}, at most {MOST}")
    return ratio


if __name__ == "__main__":
    began = time.perf_counter()
    main(*(sys.argv[1:] or ["tiny", "mini_mmlu"]))
    print(f"measured in {time.perf_counter() - began:.0f} s, {Path(__file__).name}")
