"""Fetched copies are read as `datasets` reads them, and missing splits are reported before anything runs."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from harness import UserError, hub, rows
from harness.data.digests import file_sha256
from harness.data.sources import provenance

ROWS = [
    {"q": " a \n“b”", "targets": {"choices": ["x", "ÿ"], "labels": [1, 0]}, "kwargs": [{"n": 1}, {"s": "t"}]},
    {"q": "数学", "targets": {"choices": [], "labels": []}, "kwargs": [], "day": "2024-01-01"},
]
BUILD = Path(__file__).parents[1] / "hub" / "build_manifest.py"


@pytest.fixture
def copies(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of copies with the split `test` of two configurations, and one without a configuration's name."""
    folder = tmp_path / "copies"
    monkeypatch.setenv("HARNESS_DATA", str(folder))
    for config in ("one", "two", "default"):
        file = folder / "datasets" / "o" / ("alone" if config == "default" else "n") / config / "test.jsonl"
        file.parent.mkdir(parents=True)
        file.write_text("".join(json.dumps({**row, "of": config}) + "\n" for row in ROWS))
    write_manifest(folder)
    return folder


def write_manifest(folder: Path, **fields: Any) -> None:
    entries = [
        {
            "repo": "/".join(file.parts[-4:-2]),
            "config": None if file.parts[-2] == "default" else file.parts[-2],
            "split": "test",
            "file": str(file.relative_to(folder)),
            "rows": len(ROWS),
            "sha256": file_sha256(file),
            "revision": None,
            **fields,
        }
        for file in sorted(folder.rglob("*.jsonl"))
    ]
    (folder / "manifest.json").write_text(json.dumps(entries))


def test_rows_equal_those_of_datasets(copies: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    import datasets

    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path)
    ours = list(rows(hub("o/n", "one", split="test")))
    file = copies / "datasets/o/n/one/test.jsonl"
    theirs = list(datasets.load_dataset("json", data_files={"test": str(file)}, split="test"))
    days = [row.pop("day") for row in theirs], [row.pop("day") for row in ours]
    assert ours == theirs
    assert days[1] == [None, "2024-01-01"]  # text stays text, but the library converts it to a time


def test_one_several_and_no_configurations_are_found(copies: Path) -> None:
    assert [row["of"] for row in rows(hub("o/n", ["two", "one"], split="test"))] == ["two", "two", "one", "one"]
    assert [row["config"] for row in rows(hub("o/n", ["two", "one"], split="test"))] == ["two", "two", "one", "one"]
    for name in (None, "default"):
        assert rows(hub("o/alone", name, split="test"))[0]["of"] == "default"


def test_a_single_configuration_needs_no_name(copies: Path) -> None:
    (copies / "datasets/o/n/two/test.jsonl").unlink()
    write_manifest(copies)
    assert rows(hub("o/n", split="test"))[0]["of"] == "one"


def test_a_split_missing_from_the_folder_is_reported_with_the_command_that_fetches_it(copies: Path) -> None:
    for lacking in (
        hub("o/n", "three", split="test"),
        hub("o/n", "one", split="train"),
        hub("x/y", split="test"),
        hub("o/n", split="test"),
        hub("o/n", "one", split="test", revision="v2"),
    ):
        with pytest.raises(UserError, match="is not in") as error:
            lacking.load()
        assert error.value.hint is not None and f"harness data fetch {lacking} --to {copies}" in error.value.hint


def test_a_run_without_its_data_fails_before_anything_is_loaded_or_written(copies: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "harness", "compare", "base", "lora", "--tasks", "gsm8k"],
        capture_output=True,
        text=True,
        check=False,
        cwd=copies,
    )
    assert done.returncode == 2 and not (copies / "runs").exists()
    assert f"error: hub:openai/gsm8k:main:test is not in `{copies}` (HARNESS_DATA)" in done.stderr
    assert f"harness data fetch hub:openai/gsm8k:main:test --to {copies}" in done.stderr


def test_a_changed_file_is_named(copies: Path) -> None:
    file = copies / "datasets/o/n/one/test.jsonl"
    file.write_text(file.read_text().replace("x", "y"))
    with pytest.raises(UserError, match="has changed") as error:
        rows(hub("o/n", "one", split="test"))
    assert str(file) in error.value.message
    file.unlink()
    with pytest.raises(UserError, match="is missing"):
        rows(hub("o/n", "one", split="test"))


@pytest.mark.parametrize(
    ("manifest", "expected"),
    [
        (None, "has no fetched data"),
        ("[", "could not read"),
        ('{"a": 1}', "could not read"),
        ('[{"repo": "o/n"}]', "could not read"),
        (
            '[{"repo": "o/n", "config": "one", "split": "test", "file": "../../x", "rows": 1, "sha256": "", "revision": null}]',
            "outside of it",
        ),
    ],
)
def test_a_broken_manifest_is_named(copies: Path, manifest: str | None, expected: str) -> None:
    (copies / "manifest.json").unlink()
    if manifest is not None:
        (copies / "manifest.json").write_text(manifest)
    with pytest.raises(UserError, match=expected):
        rows(hub("o/n", "one", split="test"))


def test_a_copy_of_a_commit_has_the_digest_of_that_commit(copies: Path) -> None:
    made_up = hub("o/n", "one", split="test").digest()
    write_manifest(copies, revision="0123456789" * 4)
    of_commit = hub("o/n", "one", split="test")
    assert of_commit.digest() != made_up
    assert provenance(of_commit) == "hub:o/n:one:test@" + "0123456789" * 4
    assert rows(hub("o/n", "one", split="test", revision="0123456789"))[0]["of"] == "one"


def test_without_the_variable_the_home_folder_is_searched_first(
    copies: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.delenv("HARNESS_DATA")
    monkeypatch.setenv("HARNESS_HOME", str(tmp_path))
    copies.rename(tmp_path / "data")
    assert rows(hub("o/n", "one", split="test"))[0]["of"] == "one"
    assert hub("o/n", "three", split="test").copy is None  # so the Hub may be used


def test_the_manifest_of_the_made_up_rows_is_up_to_date() -> None:
    import runpy

    build = runpy.run_path(str(BUILD))
    assert json.loads((BUILD.parent / "manifest.json").read_text()) == build["manifest"](), f"run python {BUILD}"
