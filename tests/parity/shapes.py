"""Makes random models of three real shapes, two of each: one for generated texts and one for log-likelihoods.

An untrained model generates endless noise: no stop string, no number, no answer to compare. Each model is therefore trained
for seconds on fragments in the formats that the tasks look for. It knows nothing, but its texts end, and some answers are
right. However, such a model answers every question with the same letter. Log-likelihoods therefore come from its twin, which
has noise added to its attention weights, so that its choices depend on the prompt.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import (
    AutoModelForCausalLM,
    GPT2Config,
    LlamaConfig,
    PretrainedConfig,
    PreTrainedTokenizerFast,
    Qwen3Config,
)

from harness import hub, rows

Shape = Literal["llama", "qwen3", "gpt2"]
SHAPES: tuple[Shape, ...] = ("llama", "qwen3", "gpt2")
CONTEXT = {"llama": 2048, "qwen3": 2048, "gpt2": 1024}
"""Numbers of positions; GPT-2 has so few that long prompts are cut."""
SPECIAL: dict[Shape, dict[str, str]] = {
    "llama": {"bos_token": "<|begin_of_text|>", "eos_token": "<|end_of_text|>"},
    "qwen3": {"eos_token": "<|im_end|>", "pad_token": "<|endoftext|>"},
    "gpt2": {"bos_token": "<|endoftext|>", "eos_token": "<|endoftext|>", "unk_token": "<|endoftext|>"},
}
"""Llama adds a BOS token to every text and has no padding token; Qwen3 has no BOS; GPT-2 has one token for everything."""
VOCABULARY, HIDDEN, LAYERS = 1024, 64, 3
STEPS, ROWS, WIDTH = 160, 16, 96
NOISE = 2.0
"""Noise added to each matrix of the twin's attention, relative to the matrix's standard deviation."""


def save_shape(folder: Path, shape: Shape) -> None:
    """Saves `folder/generates` and `folder/chooses` for `from_pretrained`; the same models every time."""
    text = _text()
    tokenizer = _tokenizer(shape, text)
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(_config(shape, tokenizer)).float()
    _train(model, tokenizer, text)
    for twin in ("generates", "chooses"):
        model.save_pretrained(folder / twin)
        tokenizer.save_pretrained(folder / twin)
        _add_noise(model)


def _text() -> list[str]:
    """English and Chinese text, so that the tokenizer's tokens are longer than a byte."""
    solved = rows(hub("openai/gsm8k", "main", split="train"))
    asked = rows(hub("cais/mmlu", "all", split="dev"))
    sums = [f"Question: {solved[i]['question']}\nAnswer: {solved[i]['answer']}" for i in range(600)]
    choices = [f"{row['question']}\nA. {row['choices'][0]}\nAnswer:" for row in asked]
    code = "\ndef check(candidate):\n    assert candidate(1, 2) == 3\n    for x in range(n):\n        return x + 1\n"
    chinese = "以下是中国关于高中数学的单项选择题，请选出其中的正确答案。\n答案："
    return [*sums, *choices, *[code, chinese] * 40]


def _tokenizer(shape: Shape, text: Sequence[str]) -> PreTrainedTokenizerFast:
    inner = Tokenizer(models.BPE(unk_token=None))
    inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    inner.decoder = decoders.ByteLevel()
    special = list(dict.fromkeys(SPECIAL[shape].values()))
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    inner.train_from_iterator(
        text,
        trainers.BpeTrainer(
            vocab_size=VOCABULARY, special_tokens=special, initial_alphabet=alphabet, show_progress=False
        ),
    )
    if shape == "llama":
        bos = SPECIAL[shape]["bos_token"]
        inner.post_processor = processors.TemplateProcessing(
            single=f"{bos} $A", special_tokens=[(bos, inner.token_to_id(bos))]
        )
    return PreTrainedTokenizerFast(tokenizer_object=inner, model_max_length=CONTEXT[shape], **SPECIAL[shape])


def _config(shape: Shape, tokenizer: PreTrainedTokenizerFast) -> PretrainedConfig:
    tokens = {
        "vocab_size": len(tokenizer),
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": tokenizer.pad_token_id,
    }
    if shape == "gpt2":
        return GPT2Config(
            n_embd=HIDDEN,
            n_layer=LAYERS,
            n_head=4,
            n_positions=CONTEXT[shape],
            initializer_range=0.08,
            **tokens,
        )
    sizes = {
        "hidden_size": HIDDEN,
        "intermediate_size": 2 * HIDDEN,
        "num_hidden_layers": LAYERS,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": CONTEXT[shape],
        "initializer_range": 0.08,
    }
    return Qwen3Config(head_dim=16, **sizes, **tokens) if shape == "qwen3" else LlamaConfig(**sizes, **tokens)


def _train(model: torch.nn.Module, tokenizer: PreTrainedTokenizerFast, text: Sequence[str]) -> None:
    draw = random.Random(0)
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    model.train()
    for _ in range(STEPS):
        ids = torch.tensor([_fragment(draw, tokenizer, text) for _ in range(ROWS)])
        optimizer.zero_grad()
        model(input_ids=ids, labels=ids).loss.backward()
        optimizer.step()
    model.eval()


@torch.no_grad()
def _add_noise(model: torch.nn.Module) -> None:
    for name, parameter in model.named_parameters():
        if "attn" in name and parameter.dim() > 1:
            parameter += NOISE * parameter.std() * torch.randn_like(parameter)


def _fragment(draw: random.Random, tokenizer: PreTrainedTokenizerFast, text: Sequence[str]) -> list[int]:
    """`WIDTH` tokens of questions and answers, with the usual ends of answers."""
    eos = tokenizer.eos_token
    ids: list[int] = []
    while len(ids) < WIDTH:
        words = draw.choice(text).split()
        start = draw.randrange(len(words))
        few = " ".join(words[start : start + draw.randint(1, 6)])
        number, letter = draw.choice("2357"), draw.choice("ABCD")
        ids += tokenizer(
            draw.choice(
                [
                    f"Question: {few}\nAnswer: {few} {number}\n#### {number}{eos}",
                    f"Question: {few}\nAnswer: {number}.\n#### {number}\n\nQuestion: {few}",
                    f"Question: {few}\nAnswer: {few}, {few}",
                    f"Q: {few}\nA: {few}. The answer is {number}.{eos}",
                    f"Q: {few}\nA: The answer is {number}.\n\nQ:",
                    f"Let's think step by step. The answer is ({letter}).\n\nQuestion:",
                    f"Let's think step by step: {few} The answer is ({letter}).{eos}",
                    *["[BEGIN]\ndef days():\n    return 14\n[DONE]"] * 2,
                    *[f'    >>> {few}\n    {number}\n    """\n    return len(string)\n\ndef {few}'] * 3,
                    f"{few}\n答案： {letter}\n\n",
                    f"German phrase: {few}\nEnglish phrase:  {few}\n",
                ]
            ),
            add_special_tokens=False,
        )["input_ids"]
    return ids[:WIDTH]
