"""Datasets that `datasets` saved to disk, and `.arrow` files."""

import json
from pathlib import Path
from typing import Any

import pytest

from harness import UserError
from harness.data.arrow import ArrowTable
from harness.data.saved import Saved
from harness.data.sources import provenance, rows, source

TURNS = [{"role": "user", "content": "1+1?"}, {"role": "assistant", "content": "two"}]
ROWS = [{"messages": TURNS, "n": n, "gap": None if n % 2 else "x"} for n in range(5)]


def saved_dataset(folder: Path, wanted: list[dict[str, Any]] = ROWS, **options: Any) -> Path:
    import datasets

    datasets.disable_progress_bars()
    datasets.Dataset.from_list(wanted).save_to_disk(folder, **options)
    return folder


def arrow_file(path: Path, *, stream: bool) -> Path:
    import pyarrow

    table = pyarrow.Table.from_pylist(ROWS)
    with (pyarrow.ipc.new_stream if stream else pyarrow.ipc.new_file)(str(path), table.schema) as writer:
        writer.write_table(table)
    return path


@pytest.mark.parametrize("shards", [1, 3])
def test_a_saved_dataset_is_read_in_its_order_from_all_files(tmp_path: Path, shards: int) -> None:
    folder = saved_dataset(tmp_path / "saved", num_shards=shards)
    (folder / "cache-0123.arrow").write_bytes(b"a cache of `datasets`, not rows")
    found = rows(folder)
    assert isinstance(found, ArrowTable)
    assert list(found) == ROWS and found[4] == ROWS[4]


def test_the_digest_of_a_saved_dataset_follows_its_rows(tmp_path: Path) -> None:
    first, again = (saved_dataset(tmp_path / name) for name in "ab")
    other = saved_dataset(tmp_path / "c", ROWS[:4])
    assert source(first).digest() == source(again).digest() != source(other).digest()
    assert provenance(first) == f"a@sha256:{source(first).digest()}"


@pytest.mark.parametrize("splits", [["train", "test"], ["train"], ["only"]])
def test_of_several_splits_train_is_read(tmp_path: Path, splits: list[str]) -> None:
    import datasets

    wanted = {name: datasets.Dataset.from_list(ROWS[place:]) for place, name in enumerate(splits)}
    datasets.DatasetDict(wanted).save_to_disk(tmp_path / "dict")
    assert list(rows(tmp_path / "dict")) == ROWS
    assert source(tmp_path / "dict") == Saved(tmp_path / "dict" / splits[0])
    assert str(source(tmp_path / "dict")) == str(tmp_path / "dict" / splits[0])
    if len(splits) > 1:
        assert list(rows(tmp_path / "dict" / "test")) == ROWS[1:]


def test_splits_without_train_are_named(tmp_path: Path) -> None:
    import datasets

    wanted = {name: datasets.Dataset.from_list(ROWS) for name in ("dev", "test")}
    datasets.DatasetDict(wanted).save_to_disk(tmp_path / "dict")
    with pytest.raises(UserError, match="has the splits dev, test") as error:
        rows(tmp_path / "dict")
    assert error.value.hint == f"name the folder of one split: `{tmp_path}/dict/dev`, `{tmp_path}/dict/test`"


@pytest.mark.parametrize("stream", [True, False])
def test_an_arrow_file_of_either_form_is_read(tmp_path: Path, stream: bool) -> None:
    assert list(rows(arrow_file(tmp_path / "x.arrow", stream=stream))) == ROWS


def test_an_arrow_file_is_mapped_into_memory_and_not_copied(tmp_path: Path) -> None:
    import pyarrow

    path = tmp_path / "x.arrow"
    table = pyarrow.table({"text": ["word " * 200] * 20_000})  # 20 MB
    with pyarrow.ipc.new_stream(str(path), table.schema) as writer:
        writer.write_table(table)
    before = pyarrow.total_allocated_bytes()
    found = rows(path)
    assert found[19_999] == {"text": "word " * 200}
    assert pyarrow.total_allocated_bytes() - before < 1 << 20


@pytest.mark.parametrize("stream", [True, False])
def test_a_truncated_arrow_file_is_refused_by_name(tmp_path: Path, stream: bool) -> None:
    path = arrow_file(tmp_path / "x.arrow", stream=stream)
    whole = path.read_bytes()
    for lost in (200, 8):  # 8 bytes: only the mark at the end of a stream
        path.write_bytes(whole[:-lost])
        with pytest.raises(UserError, match=r"x\.arrow` is not a complete Arrow file"):
            rows(path)


@pytest.mark.parametrize("content", [b"", b"text", b'{"a": 1}\n'])
def test_other_files_named_arrow_are_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "x.arrow").write_bytes(content)
    with pytest.raises(UserError, match=r"x\.arrow` (is not a complete Arrow file|has no rows)"):
        rows(tmp_path / "x.arrow")


@pytest.mark.parametrize(
    ("state", "expected"),
    [
        ("{", "could not read"),
        ("[]", "is not a JSON object"),
        ("{}", "does not list the files"),
        ('{"_data_files": [{"file": "x"}]}', "does not list the files"),
        ('{"_data_files": []}', "has no rows"),
        ('{"_data_files": [{"filename": "gone.arrow"}]}', "names the file `gone.arrow`, which is not in the folder"),
        ('{"_data_files": [{"filename": "../x.arrow"}]}', "which is not in the folder"),
        ('{"_data_files": [{"filename": "x.arrow"}], "_indices_data_files": [{"filename": "i"}]}', "in another order"),
    ],
)
def test_a_broken_state_is_refused_by_name(tmp_path: Path, state: str, expected: str) -> None:
    arrow_file(tmp_path / "x.arrow", stream=True)
    (tmp_path / "saved").mkdir()
    (tmp_path / "saved" / "state.json").write_text(state)
    with pytest.raises(UserError, match=expected) as error:
        rows(tmp_path / "saved")
    assert str(tmp_path / "saved") in error.value.message


def test_columns_that_differ_between_files_are_refused(tmp_path: Path) -> None:
    import pyarrow

    folder = saved_dataset(tmp_path / "saved")
    other = pyarrow.table({"n": ["text"]})
    with pyarrow.ipc.new_stream(str(folder / "more.arrow"), other.schema) as writer:
        writer.write_table(other)
    state = json.loads((folder / "state.json").read_text())
    state["_data_files"].append({"filename": "more.arrow"})
    (folder / "state.json").write_text(json.dumps(state))
    with pytest.raises(UserError, match="have different columns"):
        rows(folder)


def test_json_columns_are_decoded(tmp_path: Path) -> None:
    import datasets

    datasets.disable_progress_bars()
    features = datasets.Features({"tools": datasets.Json()})
    wanted = [{"tools": [{"name": "add"}]}, {"tools": {"name": 1}}]
    datasets.Dataset.from_list(wanted, features=features).save_to_disk(tmp_path / "saved")
    assert list(rows(tmp_path / "saved")) == wanted
