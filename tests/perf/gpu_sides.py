"""Runs one measurement on a GPU in a process of its own: `python gpu_sides.py SPEC.json RESULT.json`.

Wall seconds, after the device has finished what was asked of it; peaks are those of torch's allocator.
"""

from __future__ import annotations

import contextlib
import json
import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch

VOCABULARY = 131_072
SHAPES: dict[str, tuple[int, int, int, int, int, bool]] = {
    "tiny": (2, 64, 176, 4, 2, True),
    "1b": (16, 2048, 8192, 32, 8, True),
    "8b": (32, 4096, 14336, 32, 8, False),
}
"""Layers, width, inner width, heads, key heads, and whether head and embeddings share their weight."""
DTYPE = "bfloat16"
_STEPS = 24
_PREFIX, _OWN = 900, 100
"""Tokens that rows share and tokens of each row when steps of generation are timed."""


def device() -> str:
    """The GPU, or the CPU where the program itself is tried."""
    return "cuda:0" if torch.cuda.is_available() else "cpu"


def wait() -> None:
    """Waits for the device."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()


@contextlib.contextmanager
def measured(record: dict[str, Any]) -> Iterator[None]:
    """Writes wall seconds and the allocator's peaks of a block into `record`."""
    wait()
    before = 0
    record.update(dict.fromkeys(("peak_bytes", "reserved_bytes", "over_model_bytes"), 0))
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
    began = time.perf_counter()
    yield
    wait()
    record["seconds"] = time.perf_counter() - began
    if torch.cuda.is_available():
        record["peak_bytes"] = torch.cuda.max_memory_allocated()
        record["reserved_bytes"] = torch.cuda.max_memory_reserved()
        record["over_model_bytes"] = torch.cuda.max_memory_allocated() - before


def make(spec: dict[str, Any]) -> dict[str, Any]:
    """Saves a random Llama (seed 0) with the tokenizer of the prompts, and once more with the words of the training rows."""
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaConfig, PreTrainedTokenizerFast

    layers, hidden, inner, heads, kv, tied = SHAPES[spec["shape"]]
    config = LlamaConfig(
        vocab_size=VOCABULARY,
        hidden_size=hidden,
        intermediate_size=inner,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        num_key_value_heads=kv,
        max_position_embeddings=4096,
        tie_word_embeddings=tied,
        pad_token_id=0,
        bos_token_id=1,
        eos_token_id=2,
    )
    folder, words_folder = Path(spec["model"]), Path(spec["words"])
    torch.manual_seed(0)
    with torch.device(device()):
        model = AutoModelForCausalLM.from_config(config, dtype=getattr(torch, DTYPE))
    model.save_pretrained(folder)
    AutoTokenizer.from_pretrained(spec["tokenizer"]).save_pretrained(folder)
    words_folder.mkdir()
    for path in folder.glob("*model*"):
        os.link(path, words_folder / path.name)
    config.save_pretrained(words_folder)
    special = {"<pad>": 0, "<s>": 1, "</s>": 2}
    words = special | {f"w{number}": number for number in range(len(special), VOCABULARY)}
    inner_tokenizer = Tokenizer(models.WordLevel(words, unk_token="<pad>"))
    inner_tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    PreTrainedTokenizerFast(
        tokenizer_object=inner_tokenizer, pad_token="<pad>", bos_token="<s>", eos_token="</s>"
    ).save_pretrained(words_folder)
    return {"parameters": sum(p.numel() for p in model.parameters())}


def _loaded(spec: dict[str, Any]) -> tuple[Any, Any]:
    from harness.jobs import Base
    from harness.models.load import load_base
    from harness.tokens.tokenizer import load_tokenizer

    folder = Path(spec["model"])
    model = load_base(Base(folder, device(), DTYPE))
    if spec.get("lora"):
        from peft import LoraConfig, get_peft_model

        model = get_peft_model(
            model, LoraConfig(task_type="CAUSAL_LM", r=16, lora_alpha=32, target_modules="all-linear")
        )
        model = model.to(getattr(torch, DTYPE)).eval()
    return model, load_tokenizer(folder)


