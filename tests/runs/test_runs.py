"""The run folder keeps finished work through crashes, full disks and second writers."""

import errno
import json
import os
import resource
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from example_run import example_run

from harness import UserError
from harness.jobs import TRAINED_FILE, Benched, Trained
from harness.runs.folder import RunFolder, SampleLog, list_runs, load_run
from harness.runs.reuse import adopt, delete_weights, find_trained, folder_bytes
from harness.storage import key, slug, write_whole

TRAINED = {
    "train_seconds": 1.5,
    "tokens": 10,
    "steps": 2,
    "samples": 4,
    "final_loss": None,
    "losses": [2.0, 1.0],
    "step_seconds_p50": 0.5,
    "parameters_total": 100,
    "parameters_trainable": 10,
    "truncated": 0,
    "dropped": 0,
    "lost_tokens": 0,
    "checkpointing": False,
    "micro_batch_size": 4,
    "peaks": {},
    "energy_joules": None,
}


def a_run(**fields: Any) -> Any:
    return example_run(**fields)


def a_folder(output: Path, **fields: Any) -> Path:
    """A finished run, closed again."""
    run = a_run(**fields)
    with RunFolder.open(output, "tiny", run.config_sha256, fresh=True) as folder:
        folder.save(run)
        return folder.path


def test_slugs_are_stable_readable_and_distinct() -> None:
    assert slug("lora:rank=16") == "lora-rank-16-de684e"
    odd = ["数学", "", "..", "/", "-", "a" * 5000, "lora@4bit", "lora:4bit", "./x.py@m", "../../etc/passwd", "a b"]
    slugs = [slug(text) for text in odd]
    assert len(set(slugs)) == len(odd) and all(len(each) < 50 for each in slugs)
    assert not any(each[0] in "-." or "/" in each for each in slugs)


def test_a_key_depends_on_every_part_and_not_on_their_order() -> None:
    assert key(a=1, b=[2]) == key(b=[2], a=1) != key(a=1, b=[3])
    assert key(path=Path("x")) == key(path=Path("x"))


def test_rows_are_read_back_as_they_were_appended(tmp_path: Path) -> None:
    log = SampleLog(tmp_path / "samples" / "v" / "t.jsonl")
    assert log.rows() == []
    log.append([{"id": "0", "outputs": ["数\u2028\r\n\0"]}, {"id": "1", "metrics": {"m": float("nan")}}])
    log.append([{"id": "2"}])
    assert [row["id"] for row in log.rows()] == ["0", "1", "2"]
    assert log.rows()[0]["outputs"] == ["数\u2028\r\n\0"]


def test_a_pack_is_appended_in_one_write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    written: list[bytes] = []

    class Recorder:
        def __enter__(self) -> "Recorder":
            return self

        def __exit__(self, *_: object) -> None: ...

        def write(self, content: bytes) -> None:
            written.append(content)

        def flush(self) -> None: ...

        def fileno(self) -> int:
            return 0

    monkeypatch.setattr(Path, "open", lambda *_: Recorder())
    monkeypatch.setattr(os, "fsync", lambda descriptor: written.append(b"synced"))
    SampleLog(tmp_path / "t.jsonl").append([{"id": "0"}, {"id": "1"}])
    assert written == [b'{"id": "0"}\n{"id": "1"}\n', b"synced"]


@pytest.mark.parametrize("torn", [b'{"id": "2"', b'{"id": "2"}', b"\0\0\0\n", b'\xff"\n{"id": "3"}\n', b"[]\n"])
def test_an_incomplete_line_after_a_crash_is_cut_off(tmp_path: Path, torn: bytes) -> None:
    log = SampleLog(tmp_path / "t.jsonl")
    log.append([{"id": "0"}, {"id": "1"}])
    whole = log.path.read_bytes()
    log.path.write_bytes(whole + torn)
    assert [row["id"] for row in log.rows()] == ["0", "1"]
    assert log.path.read_bytes() == whole


def test_keep_cuts_after_the_given_number_of_lines(tmp_path: Path) -> None:
    log = SampleLog(tmp_path / "t.jsonl")
    log.keep(3)
    log.append([{"id": str(n)} for n in range(4)])
    log.keep(9)
    assert len(log.rows()) == 4
    log.keep(2)
    assert [row["id"] for row in log.rows()] == ["0", "1"]
    log.keep(0)
    assert log.path.read_bytes() == b""


