"""Checkpoints that are quantized on disk: they load and take adapters; what needs their weights as numbers is refused."""

import json
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import stages
import tiny_models as tiny
from torch import nn
from transformers import AutoModelForCausalLM, BitsAndBytesConfig

from harness.comparison.memory_plan import plan_memory
from harness.config.parse import configure
from harness.errors import UserError
from harness.models.layers import linear_layers
from harness.models.load import load_base, quantization
from harness.models.read_back import probe_logits
from harness.prepare.prepare import prepare

ROWS = {"data": [{"prompt": "a", "completion": "b"}]}


def saved(folder: Path, config: BitsAndBytesConfig) -> Path:
    """Saves a checkpoint in the format of bitsandbytes."""
    plain = tiny.save_tiny(folder.with_name("plain"))
    AutoModelForCausalLM.from_pretrained(plain, quantization_config=config).save_pretrained(folder)
    tiny.tiny_tokenizer().save_pretrained(folder)
    return folder


def test_a_checkpoint_in_4_bits_gives_the_logits_of_its_base_in_4_bits_and_takes_lora(tmp_path: Path) -> None:
    base = tiny.tiny_base(saved(tmp_path / "bnb", quantization("nf4", "float32")))
    same = load_base(tiny.tiny_base(tmp_path / "plain", bits=4))
    assert probe_logits(load_base(base)).equal(probe_logits(same))
    job = stages.job_for(tmp_path, tmp_path / "out", base=base, steps=1)
    assert stages.train(job).steps == 1 and (job.output / "adapter_config.json").is_file()


def test_a_checkpoint_in_8_bits_gives_outputs_that_do_not_depend_on_the_batch(tmp_path: Path) -> None:
    base = tiny.tiny_base(saved(tmp_path / "bnb", BitsAndBytesConfig(load_in_8bit=True, llm_int8_threshold=6.0)))
    assert load_base(base).model.layers[0].mlp.up_proj.state.threshold == 0.0


@pytest.mark.parametrize(
    ("variant", "message", "hint"),
    [
        ("base", None, None),
        ("lora", None, None),
        ("qlora", "variant `qlora`: the weights of `.*` are quantized already", "`lora` trains an adapter on them"),
        ("base@4bit", "cannot be quantized again", "leave out `@4bit`"),
        ("lora@8bit", "cannot be quantized again", "leave out `@8bit`"),
        ("lora@merged", "an adapter cannot be merged into them", "leave out `@merged`"),
        ("full", r"quantized already \(gptq\), and `full` cannot train packed weights", "such as `lora`"),
    ],
)
def test_variants_that_need_the_weights_are_refused(tmp_path: Path, variant: str, message: Any, hint: Any) -> None:
    folder = tiny.save_tiny(tmp_path)
    file = folder / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"quantization_config": {"quant_method": "gptq"}}))
    (tmp_path / "rows.jsonl").write_text('{"prompt": "a", "completion": "b"}\n')
    config = configure([variant], model=str(folder), tasks=["mini_mmlu"], train={"data": str(tmp_path / "rows.jsonl")})
    if message is None:
        prepare(config)
        return
    with pytest.raises(UserError, match=message) as caught:
        prepare(config)
    assert hint in str(caught.value.hint)


@pytest.mark.parametrize(
    ("method", "package"),
    [("awq", "gptqmodel"), ("gptq", "optimum"), ("compressed-tensors", "compressed-tensors"), ("hqq", "hqq")],
)
def test_a_package_that_is_not_there_is_named(tmp_path: Path, method: str, package: str) -> None:
    if find_spec(package.replace("-", "_")):
        pytest.skip(f"{package} is installed")
    folder = tiny.save_tiny(tmp_path)
    file = folder / "config.json"
    given = {"quant_method": method, "bits": 4, "group_size": 128, "config_groups": {}, "weights_only": True}
    file.write_text(json.dumps(json.loads(file.read_text()) | {"quantization_config": given}))
    with pytest.raises(UserError, match=rf"cannot be loaded: .*{package}") as caught:
        load_base(tiny.tiny_base(folder))
    assert caught.value.hint == "install the package"


def quantized_by(folder: Path, given: dict[str, Any] | None) -> Path:
    """Sets `quantization_config` in the config.json of a folder, or removes it."""
    file = folder / "config.json"
    config = json.loads(file.read_text())
    config["quantization_config"] = given
    file.write_text(json.dumps({key: value for key, value in config.items() if value is not None}))
    return folder


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"quant_method": "modelopt", "quant_algo": "FP8"}, "quantized in the format `modelopt`, which transformers"),
        ({"quant_method": "bitsandbytes", "load_in_4bit": True}, "the weights in the file are not"),
        ({"quant_method": "bitsandbytes", "load_in_8bit": True}, "the weights in the file are not"),
    ],
)
def test_plain_weights_under_a_configuration_of_quantized_ones_are_refused(
    tmp_path: Path, given: dict[str, Any], message: str
) -> None:
    with pytest.raises(UserError, match=message):
        load_base(tiny.tiny_base(quantized_by(tiny.save_tiny(tmp_path), given)))


def test_quantized_weights_under_a_configuration_of_plain_ones_are_refused(tmp_path: Path) -> None:
    folder = quantized_by(saved(tmp_path / "bnb", BitsAndBytesConfig(load_in_8bit=True)), None)
    with pytest.raises(UserError, match=r"has quantized weights \(`model.layers.0.*SCB`\)"):
        load_base(tiny.tiny_base(folder))


def test_packed_linear_layers_are_found() -> None:
    class Packed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.in_features, self.out_features, self.qweight = 8, 16, None

    model = nn.ModuleDict(
        {"layers": nn.ModuleList([nn.ModuleDict({"self_attn": nn.ModuleDict({"q_proj": Packed()})})])}
    )
    assert linear_layers(model, rank=8) == ["q_proj"]


def test_a_plan_says_that_packed_weights_are_counted_unpacked(tmp_path: Path, in_process: None) -> None:
    folder = saved(tmp_path / "bnb", quantization("nf4", "float32"))
    (row,) = plan_memory(configure(["lora"], model=str(folder), tasks_needed=False)).rows
    assert row.planned is not None and "the checkpoint is quantized on disk" in row.planned.notes[-1]
