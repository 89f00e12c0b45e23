"""The cache of converted models: made once, whole or not at all, and the oldest entries that nobody uses are removed."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from harness.deploy import kept
from harness.deploy.kept import KeptEntry, deployed_folder, is_deployed, read_deployed, remove_oldest, write_record
from harness.errors import UserError
from harness.jobs import Deployed
from harness.storage import partial


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("HARNESS_HOME", str(tmp_path))
    return tmp_path


def fill(folder: Path, size: int = 1000) -> None:
    folder.mkdir(parents=True)
    (folder / "w").write_bytes(b"0" * size)


def entry(name: str, used: float) -> Path:
    made = KeptEntry(deployed_folder(name))
    made.hold(lambda: fill(made.folder))
    made.close()
    os.utime(made.folder.with_name(made.folder.name + ".lock"), (used, used))
    return made.folder


def test_the_oldest_unused_entries_go_first(monkeypatch: pytest.MonkeyPatch) -> None:
    old, used, new = entry("a" * 32, 1), entry("b" * 32, 2), entry("c" * 32, 3)
    fill(kept.home() / "gguf" / "m-123" / "float32")  # of an earlier version: it has no lock file
    os.utime(kept.home() / "gguf" / "m-123" / "float32", (4, 4))
    holder = KeptEntry(used)
    holder.hold(lambda: pytest.fail("it is there"))
    os.utime(used.with_name(used.name + ".lock"), (2, 2))
    monkeypatch.setenv(kept.VARIABLE, "0.000003")
    assert remove_oldest() == [old] and used.is_dir() and new.is_dir()
    monkeypatch.setenv(kept.VARIABLE, "0")
    assert remove_oldest() == [new, kept.home() / "gguf" / "m-123" / "float32"] and used.is_dir()
    holder.close()
    assert remove_oldest() == [used] and remove_oldest() == []


def test_an_interrupted_conversion_leaves_nothing() -> None:
    folder = deployed_folder("d" * 32)

    def interrupted() -> None:
        fill(partial(folder))
        raise KeyboardInterrupt

    made = KeptEntry(folder)
    with pytest.raises(KeyboardInterrupt):
        made.hold(interrupted)
    assert not folder.exists() and not partial(folder).exists()
    made.close()
    fill(partial(folder))  # of a process that was killed
    remove_oldest()
    assert not partial(folder).exists()


def test_two_processes_make_it_once(home: Path) -> None:
    program = """
import sys, time
from pathlib import Path
from harness.deploy.kept import KeptEntry, deployed_folder
entry = KeptEntry(deployed_folder("e" * 32))
def make():
    print("makes", flush=True)
    time.sleep(0.3)
    entry.folder.mkdir()
entry.hold(make)
"""
    started = [
        subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True, env={**os.environ})
        for _ in range(2)
    ]
    assert sorted(each.communicate()[0] for each in started) == ["", "makes\n"]
    assert all(each.returncode == 0 for each in started)


def test_records_name_their_weights(tmp_path: Path) -> None:
    folder = deployed_folder("f" * 32)
    fill(folder)
    made = Deployed(folder / "w", 1000, ("a note",))
    write_record(folder, made)
    assert read_deployed(folder) == made and is_deployed(made.weights) and not is_deployed(tmp_path / "x")
    (folder / "made.json").write_text("{")
    with pytest.raises(UserError, match="is damaged"):
        read_deployed(folder)


def test_a_limit_that_is_no_number_is_one_error(monkeypatch: pytest.MonkeyPatch) -> None:
    for wrong in ("much", "-1", "nan"):
        monkeypatch.setenv(kept.VARIABLE, wrong)
        with pytest.raises(UserError, match="HARNESS_CACHE_GB is"):
            remove_oldest()