def test_a_log_reads_what_was_added_and_starts_again_when_the_file_is_shorter(tmp_path: Path) -> None:
    log, writer = SampleLog(tmp_path / "t.jsonl"), SampleLog(tmp_path / "t.jsonl")
    writer.append([{"id": "0"}, {"id": "1"}])
    first = log.rows()
    writer.append([{"id": "2"}])
    assert [row["id"] for row in log.rows()] == ["0", "1", "2"] and len(first) == 2
    assert log.rows()[0] is first[0], "it was not read again"
    log.keep(1)
    log.append([{"id": "3"}])
    assert [row["id"] for row in log.rows()] == [row["id"] for row in writer.rows()] == ["0", "3"]
    log.path.write_bytes(b'{"id": "4"}\n')
    assert [row["id"] for row in log.rows()] == ["4"]
    log.path.unlink()
    assert log.rows() == []


def test_the_same_identity_continues_the_newest_run(tmp_path: Path) -> None:
    old = a_folder(tmp_path, config_sha256="same", created="2026-01-01T00:00:00+00:00")
    newest = a_folder(tmp_path, config_sha256="same", created="2026-01-02T00:00:00+00:00")
    a_folder(tmp_path, config_sha256="other", created="2026-01-03T00:00:00+00:00")
    assert old != newest
    with RunFolder.open(tmp_path, "tiny", "same") as folder:
        assert folder.path == newest and folder.load() == load_run(newest)


def test_runs_of_the_same_second_are_sorted_by_name(tmp_path: Path) -> None:
    for name in ("x-2", "x", "x-3"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "run.json").write_text(a_run(config_sha256="same").to_json())
    assert [path.name for path, _ in list_runs(tmp_path)] == ["x-3", "x-2", "x"]


def test_fresh_or_another_identity_makes_a_new_run(tmp_path: Path) -> None:
    first = a_folder(tmp_path, config_sha256="same")
    with RunFolder.open(tmp_path, "tiny", "same", fresh=True) as fresh, RunFolder.open(tmp_path, "tiny", "new") as new:
        assert len({first, fresh.path, new.path}) == 3
        assert new.load() is None


def test_a_run_is_named_after_its_model(tmp_path: Path) -> None:
    for model, name in {"Qwen/Qwen3-0.6B": "qwen3-0.6b-", "./模型/": "model-", "..": "model-", "/": "model-"}.items():
        with RunFolder.open(tmp_path, model, model) as folder:
            assert folder.path.parent == tmp_path and folder.path.name.startswith(name)


def test_a_second_writer_is_refused_until_the_first_has_ended(tmp_path: Path) -> None:
    path = a_folder(tmp_path, config_sha256="same")
    holder = "from harness.runs.folder import RunFolder; from pathlib import Path; import sys; "
    holder += "folder = RunFolder.open(Path(sys.argv[1]), 'tiny', 'same'); print(folder.path, flush=True); input()"
    with subprocess.Popen(
        [sys.executable, "-c", holder, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline().strip() == str(path)
        with pytest.raises(UserError, match="another process is writing") as error:
            RunFolder.open(tmp_path, "tiny", "same")
        assert "--fresh" in str(error.value.hint)
        process.communicate("\n", timeout=30)
    with RunFolder.open(tmp_path, "tiny", "same") as folder:
        assert folder.path == path


def test_a_child_that_inherits_the_lock_keeps_it(tmp_path: Path) -> None:
    a_folder(tmp_path, config_sha256="same")
    with RunFolder.open(tmp_path, "tiny", "same") as folder:
        command = [sys.executable, "-c", "print('up', flush=True); input()"]
        child = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, pass_fds=[folder.lock]
        )
    with child:
        assert child.stdout is not None and child.stdout.readline() == "up\n"
        with pytest.raises(UserError, match="another process is writing"):
            RunFolder.open(tmp_path, "tiny", "same")
        child.communicate("\n", timeout=30)


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT])
def test_a_full_disk_is_a_user_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int) -> None:
    def full(descriptor: int) -> None:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(os, "fsync", full)
    for write in (lambda: SampleLog(tmp_path / "t.jsonl").append([{}]), lambda: write_whole(tmp_path / "x", "y")):
        with pytest.raises(UserError, match="the disk is full") as error:
            write()
        assert "free some space" in str(error.value.hint)


def test_a_full_file_system_loses_only_the_incomplete_pack(tmp_path: Path) -> None:
    """A limit on file size simulates the full disk: the write of the second pack stops in the middle."""
    log = SampleLog(tmp_path / "t.jsonl")
    log.append([{"id": "0"}])
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (40, hard))
    try:
        with pytest.raises(UserError, match="could not write"):
            log.append([{"id": str(n)} for n in range(1, 9)])
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert log.path.stat().st_size == 40
    rows = log.rows()
    assert [row["id"] for row in rows] == [str(n) for n in range(len(rows))] and 1 <= len(rows) < 9


