"""Rows are read from lists, files and the Hub; data that cannot be read are reported with file and line."""

import os
import time
from pathlib import Path
from typing import Any

import pytest

from harness import UserError, hub, packaged
from harness.data import hub as splits
from harness.data.digests import file_sha256
from harness.data.files import File, Folder
from harness.data.sources import provenance, rows, source

ROWS = [{"q": "1 + 1", "a": "2"}, {"q": "Straße 数学", "a": "é"}]


def written(path: Path, content: str | bytes) -> Path:
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("x.jsonl", '{"q": "1 + 1", "a": "2"}\n\n{"q": "Straße 数学", "a": "\\u00e9"}'),
        ("x.jsonl", '\ufeff{"q": "1 + 1", "a": "2"}\r\n{"q": "Straße 数学", "a": "é"}\r\n'),
        ("x.json", '[{"q": "1 + 1", "a": "2"}, {"q": "Straße 数学", "a": "é"}]'),
        ("x.json", '\ufeff{"version": 1, "data": [{"q": "1 + 1", "a": "2"}, {"q": "Straße 数学", "a": "é"}]}'),
        ("x.csv", "q,a\n1 + 1,2\nStraße 数学,é\n"),
        ("x.csv", '\ufeffq,a\r\n"1 + 1","2"\r\nStraße 数学,é'),
        ("x.tsv", "q\ta\n1 + 1\t2\nStraße 数学\té\n"),
    ],
)
def test_every_text_format_gives_the_same_rows(tmp_path: Path, name: str, content: str) -> None:
    assert list(rows(written(tmp_path / name, content))) == ROWS


def test_parquet_gives_the_same_rows(tmp_path: Path) -> None:
    import pyarrow
    import pyarrow.parquet

    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(ROWS), tmp_path / "x.parquet")
    assert list(rows(str(tmp_path / "x.parquet"))) == ROWS


def test_a_text_file_has_one_row_per_line(tmp_path: Path) -> None:
    assert rows(written(tmp_path / "x.txt", "one\r\n\n  two \n")) == [{"text": "one"}, {"text": "  two "}]


def test_a_csv_field_can_have_line_breaks_and_long_documents(tmp_path: Path) -> None:
    long = "x" * 200_000
    assert rows(written(tmp_path / "x.csv", f'q,a\n"a\nb",{long}\n')) == [{"q": "a\nb", "a": long}]


@pytest.mark.parametrize(
    ("name", "content", "expected"),
    [
        ("x.jsonl", "", "has no rows"),
        ("x.jsonl", "\n \n", "has no rows"),
        ("x.csv", "q,a\n", "has no rows"),
        ("x.json", "[]", "has no rows"),
        ("x.jsonl", '{"a": 1}\n{"a": 2}\n{"a": "tru', "line 3 is not JSON: Unterminated string"),
        ("x.jsonl", '{"a": 1}\n[2]\n', "line 2 is not a JSON object but list"),
        ("x.jsonl", '{"a": ' + "9" * 5000 + "}", "line 1 cannot be read"),
        ("x.jsonl", '{"a": ' + "[" * 100_000, "line 1 cannot be read"),
        (
            "x.jsonl",
            '{"a": "fine \\ud83d\\ude00"}\n{"a": "half \\ud83d"}',
            r"line 2 has half of a character \(.ud83d\)",
        ),
        ("x.json", '[{"a": "\\uDE00"}]', "object 0 has half of a character"),
        ("x.json", '[{"a": 1}, {"a"', "is not JSON"),
        ("x.json", '{"a": 1}', "is not a list of JSON objects"),
        ("x.json", "[1, 2]", "is not a list of JSON objects"),
        ("x.csv", "q,a\n1,2\n3\n", "line 3 has 1 field, and the header has 2"),
        ("x.csv", "q,a\n1,2,3\n", "line 2 has 3 fields, and the header has 2"),
        ("x.csv", 'q,a\n1,"2', "line 2 opens a quote that is never closed"),
        ("x.csv", "q,q\n1,2\n", "has the column `q` twice"),
        ("x.csv", "", "has no rows"),
        ("x.jsonl", b'{"a": "\xe9"}', "is not UTF-8"),
        ("x.json", b'[{"a": "\xff"}]', "is not UTF-8"),
        ("x.txt", b"caf\xe9", "is not UTF-8"),
        ("x.parquet", b"PAR1 torn", "is not a complete Parquet file"),
        ("x.parquet", b"", "is not a complete Parquet file"),
        ("x.yaml", "a: 1", "has an unknown format"),
        ("x", "a: 1", "has an unknown format"),
    ],
)
def test_a_file_that_cannot_be_read_is_named_with_the_reason(
    tmp_path: Path, name: str, content: str | bytes, expected: str
) -> None:
    path = written(tmp_path / name, content)
    with pytest.raises(UserError, match=expected) as error:
        rows(path)
    assert str(path) in error.value.message


