"""Runs one side of a row: trains as its spec says and writes the costs. `python training_sides.py SPEC.json RESULT.json`.

`ours` is the job that `harness train` hands to its child; `trainer` is PEFT on transformers' Trainer as their guides have it;
`trl` is SFTTrainer; the spec has the options of both. The call that makes the steps is timed, `Loop.run` on our side and `Trainer.train` on theirs: wall clock,
processor time, and the highest resident memory over what the process held when the call began, the weights touched.
"""

import json
import os
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import transformers
from meter import status
from transformers import AutoModelForCausalLM, AutoTokenizer, BitsAndBytesConfig, Trainer, TrainingArguments

LR, WARMUP_SHARE, SEED, RANK = 2e-4, 0.05, 0, 16
_PACK = 1024
"""Tokens of a pack; no row is longer."""


def measured(train: Callable[..., Any], record: dict[str, Any], started: int) -> Callable[..., Any]:
    """The method that makes the steps, timed into `record`.

    Args:
        train: Of an object that has the `model`.
        record: Receives the figures.
        started: Resident bytes of the process before it imported its side.
    """

    def timed(self: Any, *arguments: Any, **options: Any) -> Any:
        with torch.no_grad():  # every page of the weights is in memory from here on
            self.model(input_ids=torch.tensor([[3, 4, 5]]))
        Path("/proc/self/clear_refs").write_text("5")
        before = status("VmRSS")
        cpu, wall = time.process_time(), time.perf_counter()
        given = train(self, *arguments, **options)
        record.update(
            wall=time.perf_counter() - wall,
            cpu=time.process_time() - cpu,
            peak_bytes=status("VmHWM") - before,
            total_bytes=status("VmHWM") - started,
        )
        return given

    return timed


def ours(spec: dict[str, Any], rows: list[dict[str, Any]], folder: Path) -> list[float]:
    """Trains as `harness train` does in its child."""
    from harness.jobs import Base, Example, Method, TrainJob
    from harness.registry.find import find
    from harness.settings import TrainingSettings
    from harness.worker import child

    entry = find("method", spec["method"])
    settings = {"rank": RANK} if spec["method"] != "full" else {}
    hyperparameters = {parameter.name: parameter.default for parameter in entry.parameters} | settings
    if "alpha" in hyperparameters:
        hyperparameters["alpha"] = 2 * RANK
    training = TrainingSettings(
        lr=LR,
        steps=spec["steps"],
        epochs=None,
        batch_size=spec["batch_size"],
        micro_batch_size=spec["batch_size"],
        max_length=2048,
        seed=SEED,
        checkpointing=spec["checkpointing"],
        warmup=WARMUP_SHARE,
    )
    job = TrainJob(
        base=Base(Path(spec["model"]), "cpu", "float32", "nf4" if spec["method"] == "qlora" else None),
        method=Method(entry.name, entry.path, entry.module, hyperparameters),
        training=training,
        examples=[Example(row["prompt"], row["completion"], True) for row in rows],
        saves=entry.options["saves"],
        output=folder / "artifact",
        log=folder / "log.jsonl",
        state=folder / "state",
        train_key="",
    )
    return list(child.train(job, lambda event: None).losses)


def trainer(spec: dict[str, Any], rows: list[dict[str, Any]], folder: Path) -> list[float]:
    """Trains with PEFT and transformers' Trainer, micro-batches padded to their longest row."""
    from peft import get_peft_model
    from transformers import DataCollatorForSeq2Seq

    torch.manual_seed(SEED)
    model, tokenizer = _loaded(spec)
    if spec["method"] != "full":
        model = get_peft_model(model, _lora())
    arguments = TrainingArguments(
        **_arguments(spec, folder),
        train_sampling_strategy="group_by_length" if spec["options"].get("grouped") else "random",
    )
    collator = DataCollatorForSeq2Seq(tokenizer, padding=True)
    made = Trainer(model=model, args=arguments, train_dataset=_Rows(rows), data_collator=collator)
    made.train()
    return _losses(made)