def test_an_output_folder_that_cannot_be_written_is_a_user_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    for output in (tmp_path / "file", tmp_path / "file" / "runs", Path("/proc/runs"), tmp_path / ("x" * 300)):
        with pytest.raises(UserError, match="could not write") as error:
            RunFolder.open(output, "tiny", "same")
        assert "--output-dir" in str(error.value.hint)


def test_results_are_written_completely_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_whole(tmp_path / "run.json", "old")
    monkeypatch.setattr(os, "fsync", lambda descriptor: (_ for _ in ()).throw(OSError(errno.ENOSPC, "full")))
    with pytest.raises(UserError):
        write_whole(tmp_path / "run.json", "new")
    assert (tmp_path / "run.json").read_text() == "old"


def test_results_are_read_back_equal(tmp_path: Path) -> None:
    run = a_run()
    folder = a_folder(tmp_path)
    assert load_run(folder) == load_run(folder / "run.json") == run


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b'{"schema": 2}', "has schema 2, but this version of harness reads schema 1"),
        (b"{}", "has schema None, but this version of harness reads schema 1"),
        (b'{"schema": 1}', "is not the results of a run"),
        (b'{"schema": 1, "har', "is not the results of a run"),
        (b"[]", "is not the results of a run"),
        (b"\xff\xfe", "is not the results of a run"),
        (b"", "is not the results of a run"),
    ],
)
def test_a_file_that_is_not_a_run_of_this_schema_is_reported(tmp_path: Path, content: bytes, expected: str) -> None:
    folder = tmp_path / "run"
    folder.mkdir()
    (folder / "run.json").write_bytes(content)
    with pytest.raises(UserError, match=expected):
        load_run(folder)
    assert list_runs(tmp_path) == []


def test_a_misspelt_run_suggests_existing_runs(tmp_path: Path) -> None:
    name = a_folder(tmp_path).name
    for asked in (tmp_path / (name + "x"), tmp_path):
        with pytest.raises(UserError, match="no run at") as error:
            load_run(asked)
        assert name in str(error.value.hint)
    with pytest.raises(UserError, match="no run at"):
        load_run(tmp_path / "no" / "where")


def trained(folder: Path, train_key: str, **fields: Any) -> Path:
    folder.mkdir(parents=True)
    (folder / "weights.safetensors").write_text(train_key)
    (folder / TRAINED_FILE).write_text(json.dumps({"train_key": train_key, "trained": {**TRAINED, **fields}}))
    return folder


def test_a_trained_artifact_is_found_by_its_key_in_any_run(tmp_path: Path) -> None:
    trained(tmp_path / "one" / "adapters" / "lora", "k1")
    there = trained(tmp_path / "two" / "checkpoints" / "full", "k2")
    trained(tmp_path / "two" / "adapters" / "qlora.partial", "k3")
    found = find_trained(tmp_path, "k2")
    assert found is not None and found[0] == there and isinstance(found[1], Trained) and found[1].steps == 2
    assert find_trained(tmp_path, "k3") is None and find_trained(tmp_path / "nowhere", "k1") is None


def test_records_of_other_versions_and_incomplete_ones_are_skipped(tmp_path: Path) -> None:
    trained(tmp_path / "new" / "adapters" / "lora", "k", a_field_of_tomorrow=1)
    for number, content in enumerate((b"{", b"[]", b"\xff", b'{"trained": {}}')):
        trained(tmp_path / f"bad{number}" / "adapters" / "lora", "k")
        (tmp_path / f"bad{number}" / "adapters" / "lora" / TRAINED_FILE).write_bytes(content)
    assert find_trained(tmp_path, "k") is None
    there = trained(tmp_path / "good" / "adapters" / "lora", "k")
    os.utime(there / TRAINED_FILE, (1, 1))
    found = find_trained(tmp_path, "k")
    assert found is not None and found[0] == there


def test_an_adopted_artifact_outlives_the_run_it_came_from(tmp_path: Path) -> None:
    there = trained(tmp_path / "one" / "adapters" / "lora", "k1")
    here = tmp_path / "two" / "adapters" / "lora"
    adopt(there, here)
    (there / "weights.safetensors").unlink()
    assert (here / "weights.safetensors").read_text() == "k1"
    adopt(here, here)
    adopt(trained(tmp_path / "three" / "adapters" / "lora", "k3"), here)
    assert (here / "weights.safetensors").read_text() == "k3"
    assert [path.name for path in here.parent.iterdir()] == ["lora"]


