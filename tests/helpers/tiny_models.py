"""Small random models of real architectures, and helpers to run them in about a second."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

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

from harness.jobs import QUANT_OF_BITS, Base, Method, Recipe, Request, TaskRequests

Shape = Literal["llama", "qwen3", "gpt2"]
SHAPES: tuple[Shape, ...] = ("llama", "qwen3", "gpt2")
PAD, BOS, EOS = 0, 1, 2

_CORPUS = [
    "Question: what is one plus one? Answer: two.",
    "The capital of France is Paris, and the answer is 42.",
    "hello world, this is a small tokenizer 0 1 2 3 4 5 6 7 8 9",
]


@functools.cache
def tiny_tokenizer(*, adds_bos: bool = False, bos: bool = True) -> Any:
    """Trains a byte-level BPE tokenizer of at most 512 tokens."""
    inner = Tokenizer(models.BPE(unk_token=None))
    inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    inner.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    inner.train_from_iterator(
        _CORPUS * 20,
        trainers.BpeTrainer(
            vocab_size=512, special_tokens=["<pad>", "<s>", "</s>"], initial_alphabet=alphabet, show_progress=False
        ),
    )
    if adds_bos:
        inner.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", BOS)])
    names = {"eos_token": "</s>", "pad_token": "<pad>"} | ({"bos_token": "<s>"} if bos else {})
    return PreTrainedTokenizerFast(tokenizer_object=inner, **names)


def tiny_config(shape: Shape = "llama", *, hidden: int = 64, layers: int = 2, context: int = 256) -> PretrainedConfig:
    """A configuration of one of the shapes, with grouped key-value heads if the shape has them."""
    tokens = {"vocab_size": len(tiny_tokenizer()), "pad_token_id": PAD, "bos_token_id": BOS, "eos_token_id": EOS}
    if shape == "gpt2":
        # no dropout, so that training runs of all shapes can be compared bit by bit
        quiet = {"resid_pdrop": 0.0, "embd_pdrop": 0.0, "attn_pdrop": 0.0}
        return GPT2Config(n_embd=hidden, n_layer=layers, n_head=4, n_positions=context, **quiet, **tokens)
    sizes = {
        "hidden_size": hidden,
        "intermediate_size": 2 * hidden,
        "num_hidden_layers": layers,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": context,
        "initializer_range": 0.08,  # large enough that logits differ and greedy texts vary
    }
    return Qwen3Config(head_dim=16, **sizes, **tokens) if shape == "qwen3" else LlamaConfig(**sizes, **tokens)


def save_tiny(
    folder: Path, shape: Shape = "llama", *, seed: int = 0, adds_bos: bool = False, dtype: str = "float32", **sizes: int
) -> Path:
    """Saves a random model with its tokenizer, for `from_pretrained`."""
    torch.manual_seed(seed)
    model = AutoModelForCausalLM.from_config(tiny_config(shape, **sizes)).to(getattr(torch, dtype))
    model.save_pretrained(folder)
    tiny_tokenizer(adds_bos=adds_bos).save_pretrained(folder)
    return folder


def tiny_base(folder: Path, *, bits: Literal[4, 8] | None = None, dtype: str = "float32") -> Base:
    """Returns the base in a folder, on the CPU."""
    return Base(folder, "cpu", dtype, QUANT_OF_BITS[bits])


def save_random_lora(folder: Path, base: Base, *, seed: int = 1, scale: float = 0.1, **options: Any) -> Path:
    """Saves a LoRA adapter with random weights, which changes the outputs of the base."""
    from peft import LoraConfig, get_peft_model

    from harness.models.load import load_base

    torch.manual_seed(seed)
    common = {"r": 4, "lora_alpha": 8, "target_modules": "all-linear", "task_type": "CAUSAL_LM"}
    model = get_peft_model(load_base(base), LoraConfig(**(common | options)))
    for name, parameter in model.named_parameters():
        if "lora_" in name:
            parameter.data.normal_(std=scale)
    model.save_pretrained(folder)
    return folder


def built_in(name: str, **hyperparameters: Any) -> Method:
    """A built-in method, in the form that jobs use."""
    from harness.registry.find import find

    entry = find("method", name)
    return Method(name, entry.path, entry.module, hyperparameters)


def from_file(path: Path, name: str, **hyperparameters: Any) -> Method:
    """A method in a user's file, in the form that jobs use."""
    return Method(name, path, None, hyperparameters)


def choose(context: str | Sequence[str], continuations: Sequence[str], id: str = "0") -> Request:
    """A multiple-choice request; `context` may be a list with one context per choice."""
    contexts = (context,) if isinstance(context, str) else tuple(context)
    return Request(id, "choose", contexts, tuple(continuations))


def text(content: str, id: str = "0") -> Request:
    """Makes a perplexity request."""
    return Request(id, "text", ("",), (content,))


def generate(prompt: str, id: str = "0", *, max_tokens: int = 12, **options: Any) -> Request:
    """Makes a generation request."""
    return Request(id, "generate", (prompt,), max_tokens=max_tokens, **options)


def task(*requests: Request) -> TaskRequests:
    """Makes one task of the requests."""
    return TaskRequests("toy", requests)


@functools.cache
def words(count: int, seed: int = 0) -> str:
    """A text of `count` random words; equal seeds give equal texts."""
    vocabulary = " ".join(_CORPUS).split()
    picks = torch.randint(0, len(vocabulary), (count,), generator=torch.Generator().manual_seed(seed))
    return " ".join(vocabulary[pick] for pick in picks)


def bare(base: Base) -> Recipe:
    """The recipe of the base without an adapter."""
    return Recipe(base)
