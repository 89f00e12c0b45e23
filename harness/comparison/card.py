"""Model card (`README.md`) of a trained artifact: description, results, how to load it and how to reproduce it.

Its header is the metadata that the Hub reads, so that an artifact can be uploaded as it is.
"""

from __future__ import annotations

import json
import platform
import shlex
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from harness import __version__
from harness.comparison.document import train_record
from harness.comparison.state import Session, State
from harness.config.mixes import parse_mix
from harness.data.gguf import is_gguf
from harness.data.model_files import Snapshot
from harness.errors import printable
from harness.jobs import HEAD_FILE, QUANT_OF_BITS, Quant, TrainJob
from harness.prepare.training_settings import TINY_LR_SCALE
from harness.prepare.trainings import TUNED_ON, Training
from harness.registry.values import show
from harness.report import numbers
from harness.results import Train
from harness.settings import STAGES, TrainingSettings, stages_of

CARD = "README.md"

_ELSEWHERE = {"lr", "steps", "epochs", "batch_size", "micro_batch_size", "max_length", "seed", "stage", "checkpointing"}
"""Settings that have a row of their own in the card."""


def model_card(session: Session, state: State, job: TrainJob, *, command: str, merged: bool = False) -> str:
    """Returns the model card of a training run, as Markdown.

    Args:
        session: The run.
        state: A trained variant; other variants may share the training run.
        job: The training run, with resolved settings.
        command: The command line of the user.
        merged: Whether the card is for the checkpoint with the adapter merged.
    """
    training, trained = state.variant.training, state.trained
    assert training is not None and trained is not None and state.artifact is not None
    record = train_record(trained, training, state.reused, state.tuned)
    spec, model = state.variant.spec, session.prepared.model
    folder = session.folder.merged(training.id) if merged else state.artifact
    judges = (state.artifact / HEAD_FILE).is_file()
    library = _library(merged, job, state)
    environment = session.environment
    parameters = ", ".join(f"{name} = {_text(value)}" for name, value in training.hyperparameters.items())
    share = trained.parameters_trainable / trained.parameters_total
    what = {
        "Base": _code(model.name) + f" ({_origin(model)})" + _base_loaded(job, model),
        "Method": _code(training.entry.name) + (f": {_escaped(parameters)}" if parameters else ""),
        "Trained": f"{trained.parameters_trainable:,} of {trained.parameters_total:,} parameters ({share:.3%})"
        + (", merged into the base" if merged else ""),
        "Data": _data(training, record),
        "Stage": _code(job.training.stage),
        "Starts from": _given(training.start),
        "Reward from": _given(training.reward),
        "Length": f"{trained.steps:,} steps of {record.batch_size} rows, at most {training.settings.max_length:,} tokens per row",
        "Learning rate": f"{training.settings.lr:g}, {_rate(training, record, embedded=model.name == 'tiny')}",
        "Other settings": _escaped(", ".join(f"{name} = {_text(value)}" for name, value in _settings(job.training))),
        "Seed": str(training.settings.seed),
    }
    went = {
        "Loss": _loss(record),
        **_held_out(job, record),
        "Reward": _reward(trained.rewards),
        "Curve": record.curve,
        "Time": f"{numbers.seconds(record.train_seconds)} for {record.tokens:,} tokens"
        f" ({record.tokens_per_second:,.0f} per second)",
        "Memory": _memory(record),
        "Notes": _escaped("; ".join((*training.data.notes, *trained.notes))),
    }
    versions = {"finetune-harness": __version__, **environment["packages"], "python": platform.python_version()}
    sections = [
        f"---\n{_header(session, training, library, judges)}\n---",
        f"# {_escaped(spec.name)}: {_code(training.entry.name)} on {_code(model.name)}"
        + (", merged" if merged else ""),
        _table(what),
        "## Results",
        _table(went),
        "## How to load it",
        _loading(library, job, model, folder.name, training.data.tasks, judges=judges),
        "## How to reproduce it",
        f"```\n{_command(session, state, command)}\n```",
        f"Made with {', '.join(f'{name} {version}' for name, version in versions.items())}"
        f" on {_escaped(str(environment['device_name']))}.",
    ]
    return "\n\n".join(sections) + "\n"


