"""What a child does with a job: load one base, then train, score or time. Imports torch; runs in children alone."""

from __future__ import annotations

import os
import platform
import re
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import bitsandbytes
import peft
import torch
import transformers

from harness.engine.encode import Encoded, Encoder
from harness.engine.plan import Pack, kept_prefix
from harness.engine.prefix import learns_a_prompt
from harness.engine.runner import Runner
from harness.engine.score import needed_logits
from harness.errors import UserError
from harness.finetune.trainer import run_training
from harness.jobs import (
    Advanced,
    Benched,
    BenchJob,
    EnvironmentJob,
    Event,
    Method,
    Noted,
    Packed,
    Recipe,
    Resumed,
    ScoreJob,
    TaskRequests,
    Trained,
    TrainJob,
    VariantFailed,
    VariantLoading,
    VariantStarted,
)
from harness.measure import (
    Latency,
    MemoryMeter,
    Stopwatch,
    latency,
    matmul_probe,
    rss_bytes,
    synchroniser,
)
from harness.models import Resident, context_length, count_parameters, model_bytes
from harness.tokenizer import load_tokenizer

Send = Callable[[Event], None]
_DRIFT = 0.05


def describe_environment(job: EnvironmentJob) -> dict[str, Any]:
    """Device, precision, threads and versions, with `auto` resolved."""
    cuda = torch.cuda.is_available()
    if job.device.startswith("cuda") and not cuda:
        raise UserError(f"`--device {job.device}`: torch sees no CUDA device", hint="`--device cpu`, or `harness env`")
    device = job.device if job.device != "auto" else "cuda:0" if cuda else "cpu"
    device = "cuda:0" if device == "cuda" else device
    on_gpu = device.startswith("cuda")
    dtype = job.dtype if job.dtype != "auto" else "bfloat16" if on_gpu else "float32"
    return {
        "device": device,
        "device_name": torch.cuda.get_device_name(device) if on_gpu else _processor(),
        "gpu_bytes": torch.cuda.get_device_properties(device).total_memory if on_gpu else None,
        "driver": _driver() if on_gpu else None,
        "dtype": dtype,
        "mixed_precision": dtype == "bfloat16" or (not on_gpu and dtype == "float32" and _fast_bfloat16()),
        "threads": _threads(),
        "host_bytes": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
        "system": platform.platform(),
        "python": platform.python_version(),
        "packages": {module.__name__: module.__version__ for module in (torch, transformers, peft, bitsandbytes)},
    }


def train(job: TrainJob, send: Send) -> Trained:
    """Trains one variant."""
    torch.set_num_threads(_threads())
    torch.manual_seed(job.training.seed)
    _import_architecture(job.base.folder, job.base.trust_remote_code)
    baseline = rss_bytes()
    resident = Resident(job.base, _load_method)
    tokenizer = load_tokenizer(job.base.folder, trust_remote_code=job.base.trust_remote_code)
    base = resident.bare
    try:
        model = _load_method(job.method)(base, **job.method.hyperparameters)
    except ValueError as error:
        raise UserError(
            f"method `{job.method.name}`: {error}", hint="check its hyperparameters against the model"
        ) from error
    return run_training(
        job,
        model,
        tokenizer,
        max_length=context_length(base, tokenizer),
        baseline_rss_bytes=baseline,
        on_step=lambda done, total, note: send(Advanced(done, total, note)),
    )


def score(job: ScoreJob, send: Send) -> None:
    """Scores variants that share a base, one after the other; each pack is sent as it is done."""
    torch.set_num_threads(_threads())
    base = job.variants[0].recipe.base
    resident = Resident(base, _load_method)
    tokenizer = load_tokenizer(base.folder, trust_remote_code=base.trust_remote_code)
    encoder = Encoder(tokenizer, context_length(resident.bare, tokenizer))
    encode = _remember(lambda task: encoder.encode(task))
    probe = _probe_ids(encoder, [item for task in job.variants[0].tasks[:1] for item in encode(task)])
    adapted = any(variant.recipe.adapter for variant in job.variants)
    untouched = _probe(resident.bare, probe, job.numerics) if adapted else None
    plans: dict[Any, list[Pack]] = {}
    for variant in job.variants:
        send(VariantLoading(variant.name))
        model = resident.attach(variant.recipe)
        if untouched is not None and variant.recipe.adapter and _probe(model, probe, job.numerics).equal(untouched):
            send(VariantFailed(variant.name, "the adapter changes nothing: its outputs equal the base's"))
            resident.detach()
            continue
        send(VariantStarted(variant.name, model_bytes(model), count_parameters(model)[0]))
        runner = Runner(
            model,
            tokenizer,
            engine=job.engine,
            numerics=job.numerics,
            token_budget=job.token_budget,
            max_rows=job.max_rows,
            seed=job.seed,
        )
        for task in variant.tasks:
            encoded = encode(task)
            plan = (id(task.requests), runner.way(encoded))
            packs = plans[plan] = plans.get(plan) or runner.plan(encoded)
            kept = kept_prefix(packs, task.done)
            done = sum(len(pack.items) for pack in packs[:kept])
            send(Resumed(variant.name, task.task, done))
            for pack in packs[kept:]:
                raws = runner.run(pack)
                send(Packed(variant.name, task.task, tuple(raws)))
                done += len(pack.items)
                send(Advanced(done, len(encoded)))
            while runner.notes:
                send(Noted(variant.name, runner.notes.pop(0)))
        del model, runner
        resident.detach()


