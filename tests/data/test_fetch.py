"""`harness data fetch`: which splits are copied or skipped, and that no network is needed afterwards."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from harness import UserError, hub, rows
from harness.authoring.task_splits import splits_of
from harness.data import fetch
from harness.data.hub import Hub
from harness.data.offline import read_manifest

TASK = """
from harness import Choose, Task, acc, hub, rows, task

@task
def labelled(*, config: str = "main") -> Task:
    labels = sorted({row["label"] for row in rows(hub("o/labels", split="train"))})
    return Task(
        data=hub("o/n", config, split="test"),
        shots_from=hub("o/n", ["a", "b"], split="dev"),
        train=hub("o/n", config, split="test"),
        sample=lambda row: Choose(row["q"], labels, 0),
        metrics=[acc],
    )
"""


class Online:
    """A Hub with two rows in every split, which can raise errors for some splits."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.errors: dict[str, Exception] = {}

    def load(self, split: Hub) -> Any:
        import datasets

        self.asked.append(str(split))
        if str(split) in self.errors:
            raise self.errors[str(split)]
        return datasets.Dataset.from_list([{"q": f"{split} 1", "label": "x"}, {"q": "2 数", "label": "y"}])


@pytest.fixture
def online(monkeypatch: pytest.MonkeyPatch) -> Online:
    made = Online()
    monkeypatch.setattr(fetch, "load_online", made.load)
    monkeypatch.setattr(fetch, "cached_commit", lambda _: "0123456789" * 4)
    return made


SPLITS = [
    hub("o/n", "main", split="test"),
    hub("o/n", split="train[:10%]"),
    hub("o/m", "a", split="dev", revision="v1"),
]


