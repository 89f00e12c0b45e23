"""Weight files: shards, pickles, other formats, and files that are not there."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import tiny_models as tiny
import torch
from transformers import AutoModelForCausalLM

from harness import UserError
from harness.config.parse import configure
from harness.data import gguf
from harness.data.model_files import Snapshot, find_model
from harness.models.load import load_base, load_config
from harness.models.read_back import probe_logits
from harness.prepare.trainings import given_artifact
from harness.tokens.tokenizer import load_tokenizer


def sharded(folder: Path) -> Path:
    model = AutoModelForCausalLM.from_pretrained(tiny.save_tiny(folder))
    (folder / "model.safetensors").unlink()
    model.save_pretrained(folder, max_shard_size="150KB")
    assert len([*folder.glob("model-*-of-*.safetensors")]) > 2
    return folder


def refusal(folder: Path) -> str:
    with pytest.raises(UserError) as caught:
        find_model(str(folder))
    with pytest.raises(UserError) as as_variant:
        given_artifact(configure(["lora"]), str(folder), None)
    assert as_variant.value.message == caught.value.message
    return f"{caught.value.message}; {caught.value.hint}"


def logits(folder: Path) -> torch.Tensor:
    return probe_logits(load_base(tiny.tiny_base(folder)))


def test_shards_load_and_are_digested_whole(tmp_path: Path) -> None:
    folder = sharded(tmp_path / "shards")
    assert logits(find_model(str(folder)).folder).equal(logits(tiny.save_tiny(tmp_path / "plain")))
    last = sorted(folder.glob("model-*"))[-1]
    before = Snapshot("m", folder).digest, Snapshot("m", folder).artifact_digest
    content = last.read_bytes()
    last.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    after = Snapshot("m", folder).digest, Snapshot("m", folder).artifact_digest
    assert before[0] != after[0] and before[1] != after[1]
    last.unlink()
    assert f"lacks the weights `{last.name}`, which model.safetensors.index.json names" in refusal(folder)


@pytest.mark.parametrize(
    ("index", "message"),
    [
        (
            {"metadata": {}, "weight_map": {"w": "../other/model.safetensors"}},
            "names the file `../other/model.safetensors`, which is outside of it",
        ),
        ({"metadata": {}, "weight_map": {"w": "/etc/passwd"}}, "names the file `/etc/passwd`, which is outside of it"),
        ({"weight_map": {"w": "model-00001-of-00001.safetensors"}}, "cannot be used: it has no 'metadata'"),
        ({"metadata": {}}, "cannot be used: it has no 'weight_map'"),
        ({"metadata": {}, "weight_map": {}}, "`weight_map` names no files"),
        ([], "model.safetensors.index.json` is not a JSON object"),
    ],
)
def test_an_index_that_cannot_be_used_is_named(tmp_path: Path, index: Any, message: str) -> None:
    folder = sharded(tmp_path)
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    assert message in refusal(folder)


@pytest.mark.parametrize(
    ("file", "message"),
    [
        ("consolidated.safetensors", "has no model.safetensors, only consolidated.safetensors; rename a file of all"),
        ("model.fp16.safetensors", "has no model.safetensors, only model.fp16.safetensors; rename"),
        ("pytorch_model.bin", "has its weights in `pytorch_model.bin`, a pickled file"),
        ("consolidated.00.pth", "has its weights in `consolidated.00.pth`, a pickled file"),
        ("tf_model.h5", "only tf_model.h5"),
        ("x.gguf", "only x.gguf; give the GGUF file itself: `"),
    ],
)
def test_weights_of_other_names_are_named_with_what_to_do(tmp_path: Path, file: str, message: str) -> None:
    tiny.save_tiny(tmp_path)
    (tmp_path / "model.safetensors").rename(tmp_path / file)
    assert message in refusal(tmp_path)


def test_a_gguf_file_needs_a_transformers_that_reads_its_tokens_rightly(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gguf, "find_spec", lambda name: object())
    monkeypatch.setattr(gguf, "version", lambda name: "5.18.1")
    (tmp_path / "x.gguf").write_bytes(b"GGUF")
    assert "wrong end-of-sequence token from it; pip install 'transformers>=5.19'" in refusal(tmp_path / "x.gguf")


def test_a_pointer_of_git_lfs_is_no_weights(tmp_path: Path) -> None:
    tiny.save_tiny(tmp_path)
    (tmp_path / "model.safetensors").write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n")
    assert "model.safetensors` is a pointer of Git LFS" in refusal(tmp_path)


def test_a_link_to_a_file_that_was_deleted_is_no_weights(tmp_path: Path) -> None:
    tiny.save_tiny(tmp_path)
    (tmp_path / "model.safetensors").unlink()
    (tmp_path / "model.safetensors").symlink_to("nowhere")
    assert "has no weights (model.safetensors)" in refusal(tmp_path)


@pytest.mark.parametrize("content", ["{", "[]"])
def test_a_generation_config_that_cannot_be_read_is_named(tmp_path: Path, content: str) -> None:
    tiny.save_tiny(tmp_path)
    (tmp_path / "generation_config.json").write_text(content)
    with pytest.raises(UserError, match=r"generation_config\.json"):
        find_model(str(tmp_path))


@pytest.mark.parametrize(
    "fields",
    [
        {"num_hidden_layers": "two"},
        {"quantization_config": [1]},
        {"quantization_config": "gptq"},
        {"text_config": [1]},
        {"vocab_size": 0},
        {"num_attention_heads": 0},
        {"rope_parameters": {"rope_type": "yarn", "factor": "x"}},
        {"architectures": {"a": 1}, "model_type": "nothing"},
    ],
)
def test_fields_with_impossible_values_are_user_errors(tmp_path: Path, fields: dict[str, Any]) -> None:
    file = tiny.save_tiny(tmp_path) / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | fields))
    with pytest.raises(UserError, match="cannot be loaded"):
        load_base(tiny.tiny_base(find_model(str(tmp_path)).folder))


def test_an_architecture_written_as_text_is_recognised(tmp_path: Path) -> None:
    file = tiny.save_tiny(tmp_path) / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"architectures": "LlamaForSequenceClassification"}))
    with pytest.raises(UserError, match="is a classifier"):
        find_model(str(tmp_path))


def test_damaged_safetensors_say_what_to_do(tmp_path: Path) -> None:
    file = tiny.save_tiny(tmp_path) / "model.safetensors"
    file.write_bytes(file.read_bytes()[:5000])
    with pytest.raises(UserError, match=r"cannot be loaded: .*header") as caught:
        load_base(tiny.tiny_base(tmp_path))
    assert "download" in str(caught.value.hint)


def test_an_attention_kernel_from_the_hub_is_code(tmp_path: Path) -> None:
    file = tiny.save_tiny(tmp_path) / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"attn_implementation": "somebody/kernel"}))
    base = tiny.tiny_base(find_model(str(tmp_path)).folder)
    with pytest.raises(UserError, match="`somebody/kernel`, code from the Hub"):
        load_config(base)
    assert load_config(replace(base, trust_remote_code=True))._attn_implementation == "somebody/kernel"


def test_an_index_under_another_name_is_read_within_limits(tmp_path: Path) -> None:
    file = tiny.save_tiny(tmp_path) / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"transformers_weights": "w.index.json"}))
    (tmp_path / "w.index.json").write_text("[" * 200_000)
    with pytest.raises(UserError, match="cannot be used: the values are nested too deeply"):
        find_model(str(tmp_path))


def test_a_tokenizer_file_of_a_stranger_is_a_user_error(tmp_path: Path) -> None:
    (tiny.save_tiny(tmp_path) / "tokenizer_config.json").write_text("[" * 200_000)
    with pytest.raises(UserError, match=r"the tokenizer in .* cannot be read"):
        load_tokenizer(tmp_path)
