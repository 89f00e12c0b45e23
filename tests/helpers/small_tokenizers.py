"""Small tokenizers and chat templates of every kind that people bring, built in milliseconds."""

from __future__ import annotations

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
