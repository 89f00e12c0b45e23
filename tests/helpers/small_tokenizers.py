"""Small tokenizers and chat templates of every kind that people bring, built in milliseconds."""

from __future__ import annotations

from pathlib import Path
from typing import Any

SPECIAL = ("<s>", "</s>", "<|im_start|>", "<|im_end|>", "<start_of_turn>", "<end_of_turn>", "<|eot|>", "<pad>")
BOS, EOS, IM_END, PAD = 0, 1, 3, 7
PROCESSORS = {"none": None, "bos": "<s> $A", "bos+eos": "<s> $A </s>", "eos": "$A </s>", "prefix space": None}
"""What a post-processor adds to a text."""
TOKENS: dict[str, dict[str, str]] = {
    "own": {"bos_token": "<s>", "eos_token": "</s>", "pad_token": "<pad>"},
    "shared": {"bos_token": "</s>", "eos_token": "</s>", "pad_token": "</s>"},
    "absent": {"eos_token": "</s>"},
    "instruct": {"bos_token": "<s>", "eos_token": "<|im_end|>", "pad_token": "<pad>"},
}
"""Special tokens that a tokenizer names."""


def small_tokenizer(processor: str = "none", tokens: str = "own", template: str | None = None) -> Any:
    """A byte-level tokenizer; `<think>` and `</think>` are tokens, but not special ones, as in Qwen3."""
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    merges = [("a", "n"), ("Ġ", "t"), ("Ċ", "Ċ")]
    names = [*SPECIAL, *letters, *("".join(pair) for pair in merges)]
    inner = Tokenizer(models.BPE({token: number for number, token in enumerate(names)}, merges))
    inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=processor == "prefix space")
    inner.decoder = decoders.ByteLevel()
    inner.add_special_tokens(list(SPECIAL))
    inner.add_tokens([AddedToken(mark, normalized=False, special=False) for mark in ("<think>", "</think>")])
    shape = PROCESSORS[processor]
    if shape:
        inner.post_processor = processors.TemplateProcessing(single=shape, special_tokens=[("<s>", BOS), ("</s>", EOS)])
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=inner, **TOKENS[tokens])
    tokenizer.chat_template = template
    return tokenizer


def template_folder(template: str | None) -> Path:
    """Saves a tokenizer with this chat template as `./model`, which passes for a model until its weights are read."""
    model = Path("model")
    small_tokenizer(template=template).save_pretrained(model)
    for name, content in {"config.json": "{}", "model.safetensors": ""}.items():
        (model / name).write_text(content)
    return model


_LOOP = "{{%- for m in messages %}}{0}{{%- endfor %}}{{%- if add_generation_prompt %}}{1}{{%- endif %}}"
_CHATML = "{{ '<|im_start|>' + m.role + '\n' + m.content + '<|im_end|>\n' }}"
_THOUGHT = (
    "{%- set said = m.reasoning_content | default('') -%}"
    "{{ '<|im_start|>' + m.role + '\n' }}{%- if m.role == 'assistant' %}"
    "{{ '<think>\n' + said + '\n</think>\n\n' }}{%- endif %}{{ m.content + '<|im_end|>\n' }}"
)
_OPENED = (
    "{{ '<|im_start|>' + m.role + '\n' + (m.content.split('</think>')[-1].lstrip('\n') if m.role == 'assistant'"
    " else m.content) + '<|im_end|>\n' }}"
)
TEMPLATES = {
    "chatml": _LOOP.format(_CHATML, "{{ '<|im_start|>assistant\n' }}"),
    "bos": "{{ bos_token }}" + _LOOP.format(_CHATML, "{{ '<|im_start|>assistant\n' }}"),
    "gemma": "{{ bos_token }}"
    + _LOOP.format(
        "{{ '<start_of_turn>' + (m.role if m.role == 'user' else 'model') + '\n' + m.content | trim + '<end_of_turn>\n' }}",
        "{{ '<start_of_turn>model\n' }}",
    ),
    "llama": "{{ bos_token }}{%- for m in messages %}{{ '<|im_start|>' + m.role + '\n\n' + m.content | trim + '<|eot|>' }}"
    "{%- endfor %}{{ '<|im_start|>assistant\n\n' }}",
    "mistral": "{{ bos_token }}{%- for m in messages %}{%- if m.role == 'user' %}{{ '[INST] ' + m.content + ' [/INST]' }}"
    "{%- else %}{{ ' ' + m.content + eos_token }}{%- endif %}{%- endfor %}",
    "closes": _LOOP.format(_THOUGHT, "{{ '<|im_start|>assistant\n<think>\n\n</think>\n\n' }}"),
    "opens": _LOOP.format(_THOUGHT, "{{ '<|im_start|>assistant\n<think>\n' }}"),
    "opens and drops": _LOOP.format(_OPENED, "{{ '<|im_start|>assistant\n<think>\n' }}"),
    "two ends": _LOOP.format(_CHATML, "{{ '<|im_start|>assistant\n' }}{%- else %}{{ eos_token }}"),
    "no end": _LOOP.format("{{ '<|im_start|>' + m.role + '\n' + m.content }}", "{{ '<|im_start|>assistant\n' }}"),
    "words": _LOOP.format("{{ m.role + ': ' + m.content + '\n' }}", "{{ 'assistant:' }}"),
    "no system": "{%- if messages[0].role == 'system' %}{{ raise_exception('no system turn') }}{%- endif %}"
    + _LOOP.format(_CHATML, "{{ '<|im_start|>assistant\n' }}"),
    "alternating": "{%- for m in messages %}{%- if (m.role == 'user') != (loop.index0 % 2 == 0) %}"
    "{{ raise_exception('roles must alternate') }}{%- endif %}{%- endfor %}"
    + _LOOP.format(_CHATML, "{{ '<|im_start|>assistant\n' }}"),
}
"""Chat templates, shaped like those of model families: `llama` begins the next turn even after an answer, as the first
Llama 3 does; `mistral` has no prompt for an answer; `two ends` closes the last turn twice, as Phi-3 does; `no end` closes none,
as GLM-4."""
SWITCH = TEMPLATES["closes"].replace(
    "{{ '<|im_start|>assistant\n<think>\n\n</think>\n\n' }}",
    "{{ '<|im_start|>assistant\n' }}{%- if not enable_thinking | default(true) %}{{ '<think>\n\n</think>\n\n' }}{%- endif %}",
)
"""As Qwen3's: the model may begin a thought, unless the option closes it."""
CHANNELS = (
    "{%- for m in messages %}{{ '<|im_start|>' + m.role }}{%- if m.role == 'assistant' %}{%- if m.thinking %}"
    "{{ '<|channel|>analysis<|message|>' + m.thinking + '<|im_end|><|im_start|>assistant' }}{%- endif %}"
    "{{ '<|channel|>final<|message|>' }}{%- endif %}{{ m.content + '<|im_end|>' }}{%- endfor %}"
    "{%- if add_generation_prompt %}{{ '<|im_start|>assistant' }}{%- endif %}"
)
"""As gpt-oss's: a header before the thought, and one before the answer."""
EOT, TURN_END = 6, 5
ENDS = {
    "gemma": "<end_of_turn>",
    "llama": "<|eot|>",
    "mistral": "eos",
    "no end": "<|im_start|>",
    "words": "",
    "two ends": "eos",
}
"""What ends a turn, where it is not `<|im_end|>`; `eos`: the tokenizer's own end."""
