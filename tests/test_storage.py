"""Files of strangers: a JSON file is bounded, and no name or link leads out of a folder."""

import tracemalloc
from pathlib import Path

import pytest

from harness.data.files import File, Folder
from harness.data.model_files import find_files, require_safetensors
from harness.errors import UserError
from harness.storage import inside, read_json, refuse_links_out


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("[" * 200_000, "nested too deeply"),
        ('{"a":' * 200_000, "nested too deeply"),
        ("[1" + ",1" * 600 + "]", "at most 1,000"),
        ("{", "Expecting property name"),
        ("\ud83d", "utf-8"),
    ],
)
def test_a_json_file_of_a_stranger_is_bounded(text: str, fault: str, tmp_path: Path) -> None:
    (tmp_path / "x.json").write_bytes(text.encode("utf-8", "surrogatepass"))
    with pytest.raises(ValueError, match=fault):
        read_json(tmp_path / "x.json", most=1000 if "," in text else 1 << 24)
    (tmp_path / "x.json").write_text('{"a": [1]}')
    assert read_json(tmp_path / "x.json") == {"a": [1]}


def test_a_name_stays_in_its_folder(tmp_path: Path) -> None:
    folder, other = tmp_path / "folder", tmp_path / "other"
    folder.mkdir()
    other.mkdir()
    (other / "secret").write_text("x")
    (folder / "out").symlink_to("../other/secret")
    (folder / "loop").symlink_to("loop")
    (folder / "sub").symlink_to("../other")
    for name in ("../other/secret", str(other / "secret"), "out", "a/../../other/secret", "loop", "sub/secret", "a\0b"):
        with pytest.raises(UserError, match="outside of it"):
            inside(folder, name)
    (folder / "here").symlink_to("real")
    assert inside(folder, "here") == folder / "here" and inside(folder, "a/b.json") == folder / "a/b.json"


@pytest.mark.parametrize("target", ["../secret.json", "/etc/hostname", ".."])
def test_a_model_folder_with_a_link_out_of_it_is_refused(target: str, tmp_path: Path) -> None:
    (tmp_path / "secret.json").write_text("{}")
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "tokenizer_config.json").symlink_to(target)
    with pytest.raises(UserError, match=r"is a link to .*, outside of the folder"):
        find_files(str(folder), "model")


def test_the_hubs_cache_may_be_made_of_links(tmp_path: Path) -> None:
    folder = tmp_path / "models--a--b" / "snapshots" / "c0ffee"
    blobs = tmp_path / "models--a--b" / "blobs"
    folder.mkdir(parents=True)
    blobs.mkdir()
    (blobs / "123").write_text("{}")
    (folder / "config.json").symlink_to("../../blobs/123")
    refuse_links_out(folder)
    (folder / "other.json").symlink_to("../../../elsewhere")
    with pytest.raises(UserError, match="outside of the folder"):
        refuse_links_out(folder)


def test_a_link_in_a_folder_of_the_folder_is_refused_too(tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("x")
    (tmp_path / "model" / "additional_chat_templates").mkdir(parents=True)
    (tmp_path / "model" / "additional_chat_templates" / "default.jinja").symlink_to("../../secret")
    with pytest.raises(UserError, match=r"default.jinja` is a link to `../../secret`, outside of the folder"):
        refuse_links_out(tmp_path / "model")


def test_an_index_of_weights_names_files_of_its_folder(tmp_path: Path) -> None:
    index = tmp_path / "model.safetensors.index.json"
    index.write_text('{"weight_map": {"a": "model-1.safetensors", "b": "../../other.safetensors"}}')
    with pytest.raises(UserError, match=r"names the file `../../other.safetensors`, which is outside"):
        find_files(str(tmp_path), "model")


@pytest.mark.parametrize("name", ["pytorch_model.bin", "adapter_model.bin", "consolidated.00.pth", "x.pt"])
def test_pickled_weights_are_refused(name: str, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(b"")
    with pytest.raises(UserError, match=f"`{name}`, a pickled file, which can run code"):
        require_safetensors("m", tmp_path)
    (tmp_path / "model.safetensors").write_bytes(b"")
    require_safetensors("m", tmp_path)


def test_a_folder_of_rows_reads_no_link_out_of_it(tmp_path: Path) -> None:
    (tmp_path / "rows").mkdir()
    (tmp_path / "a.jsonl").write_text('{"a": 1}\n')
    (tmp_path / "rows" / "a.jsonl").symlink_to("../a.jsonl")
    with pytest.raises(UserError, match="outside of the folder"):
        Folder(tmp_path / "rows").load()


@pytest.mark.parametrize("name", ["x.jsonl", "x.txt"])
def test_a_line_without_an_end_is_not_read_into_memory(name: str, tmp_path: Path) -> None:
    with (tmp_path / name).open("wb") as file:
        file.write(b'{"a": 1}\n')
        file.truncate(2 << 30)
    tracemalloc.start()
    with pytest.raises(UserError, match="line 2 has 67,108,864 characters or more"):
        File(tmp_path / name).load()
    assert tracemalloc.get_traced_memory()[1] < 300e6
    tracemalloc.stop()


@pytest.mark.parametrize("name", ["x.json", "x.csv", "x.tsv"])
def test_a_file_that_is_read_whole_has_a_largest_size(name: str, tmp_path: Path) -> None:
    with (tmp_path / name).open("wb") as file:
        file.truncate(2 << 30)
    with pytest.raises(UserError, match=r"has 2,147,483,648 bytes; a .* file is read whole, and at most 536,870,912"):
        File(tmp_path / name).load()