def test_all_splits_that_a_task_reads_are_found(
    online: Online, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("harness.data.hub.load_online", online.load)
    (tmp_path / "x.py").write_text(TASK)
    found = splits_of(str(tmp_path / "x.py"), {"config": "other"})
    assert list(map(str, found)) == [
        "hub:o/n:other:test",
        "hub:o/n:a:dev",
        "hub:o/n:b:dev",
        "hub:o/labels::train",
    ]
    assert splits_of("mini_mmlu") == []
    assert splits_of("hub:o/n:a+b:test") == [hub("o/n", "a", split="test"), hub("o/n", "b", split="test")]


def test_fetched_splits_are_read_and_not_fetched_again(
    online: Online, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = list(fetch.fetch(SPLITS, tmp_path))
    assert [each.new for each in first] == [True] * 3 and len(online.asked) == 3
    assert [each.new for each in fetch.fetch(SPLITS, tmp_path)] == [False] * 3 and len(online.asked) == 3
    monkeypatch.setenv("HARNESS_DATA", str(tmp_path))
    for split in SPLITS:
        assert [row["q"] for row in rows(split)] == [f"{split} 1", "2 数"]
    assert len(online.asked) == 3
    assert len(fetch.verify(tmp_path)) == 3
    assert {file.revision for file in read_manifest(tmp_path)} == {"0123456789" * 4}


def test_the_folder_can_be_loaded_by_datasets(online: Online, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import datasets

    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    list(fetch.fetch(SPLITS, tmp_path))
    loaded = datasets.load_dataset(str(tmp_path / "datasets/o/n"), "main", split="test")
    assert loaded["q"][0] == "hub:o/n:main:test 1"
    assert list(rows(hub(str(tmp_path / "datasets/o/n"), "main", split="test"))) == list(loaded)


def test_objects_with_different_keys_are_read_back_unchanged(
    online: Online, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import datasets

    column = [[{}, {"language": "de"}], [{"n": 1}], []]
    features = datasets.Features({"kwargs": datasets.List(datasets.Json())})
    made = datasets.Dataset.from_dict({"kwargs": column}, features=features)
    monkeypatch.setattr(fetch, "load_online", lambda _: made)
    list(fetch.fetch(SPLITS[:1], tmp_path))
    monkeypatch.setenv("HARNESS_DATA", str(tmp_path))
    assert [row["kwargs"] for row in rows(SPLITS[0])] == column


def test_an_interrupted_fetch_continues_where_it_stopped(online: Online, tmp_path: Path) -> None:
    going = fetch.fetch(SPLITS, tmp_path)
    next(going)
    going.close()
    online.asked.clear()
    assert [each.new for each in fetch.fetch(SPLITS, tmp_path)] == [False, True, True]
    assert str(SPLITS[0]) not in online.asked
    assert not list(tmp_path.rglob(".*.[0-9]*"))


def test_a_changed_file_is_named_and_fetched_again(online: Online, tmp_path: Path) -> None:
    (done,) = fetch.fetch(SPLITS[:1], tmp_path)
    path = tmp_path / done.file.file
    path.write_bytes(path.read_bytes()[:-1] + b"0")
    with pytest.raises(UserError, match="has changed") as error:
        fetch.verify(tmp_path)
    assert str(path) in error.value.message
    assert [each.new for each in fetch.fetch(SPLITS[:1], tmp_path)] == [True]
    fetch.verify(tmp_path)


def test_a_split_that_cannot_be_read_does_not_stop_the_others(online: Online, tmp_path: Path) -> None:
    online.errors[str(SPLITS[0])] = UserError("hub:o/n:main:test is gated", hint="`hf auth login`")
    done = []
    with pytest.raises(UserError, match="gated"):
        for each in fetch.fetch(SPLITS, tmp_path):
            done.append(each.split)
    assert done == SPLITS[1:]


def test_only_the_first_of_many_problems_are_listed(online: Online, tmp_path: Path) -> None:
    missing = [hub("o/n", f"subject{number}", split="test") for number in range(50)]
    online.errors = {str(split): UserError(f"could not read {split}") for split in missing}
    with pytest.raises(UserError, match=r"subject0(.|\n)*… and 45 more") as error:
        list(fetch.fetch(missing, tmp_path))
    assert "subject7" not in error.value.message


def test_a_folder_that_cannot_be_written_is_named(online: Online, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(UserError, match="could not write") as error:
        list(fetch.fetch(SPLITS, tmp_path / "file" / "data"))
    assert error.value.hint is not None and "--to DIR" in error.value.hint


def test_a_full_disk_leaves_nothing_half_written(
    online: Online, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import pyarrow.parquet

    def full(table: Any, file: Any) -> None:
        file.write(b"PAR1")
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(pyarrow.parquet, "write_table", full)
        with pytest.raises(UserError, match="the disk is full"):
            list(fetch.fetch(SPLITS, tmp_path))
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]
    assert len(list(fetch.fetch(SPLITS, tmp_path))) == 3


def command(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    import os

    return subprocess.run(
        [sys.executable, "-m", "harness", "data", "fetch", *arguments],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, **environment},
    )


def test_the_command_reports_what_it_cannot_fetch(tmp_path: Path) -> None:
    nothing = command("mini_mmlu", "--to", str(tmp_path))
    assert nothing.returncode == 0 and "`mini_mmlu` reads nothing from the Hub" in nothing.stderr
    unknown = command("gsm9k", "--to", str(tmp_path))
    assert unknown.returncode == 2 and "did you mean `gsm8k`" in unknown.stderr
    empty = command("--check", "--to", str(tmp_path / "nowhere"))
    assert empty.returncode == 2 and "has no fetched data" in empty.stderr


PREPARE = """
import json, socket, sys
from harness.prepare.prepare import prepare
from harness.config.parse import configure

if sys.argv[2] == "blocked":
    class Blocked(socket.socket):
        def __init__(self, *_, **__):
            raise RuntimeError("no sockets here")
    socket.socket = socket.create_connection = socket.getaddrinfo = Blocked
prepared = prepare(configure(["lora"], tasks=sys.argv[1].split(","), limit=20))
print(json.dumps([prepared.identity, [task.data for task in prepared.tasks]]))
"""


@pytest.mark.hub
def test_fetched_tasks_are_the_same_with_sockets_blocked(hub: str, tmp_path: Path) -> None:
    import os

    def prepared(how: str, **environment: str) -> Any:
        done = subprocess.run(
            [sys.executable, "-c", PREPARE, "gsm8k,mmlu", how],
            capture_output=True,
            text=True,
            check=False,
            env={**os.environ, **environment},
        )
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    fetched = command("gsm8k,mmlu", "--to", str(tmp_path / "data"), "--format", "json")
    assert fetched.returncode == 0, fetched.stderr
    assert {entry["license"] for entry in json.loads(fetched.stdout)} == {"mit"}
    there = {"HARNESS_DATA": str(tmp_path / "data"), "HF_HOME": str(tmp_path / "empty")}
    online = prepared("online")
    assert prepared("blocked", **there) == online
    assert online[1][0].startswith("hub:openai/gsm8k:main:test@0000")
    checked = command("--check", "--to", str(tmp_path / "data"))
    assert checked.returncode == 0 and "all as fetched" in checked.stdout
