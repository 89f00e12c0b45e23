"""Deployed forms as transforms: each reads back to itself, adapters are merged first, and contradictions are errors."""

import pytest

from harness.config.deployed_forms import FORMS, is_form
from harness.config.variant_sources import split_transforms
from harness.config.variants import parse_variant
from harness.errors import UserError
from harness.jobs import DeployedForm


@pytest.mark.parametrize(
    ("text", "form", "merged"),
    [
        ("lora@gguf:Q4_K_M", DeployedForm("gguf", "Q4_K_M"), True),
        ("x=lora:rank=4@merged@gguf:q8_0:llamacpp", DeployedForm("gguf", "Q8_0", "llamacpp"), True),
        ("qlora@torchao:int8wo", DeployedForm("torchao", "int8wo"), True),
        ("base:shots=2@gguf:bf16", DeployedForm("gguf", "BF16"), False),
        ("full@gptq", DeployedForm("gptq", "W4A16"), False),
        ("base@awq", DeployedForm("awq", "W4A16_ASYM"), False),
        ("owner/adapter@rev@gguf:F16", DeployedForm("gguf", "F16"), False),  # known to be an adapter once it is fetched
    ],
)
def test_forms_read_back(text: str, form: DeployedForm, merged: bool) -> None:
    found = parse_variant(text)
    assert (found.form, found.merged) == (form, merged)
    again = parse_variant(found.canonical)
    assert (again.form, again.merged, again.canonical) == (form, merged, found.canonical)
    assert found.training_spec == parse_variant(text.partition("@merged")[0].rpartition("@")[0] or text).training_spec


def test_every_type_of_every_tool_reads_back() -> None:
    for tool, kind in FORMS.items():
        for each in kind.types:
            assert parse_variant(f"lora@{tool}:{each}").form == DeployedForm(tool, each)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("lora@gguf", r"`@gguf` needs a type, such as `@gguf:Q4_K_M`"),
        ("lora@torchao", r"`@torchao` needs a type"),
        ("lora@gguf:Q4_K_X", r"unknown type `Q4_K_X`"),
        ("lora@gguf:Q8_0:vllm", r"unknown reader `vllm`"),
        ("lora@torchao:int8wo:llamacpp", r"unknown reader `llamacpp`"),
        ("lora@4bit@gguf:Q8_0", r"quantizes twice"),
        ("lora@gguf:Q8_0@4bit", r"quantizes twice"),
        ("lora@gguf:Q8_0@merged", r"nothing can follow `@gguf:Q8_0`"),
        ("lora@gguf:Q8_0@gptq", r"repeats or contradicts"),
        ("lora@gptq@gptq", r"repeats or contradicts"),
        ("prompt@gguf:Q8_0", r"the result of `prompt` cannot be merged"),
        ("base@merged@gguf:Q8_0", r"nothing to merge"),
        ("full@merged@gptq", r"cannot be merged"),
        ("lora@gguf:", r"needs a type"),
        ("lora@ggus:Q8_0", r"not `key=value`"),
    ],
)
def test_contradictions_are_one_error(text: str, message: str) -> None:
    with pytest.raises(UserError, match=message) as caught:
        parse_variant(text)
    assert caught.value.hint and not caught.value.problems


def test_methods_in_files_keep_their_names() -> None:
    assert split_transforms("./x.py@rslora:rank=8@gguf:Q8_0") == ("./x.py@rslora:rank=8", ["gguf:Q8_0"])
    assert split_transforms("./gguf.py@lora") == ("./gguf.py@lora", [])
    assert not is_form("merged") and not is_form("ggu")
