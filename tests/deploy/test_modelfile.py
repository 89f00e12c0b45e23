"""Ollama's Modelfile: a Go template only where it gives the same prompts, and vLLM's command for what vLLM serves."""

import pytest

from harness.deploy.modelfile import modelfile, turns_of
from harness.deploy.vllm_command import serve_command, serve_script, why_not_served
from harness.prompts.chat import ChatTemplate

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


def test_vllm_serves_plain_loras_alone() -> None:
    plain = {"peft_type": "LORA", "r": 12, "bias": "none", "use_dora": False, "modules_to_save": None}
    assert why_not_served(plain) is None
    for change, word in (
        ({"use_dora": True}, "DoRA"),
        ({"modules_to_save": ["lm_head"]}, "modules_to_save"),
        ({"bias": "all"}, "biases"),
        ({"r": 1024}, "1024"),
        ({"peft_type": "VERA"}, "VERA"),
    ):
        assert word in str(why_not_served({**plain, **change}))
    command = serve_command("a b", name="x", dtype="bfloat16", adapter="./adapter", rank=12)
    assert command == ("vllm serve 'a b' --dtype bfloat16 --enable-lora --max-lora-rank 16 --lora-modules x=./adapter")
    assert serve_script("run", title="a\nrm -rf x").splitlines()[1:] == [
        "# a rm -rf x",
        'cd "$(dirname "$0")" && exec run "$@"',
    ]
