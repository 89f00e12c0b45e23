"""Training on a GPU: the loss curves of the CPU, artifacts that read back, a resumed run with the same weights, memory peaks."""

from dataclasses import replace
from pathlib import Path

import pytest
import tiny_models as tiny
import torch
from safetensors.torch import load_file

from harness.finetune.training import loop
from harness.jobs import Event, Example, Trained, TrainJob
from harness.models.load import Resident, method_function
from harness.registry.find import find
from harness.settings import TrainingSettings
from harness.worker import child

pytestmark = pytest.mark.gpu

SETTINGS = TrainingSettings(lr=2e-3, steps=8, epochs=None, batch_size=8, micro_batch_size=4, max_length=128, seed=0)
EXAMPLES = [Example("hello " * (n % 7) + f"Question: {n % 4}? Answer:", f" {n % 4} and {n % 7}") for n in range(48)]
METHODS = [
    "adalora",
    "adapter",
    "dora",
    "freeze",
    "full",
    "ia3",
    "lily",
    "ln",
    "lora",
    "lora_fa",
    "lora_plus",
    "miss",
    "oft",
    "olora",
    "pissa",
    "prefix",
    "prompt",
    "ptuning",
    "ptuning_v2",
    "qlora",
    "randlora",
    "rslora",
    "shira",
    "vera",
]

APART = {"qlora": 2e-2, "prefix": 0.1}
"""Largest relative distance of losses where it is not that of rounding: of 4-bit kernels, and of a start drawn on the device."""


def job_of(folder: Path, output: Path, name: str, device: str, dtype: str = "float32") -> TrainJob:
    quant = "nf4" if name == "qlora" else None
    entry = find("method", name)
    given = {parameter.name: parameter.default for parameter in entry.parameters}
    small = {"rank": 4, "alpha": 8, "init_rank": 8, "block_size": 8, "width": 8}
    hyperparameters = given | {key: value for key, value in small.items() if key in given}
    return TrainJob(
        base=replace(tiny.tiny_base(folder, dtype=dtype), device=device, quant=quant),
        method=tiny.built_in(name, **hyperparameters),
        training=SETTINGS.model_copy(update={"precision": "bf16" if dtype == "bfloat16" else "fp32"}),
        examples=EXAMPLES,
        saves="checkpoint" if name == "full" else "delta",
        output=output / "artifact",
        log=output / "train.jsonl",
        state=output / "state",
        train_key="the key",
    )


def trained(job: TrainJob) -> Trained:
    return child.train(job, lambda event: None)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.save_tiny(tmp_path_factory.mktemp("gpu") / "qwen3", "qwen3")


@pytest.mark.parametrize("name", METHODS)
def test_a_method_has_the_losses_of_the_cpu_and_its_artifact_reads_back(
    folder: Path, tmp_path: Path, name: str
) -> None:
    on_gpu = trained(job_of(folder, tmp_path / "gpu", name, "cuda:0"))
    on_cpu = trained(job_of(folder, tmp_path / "cpu", name, "cpu"))
    apart = max(abs(a - b) / abs(b) for a, b in zip(on_gpu.losses, on_cpu.losses, strict=True))
    assert apart < APART.get(name, 2e-3), (on_gpu.losses, on_cpu.losses)
    assert on_gpu.peaks["peak_gpu_allocated_bytes"] and on_gpu.peaks["peak_gpu_reserved_bytes"]
    job = job_of(folder, tmp_path / "gpu", name, "cuda:0")
    model = Resident(job.base, method_function).attach(child._recipe_of(job, job.output))
    assert model(input_ids=torch.tensor([[3, 4, 5]], device="cuda:0")).logits.isfinite().all()


@pytest.mark.parametrize("name", ["lora", "full", "qlora"])
def test_bfloat16_trains(folder: Path, tmp_path: Path, name: str) -> None:
    result = trained(job_of(folder, tmp_path, name, "cuda:0", "bfloat16"))
    assert result.losses[-1] < result.losses[0]


def test_an_interrupted_run_ends_with_the_same_weights(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loop, "CHECKPOINT_EVERY_SECONDS", 0.0)

    class Stopped(Exception):
        pass

    def stop(event: Event) -> None:
        if getattr(event, "done", 0) == 6:
            raise Stopped

    trained(job_of(folder, tmp_path / "whole", "lora", "cuda:0"))
    job = job_of(folder, tmp_path / "parts", "lora", "cuda:0")
    with pytest.raises(Stopped):
        child.train(job, stop)
    trained(job)
    whole, parts = (load_file(tmp_path / run / "artifact" / "adapter_model.safetensors") for run in ("whole", "parts"))
    assert all(torch.equal(whole[name], parts[name]) for name in whole)
