"""Trains the embedded model and writes the rows of its tasks: `python -m harness.tiny.build`.

Creates the synthetic world, trains a byte-level BPE tokenizer on its documents, trains a small Llama on them for a given
number of minutes, and writes `model/` (config, safetensors in bfloat16, tokenizer, `build.json`) and `data/` (the train
and test rows of the `mini_*` tasks). Needs no network and no accelerator.
"""

import argparse
import json
import math
import platform
import sys
import time
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any, Final

import tokenizers
import torch
import transformers
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from harness.storage import whole_folder
from harness.tiny.world import World, write_rows

HERE: Final = Path(__file__).parent
VOCABULARY: Final = 1280
CONTEXT: Final = 512
EOS, PAD = "<eos>", "<pad>"
ROW_TOKENS: Final = 128
BATCH_ROWS: Final = 32
TOKENIZER_DOCUMENTS: Final = 20_000
ADAM_LR: Final = 2e-3
MUON_LR: Final = 0.02
WARMUP_STEPS: Final = 100
FINAL_LR_SHARE: Final = 0.02


def main() -> None:
    """Parses the command line and builds model and rows."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--minutes", type=float, default=30.0, help="wall-clock time of the training run")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=HERE, help="where model/ and data/ are written")
    options = parser.parse_args()
    build(options.out, minutes=options.minutes, seed=options.seed)


def build(out: Path, *, minutes: float, seed: int) -> None:
    """Writes `out/data` and `out/model`; each replaces the old folder only when it is complete.

    Args:
        out: Folder of both.
        minutes: Wall-clock time of the training run.
        seed: Seed of the world and of the model's initial weights.
    """
    world = World(seed)
    with whole_folder(out / "data") as folder:
        write_rows(world, folder)
    tokenizer = train_tokenizer(world)
    model, report = train_model(world, tokenizer, minutes=minutes, seed=seed)
    with whole_folder(out / "model") as folder:
        model.to(torch.bfloat16).save_pretrained(folder)
        tokenizer.save_pretrained(folder)
        text = json.dumps(report | _versions(), indent=2)
        (folder / "build.json").write_text(text + "\n", encoding="utf-8")


def train_tokenizer(world: World) -> PreTrainedTokenizerFast:
    """Trains a byte-level BPE tokenizer in which every digit and every Chinese character is a token of its own.

    Separate digits make sums learnable; separate characters prevent merges of a name with the text after it.
    """
    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Digits(individual_digits=True),
            pre_tokenizers.Split(Regex("[\u4e00-\u9fff]"), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False),
        ]
    )
    bpe.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        special_tokens=[EOS, PAD],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    bpe.train_from_iterator(islice(world.documents("tokenizer"), TOKENIZER_DOCUMENTS), trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=bpe,
        eos_token=EOS,
        pad_token=PAD,
        model_max_length=CONTEXT,
        clean_up_tokenization_spaces=False,
    )


def train_model(
    world: World, tokenizer: PreTrainedTokenizerFast, *, minutes: float, seed: int
) -> tuple[LlamaForCausalLM, dict[str, Any]]:
    """Trains for `minutes` of wall-clock time; the learning rate follows a cosine over that time.

    Returns:
        The model, and a report for `build.json` (seed, minutes, threads, steps, tokens, parameters, final loss).
    """
    torch.manual_seed(seed)
    model = LlamaForCausalLM(_config(tokenizer)).train()
    muon, adam = _optimizers(model)
    batches = _batches(world, tokenizer)
    start, step, losses = time.monotonic(), 0, list[float]()
    while (done := (time.monotonic() - start) / (60 * minutes)) < 1:
        share = min(1.0, (step + 1) / WARMUP_STEPS) * (
            FINAL_LR_SHARE + (1 - FINAL_LR_SHARE) * (1 + math.cos(math.pi * done)) / 2
        )
        batch = next(batches)
        with torch.autocast("cpu", torch.bfloat16):
            loss = model(input_ids=batch, labels=batch).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        for optimizer, lr in ((muon, MUON_LR), (adam, ADAM_LR)):
            optimizer.param_groups[0]["lr"] = lr * share
            optimizer.step()
            optimizer.zero_grad()
        losses.append(loss.item())
        step += 1
        if step % 100 == 0:
            seconds = time.monotonic() - start
            speed = step * batch.numel() / seconds
            recent = sum(losses[-100:]) / 100
            sys.stderr.write(f"{seconds:5.0f} s  step {step}  loss {recent:.3f}  {speed:.0f} tokens/s\n")
    last = losses[-100:]
    report = {
        "seed": seed,
        "minutes": round((time.monotonic() - start) / 60, 2),
        "threads": torch.get_num_threads(),
        "steps": step,
        "tokens": step * ROW_TOKENS * BATCH_ROWS,
        "parameters": sum(p.numel() for p in model.parameters()),
        "final_loss": round(sum(last) / len(last), 4),
    }
    return model.eval(), report


def _config(tokenizer: PreTrainedTokenizerFast) -> LlamaConfig:
    # Every dimension of a Linear layer is a multiple of 64, the block size of 4-bit NF4.
    return LlamaConfig(
        vocab_size=VOCABULARY,
        hidden_size=256,
        intermediate_size=704,
        num_hidden_layers=4,
        num_attention_heads=4,
        num_key_value_heads=4,
        max_position_embeddings=CONTEXT,
        tie_word_embeddings=True,
        bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )


def _optimizers(model: LlamaForCausalLM) -> tuple[torch.optim.Optimizer, torch.optim.Optimizer]:
    """Muon for the matrices (it learns more per token), AdamW for embeddings and norms."""
    matrices, rest = list[torch.nn.Parameter](), list[torch.nn.Parameter]()
    for name, parameter in model.named_parameters():
        (matrices if parameter.ndim == 2 and "embed" not in name else rest).append(parameter)
    return (
        torch.optim.Muon(matrices, lr=MUON_LR, weight_decay=0.05),
        torch.optim.AdamW(rest, lr=ADAM_LR, betas=(0.9, 0.95), weight_decay=0.0),
    )


def _batches(world: World, tokenizer: PreTrainedTokenizerFast) -> Iterator[torch.Tensor]:
    """Batches of rows cut from the concatenated documents, which are separated by `<eos>`."""
    documents = world.documents()
    need = ROW_TOKENS * BATCH_ROWS
    buffer = list[int]()
    while True:
        while len(buffer) < need:
            for ids in tokenizer(list(islice(documents, 64)))["input_ids"]:
                buffer += [*ids, tokenizer.eos_token_id]
        yield torch.tensor(buffer[:need]).view(BATCH_ROWS, ROW_TOKENS)
        buffer = buffer[need:]


def _versions() -> dict[str, str]:
    return {
        "python": platform.python_version(),
        "torch": torch.__version__,
        "transformers": transformers.__version__,
        "tokenizers": tokenizers.__version__,
    }


if __name__ == "__main__":
    main()
