"""Runs jobs in the child process: loads one base, then trains, merges, scores or times. Imports torch."""

from __future__ import annotations

import os
import platform
import re
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import bitsandbytes
import peft
import torch
import transformers

from harness.engine.finite import NotFinite
from harness.engine.merging import merge_for_scoring
from harness.engine.padded_scoring import needed_logits
from harness.engine.prefix_cache import learns_a_prompt
from harness.engine.reward_choices import RewardRunner
from harness.engine.runner import Runner
from harness.errors import UserError, plugin_error
from harness.finetune.training.trainer import run_training
from harness.jobs import (
    Advanced,
    Base,
    EnvironmentJob,
    Event,
    MergeJob,
    Noted,
    Packed,
    PlanJob,
    Planned,
    ReachJob,
    Recipe,
    Resumed,
    ScoreJob,
    SourcesJob,
    TaskRequests,
    Trained,
    TrainJob,
    UnpackJob,
    VariantFailed,
    VariantLoading,
    VariantStarted,
)
from harness.models.artifacts import load_trained, save_checkpoint
from harness.models.causality import refuse_if_not_causal
from harness.models.gguf import unpacked
from harness.models.load import (
    Resident,
    context_length,
    count_parameters,
    load_config,
    method_function,
    model_bytes,
)
from harness.models.measure import (
    fast_bfloat16,
    rss_bytes,
)
from harness.models.merge import refuse_added_weights
from harness.models.phases import Phases
from harness.models.reach import layer_weights, reach_note
from harness.models.read_back import probe_logits, refuse_if_changed, release
from harness.models.reward_head import has_reward_head
from harness.registry.load import import_file
from harness.registry.sources import recorded, sources
from harness.storage import whole_folder
from harness.tokens.encode import Encoded, Encoder
from harness.tokens.packs import Pack, packs_done
from harness.tokens.tokenizer import load_tokenizer
from harness.worker.fit import check_examples, check_requests

Send = Callable[[Event], None]
_TRIED, _PROBED = 8, 64
"""Numbers of requests to search and of tokens to take for the probe that shows whether an adapter changes anything."""


def describe_environment(job: EnvironmentJob) -> dict[str, Any]:
    """Returns device, precision, threads and versions, with `auto` resolved."""
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
        "gpu_bytes": _memory_bytes(device) if on_gpu else None,
        "driver": _driver() if on_gpu else None,
        "dtype": dtype,
        "mixed_precision": dtype == "bfloat16" or (not on_gpu and dtype == "float32" and fast_bfloat16()),
        "threads": threads(),
        "host_bytes": _memory_bytes("cpu"),
        "system": platform.platform(),
        "python": platform.python_version(),
        # plain text: unpickling torch's own version type would import torch in the parent
        "packages": {module.__name__: str(module.__version__) for module in (torch, transformers, peft, bitsandbytes)},
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


def score(job: ScoreJob, send: Send) -> None:
    """Scores variants that share a base, one after the other, and sends each pack when it is finished."""
    torch.set_num_threads(threads())
    base = job.variants[0].recipe.base
    tokenizer = load_tokenizer(base.folder, trust_remote_code=base.trust_remote_code)
    encode = _cache_encodings(lambda task, room: Encoder(tokenizer, room, numerics=job.numerics).encode(task))
    notes = check_requests(job, load_config(base), tokenizer, encode)
    resident = Resident(base, method_function)
    refuse_if_not_causal(resident.bare)
    notes += resident.bare.loading_notes
    probe = _probe_ids(Encoder(tokenizer, context_length(resident.bare, tokenizer)), job.variants[0].tasks[:1])
    adapted = any(variant.recipe.adapter for variant in job.variants)
    untouched = _probe(resident.bare, probe, job.numerics) if adapted else None
    plans: dict[Any, list[Pack]] = {}
    for variant in job.variants:
        send(VariantLoading(variant.name))
        try:
            model = resident.attach(variant.recipe)
        except UserError as error:  # such as an adapter of another base: the others can be scored
            send(VariantFailed(variant.name, error.sentence))
            continue
        if untouched is not None and variant.recipe.adapter and _probe(model, probe, job.numerics).equal(untouched):
            send(VariantFailed(variant.name, "the adapter changes nothing: its outputs equal the base's"))
            resident.detach()
            continue
        send(VariantStarted(variant.name, model_bytes(model), count_parameters(model)[0]))
        while notes:  # of the base and the samples, so once
            send(Noted(variant.name, notes.pop(0)))
        # all memory, not the free part: whether a model is merged must not depend on what else runs
        roomy = 4 * model_bytes(model) < _memory_bytes(base.device)
        unmerge = merge_for_scoring(model) if roomy and job.engine == "auto" and job.numerics == "fp32" else None
        runner = (RewardRunner if has_reward_head(model) else Runner)(
            model,
            tokenizer,
            engine=job.engine,
            numerics=job.numerics,
            token_budget=job.token_budget,
            max_rows=job.max_rows,
            seed=job.seed,
        )
        room = context_length(model, tokenizer)
        try:
            for task in variant.tasks:
                encoded = encode(task, room)
                plan = (id(task.requests), runner.way(encoded), room)
                plans[plan] = plans.get(plan) or runner.plan(encoded)
                _score_task(runner, variant.name, task, plans[plan], send)
        except NotFinite as error:
            send(VariantFailed(variant.name, f"the outputs of `{variant.name}` are not numbers: {error}"))
        if unmerge is not None:
            unmerge()
        del model, runner
        resident.detach()