def test_a_record_deleted_during_the_search_is_skipped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    gone = trained(tmp_path / "one" / "adapters" / "lora", "k1") / TRAINED_FILE
    there = trained(tmp_path / "two" / "adapters" / "lora", "k2")
    stat = Path.stat

    def removed(path: Path, **options: Any) -> os.stat_result:
        if path == gone:
            gone.unlink(missing_ok=True)
        return stat(path, **options)

    monkeypatch.setattr(Path, "stat", removed)
    found = find_trained(tmp_path, "k2")
    assert found is not None and found[0] == there and not gone.exists()


def test_deleting_weights_keeps_the_figures(tmp_path: Path) -> None:
    lost = trained(tmp_path / "one" / "adapters" / "lora", "k1")
    delete_weights(lost)
    assert [path.name for path in lost.iterdir()] == [TRAINED_FILE]
    assert find_trained(tmp_path, "k1") is None
    found = find_trained(tmp_path, "k1", figures_only=True)
    assert found is not None and found[0] == lost


def test_an_artifact_deleted_at_the_same_time_is_not_adopted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    there = trained(tmp_path / "one" / "adapters" / "lora", "k1")
    (there / "a.txt").write_text("")
    here = tmp_path / "two" / "adapters" / "lora"
    link = os.link

    def thrown(source: Any, target: Any, **options: Any) -> None:
        if list(there.glob("*.safetensors")):
            delete_weights(there)
        link(source, target, **options)

    monkeypatch.setattr(os, "link", thrown)
    assert not adopt(there, here)
    assert list(here.parent.iterdir()) == []
    assert not adopt(tmp_path / "nowhere", here)


def test_without_hard_links_an_artifact_is_copied(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*_: Any, **__: Any) -> None:
        raise OSError(errno.EXDEV, "another disk")

    monkeypatch.setattr(os, "link", refused)
    assert adopt(trained(tmp_path / "one", "k1"), tmp_path / "two")
    assert (tmp_path / "two" / "weights.safetensors").read_text() == "k1"


def test_a_timing_is_read_back_under_its_key_alone(tmp_path: Path) -> None:
    with RunFolder.open(tmp_path, "tiny", "same") as folder:
        benched = Benched(1.0, 8, 4, (0.1,), (0.2,), (), (), ((1, 5.0),), 0.0, 1, 1, {"peak_rss_bytes": 3})
        folder.costs("lora", "k1").write(benched)
        again = folder.costs("lora", "k1").read()
        assert again is not None and again.prefill_seconds == [0.1] and again.peaks == {"peak_rss_bytes": 3}
        assert folder.costs("lora", "k2").read() is None and folder.costs("base", "k1").read() is None


def test_a_childs_traceback_is_saved(tmp_path: Path) -> None:
    with RunFolder.open(tmp_path, "tiny", "same") as folder:
        folder.log_failure("train-lora", "Traceback …")
        assert [path.read_text() for path in folder.path.glob("train/*.error.txt")] == ["Traceback …"]


def test_the_size_of_an_artifact_excludes_our_record(tmp_path: Path) -> None:
    assert folder_bytes(trained(tmp_path / "a", "four")) == 4


def test_folders_of_starts_that_were_killed_are_removed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("harness.runs.folder._STARTED_SECONDS", -1.0)
    for name, files in {"killed": [".lock"], "kept": [".lock", "run.json"], "foreign": ["notes.txt"]}.items():
        (tmp_path / name).mkdir()
        for file in files:
            (tmp_path / name / file).touch()
    with RunFolder.open(tmp_path, "tiny", "a") as first, RunFolder.open(tmp_path, "tiny", "b") as second:
        assert {path.name for path in tmp_path.iterdir()} == {"kept", "foreign", first.path.name, second.path.name}


def test_what_a_killed_process_was_writing_is_deleted_when_its_run_is_opened_again(tmp_path: Path) -> None:
    with RunFolder.open(tmp_path, "tiny", "sha") as folder:
        folder.save(example_run().model_copy(update={"config_sha256": "sha"}))
        kept, left = folder.path / "samples" / ".notes.2b", folder.path / "samples" / ".a.jsonl.123"
        kept.parent.mkdir()
        for path in (kept, left, folder.path / ".run.json.4567"):
            path.write_text("{")
    with RunFolder.open(tmp_path, "tiny", "sha") as again:
        hidden = [path.name for path in again.path.rglob(".*") if path.name != ".lock"]
        assert (again.path, hidden) == (folder.path, [".notes.2b"])
