"""A model that cannot be loaded is refused in the first second, with a hint."""

import json
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from harness import UserError
from harness.data.model_files import Snapshot, find_files, find_model


def a_model(folder: Path, without: str = "") -> Path:
    folder.mkdir(parents=True)
    files = {"config.json": '{"model_type": "llama"}', "tokenizer.json": "{}", "model.safetensors": "weights"}
    for name, content in files.items():
        if name != without:
            (folder / name).write_text(content)
    return folder


def an_adapter(folder: Path, **config: Any) -> Path:
    folder.mkdir(parents=True)
    (folder / "adapter_config.json").write_text(json.dumps(config))
    return folder


def test_the_embedded_model_and_a_complete_folder_are_found(tmp_path: Path) -> None:
    assert find_model("tiny").folder.name == "model"
    found = find_model(str(a_model(tmp_path / "m")))
    assert found.config == {"model_type": "llama"} and not found.is_adapter and found.revision is None


@pytest.mark.parametrize(
    ("without", "expected", "hint"),
    [
        ("config.json", "has no config.json", "save_pretrained"),
        ("tokenizer.json", "has no tokenizer", "tokenizer.save_pretrained"),
        ("model.safetensors", "has no weights", "interrupted"),
    ],
)
def test_an_incomplete_model_folder_names_what_is_missing(
    tmp_path: Path, without: str, expected: str, hint: str
) -> None:
    with pytest.raises(UserError, match=expected) as error:
        find_model(str(a_model(tmp_path / "m", without)))
    assert hint in str(error.value.hint)


@pytest.mark.parametrize("content", [b"{", b"[]", b"\xff", b""])
def test_a_broken_config_is_named(tmp_path: Path, content: bytes) -> None:
    folder = a_model(tmp_path / "m")
    (folder / "config.json").write_bytes(content)
    with pytest.raises(UserError, match=r"config\.json"):
        find_model(str(folder))


def test_an_adapter_given_as_the_model_gets_the_correct_command(tmp_path: Path) -> None:
    folder = an_adapter(tmp_path / "a", base_model_name_or_path="Qwen/Qwen3-0.6B")
    with pytest.raises(UserError, match="is an adapter, not a model") as error:
        find_model(str(folder))
    assert "--model Qwen/Qwen3-0.6B" in str(error.value.hint)
    assert find_files(str(folder), "adapter").is_adapter


def test_a_model_with_an_adapter_in_its_folder_is_refused(tmp_path: Path) -> None:
    folder = a_model(tmp_path / "m")
    (folder / "adapter_config.json").write_text("{}")
    with pytest.raises(UserError, match="holds a model and an adapter"):
        find_model(str(folder))


def test_a_misspelt_folder_suggests_a_similar_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    a_model(tmp_path / "my-model")
    for asked in ("./my-modle", "my-modle", str(tmp_path / "my-modle")):
        with pytest.raises(UserError, match="no model at") as error:
            find_model(asked)
        assert error.value.hint == "did you mean `my-model`?"
    with pytest.raises(UserError, match="no model at `gpt2`") as error:
        find_model("gpt2")
    assert "a Hub id such as Qwen/Qwen3-0.6B" in str(error.value.hint)


@pytest.mark.parametrize(
    "name", ["my model/x", "~nobody-here/x", "x" * 5000, "a\0b", "a/b/c", "-/-", "/", "数学/模型", "./"]
)
def test_odd_names_are_user_errors(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError):
        find_model(name)


def test_a_folder_may_have_any_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("数学 模型", "owner/name", "a@b", "v1.0"):
        a_model(tmp_path / name)
        assert find_model(name).folder == tmp_path / name


def test_the_digest_covers_only_the_files_of_the_model(tmp_path: Path) -> None:
    first, second = a_model(tmp_path / "a"), a_model(tmp_path / "b")
    digest = Snapshot("a", first).digest
    (first / "README.md").write_text("a model card")
    (first / "trainer").mkdir()
    assert Snapshot("other name", first).digest == digest == Snapshot("b", second).digest
    (first / "model.safetensors").write_text("Weights")
    assert Snapshot("a", first).digest != digest
    commits = {Snapshot("o/n", first, revision=commit).digest for commit in ("1", "1", "2")}
    assert len(commits) == 2 and digest not in commits


def hub_raises(monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
    import huggingface_hub

    def download(*_: Any, **__: Any) -> str:
        raise error

    monkeypatch.setattr(huggingface_hub, "snapshot_download", download)


def test_each_problem_with_the_hub_has_its_own_message(monkeypatch: pytest.MonkeyPatch) -> None:
    from huggingface_hub import errors

    response: Any = SimpleNamespace(headers={}, request=None)
    for error, expected in {
        errors.GatedRepoError("gated", response=response): "is gated",
        errors.RepositoryNotFoundError("missing", response=response): "on the Hub, and no such folder here",
        errors.RevisionNotFoundError("revision", response=response): "has no revision `r1`",
        errors.LocalEntryNotFoundError("offline"): "the Hub cannot be reached",
        ConnectionError("refused"): "the Hub cannot be reached",
    }.items():
        hub_raises(monkeypatch, error)
        with pytest.raises(UserError, match=expected):
            find_model("owner/name", revision="r1")


def test_a_snapshot_from_the_hub_has_its_commit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import huggingface_hub

    folder = a_model(tmp_path / "c0ffee")
    asked: list[Any] = []
    monkeypatch.setattr(huggingface_hub, "snapshot_download", lambda *args, **_: asked.append(args) or str(folder))
    assert find_model("owner/name").revision == "c0ffee" and asked == [("owner/name",)]


def test_python_files_are_fetched_only_with_permission_and_pickled_weights_never(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import huggingface_hub

    asked: list[list[str]] = []
    folder = a_model(tmp_path / "c0ffee")

    def download(*_: Any, allow_patterns: list[str], **__: Any) -> str:
        asked.append(allow_patterns)
        return str(folder)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", download)
    find_model("owner/name")
    find_model("owner/name", trust_remote_code=True)
    assert ["*.py" in patterns for patterns in asked] == [False, True]
    assert not any("bin" in pattern for patterns in asked for pattern in patterns)


def test_an_endpoint_that_does_not_answer_is_one_fast_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setenv("HF_HOME", str(tmp_path))
    code = "from harness.data.model_files import find_model; find_model('owner/name')"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False)
    assert "UserError: there is no folder `owner/name`, it is not in the cache, and the Hub cannot" in done.stderr


def test_the_digest_of_an_artifact_ignores_paths_records_and_the_order_of_names(tmp_path: Path) -> None:
    """Two equal training runs in two run folders leave adapters that differ in nothing else."""

    def artifact(name: str, rank: int, modules: list[str], weights: bytes = b"w") -> str:
        folder = tmp_path / name
        folder.mkdir()
        settings = {"r": rank, "target_modules": modules, "base_model_name_or_path": name}
        (folder / "adapter_config.json").write_text(json.dumps(settings))
        (folder / "adapter_model.safetensors").write_bytes(weights)
        (folder / "trained.json").write_text(json.dumps({"seconds": name}))
        return Snapshot(name, folder).artifact_digest

    first = artifact("a", 4, ["q_proj", "v_proj"])
    assert artifact("b", 4, ["v_proj", "q_proj"]) == first
    assert len({first, artifact("c", 8, ["q_proj", "v_proj"]), artifact("d", 4, ["q_proj", "v_proj"], b"x")}) == 3
