"""llama.cpp's programs: found by HARNESS_LLAMA_CPP, and one clear error where one is missing or fails."""

from pathlib import Path
from typing import Any

import pytest
import tiny_models as tiny
from small_converter import write_llama_cpp

from harness.deploy import llama_cpp, tools
from harness.deploy.llama_cpp import VARIABLE, convert, fallback_note, find_llama_cpp
from harness.errors import UserError
from harness.jobs import DeployedForm


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv(VARIABLE, str(tmp_path / "llama.cpp"))
    monkeypatch.setattr(llama_cpp.shutil, "which", lambda name: None)
    monkeypatch.setattr(llama_cpp, "find_spec", lambda name: None)
    return tmp_path / "llama.cpp"


def refusal(kind: str) -> str:
    with pytest.raises(UserError) as caught:
        find_llama_cpp(kind)
    return f"{caught.value.message}; {caught.value.hint}"


def test_what_is_missing_is_said(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert "has no convert_hf_to_gguf.py" in refusal("Q8_0")
    write_llama_cpp(folder)
    assert find_llama_cpp("Q8_0").quantizer == ()
    assert "neither `llama-quantize` nor the package" in refusal("Q4_K_M") and "[llamacpp]" in refusal("Q4_K_M")
    monkeypatch.delenv(VARIABLE)
    assert "HARNESS_LLAMA_CPP is not set" in refusal("Q8_0") and "pip download" in refusal("Q8_0")


def test_the_version_is_that_of_the_programs(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_llama_cpp(folder, quantizer=True)
    first = find_llama_cpp("Q4_K_M")
    assert first.quantizer == (str(folder / "build" / "bin" / "llama-quantize"),)
    write_llama_cpp(folder, before="# changed")
    assert find_llama_cpp("Q4_K_M").version != first.version
    monkeypatch.setenv(VARIABLE, str(folder.parent))  # the folder above, as a source package has it
    (folder.parent / "vendor").mkdir()
    folder.rename(folder.parent / "vendor" / "llama.cpp")
    assert find_llama_cpp("Q8_0").converter.is_file()


@pytest.mark.parametrize(
    ("before", "message"),
    [
        ("sys.exit('ERROR:hf-to-gguf:Model OddForCausalLM is not supported')", "does not know the architecture OddFor"),
        ("raise NotImplementedError('BPE pre-tokenizer was not recognized - update')", "does not know the tokenizer"),
        ("import no_such_package", "needs the Python package `no_such_package`"),
        ("raise OSError(28, 'No space left on device')", "the disk is full"),
        ("import os; os.abort()", "converter failed: it was ended by signal 6"),
    ],
)
def test_a_failing_converter_is_one_error(folder: Path, tmp_path: Path, before: str, message: str) -> None:
    write_llama_cpp(folder, before=before)
    with pytest.raises(UserError, match=message):
        convert(tmp_path, tmp_path / "x.gguf", "Q8_0", "float32")
    assert not (tmp_path / "x.gguf").exists()


def test_a_failing_quantizer_leaves_nothing(folder: Path, tmp_path: Path) -> None:
    pytest.importorskip("gguf", reason="the package gguf is not installed: pip install 'finetune-harness[gguf]'")
    checkpoint = tiny.save_tiny(tmp_path / "plain")
    write_llama_cpp(folder, quantizer=True)
    convert(checkpoint, tmp_path / "x.gguf", "Q4_K_M", "float32")
    assert (tmp_path / "x.gguf").is_file()
    (folder / "build" / "bin" / "llama-quantize").write_text("#!/bin/sh\necho error: odd; exit 1\n")
    (tmp_path / "x.gguf").unlink()
    with pytest.raises(UserError, match="could not quantize the model to Q4_K_M: error: odd"):
        convert(checkpoint, tmp_path / "x.gguf", "Q4_K_M", "float32")
    assert not list(tmp_path.glob("*.gguf"))


def test_rows_that_do_not_fit_are_counted(tmp_path: Path) -> None:
    gguf: Any = pytest.importorskip("gguf", reason="the package gguf is not installed")
    import numpy as np

    writer = gguf.GGUFWriter(tmp_path / "m.gguf", "llama")
    q8 = gguf.GGMLQuantizationType.Q8_0
    for name, width in (("a", 256), ("b", 96), ("c", 64)):
        weight = np.zeros((4, width), dtype=np.float32)
        writer.add_tensor(name, gguf.quantize(weight, q8), raw_dtype=q8)
    writer.add_tensor("norm", np.zeros(96, dtype=np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    note = fallback_note(tmp_path / "m.gguf", "Q4_K_M")
    assert note == "2 of 3 matrices are not in Q4_K_M, since their rows are not multiples of 256 weights: 2 in Q8_0"
    assert fallback_note(tmp_path / "m.gguf", "Q8_0") is None and fallback_note(tmp_path / "m.gguf", "F16") is None


def test_missing_packages_name_their_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tools, "find_spec", lambda name: None)
    wanted = {"gguf:Q8_0": "gguf", "torchao:int8wo": "quantized"}
    for text, extra in wanted.items():
        tool, kind = text.split(":")
        with pytest.raises(UserError, match=f"variant `x`: `@{text}` needs the package") as caught:
            tools.refuse_missing("variant `x`", DeployedForm(tool, kind), "auto")
        assert caught.value.hint == f"pip install 'finetune-harness[{extra}]'"
    with pytest.raises(UserError, match=r"`@awq` needs a GPU"):
        tools.refuse_missing("variant `x`", DeployedForm("awq", "W4A16"), "cpu")


def test_llmcompressor_needs_its_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    from harness.deploy import llmcompressor

    monkeypatch.setattr(llmcompressor, "find_spec", lambda name: object())
    llmcompressor.llmcompressor_version.cache_clear()
    monkeypatch.delenv(llmcompressor.VARIABLE, raising=False)
    with pytest.raises(UserError, match="HARNESS_LLMCOMPRESSOR is not set"):
        llmcompressor.llmcompressor_version("gptq")
    monkeypatch.setenv(llmcompressor.VARIABLE, str(tmp_path))
    with pytest.raises(UserError, match="is not an interpreter"):
        llmcompressor.llmcompressor_version("gptq")
    import sys

    monkeypatch.setenv(llmcompressor.VARIABLE, sys.executable)
    with pytest.raises(UserError, match="cannot run llmcompressor"):
        llmcompressor.llmcompressor_version("gptq")