def test_a_missing_file_suggests_a_similar_name_for_rows_and_digest(tmp_path: Path) -> None:
    written(tmp_path / "train.jsonl", "{}")
    for asked in (source(tmp_path / "trian.jsonl").load, source(tmp_path / "trian.jsonl").digest):
        with pytest.raises(UserError, match="no file") as error:
            asked()
        assert error.value.hint == "did you mean `train.jsonl`?"


@pytest.mark.parametrize("path", ["", "nowhere/x.jsonl", "~nobody-here/x.jsonl", "x" * 5000 + ".jsonl", "a\0b.jsonl"])
def test_odd_paths_are_user_errors(path: str) -> None:
    with pytest.raises(UserError, match="no file"):
        rows(path)


def test_a_path_may_begin_with_a_tilde(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    written(tmp_path / "x.jsonl", '{"a": 1}')
    assert rows("~/x.jsonl") == [{"a": 1}]


def test_a_generator_cannot_be_data_because_it_is_read_more_than_once() -> None:
    for wrong in ((row for row in ROWS), {"a": 1}, None, 7):
        with pytest.raises(UserError, match="`data` cannot be a"):
            source(wrong)  # type: ignore[arg-type]


def test_packaged_files_are_found() -> None:
    assert len(rows(packaged("harness.tiny", "data/mini_text.test.jsonl"))) > 10


def test_a_digest_changes_with_the_rows_and_only_with_them(tmp_path: Path) -> None:
    path = written(tmp_path / "x.jsonl", '{"a": 1}\n')
    before = source(path).digest()
    os.utime(path, (1, 1))
    assert source(path).digest() == before
    written(path, '{"a": 2}\n')
    assert source(path).digest() != before
    assert source([{"a": 1, "b": 2}]).digest() == source([{"b": 2, "a": 1}]).digest()
    assert source([{"a": 1}, {"a": 2}]).digest() != source([{"a": 2}, {"a": 1}]).digest()
    assert source([{"a": "\ud83d"}]).digest() != source([{"a": "\ud83e"}]).digest()


def test_a_large_file_is_hashed_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HARNESS_HOME", str(tmp_path / "home"))
    path = written(tmp_path / "x.bin", b"0" * (1 << 20) + b"1")
    first = file_sha256(path)
    (memory,) = (tmp_path / "home" / "digests").iterdir()
    assert memory.read_text() == first
    memory.write_text("remembered")
    assert file_sha256(path) == "remembered"


def test_without_a_writable_cache_files_are_hashed_each_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HARNESS_HOME", str(written(tmp_path / "file", "in the way")))
    path = written(tmp_path / "x.bin", b"0" * (1 << 21))
    assert file_sha256(path) == file_sha256(path)


@pytest.fixture
def broken_hub(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Replaces `load_dataset` of `datasets` by a function that raises the error set by the test."""
    import datasets

    class Broken:
        error: Exception = RuntimeError()
        calls = 0

        def load(self, *_: Any, **__: Any) -> Any:
            self.calls += 1
            raise self.error

    broken = Broken()
    monkeypatch.setattr(datasets, "load_dataset", broken.load)
    monkeypatch.setattr(splits, "_reachable", lambda: True)
    splits._load_split.cache_clear()
    return broken


@pytest.mark.parametrize(
    ("error", "expected", "hint"),
    [
        (FileNotFoundError("Dataset 'o/n' doesn't exist on the Hub or cannot be accessed."), "o/n:c:test", "check the"),
        (ValueError("BuilderConfig 'c' not found. Available: ['main']"), r"\['main'\]", "configurations listed above"),
        (
            ValueError("Config name is missing.\nPlease pick one: ['main']"),
            r"\['main'\]",
            "configurations listed above",
        ),
        (ValueError("Unknown split \"test\". Should be one of ['train']."), r"\['train'\]", "splits listed above"),
        (ConnectionError("Couldn't reach 'o/n' on the Hub (LocalEntryNotFoundError)"), "reach", "offline?"),
        (PermissionError("401 Client Error"), "401", "ask for access on"),
        (
            FileNotFoundError("Dataset 'o/n' is a gated dataset on the Hub. You must be authenticated to access it."),
            "gated",
            "https://huggingface.co/datasets/o/n, then `hf auth login` or set HF_TOKEN",
        ),
        (RuntimeError("Server error '503 Service Unavailable' for url"), "503", "try again"),
        (OSError(28, "No space left on device"), "No space", "HF_HOME"),
        (ValueError("Repo id must use alphanumeric chars: 'o n'"), "Repo id", "check the owner and the name"),
        (RuntimeError(), "RuntimeError", "or give a local file"),
    ],
)
def test_each_problem_with_the_hub_has_its_own_hint(
    broken_hub: Any, error: Exception, expected: str, hint: str
) -> None:
    broken_hub.error = error
    with pytest.raises(UserError, match=expected) as raised:
        hub("o/n", "c", split="test").load()
    assert raised.value.hint is not None and hint in raised.value.hint


def test_a_split_is_read_once_and_a_failure_is_tried_again(monkeypatch: pytest.MonkeyPatch, broken_hub: Any) -> None:
    import datasets

    for _ in range(2):
        with pytest.raises(UserError):
            hub("o/n").load()
    assert broken_hub.calls == 2
    calls: list[Any] = []
    monkeypatch.setattr(datasets, "load_dataset", lambda *args, **_: calls.append(args) or ROWS)
    assert hub("o/n").load() is hub("o/n").load() and len(calls) == 1
    splits._load_split.cache_clear()


def test_the_first_and_the_second_digest_of_a_split_are_equal(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The cache has the commit only after the first load: a digest computed before it would start another run."""
    import datasets
    from huggingface_hub import constants

    def load(*_: Any, **__: Any) -> Any:
        reference = tmp_path / "datasets--o--n" / "refs" / "main"
        reference.parent.mkdir(parents=True, exist_ok=True)
        reference.write_text("0123")
        return ROWS

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr(datasets, "load_dataset", load)
    splits._load_split.cache_clear()
    assert hub("o/n").digest() == hub("o/n").digest() != hub("o/n", split="test").digest()
    splits._load_split.cache_clear()


def test_a_folder_is_the_concatenation_of_its_files(tmp_path: Path) -> None:
    written(tmp_path / "b.jsonl", '{"a": 2}\n{"a": 3}')
    written(tmp_path / "a.jsonl", '{"a": 1}')
    written(tmp_path / "notes.md", "not data")
    assert [row["a"] for row in rows(str(tmp_path))] == [1, 2, 3]
    before = source(tmp_path).digest()
    (tmp_path / "b.jsonl").rename(tmp_path / "0.jsonl")
    assert source(tmp_path).digest() != before and rows(tmp_path)[0] == {"a": 2}
    written(tmp_path / "c.csv", "a\n4\n")
    with pytest.raises(UserError, match=r"several formats: .csv .jsonl"):
        rows(tmp_path)


def test_the_hint_for_a_folder_of_the_cache_of_datasets_names_a_data_file(tmp_path: Path) -> None:
    for name in ("dataset_info.json", "x-train.arrow"):
        written(tmp_path / name, "{}")
    with pytest.raises(UserError, match="several formats") as error:
        rows(tmp_path)
    assert f"such as `{tmp_path / 'x-train.arrow'}`" in str(error.value.hint)


def test_a_folder_without_data_lists_the_known_formats(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="has no data file") as error:
        rows(tmp_path)
    assert error.value.hint is not None and ".jsonl" in error.value.hint
    (tmp_path / "main").mkdir()
    with pytest.raises(UserError) as error:
        rows(tmp_path)
    assert error.value.hint is not None and f'hub("{tmp_path}"' in error.value.hint


def test_a_parquet_file_that_holds_more_than_it_seems_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import pyarrow
    import pyarrow.parquet

    pyarrow.parquet.write_table(
        pyarrow.table({"q": ["x" * 10_000] * 300}), tmp_path / "x.parquet", use_dictionary=False
    )
    assert len(rows(str(tmp_path / "x.parquet"))) == 300
    monkeypatch.setattr("harness.data.arrow.MOST_BYTES", 2_000_000)
    assert (tmp_path / "x.parquet").stat().st_size < 200_000
    with pytest.raises(UserError, match=r"x.parquet` holds 0 GB of values; at most 0 GB are read"):
        rows(str(tmp_path / "x.parquet"))


def test_a_parquet_file_gives_rows_by_index_and_by_slice(tmp_path: Path) -> None:
    import pyarrow
    import pyarrow.parquet

    wanted = [{"n": n, "nested": {"labels": [n, 0]}, "gap": None if n % 2 else "x"} for n in range(2500)]
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(wanted), tmp_path / "x.parquet")
    found = rows(tmp_path / "x.parquet")
    assert list(found) == wanted and found[-1] == wanted[-1] and list(found[3:5]) == wanted[3:5]
    with pytest.raises(IndexError):
        found[2500]


def test_an_arrow_file_whose_texts_lie_outside_of_it_is_refused(tmp_path: Path) -> None:
    """Reading such a row would end the process (SIGBUS)."""
    import pyarrow

    table = pyarrow.table({"text": ["one", "two", "three"]})
    with pyarrow.ipc.new_file(str(tmp_path / "x.arrow"), table.schema) as writer:
        writer.write_table(table)
    ends = b"".join(end.to_bytes(4, "little") for end in (0, 3, 6, 11))
    content = (tmp_path / "x.arrow").read_bytes()
    assert content.count(ends) == 1
    (tmp_path / "x.arrow").write_bytes(content.replace(ends, ends[:8] + b"\xff\xff\xff\x7f" * 2))
    with pytest.raises(UserError, match=r"`.*x.arrow` is not a complete Arrow file: .*Invalid: "):
        rows(tmp_path / "x.arrow")


def test_a_value_without_a_form_in_python_names_its_row(tmp_path: Path) -> None:
    import pyarrow
    import pyarrow.parquet

    days = pyarrow.array([1, 1 << 50], pyarrow.timestamp("s"))
    pyarrow.parquet.write_table(pyarrow.table({"day": days}), tmp_path / "x.parquet")
    found = rows(tmp_path / "x.parquet")
    assert found[0]["day"].year == 1970
    with pytest.raises(UserError, match=r"^row 2 has a value that cannot be read"):
        found[1]
    with pytest.raises(UserError, match=r"^one of the rows 1 to 2 has a value"):
        list(found)


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("hub:o/n", hub("o/n")),
        ("hub:o/n:main", hub("o/n", "main")),
        ("hub:o/n:main:test", hub("o/n", "main", split="test")),
        ("hub:o/n::test", hub("o/n", split="test")),
        ("hub:o/n:a+b:test@v1.0", hub("o/n", ["a", "b"], split="test", revision="v1.0")),
        ("hub:o/n@0123", hub("o/n", revision="0123")),
    ],
)
def test_a_split_can_be_written_as_text_and_parsed_back(text: str, wanted: splits.Hub) -> None:
    assert source(text) == wanted
    assert source(str(wanted)) == wanted