def score(spec: dict[str, Any]) -> dict[str, Any]:
    """Scores or generates with our engine, as the scoring child does."""
    from ours import read_requests

    from harness.engine.runner import Runner
    from harness.jobs import TaskRequests
    from harness.tokens.encode import Encoder
    from harness.tokens.packs import token_budget

    requests = read_requests(spec["requests"])[: spec.get("count")]
    model, tokenizer = _loaded(spec)
    budget = spec.get("budget") or token_budget(device())
    record: dict[str, Any] = {}

    def run(some: list[Any]) -> tuple[list[Any], Any]:
        runner = Runner(model, tokenizer, engine="auto", numerics="fp32", token_budget=budget, max_rows=None, seed=0)
        encoded = Encoder(tokenizer, spec["max_length"]).encode(TaskRequests("bench", some))
        packs = runner.plan(encoded)
        return [raw for pack in packs for raw in runner.run(pack)], (runner, packs)

    run(requests[:8])
    with measured(record):
        raws, (runner, packs) = run(requests)
    raws.sort(key=lambda raw: raw.index)
    return record | {
        "budget": budget,
        "packs": len(packs),
        "ways": sorted({pack.way for pack in packs}),
        "notes": runner.notes,
        "tokens": sum(raw.tokens for raw in raws),
        "prompt_tokens": sum(raw.prompt_tokens for raw in raws),
        "scores": [[raw.loglikelihoods, raw.is_greedy, raw.texts] for raw in raws],
    }


