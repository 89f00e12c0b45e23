"""Writes a trained variant in a form that a server loads, and reads it back, in the child process. Imports torch."""

from __future__ import annotations

import json
import shutil
import tempfile
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch

from harness.deploy.modelfile import modelfile
from harness.deploy.vllm_command import serve_command, serve_script
from harness.errors import UserError
from harness.jobs import Advanced, Base, Exported, ExportJob, Recipe, TaskRequests
from harness.models.artifacts import save_checkpoint
from harness.models.distance import last_logits, logit_distance
from harness.models.gguf import unpack_into
from harness.models.load import Resident, context_length, load_base, method_function
from harness.models.read_back import NotReadBack, release
from harness.serving.vllm_limits import NotTaken, lora_of
from harness.storage import read_json, whole_folder
from harness.tokens.description import describe_folder
from harness.tokens.encode import Encoder
from harness.tokens.tokenizer import load_tokenizer
from harness.worker.child import Send, threads
from harness.worker.deployment import checkpoint_of, make_gguf, save_merged, weight_bytes

RECORD = "export.json"
MODEL, ADAPTER = "model", "adapter"
_PROBED = 256
"""Tokens of a text at most."""
_STEPS = 4
_FAR = 0.02
"""Mean KL in nats above which merged weights are not those that were trained; merging in bfloat16 gives some 1e-4."""


def export(job: ExportJob, send: Send) -> Exported:
    """Writes an export in the job's folder, completely or not at all, and measures how far its logits moved."""
    torch.set_num_threads(threads())
    base = job.recipe.base
    send(Advanced(0, _STEPS, "trained model"))
    tokenizer = load_tokenizer(base.folder, trust_remote_code=base.trust_remote_code)
    model = Resident(base, method_function).attach(job.recipe)
    context = context_length(model, tokenizer)
    texts = _texts(job, tokenizer, context)
    trained = last_logits(model, texts)
    penalty = float(getattr(model.generation_config, "repetition_penalty", None) or 1.0)
    release(model)
    del model
    send(Advanced(1, _STEPS, "write"))
    with whole_folder(job.output) as folder:
        command, notes = _write(job, folder, context, penalty, send)
        send(Advanced(3, _STEPS, "read back"))
        distance = logit_distance(trained, last_logits(_read_back(job, folder), texts))
        if job.to == "merged" and not distance.mean_kl <= _FAR:
            raise NotReadBack(f"the merged model is not the one that was trained: mean KL {distance.mean_kl:.3g}")
        size = sum(weight_bytes(each) for each in (folder, folder / MODEL, folder / ADAPTER) if each.is_dir())
        record = {"title": job.title, "to": job.to, "distance": asdict(distance), "command": command, "notes": notes}
        (folder / RECORD).write_text(json.dumps(record, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    return Exported(job.output, size, distance, command, tuple(notes))


def _texts(job: ExportJob, tokenizer: Any, context: int) -> list[list[int]]:
    """Ids of the prompts, or of the first continuation with its context, as scoring encodes them."""
    encoded = Encoder(tokenizer, context).encode(TaskRequests("", job.requests))
    rows = [item.prompt or (item.rows[0].ids if item.rows else ()) for item in encoded]
    found = [list(ids)[-min(_PROBED, context) :] for ids in rows if ids]
    if not found:
        raise UserError("the run has no text on which logits could be compared", hint="score it on a task first")
    return found


def _write(job: ExportJob, folder: Path, context: int, penalty: float, send: Send) -> tuple[str | None, list[str]]:
    """Writes the files; returns the command that serves them, and notes."""
    recipe = job.recipe
    merged = replace(recipe, merged=True) if recipe.adapter is not None else recipe
    if job.to == "vllm" and recipe.adapter is not None:
        reason = _why_merged(recipe)
        if reason is None:
            return _write_adapter(job, recipe.adapter, folder)
        _save(merged, folder / MODEL)
        return _serve(job, folder), [f"merged into the weights: {reason}"]
    if job.to in ("merged", "vllm"):
        _save(merged, folder / MODEL if job.to == "vllm" else folder)
        return (_serve(job, folder), []) if job.to == "vllm" else (None, [])
    beats = 0

    def beat() -> None:
        nonlocal beats
        beats += 1
        send(Advanced(2, _STEPS, f"convert{'.' * (beats % 4)}"))

    file = folder / f"{job.name}-{job.kind}.gguf"
    with checkpoint_of(merged, inside=folder) as checkpoint:
        notes = make_gguf(checkpoint, file, job.kind, recipe.base, beat)
        described = describe_folder(checkpoint)
    if job.to == "gguf":
        return None, notes
    tokenizer = load_tokenizer(recipe.base.folder, trust_remote_code=recipe.base.trust_remote_code)
    text, note = modelfile(
        file.name,
        title=job.title,
        template=described.chat if job.templated else None,
        stops=[*tokenizer.convert_ids_to_tokens(list(described.stops)), *job.stops],
        context=context,
        system=job.system,
        repetition_penalty=penalty,
    )
    (folder / "Modelfile").write_text(text, encoding="utf-8")
    return f"ollama create {job.name.lower()} -f Modelfile", notes + ([note] if note else [])


def _why_merged(recipe: Recipe) -> str | None:
    """Why an adapter cannot be served beside its base; None: it can."""
    try:
        lora_of(replace(recipe, merged=False))
    except NotTaken as reason:
        return str(reason)
    return None


def _write_adapter(job: ExportJob, adapter: Path, folder: Path) -> tuple[str, list[str]]:
    (folder / ADAPTER).mkdir()
    for name in ("adapter_config.json", "adapter_model.safetensors"):
        shutil.copyfile(adapter / name, folder / ADAPTER / name)
    rank = int(read_json(adapter / "adapter_config.json")["r"])
    base = job.recipe.base
    notes = [] if base.quant is None else [f"trained beside a base in {base.quant}, served beside one in {base.dtype}"]
    command = serve_command(job.model, name=job.name, dtype=base.dtype, adapter=f"./{ADAPTER}", rank=rank)
    _script(folder, command, job)
    return command, notes


def _serve(job: ExportJob, folder: Path) -> str:
    command = serve_command(f"./{MODEL}", name=job.name, dtype=job.recipe.base.dtype)
    _script(folder, command, job)
    return command


def _script(folder: Path, command: str, job: ExportJob) -> None:
    script = folder / "serve.sh"
    script.write_text(serve_script(command, title=job.title), encoding="utf-8")
    script.chmod(0o755)


def _save(recipe: Recipe, folder: Path) -> None:
    """Saves a checkpoint: of a base as it is loaded, of an adapter merged."""
    if recipe.adapter is not None:
        return save_merged(recipe, folder)
    model = load_base(recipe.base)
    save_checkpoint(model, load_tokenizer(recipe.base.folder, trust_remote_code=recipe.base.trust_remote_code), folder)
    release(model)


def _read_back(job: ExportJob, folder: Path) -> Any:
    """Loads what was written as a server would."""
    base = replace(job.recipe.base, quant=None)
    if (folder / ADAPTER).is_dir():
        return Resident(base, method_function).attach(Recipe(base, folder / ADAPTER))
    if job.to in ("merged", "vllm"):
        return load_base(replace(base, folder=folder / MODEL if job.to == "vllm" else folder))
    file = next(folder.glob("*.gguf"))
    with tempfile.TemporaryDirectory(prefix=".unpacked-", dir=folder.parent) as unpacked:
        packed = Base(file, base.device, base.dtype)
        unpack_into(packed, Path(unpacked))
        return load_base(replace(packed, folder=Path(unpacked)))