def _header(session: Session, training: Training, library: str, judges: bool) -> str:
    """Metadata for the Hub, as YAML; names only base models and data sets that are on the Hub."""
    from huggingface_hub import ModelCardData

    model = session.prepared.model
    sources = [part.source for part in parse_mix(training.given.data or "")]
    datasets = [source.removeprefix("hub:").split(":")[0] for source in sources if source.startswith("hub:")]
    return ModelCardData(
        base_model=model.name.partition(":")[0] if model.revision else None,
        datasets=[name for name in datasets if name.count("/") == 1] or None,
        library_name=library,
        pipeline_tag=None if judges else "text-generation",
        tags=["finetune-harness", training.entry.name, training.settings.stage],
    ).to_yaml()


def _library(merged: bool, job: TrainJob, state: State) -> str:
    assert state.artifact is not None
    if merged or job.saves == "checkpoint":
        return "transformers"
    return "peft" if (state.artifact / "adapter_config.json").is_file() else "finetune-harness"


def _loading(library: str, job: TrainJob, model: Snapshot, folder: str, tasks: Sequence[str], *, judges: bool) -> str:
    """Code that loads the artifact.

    Artifacts of neither PEFT nor Transformers, reward heads, and adapters of a GGUF file load only here.
    """
    whole = library == "transformers"
    base = model.name if job.base.folder == model.folder else str(job.base.folder)
    bits = next((f"@{bits}bit" for bits, quant in QUANT_OF_BITS.items() if quant and quant == job.base.quant), "")
    variant = f"base --model ./{folder}" if whole else f"./{folder}{bits} --model {shlex.quote(base)}"
    if library == "finetune-harness" and job.method.module is None:  # a delta that the user's own method made
        variant += f" --allow-code {shlex.quote(job.method.path.name)}"
    ours = f"```\nharness eval {variant} --tasks {shlex.quote(','.join(tasks) or 'TASK')}\n```"
    if library == "finetune-harness" or judges or (not whole and is_gguf(job.base.folder)):
        return ours
    dtype = f'dtype="{job.base.dtype}"'
    if whole:
        lines = [
            "from transformers import AutoModelForCausalLM, AutoTokenizer",
            "",
            f'model = AutoModelForCausalLM.from_pretrained("./{folder}", {dtype})',
            f'tokenizer = AutoTokenizer.from_pretrained("./{folder}")',
        ]
    else:
        from_hub = model.revision is not None and job.base.folder == model.folder
        name = json.dumps(model.name if from_hub else str(job.base.folder), ensure_ascii=False)
        where = f'{name}, revision="{model.revision}"' if from_hub else name
        quant = job.base.quant
        options = f"{dtype}, quantization_config={_quantization(quant, job.base.dtype)}" if quant else dtype
        lines = [
            *(["import torch"] if quant else []),
            "from peft import PeftModel",
            f"from transformers import AutoModelForCausalLM, AutoTokenizer{', BitsAndBytesConfig' if quant else ''}",
            "",
            f"base = AutoModelForCausalLM.from_pretrained({where}, {options})",
            f'model = PeftModel.from_pretrained(base, "./{folder}")',
            f"tokenizer = AutoTokenizer.from_pretrained({where})",
        ]
    return "```python\n" + "\n".join(lines) + f"\n```\n\nTo score it on tasks:\n\n{ours}"


def _quantization(quant: Quant, dtype: str) -> str:
    if quant == "int8":
        return "BitsAndBytesConfig(load_in_8bit=True, llm_int8_threshold=0.0)"
    return (
        f'BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type="{quant.removesuffix("_single")}",'
        f" bnb_4bit_use_double_quant={not quant.endswith('_single')}, bnb_4bit_compute_dtype=torch.{dtype})"
    )


def _command(session: Session, state: State, command: str) -> str:
    """Returns a command that repeats this training run alone, all settings explicit; else the command of the user."""
    training, config = state.variant.training, session.config
    assert training is not None
    alone = not isinstance(training.start, Training) and not isinstance(training.reward, Training)
    if state.variant.spec.fold is not None or not alone or config.task_parameters:
        return command
    resolved, given = training.settings, training.given.model_dump(exclude_unset=True)
    settings = {name: value for name, value in given.items() if resolved.stage in stages_of(name)}
    settings |= {"lr": resolved.lr}
    settings |= {"batch_size": resolved.batch_size, "max_length": resolved.max_length}
    settings |= {"epochs": resolved.epochs} if resolved.steps is None else {"steps": resolved.steps}
    if training.validation is not None and "validation" not in settings:
        settings["validation"] = TUNED_ON
    spec = replace(state.variant.spec, training={}).training_spec
    words = ["harness", "train", spec, "--model", config.model]
    words += [] if "data" in settings else ["--tasks", ",".join(config.tasks)]
    words += [word for name, value in settings.items() for word in ("-S", f"{name}={_typed(value)}")]
    words += ["--seed", str(resolved.seed), "--dtype", session.environment["dtype"]]
    words += [] if config.device == "auto" else ["--device", config.device]
    for name, value in config.template_options.items():
        words += ["--template-option", f"{name}={show(value, 'bool | int | float | str')}"]
    words += ["--apply-chat-template"] * config.apply_chat_template + ["--trust-remote-code"] * config.trust_remote_code
    return shlex.join(words)


