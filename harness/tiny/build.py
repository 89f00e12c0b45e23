"""Train the embedded model and write its rows: `python -m harness.tiny.build`.

Makes the world, trains a byte-level BPE tokenizer on its documents, trains a small Llama on them until
the clock says stop, and writes `model/` (config, safetensors in bfloat16, tokenizer, `build.json`) and
`data/` (the train and test rows of the `mini_*` tasks). Needs no network and no accelerator.
"""

import argparse
import json
import math
import platform
import shutil
import sys
import time
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any, Final

import tokenizers
import torch
import transformers
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

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
    """Parse the command line and build."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--minutes", type=float, default=30.0, help="wall clock of the training")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=HERE, help="where model/ and data/ are written")
    options = parser.parse_args()
    build(options.out, minutes=options.minutes, seed=options.seed)


def build(out: Path, *, minutes: float, seed: int) -> None:
    """Write `out/model` and `out/data`, each aside first and then renamed into place."""
    world = World(seed)
    _replace(out / "data", lambda folder: write_rows(world, folder))
    tokenizer = train_tokenizer(world)
    model, report = train_model(world, tokenizer, minutes=minutes, seed=seed)

    def write_model(folder: Path) -> None:
        model.to(torch.bfloat16).save_pretrained(folder)
        tokenizer.save_pretrained(folder)
        text = json.dumps(report | _versions(), indent=2)
        (folder / "build.json").write_text(text + "\n", encoding="utf-8")

    _replace(out / "model", write_model)


def train_tokenizer(world: World) -> PreTrainedTokenizerFast:
    """Byte-level BPE in which every digit and every Chinese character stands alone.

    Digits apart make sums learnable; characters apart keep a name from merging with what follows it.
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
    """Train for `minutes` of wall clock; the learning rate follows a cosine on that clock."""
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
    # Every Linear dimension is a multiple of 64, the block of 4-bit NF4.
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
    """Muon for the matrices (it learns more from a token), Adam for embeddings and norms."""
    matrices, rest = list[torch.nn.Parameter](), list[torch.nn.Parameter]()
    for name, parameter in model.named_parameters():
        (matrices if parameter.ndim == 2 and "embed" not in name else rest).append(parameter)
    return (
        torch.optim.Muon(matrices, lr=MUON_LR, weight_decay=0.05),
        torch.optim.AdamW(rest, lr=ADAM_LR, betas=(0.9, 0.95), weight_decay=0.0),
    )


def _batches(world: World, tokenizer: PreTrainedTokenizerFast) -> Iterator[torch.Tensor]:
    """Documents end to end, cut into rows."""
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


def _replace(folder: Path, write: Callable[[Path], None]) -> None:
    """Let `write` fill a folder aside, then put it where `folder` is."""
    aside = folder.with_name(f".{folder.name}.new")
    shutil.rmtree(aside, ignore_errors=True)
    aside.mkdir(parents=True)
    write(aside)
    old = folder.with_name(f".{folder.name}.old")
    shutil.rmtree(old, ignore_errors=True)
    if folder.exists():
        folder.rename(old)
    aside.rename(folder)
    shutil.rmtree(old, ignore_errors=True)


if __name__ == "__main__":
    main()
