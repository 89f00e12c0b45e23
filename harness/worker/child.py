"""Runs jobs in the child process: loads one base, then trains or merges, or looks at a model. Imports torch.

`harness.worker.scoring` scores, and `harness.worker.timing` times.
"""

from __future__ import annotations

import importlib
import importlib.metadata
import os
import platform
import re
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
import transformers

from harness.errors import UserError, plugin_error
from harness.finetune.training.trainer import run_training
from harness.jobs import (
    PACKAGES,
    Advanced,
    Base,
    EnvironmentJob,
    Event,
    MergeJob,
    PlanJob,
    Planned,
    ReachJob,
    Recipe,
    SourcesJob,
    Trained,
    TrainJob,
    UnpackJob,
)
from harness.models.artifacts import load_trained, save_checkpoint
from harness.models.causality import refuse_if_not_causal
from harness.models.gguf import unpacked
from harness.models.load import (
    Resident,
    context_length,
    load_config,
    method_function,
)
from harness.models.measure import (
    fast_bfloat16,
    rss_bytes,
)
from harness.models.merge import refuse_added_weights
from harness.models.phases import Phases
from harness.models.reach import layer_weights, reach_note
from harness.models.read_back import probe_logits, refuse_if_changed, release
from harness.registry.load import import_file
from harness.registry.sources import recorded, sources
from harness.sandbox.memory import total_memory
from harness.storage import whole_folder
from harness.tokens.tokenizer import load_tokenizer
from harness.worker.fit import check_examples

Send = Callable[[Event], None]


def describe_environment(job: EnvironmentJob) -> dict[str, Any]:
    """Returns device, precision, threads and versions, with `auto` resolved."""
    cuda = torch.cuda.is_available()
    if cuda and torch.cuda._is_in_bad_fork():
        raise UserError(
            "CUDA was started before the worker process was forked, so the GPU cannot be used",
            hint="install NVIDIA's management library, libnvidia-ml.so.1, by which torch finds GPUs without starting CUDA",
        )
    if job.device.startswith("cuda") and not cuda:
        raise UserError(f"`--device {job.device}`: torch sees no CUDA device", hint="`--device cpu`, or `harness env`")
    device = job.device if job.device != "auto" else "cuda:0" if cuda else "cpu"
    device = "cuda:0" if device == "cuda" else device
    on_gpu = device.startswith("cuda")
    dtype = job.dtype if job.dtype != "auto" else "bfloat16" if on_gpu else "float32"
    return {
        "device": device,
        "device_name": torch.cuda.get_device_name(device) if on_gpu else _processor(),
        "gpu_bytes": memory_bytes(device) if on_gpu else None,
        "driver": _driver() if on_gpu else None,
        "dtype": dtype,
        "mixed_precision": dtype == "bfloat16" or (not on_gpu and dtype == "float32" and fast_bfloat16()),
        "threads": threads(),
        "host_bytes": memory_bytes("cpu"),
        "system": platform.platform(),
        "python": platform.python_version(),
        # plain text: unpickling torch's own version type would import torch in the parent
        "packages": {
            name: str(torch.__version__) if name == "torch" else importlib.metadata.version(name) for name in PACKAGES
        },
    }


def unpack(job: UnpackJob) -> None:
    """Unpacks a GGUF file."""
    torch.set_num_threads(threads())
    load_config(job.base)
    unpacked(job.base)


def loaded_files(job: SourcesJob) -> dict[Path, list[Path]]:
    """Imports user's files of methods and reward functions, and returns the local files that each of them loads."""
    found = {}
    for path in job.paths:
        try:
            with recorded(path):
                import_file(path)
        except (Exception, SystemExit) as error:
            raise plugin_error(path, error, hint=f"for the full traceback, run `python {path}`") from error
        found[path] = sources(path)
    return found