@pytest.mark.parametrize("text", ["hub:", "hub::main", "hub:o/n:a:b:c", "hub:o/n@", "hub:o/n@v1:main"])
def test_a_malformed_split_shows_the_correct_form(text: str) -> None:
    with pytest.raises(UserError, match="malformed dataset") as error:
        source(text)
    assert error.value.hint is not None and "OWNER/NAME" in error.value.hint


def test_an_empty_list_of_configurations_is_refused() -> None:
    with pytest.raises(UserError, match="list of configurations is empty"):
        hub("o/n", [])


def test_several_configurations_are_distinguished_by_a_column(monkeypatch: pytest.MonkeyPatch) -> None:
    import datasets

    monkeypatch.setattr(splits, "_reachable", lambda: True)
    monkeypatch.setattr(datasets, "load_dataset", lambda repo, name, **_: [{"q": f"{name} 1"}, {"q": f"{name} 2"}])
    both = hub("o/several", ["b", "a"], split="test")
    assert [(row["config"], row["q"]) for row in both.load()] == [
        ("b", "b 1"),
        ("b", "b 2"),
        ("a", "a 1"),
        ("a", "a 2"),
    ]
    assert both.digest() != hub("o/several", ["a", "b"], split="test").digest()


def test_an_unreachable_hub_is_reported_in_seconds(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    import datasets
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path)
    monkeypatch.setattr(time, "sleep", lambda seconds: pytest.fail(f"it waits {seconds} s to try again"))
    with pytest.raises(UserError, match="Couldn't reach 'o/far'") as error:
        hub("o/far", "main", split="test").load()
    assert error.value.hint is not None and "harness data fetch hub:o/far:main:test --to DIR" in error.value.hint
    assert not constants.HF_HUB_OFFLINE and not datasets.config.HF_HUB_OFFLINE


