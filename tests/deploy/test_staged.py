"""A staged checkpoint has the weights and settings of a model, and none of its code."""

import json
from pathlib import Path

import pytest

from harness.deploy.staged import stage
from harness.errors import UserError


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps({"model_type": "llama", "auto_map": {"AutoConfig": "c.C"}}))
    (folder / "tokenizer_config.json").write_text(json.dumps({"auto_map": {"AutoTokenizer": ["t.T", None]}, "x": "é"}))
    (folder / "tokenizer.json").write_text('{"model": {}}')
    (folder / "model.safetensors").write_bytes(b"weights")
    (folder / "t.py").write_text("raise SystemExit")
    (folder / "notes.md").write_text("text")
    return folder


def test_code_is_left_out(checkpoint: Path, tmp_path: Path) -> None:
    into = tmp_path / "staged"
    into.mkdir()
    stage(checkpoint, into)
    assert sorted(path.name for path in into.iterdir()) == [
        "config.json",
        "model.safetensors",
        "tokenizer.json",
        "tokenizer_config.json",
    ]
    assert json.loads((into / "config.json").read_text()) == {"model_type": "llama"}
    assert json.loads((into / "tokenizer_config.json").read_text()) == {"x": "é"}
    assert (into / "model.safetensors").read_bytes() == b"weights"


def test_code_that_the_user_trusts_stays(checkpoint: Path, tmp_path: Path) -> None:
    into = tmp_path / "staged"
    into.mkdir()
    stage(checkpoint, into, trust_remote_code=True)
    assert "auto_map" in json.loads((into / "config.json").read_text()) and (into / "t.py").is_file()


def test_damaged_settings_are_one_error(checkpoint: Path, tmp_path: Path) -> None:
    (checkpoint / "config.json").write_text("{")
    into = tmp_path / "staged"
    into.mkdir()
    with pytest.raises(UserError, match="cannot be read"):
        stage(checkpoint, into)