def _typed(value: Any) -> str:
    """Formats a setting as `-S` parses it."""
    if isinstance(value, Mapping):
        return ",".join(f"{key}={each}" for key, each in value.items())
    if isinstance(value, list | tuple):
        return "+".join(map(str, value))
    return str(value).lower() if isinstance(value, bool) else str(value)


def _data(training: Training, record: Train) -> str:
    data = record.data
    assert data is not None
    parts = [f"{_code(data.name)}, {data.rows:,} rows (sha256 `{data.sha256[:16]}`)"]
    if data.cut:
        parts.append(f"{data.cut:,} of them truncated to the maximum length")
    if data.dropped:
        parts.append(f"{data.dropped:,} dropped as too long")
    if training.validation is not None:
        parts.append(f"{data.validation_rows:,} rows held out (sha256 `{training.validation.digest[:16]}`)")
    return ", ".join(parts)


def _rate(training: Training, record: Train, *, embedded: bool) -> str:
    if record.tuning:
        tried = ", ".join(
            f"{trial.lr:g}: {'failed' if trial.validation_loss is None else f'{trial.validation_loss:.4g}'}"
            for trial in record.tuning
        )
        return f"the best of {len(record.tuning)} tried on held-out rows ({tried})"
    scaled = f" × {TINY_LR_SCALE:g}, which the embedded model needs" if embedded else ""
    return "as given" if training.given.lr is not None else f"the method's default{scaled}, not tuned"


def _settings(settings: TrainingSettings) -> Iterable[tuple[str, Any]]:
    for name, value in settings.of_the_loop().items():
        if name not in _ELSEWHERE and value is not None and value != () and settings.stage in stages_of(name):
            yield name, value


def _loss(record: Train) -> str:
    last = min(10, record.steps)
    return "" if record.final_loss is None else f"{record.final_loss:.4g} at the end (mean of the last {last} steps)"


def _held_out(job: TrainJob, record: Train) -> dict[str, str]:
    """Held-out loss; online stages record the negative reward as their loss, so this returns the reward."""
    if record.validation_loss is None:
        return {}
    if STAGES[job.training.stage].rows == "prompt":
        return {"Held-out reward": f"{-record.validation_loss:.4g}"}
    return {"Held-out loss": f"{record.validation_loss:.4g}"}


def _reward(rewards: Sequence[float]) -> str:
    return f"{rewards[0]:.4g} at the first step, {rewards[-1]:.4g} at the last" if rewards else ""


def _memory(record: Train) -> str:
    peaks = [
        f"{numbers.peak(value)} {where}"
        for value, where in ((record.peak_gpu_allocated_bytes, "on the GPU"), (record.peak_rss_bytes, "on the host"))
        if value is not None
    ]
    return f"{numbers.listing(peaks)} peak" if peaks else ""


def _given(given: Any) -> str:
    """Name of the model or training run that a training run starts from, or takes its reward from."""
    if given is None:
        return ""
    name = given.id.split("#")[0] if isinstance(given, Training) else getattr(given, "name", "")
    return _code(name)


def _origin(model: Snapshot) -> str:
    return f"revision `{model.revision}`" if model.revision else f"sha256 `{model.digest[:16]}`"


def _base_loaded(job: TrainJob, model: Snapshot) -> str:
    loaded = f", in {job.base.quant or job.base.dtype}"
    return loaded if job.base.folder == model.folder else f"{loaded}, with the weights of {_code(str(job.base.folder))}"


def _table(cells: Mapping[str, str]) -> str:
    return "\n".join(["| | |", "|---|---|", *(f"| {name} | {text} |" for name, text in cells.items() if text)])


def _text(value: Any) -> str:
    return (
        f"{value:g}"
        if isinstance(value, float)
        else ", ".join(map(str, value))
        if isinstance(value, tuple | list)
        else str(value)
    )


def _code(text: str) -> str:
    return f"`{printable(' '.join(text.split())).replace('`', '').replace('|', chr(92) + '|')}`"


def _escaped(text: str) -> str:
    return printable(" ".join(text.split())).replace("|", "\\|").replace("<", "\\<")