def trl(spec: dict[str, Any], rows: list[dict[str, Any]], folder: Path) -> list[float]:
    """Trains with TRL's SFTTrainer on tokenised rows, which it pads, joins without padding, or packs, best fit first."""
    from datasets import Dataset
    from trl import SFTConfig, SFTTrainer
    from trl.data_utils import pack_dataset  # type: ignore[import-not-found,unused-ignore]

    torch.manual_seed(SEED)
    model, tokenizer = _loaded(spec)
    data = Dataset.from_list([{key: row[key] for key in ("input_ids", "labels")} for row in rows])
    given = _arguments(spec, folder)
    packing = spec["options"].get("packing", False)
    if packing:  # as many updates as there are steps, over all packs
        data = pack_dataset(data, _PACK)
        given["gradient_accumulation_steps"] = -(-len(data) // spec["steps"])
        given["max_steps"] = -(-len(data) // given["gradient_accumulation_steps"])
    arguments = SFTConfig(
        **given,
        packing=packing,
        padding_free=spec["options"].get("padding_free", False),
        max_length=_PACK if packing else None,
        dataset_kwargs={"skip_prepare_dataset": True},
    )
    made = SFTTrainer(
        model=model,
        args=arguments,
        train_dataset=data,
        processing_class=tokenizer,
        peft_config=None if spec["method"] == "full" else _lora(),
    )
    made.train()
    return _losses(made)


def _losses(trainer: Trainer) -> list[float]:
    return [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]


def _loaded(spec: dict[str, Any]) -> tuple[Any, Any]:
    options: dict[str, Any] = {}
    if spec["method"] == "qlora":
        options["quantization_config"] = BitsAndBytesConfig(
            load_in_4bit=True,
            bnb_4bit_quant_type="nf4",
            bnb_4bit_use_double_quant=True,
            bnb_4bit_compute_dtype=torch.float32,
        )
        options["device_map"] = "cpu"
    model = AutoModelForCausalLM.from_pretrained(spec["model"], dtype=torch.float32, **options)
    for module in model.modules():  # bitsandbytes issue 2078: repacked weights give peers a wrong gradient
        if type(module).__name__ == "Linear4bit":
            module.support_avx512bf16_for_cpu = False
    model.config.use_cache = False
    return model, AutoTokenizer.from_pretrained(spec["model"])


def _lora() -> Any:
    from peft import LoraConfig

    return LoraConfig(task_type="CAUSAL_LM", r=RANK, lora_alpha=2 * RANK, target_modules="all-linear")


def _arguments(spec: dict[str, Any], folder: Path) -> dict[str, Any]:
    return {
        "output_dir": str(folder),
        "per_device_train_batch_size": spec["options"]["micro"],
        "gradient_accumulation_steps": spec["batch_size"] // spec["options"]["micro"],
        "max_steps": spec["steps"],
        "learning_rate": LR,
        "lr_scheduler_type": "cosine",
        "warmup_steps": int(WARMUP_SHARE * spec["steps"]),
        "weight_decay": 0.0,
        "max_grad_norm": 1.0,
        "optim": "adamw_torch",
        "gradient_checkpointing": spec["checkpointing"],
        "remove_unused_columns": False,
        "logging_steps": 1,
        "save_strategy": "no",
        "report_to": "none",
        "disable_tqdm": True,
        "use_cpu": True,
        "bf16": False,
        "seed": SEED,
    }


class _Rows(torch.utils.data.Dataset[dict[str, Any]]):
    def __init__(self, rows: list[dict[str, Any]]) -> None:
        self._rows = [
            {"input_ids": row["input_ids"], "labels": row["labels"], "attention_mask": [1] * len(row["input_ids"])}
            for row in rows
        ]

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, index: int) -> dict[str, Any]:
        return dict(self._rows[index])


SIDES = {side.__name__: side for side in (ours, trainer, trl)}


def main() -> None:
    """Trains and writes the costs."""
    spec = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
    rows = json.loads(Path(spec["rows"]).read_text(encoding="utf-8"))[: spec["batch_size"] * spec["steps"]]
    transformers.logging.set_verbosity_error()
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS") or 1))
    record: dict[str, Any] = {}
    started = status("VmRSS")
    if spec["side"] == "ours":
        from harness.finetune.training.loop import Loop

        Loop.run = measured(Loop.run, record, started)  # type: ignore[method-assign]
    else:
        Trainer.train = measured(Trainer.train, record, started)  # type: ignore[method-assign]
    with tempfile.TemporaryDirectory() as folder:
        record["losses"] = SIDES[spec["side"]](spec, rows, Path(folder))
    Path(sys.argv[2]).write_text(json.dumps(record), encoding="utf-8")


if __name__ == "__main__":
    main()