def test_a_commit_is_its_own_revision() -> None:
    sha = "0123456789" * 4
    assert hub("o/n", revision=sha).commit == sha
    assert hub("o/n", revision="no-such-branch").commit is None


def test_provenance_records_the_content_of_a_file(tmp_path: Path) -> None:
    path = written(tmp_path / "x.jsonl", '{"a": 1}')
    assert provenance(path) == f"x.jsonl@sha256:{file_sha256(path)}"
    assert provenance([{"a": 1}]) is None


def test_an_object_with_one_key_twice_is_refused(tmp_path: Path) -> None:
    (tmp_path / "x.jsonl").write_text('{"q": 1}\n{"q": 1, "m": {"a": 1, "a": 2}}\n')
    (tmp_path / "x.json").write_text('[{"q": 1, "q": 2}]')
    with pytest.raises(UserError, match=r"x.jsonl` line 2 cannot be read: an object has the key `a` twice"):
        File(tmp_path / "x.jsonl").load()
    with pytest.raises(UserError, match=r"x.json` cannot be read: an object has the key `q` twice"):
        File(tmp_path / "x.json").load()


@pytest.mark.parametrize("other", ["test", "my_dev", "validation-00000-of-00001"])
def test_a_folder_with_files_of_several_splits_is_refused(tmp_path: Path, other: str) -> None:
    for name in ("train-00000-of-00002", "train-00001-of-00002", "latest"):
        (tmp_path / f"{name}.jsonl").write_text('{"q": 1}\n')
    assert len(Folder(tmp_path).load()) == 3
    (tmp_path / f"{other}.jsonl").write_text('{"q": 2}\n')
    with pytest.raises(UserError, match="files of several splits") as error:
        Folder(tmp_path).load()
    assert "train-00000-of-00002.jsonl" in error.value.hint
