"""Predicts the memory of training runs: a child counts them on tensors without content, from the model's configuration.

Example:
    >>> plan_memory(configure(["lora"])).rows[0].planned.parameters_trainable  # doctest: +SKIP
    309760
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from harness.config.config import Config
from harness.config.variants import VariantSpec
from harness.data.gguf import is_gguf
from harness.data.model_files import Snapshot, find_files, find_model
from harness.errors import UserError
from harness.jobs import Base, EnvironmentJob, Method, PlanJob, ReachJob
from harness.prepare.training_settings import given_settings, on_machine, resolve
from harness.registry.scan import Entry
from harness.report.memory import MemoryPlan, PlanRow
from harness.report.progress import Progress
from harness.settings import STAGES, TrainingSettings
from harness.worker.server import JobFailed, Server

_UNITS = {
    "": 1,
    "K": 10**3,
    "M": 10**6,
    "G": 10**9,
    "T": 10**12,
    "KI": 1 << 10,
    "MI": 1 << 20,
    "GI": 1 << 30,
    "TI": 1 << 40,
}


def plan_memory(config: Config, *, memory: str | None = None, progress: Progress | None = None) -> MemoryPlan:
    """Predicts the memory that the training run of each variant needs.

    Args:
        config: The run; variants that are not trained, and replicas, are left out.
        memory: Available memory, such as `24GB` or `22.5GiB`; None: all memory of the GPU, or of the host.
        progress: Receives the progress.

    Raises:
        UserError: The model does not exist, no variant is trained, or `memory` is not a size.
    """
    shown = progress or Progress()
    given = None if memory is None else size_bytes(memory)
    specs = [spec for spec in config.variants if spec.kind == "method" and spec.replica == 0]
    if not specs:
        raise UserError("none of the variants is trained", hint="name a method: `harness ls methods`")
    model = _configured(config.model)
    rows = []
    with Server() as server:
        environment = server.run(EnvironmentJob(config.device, config.dtype))
        available = given or environment["gpu_bytes"] or environment["host_bytes"]
        shown.finish()
        for spec in specs:
            shown.start("Count", spec.name)
            rows.append(_row(server, spec, _job(config, spec, model.folder, environment, available)))
            shown.finish()
    return MemoryPlan(model.name, environment["device"], environment["dtype"], available, tuple(rows))


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
    match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([kmgt]i?)?b?\s*", text, re.IGNORECASE)
    size = round(float(match[1]) * _UNITS[(match[2] or "").upper()]) if match else 0
    if size <= 0:
        raise UserError(f"`--memory {text}` is not a size", hint="write 24GB or 22.5GiB")
    return size


def _configured(name: str) -> Snapshot:
    """Finds a model of which only the configuration is needed."""
    model = find_model("tiny") if name == "tiny" else find_files(name, "model", weights=False)
    if not is_gguf(model.folder) and not (model.folder / "config.json").is_file():
        raise UserError(f"`{name}` has no config.json", hint="give a model's folder or Hub id")
    return model


def _row(server: Server, spec: VariantSpec, job: PlanJob) -> PlanRow:
    """The plan of one training run, or the reason why there is none; the other runs are planned in any case."""
    rows, length = job.training.micro_batch_size, job.training.max_length
    try:
        _check_plannable(spec, job.training)
        return PlanRow(spec.name, spec.canonical, rows, length, server.run(job))
    except (JobFailed, UserError) as error:
        return PlanRow(spec.name, spec.canonical, rows, length, error=str(error))


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
        memory_bytes,
    )