def peer(spec: dict[str, Any]) -> dict[str, Any]:
    """Scores or generates with lm-evaluation-harness, at the fastest of some batch sizes."""
    from peer import Peer
    from peer import score as peer_score

    rows = json.loads(Path(spec["requests"]).read_text(encoding="utf-8"))[: spec.get("count")]
    lengths = {row["contexts"][0]: row["max_tokens"] for row in rows}
    options = {"pretrained": spec["model"], "device": device(), "dtype": DTYPE, "max_length": spec["max_length"]}
    made = Peer(lengths, batch_size=spec["batches"][0], **options)
    peer_score(made, rows[:8])
    tried: dict[int, float] = {}
    some = (
        rows[:: max(1, len(rows) // max(2 * max(spec["batches"]), len(rows) // 8))] if len(spec["batches"]) > 1 else []
    )
    for batch in spec["batches"] if some else ():
        made.batch_size_per_gpu = batch
        trial: dict[str, Any] = {}
        try:
            with measured(trial):
                peer_score(made, some)
        except torch.OutOfMemoryError:
            continue
        tried[batch] = trial["seconds"]
    if tried:
        made.batch_size_per_gpu = min(tried, key=tried.__getitem__)
    record: dict[str, Any] = {}
    with measured(record):
        scores = peer_score(made, rows)
    return record | {"batch": made.batch_size_per_gpu, "tried": tried, "scores": scores}


@torch.inference_mode()
def decode(spec: dict[str, Any]) -> dict[str, Any]:
    """Times steps of generation at several numbers of rows: our slots, and plain transformers with a key-value cache."""
    from transformers import DynamicCache

    from harness.engine.padded_scoring import head_numerics
    from harness.engine.prefix_cache import Prefixes
    from harness.engine.slot_cache import SlotCache, read, step
    from harness.engine.step_graphs import StepGraphs, cuda_recorder

    model, _ = _loaded(spec)
    generator = torch.Generator().manual_seed(0)

    def draw(count: int) -> tuple[int, ...]:
        return tuple(torch.randint(3, VOCABULARY, (count,), generator=generator).tolist())

    found: dict[str, Any] = {}
    for rows in spec["rows"]:
        prefixes = Prefixes(model)
        prefixes.enter((draw(_PREFIX),))
        cache = SlotCache(prefixes.contents, rows, _OWN + 2 * _STEPS + 8)
        own = [draw(_OWN) for _ in range(rows)]
        with head_numerics(prefixes.model, "fp32"):
            read(prefixes, cache, own, 4096)

            def one(prefixes: Any = prefixes, cache: Any = cache, rows: int = rows) -> None:
                step(prefixes, cache, [5] * rows).max(-1)[1].tolist()

            eager = _timed(one)
            if rows == spec.get("profiled"):
                found["profile"] = _profile(one)
            cache.filled = [count - _STEPS + 4 for count in cache.filled]
            cache.lengths -= _STEPS - 4
            recorder = cuda_recorder(torch.device(device()))
            graphs = StepGraphs(prefixes, cache, recorder or (lambda work: work))

            def recorded(graphs: Any = graphs, rows: int = rows) -> None:
                graphs.step([5] * rows).max(-1)[1].tolist()

            ours = _timed(recorded)
            if rows == spec.get("profiled"):
                found["profile_graph"] = _profile(recorded)
        works = graphs._works
        del prefixes, cache, graphs, one, recorded
        past = DynamicCache()
        ids = torch.tensor([list(draw(_PREFIX + _OWN))] * rows, device=device())
        for start in range(0, rows, 32):  # reading prompts is not what is timed
            part = DynamicCache()
            model(input_ids=ids[start : start + 32], past_key_values=part, use_cache=True, logits_to_keep=1)
            for number, layer in enumerate(part.layers):
                if len(past.layers) <= number:
                    past.update(layer.keys[:0], layer.values[:0], number)
                target = past.layers[number]
                target.keys = torch.cat([target.keys, layer.keys]) if start else layer.keys
                target.values = torch.cat([target.values, layer.values]) if start else layer.values

        def plain(past: Any = past, rows: int = rows) -> None:
            last = torch.full((rows, 1), 5, device=device())
            model(input_ids=last, past_key_values=past, use_cache=True).logits[:, -1].argmax(-1).tolist()

        found[str(rows)] = {"ours_ms": ours, "eager_ms": eager, "recorded": works, "transformers_ms": _timed(plain)}
        if rows == spec.get("profiled"):
            found["profile_transformers"] = _profile(plain)
        del past
    return found


def _timed(one: Callable[[], None]) -> float:
    """Median milliseconds of a call."""
    times = []
    for number in range(_STEPS - 4):
        wait()
        began = time.perf_counter()
        one()
        wait()
        if number >= 4:
            times.append(time.perf_counter() - began)
    return sorted(times)[len(times) // 2] * 1e3


def _profile(work: Callable[[], Any]) -> dict[str, Any]:
    """The ten costliest operators of a call, and its kernel launches."""
    from torch.profiler import ProfilerActivity, profile

    kinds = [ProfilerActivity.CPU] + ([ProfilerActivity.CUDA] if torch.cuda.is_available() else [])
    work()
    with profile(activities=kinds) as profiled:
        work()
        wait()
    events = profiled.key_averages()
    launches = sum(
        e.count
        for e in events
        if e.key in ("cudaLaunchKernel", "cudaLaunchKernelExC", "cuLaunchKernelEx", "cuLaunchKernel", "cudaGraphLaunch")
    )
    by_device = sorted(events, key=lambda e: -e.self_device_time_total)[:10]
    by_host = sorted(events, key=lambda e: -e.self_cpu_time_total)[:10]
    return {
        "launches": launches,
        "device_ms": sum(e.self_device_time_total for e in events) / 1e3,
        "host_ms": sum(e.self_cpu_time_total for e in events) / 1e3,
        "by_device": [[e.key[:90], e.count, round(e.self_device_time_total / 1e3, 3)] for e in by_device],
        "by_host": [[e.key[:90], e.count, round(e.self_cpu_time_total / 1e3, 3)] for e in by_host],
    }


def pack_profile(spec: dict[str, Any]) -> dict[str, Any]:
    """Profiles the scoring of one pack of MMLU."""
    from ours import read_requests

    from harness.engine.runner import Runner
    from harness.jobs import TaskRequests
    from harness.tokens.encode import Encoder
    from harness.tokens.packs import token_budget

    model, tokenizer = _loaded(spec)
    runner = Runner(
        model, tokenizer, engine="auto", numerics="fp32", token_budget=token_budget(device()), max_rows=None, seed=0
    )
    requests = read_requests(spec["requests"])[: spec.get("count")]
    encoded = Encoder(tokenizer, spec["max_length"]).encode(TaskRequests("bench", requests))
    pack = max(runner.plan(encoded), key=lambda pack: pack.tokens)
    runner.run(pack)
    return _profile(lambda: runner.run(pack)) | {"tokens": pack.tokens}


def ours_trains(spec: dict[str, Any]) -> dict[str, Any]:
    """Trains as `harness train` does in its child."""
    from harness.finetune.training.loop import Loop
    from harness.jobs import Base, Example, Method, TrainJob
    from harness.registry.find import find
    from harness.settings import TrainingSettings
    from harness.worker import child

    record: dict[str, Any] = {}
    run = Loop.run

    def timed(self: Any, *arguments: Any, **options: Any) -> Any:
        with measured(record):
            return run(self, *arguments, **options)

    Loop.run = timed  # type: ignore[method-assign]
    entry = find("method", spec["method"])
    hyperparameters = {parameter.name: parameter.default for parameter in entry.parameters}
    hyperparameters |= {} if spec["method"] == "full" else {"rank": 16, "alpha": 32}
    training = TrainingSettings(
        lr=1e-4, steps=spec["steps"], epochs=None, batch_size=spec["batch"], micro_batch_size=spec["batch"],
        max_length=2048, seed=0, checkpointing=False, precision="bf16",
    )  # fmt: skip
    rows = json.loads(Path(spec["rows"]).read_text(encoding="utf-8"))
    with tempfile.TemporaryDirectory() as folder:
        job = TrainJob(
            base=Base(Path(spec["model"]), device(), spec["dtype"], "nf4" if spec["method"] == "qlora" else None),
            method=Method(entry.name, entry.path, entry.module, hyperparameters),
            training=training,
            examples=[Example(row["prompt"], row["completion"], True) for row in rows],
            saves=entry.options["saves"],
            output=Path(folder) / "artifact",
            log=Path(folder) / "log.jsonl",
            state=Path(folder) / "state",
            train_key="",
        )
        done = child.train(job, lambda event: None)
    return record | {
        "losses": list(done.losses), "step_ms": done.step_seconds_p50 * 1e3, "tokens": done.tokens,
        "peaks": dict(done.peaks), "micro_batch_size": done.micro_batch_size,
        "phases": dict(done.phase_seconds),
    }  # fmt: skip


def trainer_trains(spec: dict[str, Any]) -> dict[str, Any]:
    """Trains with PEFT and transformers' Trainer, rows of a length together, in bf16."""
    from peft import LoraConfig, get_peft_model, prepare_model_for_kbit_training
    from training_sides import _Rows
    from transformers import (
        AutoModelForCausalLM,
        AutoTokenizer,
        BitsAndBytesConfig,
        DataCollatorForSeq2Seq,
        Trainer,
        TrainingArguments,
    )

    rows = json.loads(Path(spec["rows"]).read_text(encoding="utf-8"))
    options: dict[str, Any] = {"dtype": getattr(torch, spec["dtype"]), "device_map": {"": device()}}
    if spec["method"] == "qlora":
        options["quantization_config"] = BitsAndBytesConfig(
            load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_use_double_quant=True,
            bnb_4bit_compute_dtype=torch.bfloat16,
        )  # fmt: skip
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_pretrained(spec["model"], **options)
    if spec["method"] == "qlora":
        model = prepare_model_for_kbit_training(model, use_gradient_checkpointing=False)
    model.config.use_cache = False
    if spec["method"] != "full":
        model = get_peft_model(
            model, LoraConfig(task_type="CAUSAL_LM", r=16, lora_alpha=32, target_modules="all-linear")
        )
    with tempfile.TemporaryDirectory() as folder:
        arguments = TrainingArguments(
            output_dir=folder, per_device_train_batch_size=spec["batch"], max_steps=spec["steps"], learning_rate=1e-4,
            lr_scheduler_type="constant", weight_decay=0.0, max_grad_norm=1.0, optim="adamw_torch_fused", bf16=True,
            remove_unused_columns=False, logging_steps=1, save_strategy="no", report_to="none", disable_tqdm=True,
            train_sampling_strategy="group_by_length",
        )  # fmt: skip
        made = Trainer(
            model=model,
            args=arguments,
            train_dataset=_Rows(rows),
            data_collator=DataCollatorForSeq2Seq(AutoTokenizer.from_pretrained(spec["model"]), padding=True),
        )
        record: dict[str, Any] = {}
        with measured(record):
            made.train()
    losses = [entry["loss"] for entry in made.state.log_history if "loss" in entry]
    tokens = sum(len(row["input_ids"]) for row in rows[: spec["steps"] * spec["batch"]])
    return record | {"losses": losses, "tokens": tokens}


WORK = {work.__name__: work for work in (make, score, peer, decode, pack_profile, ours_trains, trainer_trains)}


def main() -> None:
    """Runs what the spec asks for and writes the figures."""
    spec = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
    sys.path.insert(0, str(Path(__file__).parent))
    torch.backends.cuda.enable_cudnn_sdp(
        spec.get("cudnn", False)
    )  # it compiles a kernel for every new length, on both sides
    result = WORK[spec["do"]](spec)
    Path(sys.argv[2]).write_text(json.dumps(result), encoding="utf-8")


if __name__ == "__main__":
    main()
