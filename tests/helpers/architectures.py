"""Small random models of many architectures, with the parts of the fast path that apply to each."""

from typing import Any

import tiny_models as tiny
import torch
import transformers

VOCABULARY = len(tiny.tiny_tokenizer())
LLAMA_LIKE = {
    "vocab_size": VOCABULARY,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "max_position_embeddings": 256,
}
SMALL = {"vocab_size": VOCABULARY, "n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 256}
KV = {**LLAMA_LIKE, "num_key_value_heads": 2}
SHAPES: dict[str, tuple[Any, dict[str, Any], bool, bool]] = {
    # class of the config, its fields, whether prefix trees apply, whether generation slots apply
    "llama": (transformers.LlamaConfig, KV, True, True),
    "qwen3": (transformers.Qwen3Config, {**KV, "head_dim": 8}, True, True),
    "gemma2": (transformers.Gemma2Config, {**KV, "head_dim": 8, "sliding_window": 64}, True, True),
    "gemma3": (transformers.Gemma3TextConfig, {**KV, "head_dim": 8, "sliding_window": 8}, True, False),
    "mistral": (transformers.MistralConfig, {**KV, "sliding_window": 8}, True, False),
    "phi": (transformers.PhiConfig, LLAMA_LIKE, True, True),
    "gpt2": (transformers.GPT2Config, SMALL, True, True),
    "gpt_neox": (transformers.GPTNeoXConfig, LLAMA_LIKE, True, True),
    "gpt_neo": (
        transformers.GPTNeoConfig,
        {
            "vocab_size": VOCABULARY,
            "hidden_size": 32,
            "num_layers": 2,
            "num_heads": 4,
            "attention_types": [[["global", "local"], 1]],
            "window_size": 16,
            "max_position_embeddings": 256,
        },
        False,
        False,
    ),
    "granite": (transformers.GraniteConfig, {**LLAMA_LIKE, "logits_scaling": 8.0}, True, True),
    "cohere": (transformers.CohereConfig, LLAMA_LIKE, True, True),
    "falcon": (
        transformers.FalconConfig,
        {"vocab_size": VOCABULARY, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4},
        True,
        False,
    ),
    "opt": (
        transformers.OPTConfig,
        {
            "vocab_size": VOCABULARY,
            "hidden_size": 32,
            "ffn_dim": 48,
            "num_hidden_layers": 2,
            "num_attention_heads": 4,
            "max_position_embeddings": 256,
            "word_embed_proj_dim": 32,
        },
        True,
        True,
    ),
    "llama4": (
        transformers.Llama4TextConfig,
        {**KV, "head_dim": 8, "intermediate_size_mlp": 48, "num_local_experts": 2, "attention_chunk_size": 48},
        False,
        False,
    ),
    "mixtral": (transformers.MixtralConfig, {**KV, "num_local_experts": 4}, True, True),
    "bloom": (
        transformers.BloomConfig,
        {"vocab_size": VOCABULARY, "hidden_size": 32, "n_layer": 2, "n_head": 4},
        False,
        False,
    ),
    "mamba": (
        transformers.MambaConfig,
        {"vocab_size": VOCABULARY, "hidden_size": 32, "num_hidden_layers": 2},
        False,
        False,
    ),
    "jamba": (
        transformers.JambaConfig,
        {**KV, "use_mamba_kernels": False, "num_experts": 2, "attn_layer_period": 2, "attn_layer_offset": 1},
        False,
        False,
    ),
}


def random_model(shape: str) -> Any:
    """A small model of an architecture, with random weights that are the same every time."""
    config, fields, _, _ = SHAPES[shape]
    torch.manual_seed(0)
    return transformers.AutoModelForCausalLM.from_config(config(**fields)).eval()
