"""Full and read-only disks, and a clock that is set back: one clear error, nothing lost, and the rerun finishes.

The disks are file systems in memory, in a namespace of the command's own. `TRIES` sets the number of sizes (20) of a disk.
"""

import datetime
import json
import os
import random
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import fault_runs as faults
import faulty_hubs as hubs
import pytest
from in_process import command

TRIES = int(os.environ.get("TRIES", "20"))
NAMESPACE = ("unshare", "--map-root-user", "--mount")
SCRIPT = """
mount -t tmpfs -o size=$1 none "$2" || exit 9
[ "$3" = ro ] && mount -o remount,ro "$2"
shift 3
"$@" >first.json 2>first.err; echo $? >first.code
mount -o remount,rw,size=200m "$DISK"
"$@" >second.json 2>second.err; echo $? >second.code
[ -d "$DISK/runs" ] && cp -r "$DISK/runs" .
exit 0
"""
PLACES = {"output": (), "temporary": ("TMPDIR",), "home": ("HARNESS_HOME",)}
FULL = ("the disk is full", "the disk is too full to train", "No space left on device")
STARTS, ENDS = 1_000_000, 2_200_000
"""Bytes with which a training run starts, and with which everything fits."""


def has_namespaces() -> bool:
    if shutil.which("unshare") is None:
        return False
    return subprocess.run([*NAMESPACE, "true"], check=False, capture_output=True).returncode == 0


pytestmark = [
    pytest.mark.slow,
    pytest.mark.faults,
    pytest.mark.skipif(not has_namespaces(), reason="namespaces are not allowed here"),
]


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("whole")
    code, _, said = faults.finish(folder, *faults.ASKED, "--no-timing")
    assert code == 0, said
    return folder


def on_disk(
    folder: Path, size: int, mode: str, asked: Sequence[str], environment: Mapping[str, str]
) -> tuple[int, str]:
    """Compares while `disk` in a folder is small or read-only: exit code and stderr. Then again when it has room."""
    disk = str(folder / "disk")
    done = subprocess.run(
        [*NAMESPACE, "sh", "-c", SCRIPT, "sh", str(size), disk, mode, *command("compare", *asked)],
        cwd=folder,
        env={**os.environ, "DISK": disk, **environment},
        capture_output=True,
        text=True,
        check=False,
        timeout=600,
    )
    assert done.returncode == 0, done.stderr
    return int((folder / "first.code").read_text()), (folder / "first.err").read_text()


def twice(folder: Path, place: str, size: int, mode: str = "rw") -> tuple[int, str]:
    """The usual comparison, with one of the places where it writes on a disk of its own."""
    disk = folder / "disk"
    disk.mkdir(parents=True)
    output = disk / "runs" if place == "output" else folder / "runs"
    asked = (*faults.ASKED, "--no-timing", "--output-dir", str(output), "--format", "json")
    return on_disk(folder, size, mode, asked, dict.fromkeys(PLACES[place], str(disk)))


@pytest.mark.parametrize("place", PLACES)
def test_a_full_disk_is_named_and_the_rerun_finishes(tmp_path: Path, whole: Path, place: str) -> None:
    chance = random.Random(place)
    for number in range(TRIES if place == "output" else 2):
        size = 4096
        if place == "output":
            size = chance.randrange(4096, STARTS) if number % 4 == 0 else chance.randrange(STARTS, ENDS)
        folder = tmp_path / str(number)
        code, said = twice(folder, place, size)
        words = next((line for line in said.splitlines() if line.startswith("error: ")), "")
        print(f"{place} of {size:,} bytes: exit {code}: {words}", flush=True)
        assert "Traceback" not in said, said
        assert code == 0 or (code == 2 and any(each in words for each in FULL)), said
        assert (folder / "second.code").read_text() == "0\n", (folder / "second.err").read_text()
        assert faults.scores(folder) == faults.scores(whole)
        assert faults.samples(folder) == faults.samples(whole)
        assert faults.artifacts(folder) == faults.artifacts(whole)
        assert faults.leftovers(folder) == []


@pytest.mark.hub
def test_a_full_cache_of_the_hub_is_named_and_the_rerun_finishes(tmp_path: Path) -> None:
    """Rows of gsm8k take more than a megabyte in the Hub's cache."""
    with hubs.hub() as address:
        for size in (4096, 300_000, 900_000):
            folder, disk = tmp_path / str(size), tmp_path / str(size) / "disk"
            disk.mkdir(parents=True)
            asked = ("base", "--tasks", "gsm8k", "--limit", "2", "--allow-cut", "--no-timing")
            code, said = on_disk(folder, size, "rw", asked, {**hubs.of(address, folder), "HF_HOME": str(disk)})
            words = next((line for line in said.splitlines() if line.startswith("error: ")), "")
            print(f"cache of the Hub of {size:,} bytes: exit {code}: {words}", flush=True)
            assert code == 0 or (code == 2 and any(each in words for each in FULL)), said
            assert "Traceback" not in said, said
            assert (folder / "second.code").read_text() == "0\n", (folder / "second.err").read_text()


@pytest.mark.parametrize("place", PLACES)
def test_a_read_only_disk_is_named(tmp_path: Path, whole: Path, place: str) -> None:
    folder = tmp_path / place
    code, said = twice(folder, place, 200 << 20, "ro")
    print(f"{place}, read-only: exit {code}: {said[-200:]}")
    assert "Traceback" not in said, said
    assert code == 0 or (code == 2 and "error: could not write" in said), said
    assert (folder / "second.code").read_text() == "0\n", (folder / "second.err").read_text()
    assert faults.scores(folder) == faults.scores(whole)


def test_a_run_of_tomorrow_is_continued(tmp_path: Path, whole: Path) -> None:
    """The clock was set back by a day after a run was killed."""
    with faults.Watched(tmp_path, *faults.ASKED, "--no-timing") as run:
        run.wait_for("Eval")
        os.killpg(run.process.pid, 9)
    (document,) = (tmp_path / "runs").glob("*/run.json")
    content = json.loads(document.read_text())
    day = datetime.timedelta(days=1)
    content["created"] = (datetime.datetime.fromisoformat(content["created"]) + day).isoformat()
    document.write_text(json.dumps(content))
    for path in (tmp_path / "runs").rglob("*"):
        later = path.stat().st_mtime + day.total_seconds()
        os.utime(path, (later, later))
    code, _, said = faults.finish(tmp_path, *faults.ASKED, "--no-timing")
    assert code == 0 and "Traceback" not in said, said
    assert "Reuse" in said, said
    assert faults.scores(tmp_path) == faults.scores(whole)
    assert faults.samples(tmp_path) == faults.samples(whole)
    listed = faults.done(tmp_path, sys.executable, "-m", "harness", "ls", "runs")
    assert listed.returncode == 0 and "Traceback" not in listed.stderr, listed.stderr
