"""Predicts memory and time of training runs: a child counts them on tensors without content, from the model's configuration.

Example:
    >>> plan_memory(configure(["lora"])).rows[0].planned.parameters_trainable  # doctest: +SKIP
    309760
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from harness.config.config import Config
from harness.config.variants import VariantSpec
from harness.data.gguf import is_gguf
from harness.data.model_files import Snapshot, find_files, find_model
from harness.errors import UserError
from harness.jobs import Base, EnvironmentJob, Method, PlanJob, Planned, ReachJob
from harness.prepare.training_settings import given_settings, on_machine, resolve
from harness.registry.scan import Entry
from harness.report.gpus import UTILISATION, Gpu, find_gpu
from harness.report.memory import MemoryPlan, PlanRow, SpeedSource
from harness.report.progress import Progress
from harness.settings import STAGES, TrainingSettings
from harness.worker.server import JobFailed, Server

_UNITS = {
    "K": 10**3,
    "M": 10**6,
    "G": 10**9,
    "T": 10**12,
    "KI": 1 << 10,
    "MI": 1 << 20,
    "GI": 1 << 30,
    "TI": 1 << 40,
}


def plan_memory(
    config: Config, *, memory: str | None = None, gpu: str | None = None, progress: Progress | None = None
) -> MemoryPlan:
    """Predicts the memory and the time that the training run of each variant needs, here or on a GPU that is not here.

    Args:
        config: The run; variants that are not trained, and replicas, are left out.
        memory: Available memory, such as `24GB` or `22.5GiB`; None: all memory of the GPU, or of the host.
        gpu: Name of a GPU, such as `H100`: the plan is for a machine with one, and its time follows from published speeds.
        progress: Receives the progress.

    Raises:
        UserError: The model does not exist, no variant is trained, `memory` is not a size, or the GPU is unknown.
    """
    shown = progress or Progress()
    given = None if memory is None else size_bytes(memory)
    named = None if gpu is None else find_gpu(gpu)
    specs = [spec for spec in config.variants if spec.kind == "method" and spec.replica == 0]
    if not specs:
        raise UserError("none of the variants is trained", hint="name a method: `harness ls methods`")
    model = _configured(config.model)
    rows = []
    with Server() as server:
        environment = _machine(server, config, named, given)
        available = given or environment["gpu_bytes"] or environment["host_bytes"]
        is_here = environment["is_here"]
        shown.finish()
        for spec in specs:
            shown.start("Count", spec.name)
            job = _job(config, spec, model.folder, environment, available)
            rows.append(_row(server, spec, replace(job, measures_speed=is_here), named))
            shown.finish()
    speed: SpeedSource = "measured" if is_here else "published" if named else None
    device = named.name if named else environment["device"]
    return MemoryPlan(model.name, device, environment["dtype"], available, tuple(rows), speed)


def _machine(server: Server, config: Config, gpu: Gpu | None, memory: int | None) -> dict[str, Any]:
    """Describes the machine of the plan as an `EnvironmentJob` does; `is_here` says whether it is this one."""
    if gpu is not None and config.device in ("cpu", "mps"):
        raise UserError(
            f"`--gpu {gpu.name}` and `--device {config.device}` contradict each other", hint="leave out one"
        )
    wanted = gpu is not None or config.device.startswith("cuda")
    here: dict[str, Any] = server.run(EnvironmentJob("auto" if wanted else config.device, config.dtype))
    if gpu is None and wanted and here["device"].startswith("cuda"):
        here = server.run(EnvironmentJob(config.device, config.dtype))
        wanted = False
    if not wanted:
        return here | {"is_here": True}
    if gpu is None and memory is None:
        raise UserError(
            f"`--device {config.device}`: torch sees no CUDA device here, so its memory is not known",
            hint="add `--memory 24GB`, or name the GPU: `--gpu H100`",
        )
    dtype = "bfloat16" if config.dtype == "auto" else config.dtype
    return here | {
        "is_here": False,
        "device": "cuda",
        "gpu_bytes": gpu.memory_bytes if gpu else None,
        "dtype": dtype,
        "mixed_precision": dtype == "bfloat16",
    }


def method_shares(model: str, methods: Sequence[Entry], *, trust_remote_code: bool = False) -> list[float | str | None]:
    """The share of a model's weights that each method reaches with its defaults; weights are neither downloaded nor loaded.

    Args:
        model: A model as on the command line.
        methods: The methods.
        trust_remote_code: Whether the model's own code may run.

    Returns:
        A share, None for a method that only adds weights of its own, or the error of a method that needs the weights.

    Raises:
        UserError: The model does not exist.
    """
    base = Base(_configured(model).folder, "cpu", "float32", None, trust_remote_code)
    asked = []
    for entry in methods:
        defaults = {parameter.name: parameter.default for parameter in entry.parameters}
        asked.append((Method(entry.name, entry.path, entry.module, defaults), entry.quantization(defaults)))
    with Server() as server:
        found: list[float | str | None] = server.run(ReachJob(base, tuple(asked)))
    return found


def size_bytes(text: str) -> int:
    """Converts a size such as `24GB` to bytes.

    Raises:
        UserError: The text is not a size.

    Example:
        >>> size_bytes("24GB"), size_bytes("1.5 GiB")
        (24000000000, 1610612736)
    """
    match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([kmgt]i?)b?\s*", text, re.IGNORECASE)
    size = round(float(match[1]) * _UNITS[match[2].upper()]) if match else 0
    if size <= 0:
        raise UserError(f"`--memory {text}` is not a size with a unit", hint="write 24GB or 22.5GiB")
    return size


def _configured(name: str) -> Snapshot:
    """Finds a model of which only the configuration is needed."""
    model = find_model("tiny") if name == "tiny" else find_files(name, "model", weights=False)
    if not is_gguf(model.folder) and not (model.folder / "config.json").is_file():
        raise UserError(f"`{name}` has no config.json", hint="give a model's folder or Hub id")
    return model


def _row(server: Server, spec: VariantSpec, job: PlanJob, gpu: Gpu | None) -> PlanRow:
    """The plan of one training run, or the reason why there is none; the other runs are planned in any case."""
    settings = job.training
    rows, length = settings.micro_batch_size, settings.max_length
    try:
        _check_plannable(spec, settings)
        planned: Planned = server.run(job)
    except (JobFailed, UserError) as error:
        return PlanRow(spec.name, spec.canonical, rows, length, error=str(error))
    speed = gpu.flops(settings.precision) * UTILISATION if gpu else planned.flops_per_second
    batch = settings.batch_size * (2 if STAGES[settings.stage].rows == "pair" else 1)
    step_seconds = batch * planned.flops_per_row / speed if speed else None
    return PlanRow(spec.name, spec.canonical, rows, length, planned, step_seconds=step_seconds, steps=settings.steps)


def _check_plannable(spec: VariantSpec, training: TrainingSettings) -> None:
    assert spec.entry is not None
    if STAGES[training.stage].rows == "prompt":
        raise UserError(f"the stage `{training.stage}` learns from generated answers, whose memory cannot be planned")
    if training.checkpointing and not spec.entry.options["checkpointing"]:
        raise UserError(f"`{spec.entry.name}` does not support activation checkpointing")


def _job(config: Config, spec: VariantSpec, folder: Any, environment: dict[str, Any], memory_bytes: int) -> PlanJob:
    assert spec.entry is not None
    given = given_settings(config, spec)
    resolved = resolve(given, spec.entry, seed=config.seed, embedded=config.model == "tiny")
    settings = on_machine(resolved, environment)
    if STAGES[settings.stage].rows == "pair":  # each row has a better and a worse answer
        settings = settings.model_copy(update={"micro_batch_size": 2 * settings.micro_batch_size})
    return PlanJob(
        Base(
            folder,
            environment["device"],
            environment["dtype"],
            spec.entry.quantization(spec.hyperparameters),
            config.trust_remote_code,
        ),
        Method(spec.entry.name, spec.entry.path, spec.entry.module, spec.hyperparameters),
        settings,
        memory_bytes=memory_bytes,
    )
