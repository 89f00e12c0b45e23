"""`method.json` of a stranger names no code: built-in and installed methods, and files that the user named."""

import json
from pathlib import Path
from typing import Any

import pytest

from harness.errors import UserError
from harness.registry.recorded import recorded_method

METHOD = """
from pathlib import Path
from harness import method

Path(__file__).with_name("ran").touch()

@method(lr=1e-4)
def mine(model, *, size: int = 4):
    "Does nothing."
    return model
"""


def record(folder: Path, method: Any, hyperparameters: Any = None) -> Path:
    folder.mkdir(exist_ok=True)
    text = json.dumps({"method": method, "hyperparameters": {} if hyperparameters is None else hyperparameters})
    (folder / "method.json").write_text(text)
    return folder


def a_file(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(METHOD)
    return path


def test_a_built_in_method_is_found_by_name(tmp_path: Path) -> None:
    found = recorded_method(record(tmp_path / "a", "bitfit", {}))
    assert found is not None and found.module == "harness.finetune.bitfit"
    assert recorded_method(tmp_path) is None


def test_a_file_runs_only_if_the_user_named_it(tmp_path: Path) -> None:
    file = a_file(tmp_path / "theirs" / "mine.py")
    folder = record(tmp_path / "theirs", f"{file}@mine", {"size": 3})
    with pytest.raises(UserError, match="only code that you name yourself runs") as refused:
        recorded_method(folder)
    assert refused.value.hint is not None and f"--allow-code {file}" in refused.value.hint
    found = recorded_method(folder, [file])
    assert found is not None and found.path == file and found.hyperparameters == {"size": 3}
    assert not (file.parent / "ran").exists()


def test_a_file_that_was_moved_since_is_found_by_its_name(tmp_path: Path) -> None:
    here = a_file(tmp_path / "here" / "mine.py")
    folder = record(tmp_path / "theirs", "/nowhere/mine.py@mine")
    found = recorded_method(folder, [a_file(tmp_path / "other.py"), here])
    assert found is not None and found.path == here


@pytest.mark.parametrize("name", ["./evil", "evil", "../evil", "evil@mine"])
def test_a_folder_with_python_files_is_no_method(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    a_file(tmp_path / "evil" / "mine.py")
    with pytest.raises(UserError, match="neither built in nor installed"):
        recorded_method(record(tmp_path / "theirs", name))


def test_unknown_or_mistyped_hyperparameters_are_refused(tmp_path: Path) -> None:
    for method, given, message in (
        ("bitfit", {"megatron_core": "evil"}, "does not declare"),
        ("peft", {"type": "LORA", "megatron_config": {}}, "does not declare"),
        ("adapter", {"size": "many"}, "expected a whole number"),
    ):
        with pytest.raises(UserError, match=message):
            recorded_method(record(tmp_path / "a", method, given))


@pytest.mark.parametrize(
    "text", ["[" * 200_000, "[]", '{"method": 3, "hyperparameters": {}}', '{"method": "lora"}', "\ud83d"]
)
def test_a_malformed_record_is_refused(text: str, tmp_path: Path) -> None:
    (tmp_path / "method.json").write_bytes(text.encode("utf-8", "surrogatepass"))
    with pytest.raises(UserError, match="malformed"):
        recorded_method(tmp_path)
