"""GGUF files: unpacked once to a plain checkpoint with the same weights and tokenizer, then trained, merged and planned."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import in_process
import pytest
import stages
import tiny_models as tiny
import torch
from gguf_files import write_gguf
from transformers import AutoModelForCausalLM, AutoTokenizer

from harness.comparison import memory_plan
from harness.config.parse import configure
from harness.config.variant_sources import find_source
from harness.data import gguf as gguf_module
from harness.data.gguf import plain_copy
from harness.data.model_files import find_model
from harness.errors import UserError
from harness.jobs import MergeJob, Recipe
from harness.models.load import load_base
from harness.models.read_back import probe_logits
from harness.prepare.trainings import given_artifact
from harness.tokens.description import describe_folder
from harness.tokens.encode import load_encoder
from harness.worker import child

pytest.importorskip("transformers", "5.19")

TEMPLATE = "{% for m in messages %}<s>{{ m['content'] }}</s>{% endfor %}"


@pytest.fixture
def plain(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("HARNESS_HOME", str(tmp_path / "home"))
    return tiny.save_tiny(tmp_path / "plain")


@pytest.fixture
def file(plain: Path, tmp_path: Path) -> Path:
    pytest.importorskip("gguf", reason="the package gguf is not installed: pip install 'finetune-harness[gguf]'")
    model = AutoModelForCausalLM.from_pretrained(plain)
    return write_gguf(tmp_path / "m.gguf", model, tiny.tiny_tokenizer(), template=TEMPLATE)


def quantized(plain: Path, tmp_path: Path) -> Path:
    model = AutoModelForCausalLM.from_pretrained(plain)
    return write_gguf(tmp_path / "q.gguf", model, tiny.tiny_tokenizer(), quantized="Q8_0")


def logits(folder: Path) -> torch.Tensor:
    return probe_logits(load_base(tiny.tiny_base(folder)))


def test_a_file_has_the_weights_and_tokens_of_its_checkpoint(plain: Path, file: Path, tmp_path: Path) -> None:
    assert logits(file).equal(logits(plain))
    rounded = logits(quantized(plain, tmp_path)) - logits(plain)
    assert 1e-4 < rounded.norm() / logits(plain).norm() < 0.05
    (tmp_path / "tokenizer.json").write_text("{}")  # of another model: files beside it do not count
    for _ in range(2):  # from the file, then from its copy
        described = describe_folder(file)
        assert described.template == TEMPLATE and described.stops == (tiny.EOS,)
        model = load_base(tiny.tiny_base(file))
    assert model.loading_notes[-1].startswith("the weights of `m.gguf` are unpacked to float32, in `")
    assert (
        AutoTokenizer.from_pretrained(plain_copy(file, "float32"))("hello 42").input_ids
        == tiny.tiny_tokenizer()("hello 42").input_ids
    )


@pytest.mark.parametrize("bits", [4, 8])
def test_a_file_can_be_quantized(file: Path, bits: Any) -> None:
    model = load_base(tiny.tiny_base(file, bits=bits))
    assert type(model.model.layers[0].mlp.up_proj).__name__ == {4: "Linear4bit", 8: "Linear8bitLt"}[bits]


def test_training_changes_the_unpacked_weights(plain: Path, tmp_path: Path, file: Path) -> None:
    base = tiny.tiny_base(quantized(plain, tmp_path))
    full = stages.job_for(tmp_path, tmp_path / "full", "full", base=base, steps=1)
    assert any("training changes the unpacked weights" in note for note in stages.train(full).notes)
    config = json.loads((full.output / "config.json").read_text())
    assert "quantization_config" not in config and config["architectures"] == ["LlamaForCausalLM"]
    assert not logits(full.output).equal(logits(base.folder))

    lora = stages.job_for(tmp_path, tmp_path / "lora", base=base, steps=1)
    stages.train(lora)
    child.merge(MergeJob(Recipe(base, lora.output, merged=True), tmp_path / "merged"))
    assert AutoModelForCausalLM.from_pretrained(tmp_path / "merged").dtype == torch.float32


def test_a_plan_reads_the_header_alone(plain: Path, file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory_plan, "Server", in_process.InProcess)
    plans = [
        memory_plan.plan_memory(configure(["lora"], model=str(path), tasks_needed=False)) for path in (plain, file)
    ]
    (plain_row,), (packed_row,) = (plan.rows for plan in plans)
    assert plain_row.planned is not None and packed_row.planned is not None
    speed = plain_row.planned.flops_per_second  # measured here, each time
    assert replace(packed_row.planned, flops_per_second=speed) == plain_row.planned
    assert not plain_copy(file, "float32").exists()


def test_a_file_is_a_model_and_a_variant(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(file.parent)
    found = find_model("./m.gguf")
    assert found.folder == file and found.name == "./m.gguf"
    assert (
        find_source("variant", "./m.gguf").kind == "adapter"
        and given_artifact(configure(["lora"]), "m.gguf", None).folder == file
    )
    digest = found.digest
    file.write_bytes(file.read_bytes() + b"\0")
    assert find_model("m.gguf").digest != digest
    with pytest.raises(UserError, match="is a whole checkpoint"):
        configure(["m.gguf@merged"], tasks=["mini_text"])


def test_a_damaged_file_is_one_clear_error(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:400])
    with pytest.raises(UserError, match="cannot be loaded"):
        load_base(tiny.tiny_base(file))


def refusal(name: str) -> str:
    with pytest.raises(UserError) as caught:
        find_model(name)
    return f"{caught.value.message}; {caught.value.hint}"


def test_files_that_cannot_be_read_are_refused_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gguf_module, "find_spec", lambda name: object())
    (tmp_path / "a.gguf").write_text("version https://git-lfs.github.com/spec/v1")
    assert "does not start with `GGUF`" in refusal(str(tmp_path / "a.gguf"))
    (tmp_path / "b-00001-of-00003.gguf").write_bytes(b"GGUF")
    assert "is one part of a GGUF file that was split" in refusal(str(tmp_path / "b-00001-of-00003.gguf"))
    assert "did you mean `a.gguf`?" in refusal(str(tmp_path / "aa.gguf"))
    monkeypatch.setattr(gguf_module, "find_spec", lambda name: None)
    (tmp_path / "c.gguf").write_bytes(b"GGUF")
    assert "pip install 'finetune-harness[gguf]'" in refusal(str(tmp_path / "c.gguf"))


def test_a_file_on_the_hub_is_downloaded_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import huggingface_hub

    asked: list[Any] = []

    def download(name: str, **options: Any) -> str:
        asked.append((name, options["allow_patterns"]))
        (tmp_path / "x.Q8_0.gguf").write_bytes(b"GGUF")
        return str(tmp_path)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", download)
    monkeypatch.setattr(gguf_module, "find_spec", lambda name: object())
    found = find_model("owner/name:x.Q8_0.gguf")
    assert asked == [("owner/name", ["x.Q8_0.gguf"])] and found.folder == tmp_path / "x.Q8_0.gguf"
    assert "has no file `y.gguf`" in refusal("owner/name:y.gguf")


def test_a_preview_knows_the_context(file: Path) -> None:
    assert load_encoder(find_model(str(file))).max_length == 256