def time_variant(job: BenchJob) -> Benched:
    """Times one variant; where it shares its weights with the bare base, the two in turn."""
    torch.set_num_threads(_threads())
    base = job.recipe.base
    _import_architecture(base.folder, base.trust_remote_code)
    baseline = rss_bytes()
    watch = Stopwatch(synchronise=synchroniser(base.device))
    resident = Resident(base, _load_method)
    tokenizer = load_tokenizer(base.folder, trust_remote_code=base.trust_remote_code)
    meter = MemoryMeter(baseline, base.device)
    with meter:
        loaded: list[Any] = []
        load_seconds = watch.time(lambda: loaded.append(resident.attach(job.recipe)))
        model = loaded.pop()
        context = context_length(model, tokenizer)
        new_tokens = min(job.new_tokens, max(1, context // 4))
        prompt = min(job.prompt_tokens, context - new_tokens)
        generator = torch.Generator().manual_seed(job.seed)
        vocabulary = model.config.get_text_config().vocab_size
        ids = torch.randint(0, vocabulary, (max(job.batch_sizes), prompt), generator=generator).to(base.device)
        run = partial(latency, new_tokens=new_tokens, watch=watch)
        for attempt in range(2):  # a machine that speeds up or slows down meanwhile is timed again
            before = matmul_probe(base.device, watch)
            if job.with_base:
                ours, bases = _in_turn(job, resident, ids[:1], run)
            else:
                ours, bases = [run(model, ids[:1]) for _ in range(job.warmup + job.repeats)][job.warmup :], []
            drift = abs(matmul_probe(base.device, watch) / before - 1)
            if drift <= _DRIFT or attempt == 1:
                break
        if job.with_base:
            model = resident.attach(job.recipe)
        throughput = []
        for size in job.batch_sizes:
            _, timed = run(model, ids[:size]), run(model, ids[:size])  # the first one warms up
            throughput.append((size, size * new_tokens / sum(timed.decode_seconds)))
    return Benched(
        load_seconds,
        prompt,
        new_tokens,
        tuple(t.prefill_seconds for t in ours),
        tuple(s for t in ours for s in t.decode_seconds),
        tuple(t.prefill_seconds for t in bases),
        tuple(s for t in bases for s in t.decode_seconds),
        tuple(throughput),
        drift,
        job.warmup,
        job.repeats,
        vars(meter.peaks()),
    )


def _in_turn(
    job: BenchJob, resident: Resident, ids: torch.Tensor, run: Callable[[Any, torch.Tensor], Latency]
) -> tuple[list[Latency], list[Latency]]:
    """The variant and the bare base, by turns, so that drift of the machine falls on both."""
    ours, bases = [], []
    for _ in range(job.warmup + job.repeats):
        bases.append(run(resident.attach(Recipe(job.recipe.base)), ids))
        ours.append(run(resident.attach(job.recipe), ids))
    return ours[job.warmup :], bases[job.warmup :]


def _remember(encode: Callable[[TaskRequests], list[Encoded]]) -> Callable[[TaskRequests], list[Encoded]]:
    """Encodes each list of requests once: variants that prompt alike share it."""
    known: dict[int, list[Encoded]] = {}

    def remembered(task: TaskRequests) -> list[Encoded]:
        if id(task.requests) not in known:
            known[id(task.requests)] = encode(task)
        return known[id(task.requests)]

    return remembered


def _probe_ids(encoder: Encoder, encoded: Sequence[Encoded]) -> torch.Tensor:
    for item in encoded:
        if item.prompt or item.rows:
            return torch.tensor([item.prompt or item.rows[0].ids])
    return torch.tensor([[encoder.prefix_id]])


def _probe(model: Any, ids: torch.Tensor, numerics: str) -> torch.Tensor:
    """`[1, vocabulary]` logits after the last token."""
    ids = ids.to(model.device)
    with torch.inference_mode():
        if learns_a_prompt(model):  # learned tokens come before these
            logits: torch.Tensor = model(input_ids=ids, use_cache=True).logits[0, -1:].float()
            return logits
        last = torch.zeros_like(ids, dtype=torch.bool)
        last[:, -1] = True
        return needed_logits(model, ids, last, numerics)


def _load_method(method: Method) -> Callable[..., Any]:
    from harness.registry import find, load_method

    source = method.name if method.module else f"{method.path}@{method.name}"
    return load_method(find("method", source))


def _import_architecture(folder: Path, trust_remote_code: bool) -> None:
    """Imports the model's class, so that memory measured from here on is weights and work, not code."""
    config = transformers.AutoConfig.from_pretrained(folder, trust_remote_code=trust_remote_code)
    if type(config) in transformers.AutoModelForCausalLM._model_mapping:
        transformers.AutoModelForCausalLM._model_mapping[type(config)]


def _threads() -> int:
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


def _fast_bfloat16() -> bool:
    """Whether the processor multiplies bfloat16 natively; elsewhere mixed precision is slower than float32."""
    cpuinfo = Path("/proc/cpuinfo")
    flags = cpuinfo.read_text() if cpuinfo.is_file() else ""
    return "avx512_bf16" in flags or "amx_bf16" in flags