def train(job: TrainJob, send: Send) -> Trained:
    """Trains one variant."""
    phases = Phases("load")
    torch.set_num_threads(threads())
    torch.manual_seed(job.training.seed)
    import_architecture(job.base)
    # the optimizer needs this, and training does not answer for its memory
    importlib.import_module("transformers.trainer")
    baseline = rss_bytes()
    tokenizer = load_tokenizer(job.base.folder, trust_remote_code=job.base.trust_remote_code)
    with phases("tokenise"):
        notes = check_examples(job, load_config(job.base), tokenizer)
    resident = Resident(job.base, method_function)
    base = resident.bare
    refuse_if_not_causal(base)
    weights = layer_weights(base)
    notes += base.loading_notes
    try:
        model = method_function(job.method)(base, **job.method.hyperparameters)
    except (ValueError, TypeError, NotImplementedError) as error:
        if job.method.module is None and not isinstance(error, ValueError):
            raise  # a bug in the user's file, shown with its traceback
        raise UserError(
            f"method `{job.method.name}`: {error}", hint="check its hyperparameters against the model"
        ) from error
    if note := reach_note(weights, model, job.method.hyperparameters):
        notes.append(note)
    if job.start is not None:
        load_trained(model, job.start, job.method.name)

    def check(folder: Path, saved: torch.Tensor) -> None:
        release(model)
        refuse_if_changed(_recipe_of(job, folder), method_function, saved)

    return run_training(
        job,
        model,
        tokenizer,
        max_length=context_length(model, tokenizer),
        baseline_rss_bytes=baseline,
        on_step=lambda done, total, note: send(Advanced(done, total, note)),
        notes=notes,
        check=check,
        phases=phases,
    )


def _recipe_of(job: TrainJob, folder: Path) -> Recipe:
    """How the artifact of a training job in `folder` is loaded."""
    if job.saves == "checkpoint":
        return Recipe(replace(job.base, folder=folder))
    return Recipe(job.base, folder, method=None if (folder / "adapter_config.json").is_file() else job.method)


def merge(job: MergeJob) -> None:
    """Merges an adapter into its base and saves the result as a checkpoint."""
    torch.set_num_threads(threads())
    base = job.recipe.base
    resident = Resident(base, method_function)
    places = set(resident.bare.state_dict())
    merged = resident.attach(job.recipe)
    refuse_added_weights(merged, places, hint="leave out `--merge`")
    saved = probe_logits(merged)
    with whole_folder(job.output) as folder:
        save_checkpoint(merged, load_tokenizer(base.folder, trust_remote_code=base.trust_remote_code), folder)
        release(merged)
        refuse_if_changed(Recipe(replace(base, folder=folder, quant=None)), method_function, saved)


def plan(job: PlanJob) -> Planned:
    """Predicts the memory of a training run, without loading weights."""
    from harness.finetune.training.plan import plan_training  # only this job needs its imports

    torch.set_num_threads(threads())
    config = load_config(job.base)
    method = partial(method_function(job.method), **job.method.hyperparameters)
    return plan_training(config, method, job)


def reach(job: ReachJob) -> list[float | str | None]:
    """Computes the share of the weights that each method reaches, without loading weights."""
    from harness.finetune.training.memory import shares  # only this job and the plan need its imports

    methods = [(partial(method_function(method), **method.hyperparameters), quant) for method, quant in job.methods]
    dtype = getattr(torch, job.base.dtype)
    return shares(load_config(job.base), methods, dtype=dtype, trust_remote_code=job.base.trust_remote_code)


def import_architecture(base: Base) -> None:
    """Imports the model's class, so that memory measured after this call excludes code."""
    config = load_config(base)
    if type(config) in transformers.AutoModelForCausalLM._model_mapping:
        transformers.AutoModelForCausalLM._model_mapping[type(config)]


def memory_bytes(device: str) -> int:
    """Total memory of a device; of the host, as much as a container leaves to us."""
    if device.startswith("cuda"):
        return int(torch.cuda.get_device_properties(device).total_memory)
    return total_memory()


def threads() -> int:
    """Number of threads that torch may use."""
    return int(os.environ.get("OMP_NUM_THREADS") or len(os.sched_getaffinity(0)))


def _driver() -> str | None:
    version = Path("/proc/driver/nvidia/version")
    found = re.search(r"Kernel Module\D*([\d.]+)", version.read_text()) if version.is_file() else None
    return found[1] if found else None


def _processor() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").is_file() else []:
        if line.startswith("model name"):
            return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()
