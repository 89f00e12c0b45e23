"""Large runs: the parent's memory and open files stay flat, the finished run is shown again quickly, its page is small.

Prints what was measured: memory of the parent at the first and last sample and at its peak, seconds of the same command once
more, and bytes of the page.
"""

import threading
import time
from pathlib import Path

import fault_runs as faults
import pytest
from in_process import command

pytestmark = [pytest.mark.slow, pytest.mark.faults]
PAGE_BYTES = 2_000_000
MEGABYTE = 1 << 20
FLAT = 300 * MEGABYTE
"""Most that the parent's memory may rise while samples arrive; 20,000 rows of samples themselves take about 60 MB."""

SUMS = """
from harness import Choose, Task, exact_match, task

@task
def sums():
    rows = [{"a": number % 97, "b": number // 97 % 89} for number in range(20_000)]
    choices = lambda row: [f" {row['a'] + row['b'] + more}" for more in (0, 1)]
    return Task(data=rows, sample=lambda row: Choose(f"{row['a']} + {row['b']} =", choices(row), 0), metrics=["acc"])
"""
LARGE = {
    "20,000 samples": ("base", "--tasks", "./sums.py"),
    "60 variants x 3 tasks": (
        *(f"v{number}=base:system=Be {number}" for number in range(60)),
        *("--tasks", "mini_mmlu,mini_gsm8k,mini_summary", "--limit", "5"),
    ),
    "500 evaluations": (
        *("lora:evaluate_every=1,validation=0.05,steps=500,batch_size=2", "--train-samples", "64"),
        *("--tasks", "mini_mmlu", "--limit", "5"),
    ),
}


class Meter:
    """Memory and open files of the parent, twice a second while samples or steps arrive."""

    def __init__(self, run: faults.Watched) -> None:
        self.memory: list[int] = []
        self.files: list[int] = []
        self._run = run
        self._thread = threading.Thread(target=self._measure, daemon=True)
        self._thread.start()

    def _measure(self) -> None:
        while self._run.process.poll() is None:
            if self._run.stage in ("Train", "Eval"):
                parents = faults.processes(self._run.process.pid)
                parent = next((each for each, of in parents.items() if of == self._run.process.pid), None)
                try:
                    pages = int(Path(f"/proc/{parent}/statm").read_text().split()[1])
                    self.files.append(len(list(Path(f"/proc/{parent}/fd").iterdir())))
                    self.memory.append(pages * 4096)
                except OSError:
                    return
            time.sleep(0.5)


@pytest.mark.parametrize("name", LARGE)
def test_a_large_run_stays_flat(tmp_path: Path, name: str) -> None:
    (tmp_path / "sums.py").write_text(SUMS)
    asked = (*LARGE[name], "--no-timing")
    began = time.monotonic()
    with faults.Watched(tmp_path, *asked) as run:
        meter = Meter(run)
        code = run.process.wait()
    assert code == 0, run.said
    seconds = time.monotonic() - began
    began = time.monotonic()
    code, again, said = faults.finish(tmp_path, *asked)
    resumed = time.monotonic() - began
    assert code == 0 and again is not None, said
    (folder,) = (path.parent for path in (tmp_path / "runs").glob("*/run.json"))
    report = faults.done(tmp_path, *command("report", str(folder), "--to", "html", "--out", str(tmp_path)))
    assert report.returncode == 0, report.stderr
    page = (tmp_path / "report.html").stat().st_size
    first, last, peak = (round(each / MEGABYTE) for each in (meter.memory[0], meter.memory[-1], max(meter.memory)))
    print(
        f"{name}: {seconds:.0f} s; parent {first} MB at first, {last} MB at last, {peak} MB at most;"
        f" {meter.files[0]} files open at first, {max(meter.files)} at most;"
        f" the same command again {resumed:.1f} s; page {page:,} bytes; run.json {(folder / 'run.json').stat().st_size:,} bytes"
    )
    assert max(meter.memory) - meter.memory[0] < FLAT
    assert max(meter.files) - meter.files[0] < 10
    assert page < PAGE_BYTES
