"""Ollama's Modelfile: a Go template only where it gives the same prompts, and vLLM's command for what vLLM serves."""

import json

import pytest
import torch
from safetensors.torch import save_file

from harness.deploy.modelfile import modelfile, turns_of
from harness.deploy.vllm_command import serve_command, serve_script
from harness.jobs import Base, Recipe
from harness.prompts.chat import ChatTemplate
from harness.worker.exporting import _why_merged

CHATML = (
    "{% for m in messages %}{% if loop.first and m['role'] != 'system' %}<|im_start|>system\nBe kind<|im_end|>\n{% endif %}"
    "<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
LLAMA2 = (
    "{{ bos_token }}{% for m in messages %}{% if m['role'] == 'user' %}[INST] {{ m['content'] }} [/INST]"
    "{% elif m['role'] == 'assistant' %} {{ m['content'] }} </s>{% else %}{{ raise_exception('no system') }}{% endif %}"
    "{% endfor %}"
)
LAST_ONLY = "{{ messages[-1]['content'] }}:"
UPPER = "{% for m in messages %}{{ m['content'] | upper }};{% endfor %}"


def test_a_chat_template_becomes_a_template_in_go() -> None:
    turns = turns_of(ChatTemplate(CHATML, {}))
    assert turns is not None and turns.default == "<|im_start|>system\nBe kind<|im_end|>\n"
    assert turns.go == (
        "{{ if .System }}<|im_start|>system\n{{ .System }}<|im_end|>\n{{ else }}<|im_start|>system\nBe kind<|im_end|>\n"
        '{{ end }}{{ range .Messages }}{{ if eq .Role "user" }}<|im_start|>user\n{{ .Content }}<|im_end|>\n'
        '{{ else if eq .Role "assistant" }}<|im_start|>assistant\n{{ .Content }}<|im_end|>\n{{ end }}{{ end }}'
        "<|im_start|>assistant\n"
    )


def test_the_first_token_is_left_to_llama_cpp() -> None:
    turns = turns_of(ChatTemplate(LLAMA2, {"bos_token": "<s>"}))
    assert turns is not None and turns.system is None and not turns.go.startswith("<s>")
    assert turns.rendered([{"role": "user", "content": "a"}]) == "[INST] a [/INST]"


@pytest.mark.parametrize("template", [LAST_ONLY, UPPER])
def test_a_template_that_does_more_is_left_to_ollama(template: str) -> None:
    assert turns_of(ChatTemplate(template, {})) is None
    text, note = modelfile("m.gguf", title="x", template=ChatTemplate(template, {}), stops=(), context=64)
    assert "TEMPLATE" not in text.replace("# Ollama's template", "") and note is not None


def test_a_plain_modelfile_decodes_as_it_was_scored() -> None:
    text, note = modelfile(
        "m.gguf", title="a\nb", template=None, stops=["</s>", "\n\nQ:", "</s>", '"'], context=512, system="Be kind"
    )
    assert note is None and text.splitlines() == [
        "# a b",
        "FROM ./m.gguf",
        'TEMPLATE """{{ .Prompt }}"""',
        'SYSTEM """Be kind"""',
        'PARAMETER stop "</s>"',
        'PARAMETER stop "\\n\\nQ:"',
        'PARAMETER stop "\\""',
        "# as it was scored: greedy, with the model's own penalty for repetition",
        "PARAMETER temperature 0",
        "PARAMETER repeat_penalty 1",
        "PARAMETER num_ctx 512",
    ]


def test_the_command_serves_an_adapter_beside_its_base() -> None:
    command = serve_command("a b", name="x", dtype="bfloat16", adapter="./adapter", rank=12)
    assert command == ("vllm serve 'a b' --dtype bfloat16 --enable-lora --max-lora-rank 16 --lora-modules x=./adapter")
    assert serve_script("run", title="a\nrm -rf x").splitlines()[1:] == [
        "# a rm -rf x",
        'cd "$(dirname "$0")" && exec run "$@"',
    ]


@pytest.mark.parametrize(
    ("change", "layer", "word"),
    [
        ({}, "model.layers.0.self_attn.q_proj", None),
        ({"rank_pattern": {"q_proj": 512}}, "model.layers.0.self_attn.q_proj", "rank_pattern"),
        ({"init_lora_weights": "pissa"}, "model.layers.0.self_attn.q_proj", "pissa"),
        ({"use_dora": True}, "model.layers.0.self_attn.q_proj", "DoRA"),
        ({"peft_type": "VERA"}, "model.layers.0.self_attn.q_proj", "VERA"),
        ({}, "lm_head", "lm_head"),
    ],
)
def test_what_vllm_would_serve_with_other_numbers_is_merged(tmp_path, change, layer, word) -> None:
    (tmp_path / "adapter_config.json").write_text(json.dumps({"peft_type": "LORA", "r": 2, **change}))
    save_file({f"base_model.model.{layer}.lora_A.weight": torch.zeros(2, 2)}, tmp_path / "adapter_model.safetensors")
    reason = _why_merged(Recipe(Base(tmp_path, "cpu", "float32"), tmp_path))
    assert reason is None if word is None else word in str(reason)
