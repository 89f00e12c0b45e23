"""Makes random models of real shapes (seed 0), and tokenizers trained on text of the Hub.

python models.py FOLDER s8k m128k …
"""

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import AutoModelForCausalLM, GPT2Config, LlamaConfig, PreTrainedTokenizerFast, Qwen3Config

from harness.data.sources import hub, rows

CONTEXT = 2048
SMALL, LARGE, VAST = 8192, 131072, 151936
_CHARACTERS = {SMALL: 3_000_000, LARGE: 20_000_000}
_SPECIAL = {"pad_token": "<pad>", "bos_token": "<s>", "eos_token": "</s>"}
_IDS = {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}
LORAS = 3


def _llama(vocabulary: int, layers: int, hidden: int, inner: int, heads: int, kv: int, **options: Any) -> LlamaConfig:
    return LlamaConfig(
        vocab_size=vocabulary,
        hidden_size=hidden,
        intermediate_size=inner,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        num_key_value_heads=kv,
        max_position_embeddings=CONTEXT,
        **options,
        **_IDS,
    )


def _qwen3(vocabulary: int, layers: int, hidden: int, inner: int, heads: int, kv: int, tied: bool) -> Qwen3Config:
    return Qwen3Config(
        vocab_size=vocabulary,
        hidden_size=hidden,
        intermediate_size=inner,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        num_key_value_heads=kv,
        head_dim=64,
        max_position_embeddings=CONTEXT,
        tie_word_embeddings=tied,
        **_IDS,
    )


SHAPES: dict[str, Any] = {
    "s8k": lambda: _llama(SMALL, 8, 512, 1408, 8, 4),
    "s128k": lambda: _llama(LARGE, 8, 512, 1408, 8, 4),
    "m128k": lambda: _llama(LARGE, 30, 576, 1536, 9, 3, tie_word_embeddings=True),
    "qwen3": lambda: _qwen3(SMALL, 8, 512, 1408, 8, 4, tied=False),
    "q151": lambda: _qwen3(VAST, 6, 384, 1152, 6, 3, tied=True),
    "gpt2": lambda: GPT2Config(vocab_size=SMALL, n_embd=512, n_layer=8, n_head=8, n_positions=CONTEXT, **_IDS),
    "tiny": lambda: _llama(SMALL, 2, 64, 176, 4, 2),
}
"""Shapes by name; m128k is SmolLM2-135M's with a vocabulary of 128k, q151 has Qwen3's vocabulary."""


def make(folder: Path, name: str) -> None:
    """Saves a model and its tokenizer in `folder / name`, unless they exist."""
    if (folder / name / "model.safetensors").is_file():
        return
    config = SHAPES[name]()
    tokenizer = _tokenizer(folder, config.vocab_size)
    torch.manual_seed(0)
    AutoModelForCausalLM.from_config(config).save_pretrained(folder / name)
    tokenizer.save_pretrained(folder / name)


def make_loras(folder: Path, name: str) -> None:
    """Saves random adapters (rank 16, all linear layers) that change the model's outputs."""
    from peft import LoraConfig, get_peft_model

    for number in range(LORAS):
        target = folder / f"{name}-lora{number}"
        if (target / "adapter_config.json").is_file():
            continue
        base = AutoModelForCausalLM.from_pretrained(folder / name, dtype=torch.float32)
        options = LoraConfig(task_type="CAUSAL_LM", r=16, lora_alpha=32, target_modules="all-linear")
        model = get_peft_model(base, options)
        torch.manual_seed(number + 1)
        for key, parameter in model.named_parameters():
            if "lora_" in key:
                parameter.data.normal_(std=0.02)
        model.save_pretrained(target)


def _tokenizer(folder: Path, size: int) -> PreTrainedTokenizerFast:
    """Loads or trains a byte-level BPE tokenizer of at most `size` tokens; the text may yield fewer."""
    path = folder / f"bpe-{size}.json"
    if size == VAST:
        _tokenizer(folder, LARGE)
        path.write_text(_filled((folder / f"bpe-{LARGE}.json").read_text(encoding="utf-8"), size), encoding="utf-8")
    elif not path.is_file():
        inner = Tokenizer(models.BPE(unk_token=None))
        inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        inner.decoder = decoders.ByteLevel()
        trainer = trainers.BpeTrainer(
            vocab_size=size,
            special_tokens=list(_SPECIAL.values()),
            initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
            show_progress=False,
        )
        inner.train_from_iterator(_text(_CHARACTERS[size]), trainer)
        inner.save(str(path))
    return PreTrainedTokenizerFast(tokenizer_file=str(path), model_max_length=CONTEXT, **_SPECIAL)


def _filled(tokenizer: str, size: int) -> str:
    """A tokenizer with words that no text has, so that each id that a random model generates has a text."""
    made = json.loads(tokenizer)
    words = made["model"]["vocab"]
    words.update({f"unused{number}": number for number in range(len(words), size)})
    return json.dumps(made)


def _text(characters: int) -> Iterator[str]:
    """Text of the kinds that are scored, at most a third of the characters from each."""
    sources = (
        (row["question"] + "\n" + row["answer"] + "\n" for row in rows(hub("openai/gsm8k", "main"))),
        (row["question"] + "\n" + "\n".join(row["choices"]) for row in rows(hub("cais/mmlu", "all", split="test"))),
        (row["page"] for row in rows(hub("EleutherAI/wikitext_document_level", "wikitext-2-raw-v1"))),
    )
    for source in sources:
        left = characters // len(sources)
        for text in source:
            yield text
            left -= len(text)
            if left <= 0:
                break


if __name__ == "__main__":
    where = Path(sys.argv[1])
    where.mkdir(parents=True, exist_ok=True)
    for wanted in sys.argv[2:]:
        shape, _, loras = wanted.partition("+")
        make(where, shape)
        if loras:
            make_loras(where, shape)