def _score_task(runner: Runner, variant: str, task: TaskRequests, packs: Sequence[Pack], send: Send) -> None:
    """Runs the packs of a task that are not on disk yet, and sends each when it is finished."""
    kept = packs_done(packs, task.done)
    done = sum(len(pack.items) for pack in packs[:kept])
    send(Resumed(variant, task.task, done))
    work = [max(pack.tokens, len(pack.items)) for pack in packs]
    share = sum(work[:kept]) / max(1, sum(work))
    send(Advanced(done, len(task.requests), share=share))
    for number, pack in enumerate(packs[kept:], kept):
        raws = runner.run(pack)
        send(Packed(variant, task.task, tuple(raws)))
        done += len(pack.items)
        share += work[number] / sum(work)
        send(Advanced(done, len(task.requests), share=share))
    while runner.notes:
        send(Noted(variant, runner.notes.pop(0)))


def _cache_encodings(
    encode: Callable[[TaskRequests, int], list[Encoded]],
) -> Callable[[TaskRequests, int], list[Encoded]]:
    """Caches encodings by list of requests and context length: variants with the same prompts share them."""
    known: dict[tuple[int, int], list[Encoded]] = {}

    def remembered(task: TaskRequests, room: int) -> list[Encoded]:
        if (id(task.requests), room) not in known:
            known[id(task.requests), room] = encode(task, room)
        return known[id(task.requests), room]

    return remembered


def _probe_ids(encoder: Encoder, tasks: Sequence[TaskRequests]) -> torch.Tensor:
    """`[1, ids]`: the end of the first request that has tokens, short enough to leave room for a learned prompt."""
    for task in tasks:
        for item in encoder.encode(replace(task, requests=task.requests[:_TRIED])):
            if item.prompt or item.rows:
                return torch.tensor([(item.prompt or item.rows[0].ids)[-_PROBED:]])
    return torch.tensor([[encoder.prefix_id]])


def _probe(model: Any, ids: torch.Tensor, numerics: str) -> torch.Tensor:
    """`[1, vocabulary]` logits after the last token."""
    ids = ids.to(model.device)
    with torch.inference_mode():
        if learns_a_prompt(model):  # the logits of the learned tokens come first
            logits: torch.Tensor = model(input_ids=ids, use_cache=True).logits[0, -1:].float()
            return logits
        last = torch.zeros_like(ids, dtype=torch.bool)
        last[:, -1] = True
        return needed_logits(model, ids, last, numerics)


def import_architecture(base: Base) -> None:
    """Imports the model's class, so that memory measured after this call excludes code."""
    config = load_config(base)
    if type(config) in transformers.AutoModelForCausalLM._model_mapping:
        transformers.AutoModelForCausalLM._model_mapping[type(config)]


def _memory_bytes(device: str) -> int:
    """Total memory of a device."""
    if device.startswith("cuda"):
        return int(torch.cuda.get_device_properties(device).total_memory)
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


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
