"""Makes the models and rows for timing training, the same for all sides: `python training_inputs.py FOLDER ROWS`.

The words of a model are `w0`, `w1`, … and each is one token, so that rows have exactly the wanted lengths. If
HARNESS_TEST_HUB is set, ragged rows have the lengths of alpaca's, with a token counted as three quarters of a word;
otherwise their lengths are drawn from a log-normal distribution of about the same shape.
"""

import argparse
import json
import os
import random
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

VAST, LARGE, SMALL = 151_936, 131_072, 8_192
UNIFORM = (64, 192)
"""Tokens of prompt and of answer in every uniform row, with the end token."""
ALPACA = "llamafactory/alpaca_en_demo"
_WORDS_A_TOKEN = 0.75
_SPECIAL = {"<pad>": 0, "<s>": 1, "</s>": 2}
_SHAPES: dict[str, tuple[int, int, int, int, int, int]] = {
    "t8k": (SMALL, 2, 128, 352, 4, 2),
    "t128k": (LARGE, 2, 128, 352, 4, 2),
    "s8k": (SMALL, 8, 512, 1408, 8, 4),
    "w128k": (LARGE, 4, 512, 1408, 8, 4),
    "w151k": (VAST, 6, 384, 1152, 6, 3),
    "t151k": (VAST, 2, 128, 352, 4, 2),
}
"""Vocabulary, layers, width, inner width, heads, key heads; head and embeddings share their weight from 128k on."""


def make_model(folder: Path, shape: str) -> None:
    """Saves a random Llama (seed 0) and its tokenizer in `folder / shape`, unless they exist."""
    if (folder / shape / "model.safetensors").is_file():
        return
    import torch
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import AutoModelForCausalLM, LlamaConfig, PreTrainedTokenizerFast

    vocabulary, layers, hidden, inner, heads, kv = _SHAPES[shape]
    config = LlamaConfig(
        vocab_size=vocabulary,
        hidden_size=hidden,
        intermediate_size=inner,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        num_key_value_heads=kv,
        max_position_embeddings=2048,
        tie_word_embeddings=vocabulary >= LARGE,
        pad_token_id=0,
        bos_token_id=1,
        eos_token_id=2,
    )
    words = _SPECIAL | {f"w{number}": number for number in range(len(_SPECIAL), vocabulary)}
    words_only = Tokenizer(models.WordLevel(words, unk_token="<pad>"))
    words_only.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    torch.manual_seed(0)
    AutoModelForCausalLM.from_config(config).save_pretrained(folder / shape)
    PreTrainedTokenizerFast(
        tokenizer_object=words_only, pad_token="<pad>", bos_token="<s>", eos_token="</s>"
    ).save_pretrained(folder / shape)


def make_rows(lengths: Iterator[tuple[int, int]], count: int, vocabulary: int) -> list[dict[str, Any]]:
    """Makes rows of random words: `prompt` and `completion` for us, the same as `input_ids` and `labels` for the peers."""
    draw = random.Random(0)
    rows = []
    for (prompt, completion), _ in zip(lengths, range(count), strict=False):
        ids = [min(int(draw.paretovariate(0.6)) + 2, vocabulary - 1) for _ in range(prompt + completion - 1)]
        rows.append(
            {
                "prompt": " ".join(f"w{i}" for i in ids[:prompt]),
                "completion": " " + " ".join(f"w{i}" for i in ids[prompt:]),
                "input_ids": [*ids, 2],
                "labels": [-100] * prompt + ids[prompt:] + [2],
            }
        )
    assert len(rows) == count, f"{count} rows are needed, but there are only {len(rows)}"
    return rows


def lengths(kind: str) -> Iterator[tuple[int, int]]:
    """Yields the numbers of tokens of prompt and answer, row by row."""
    if kind == "uniform":
        while True:
            yield UNIFORM
    elif os.environ.get("HARNESS_TEST_HUB"):
        from harness.data.sources import hub, rows

        for row in rows(hub(ALPACA)):
            prompt, answer = f"{row['instruction']} {row['input']}", row["output"]
            yield tuple(max(2, min(512, round(len(text.split()) / _WORDS_A_TOKEN))) for text in (prompt, answer))  # type: ignore[misc]
    else:
        draw = random.Random(0)
        while True:
            yield (
                max(2, min(512, round(draw.lognormvariate(3.2, 0.8)))),
                max(2, min(512, round(draw.lognormvariate(4, 1)))),
            )


def main() -> None:
    """Makes the models and rows that the command line names."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("rows", help="JSON: file name to [shape, uniform or ragged, count]")
    options = parser.parse_args()
    for name, (shape, kind, count) in json.loads(options.rows).items():
        make_model(options.folder, shape)
        rows = make_rows(lengths(kind), count, _SHAPES[shape][0])
        (options.folder / name).write_text(json.dumps(rows), encoding="utf-8")


if __name__ == "__main__":
    sys.exit(main())
