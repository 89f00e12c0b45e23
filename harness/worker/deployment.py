"""Converts a variant's model to a deployed form in the child process: merge, stage, convert. Imports torch."""

from __future__ import annotations

import random
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from harness.data.gguf import is_gguf, plain_copy
from harness.deploy.kept import read_deployed, write_record
from harness.deploy.llama_cpp import convert, fallback_note
from harness.deploy.llmcompressor import CALIBRATION_ROWS, CALIBRATION_TOKENS, compress
from harness.deploy.staged import stage
from harness.jobs import Advanced, Base, Deployed, DeployJob, Recipe
from harness.models.artifacts import save_checkpoint
from harness.models.load import Resident, load_config, method_function
from harness.models.merge import refuse_added_weights
from harness.models.read_back import release
from harness.models.torchao import quantize_with_torchao, torchao_note
from harness.storage import whole_folder
from harness.tokens.tokenizer import load_tokenizer
from harness.tokens.training_labels import tokenise
from harness.worker.child import Send, threads

GGUF_FILE = "model.gguf"


def deploy(job: DeployJob, send: Send) -> Deployed:
    """Converts a model and saves it in the job's folder, completely or not at all."""
    torch.set_num_threads(threads())
    steps = 0

    def beat() -> None:
        nonlocal steps
        steps += 1
        send(Advanced(min(steps, 999), 1000, job.form.made))

    with whole_folder(job.output) as output, checkpoint_of(job.recipe, inside=output) as checkpoint:
        notes = _convert(job, checkpoint, output, beat)
        weights = output / GGUF_FILE if job.form.tool == "gguf" else output
        write_record(output, Deployed(weights, weight_bytes(output), tuple(notes)))
    return read_deployed(job.output)


@contextmanager
def checkpoint_of(recipe: Recipe, *, inside: Path) -> Iterator[Path]:
    """The folder of a plain checkpoint of a variant, merged if it has an adapter, without code; removed afterwards.

    Args:
        recipe: The variant; with an adapter: merged.
        inside: A folder that is being filled, on the disk that has room for the weights.

    Raises:
        UserError: The adapter cannot be merged, or training added weights that a checkpoint has no place for.
    """
    base = recipe.base
    with tempfile.TemporaryDirectory(prefix=".merging-", dir=inside) as folder:
        merged, staged = Path(folder) / "merged", Path(folder) / "staged"
        staged.mkdir()
        if recipe.adapter is not None:
            save_merged(recipe, merged)
        source = merged if recipe.adapter is not None else _plain(base)
        stage(source, staged, trust_remote_code=base.trust_remote_code)
        yield staged


def save_merged(recipe: Recipe, folder: Path) -> None:
    """Merges a variant's adapter into its base, and saves the checkpoint with the tokenizer and generation settings."""
    base = recipe.base
    resident = Resident(base, method_function)
    places = set(resident.bare.state_dict())
    settings = resident.bare.generation_config
    model = resident.attach(recipe)
    refuse_added_weights(model, places, hint="a deployed form has no place for them: score it as trained")
    model.generation_config = settings
    save_checkpoint(model, load_tokenizer(base.folder, trust_remote_code=base.trust_remote_code), folder)
    release(model)


def _plain(base: Base) -> Path:
    return plain_copy(base.folder, base.dtype) if is_gguf(base.folder) else base.folder


def _convert(job: DeployJob, checkpoint: Path, output: Path, beat: Callable[[], None]) -> list[str]:
    form, base = job.form, job.recipe.base
    if form.tool == "gguf":
        return make_gguf(checkpoint, output / GGUF_FILE, form.type, base, beat)
    tokenizer = load_tokenizer(checkpoint, trust_remote_code=base.trust_remote_code)
    if form.tool == "torchao":
        model = quantize_with_torchao(
            checkpoint,
            form.type,
            dtype=base.dtype,
            device=base.device,
            trust_remote_code=base.trust_remote_code,
        )
        note = torchao_note(model)
        model.save_pretrained(output)
        tokenizer.save_pretrained(output)
        return [note] + ["its 4-bit weights take 8 bits each on disk"] * (form.type == "int4wo")
    rows = calibration_rows(job, tokenizer)
    notes = compress(
        checkpoint,
        output,
        form,
        rows,
        dtype=base.dtype,
        device=base.device,
        seed=job.seed,
        threads=threads(),
        beat=beat,
    )
    for path in checkpoint.iterdir():  # the tokenizer of the other environment would save it in another version's form
        if path.suffix != ".safetensors" and not (output / path.name).exists() and "index" not in path.name:
            shutil.copyfile(path, output / path.name)
    return notes


def make_gguf(checkpoint: Path, file: Path, kind: str, base: Base, beat: Callable[[], None]) -> list[str]:
    """Converts a staged checkpoint to a GGUF file; returns notes for the report."""
    dtype = str(load_config(replace(base, folder=checkpoint)).get_text_config().dtype).removeprefix("torch.")
    convert(checkpoint, file, kind, dtype, beat=beat)
    note = fallback_note(file, kind)
    return [] if note is None else [note]


def calibration_rows(job: DeployJob, tokenizer: Any) -> list[list[int]]:
    """Token ids of a random part of the training rows, the same for the same rows and seed."""
    examples = list(job.calibration)
    if len(examples) > CALIBRATION_ROWS:
        examples = random.Random(job.seed).sample(examples, CALIBRATION_ROWS)
    return [row["input_ids"] for row in tokenise(examples, tokenizer, CALIBRATION_TOKENS).rows]


def weight_bytes(folder: Path) -> int:
    """Bytes of the weight files in a folder."""
    return sum(path.stat().st_size for path in folder.iterdir() if path.suffix in (".gguf", ".safetensors"))
