"""Exports a variant of a finished run: finds its artifact, base and prompts, and hands a child the job."""

from __future__ import annotations

import fcntl
import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from harness.comparison.sample_diff import BUILT_IN, Side
from harness.config.deployed_forms import GGUF_TYPES
from harness.config.variants import VariantSpec, parse_variant
from harness.data.gguf import is_gguf
from harness.data.model_files import Snapshot, find_files, find_model
from harness.deploy.llama_cpp import find_llama_cpp
from harness.deploy.tools import maker_version
from harness.errors import UserError, did_you_mean
from harness.jobs import (
    HEAD_FILE,
    Advanced,
    Base,
    DeployedForm,
    EnvironmentJob,
    Event,
    Exported,
    ExportFormat,
    ExportJob,
    Item,
    Recipe,
    Request,
    UnpackJob,
)
from harness.prepare.tasks import prompting_of, scored_task
from harness.prompts.render import render
from harness.registry.find import find
from harness.registry.recorded import recorded_method
from harness.registry.task_spec import parse_task
from harness.report.progress import Progress
from harness.results import Run, Variant
from harness.runs.folder import is_live
from harness.storage import PARTIAL, inside, partial, read_json, refuse_links_out, writing
from harness.tokens.description import load_template
from harness.worker.server import JobFailed, Server

_RECORD = "export.json"
_PROMPTS = 8
"""Real texts on which logits are compared."""
_STOPS = 8


@dataclass(frozen=True)
class ExportRequest:
    """An export that the user asks for."""

    to: ExportFormat
    output: Path | None = None
    """None: in the run's folder."""
    kind: str | None = None
    """Type of a GGUF file; None: the variant's own, else `Q8_0`."""
    model: str | None = None
    """The base, if the run's is not `tiny`: a run.json from elsewhere chooses no file."""
    code: tuple[Path, ...] = ()
    """Python files that may run."""
    dtype: str | None = None
    device: str = "auto"
    trust_remote_code: bool = False
    force: bool = False
    """Whether to replace an earlier export."""


def export_variant(
    run: Run, folder: Path, name: str, wanted: ExportRequest, *, progress: Progress | None = None
) -> Exported:
    """Writes a variant of a run in a form that a server loads, and reads it back.

    Args:
        run: The run.
        folder: Its folder.
        name: The variant.
        wanted: The form, and what may be used for it.
        progress: Receives progress events.

    Raises:
        UserError: The variant is not finished or has no such form, a tool is missing, the run's model has changed, or the
            folder holds something else.
    """
    shown = progress or Progress()
    side = Side(run, folder, name)
    variant = side.variant()
    _refuse_unfinished(variant, folder)
    spec = parse_variant(variant.spec)
    kind = _gguf_type(wanted, spec)
    _refuse_form(variant, spec, wanted)
    model = _model(run, wanted)
    with Server() as server, _alone(_output(wanted, folder, variant)) as output:
        shown.start("Export", f"{name} to {wanted.to}")
        machine = server.run(EnvironmentJob(wanted.device, wanted.dtype or run.environment["dtype"]))
        base = Base(model.folder, machine["device"], machine["dtype"], None, wanted.trust_remote_code)
        recipe = _recipe(run, folder, variant, spec, base, wanted)
        if is_gguf(recipe.base.folder):
            server.run(UnpackJob(replace(recipe.base, device="cpu", quant=None)))
        items = _items(side, spec, model, wanted)
        generated = [] if items else _outputs(side)
        requests = [item.request for item in items] or generated
        job = ExportJob(
            recipe=recipe,
            to=wanted.to,
            output=output,
            name=re.sub(r"[^A-Za-z0-9._-]+", "-", name).strip("-.") or "model",
            model=model.name if model.revision else str(model.folder),
            kind=kind,
            requests=requests,
            templated=_is_templated(variant),
            stops=tuple(dict.fromkeys(stop for request in requests for stop in request.stop))[:_STOPS],
            system=spec.prompting.get("system"),
            title=f"variant `{name}` ({variant.spec}) of the run {folder.name}, made by `harness export`",
        )
        try:
            made: Exported = server.run(job, lambda event: _show(shown, event))
        except JobFailed as failure:
            raise UserError(f"`{name}` could not be exported: {failure}", hint="nothing was written") from failure
        finally:
            shutil.rmtree(partial(output), ignore_errors=True)
        shown.finish()
    note = "logits were compared on texts that the variant generated: `--allow-code FILE.py` loads a task's prompts"
    return replace(made, notes=(*made.notes, note)) if generated else made


def _show(progress: Progress, event: Event) -> None:
    if isinstance(event, Advanced):
        progress.advance(event.done, event.note, event.total)


def _refuse_unfinished(variant: Variant, folder: Path) -> None:
    if variant.status == "failed":
        raise UserError(
            f"`{variant.name}` failed in this run: {variant.error}",
            hint="correct that and give the run's command again",
        )
    if variant.status != "done":
        what = "is still running" if is_live(folder) else "was interrupted"
        raise UserError(
            f"`{variant.name}` is not finished: its run {what}", hint="wait for it, or give its command again"
        )


def _gguf_type(wanted: ExportRequest, spec: VariantSpec) -> str:
    """The type of a GGUF file; its tools are checked before anything is loaded."""
    makes_file = wanted.to in ("gguf", "ollama")
    if wanted.kind is not None and not makes_file:
        raise UserError(
            f"`--quant` is the type of a GGUF file, and `--to {wanted.to}` writes none", hint="leave it out"
        )
    own = spec.form.type if spec.form and spec.form.tool == "gguf" else None
    asked = wanted.kind or own or "Q8_0"
    known = {each.lower(): each for each in GGUF_TYPES}
    if asked.lower() not in known:
        raise UserError(f"unknown type `{asked}` of a GGUF file", hint=did_you_mean(asked, GGUF_TYPES))
    kind = known[asked.lower()]
    if makes_file:
        maker_version(DeployedForm("gguf", kind))
        find_llama_cpp(kind)
    return kind


def _refuse_form(variant: Variant, spec: VariantSpec, wanted: ExportRequest) -> None:
    """Refuses what has no such form."""
    if spec.kind == "endpoint":
        raise UserError(
            f"`{variant.name}` is a served model, and its weights are on the server",
            hint="export a variant of this machine",
        )
    mergeable = "a variant that can be merged, such as `lora` or `full`"
    if spec.form is not None and not (spec.form.tool == "gguf" and wanted.to in ("gguf", "ollama")):
        raise UserError(
            f"`{variant.name}` is scored as `{spec.form.text}`, and `--to {wanted.to}` would write other weights",
            hint="export the variant without that form" + (", or `--to gguf`" if spec.form.tool == "gguf" else ""),
        )
    if spec.bits is not None:
        raise UserError(
            f"`{variant.name}` is scored on a base in {spec.bits} bits, which no export has",
            hint=f"export the variant without `@{spec.bits}bit`, or compare a deployed form: `@gguf:Q4_K_M`",
        )
    if spec.training.get("stage") == "reward":
        raise UserError(f"`{variant.name}` is a reward model, whose head no server loads", hint=f"export {mergeable}")
    entry = spec.entry
    if entry is not None and not (entry.options["mergeable"] or entry.options["saves"] == "checkpoint"):
        raise UserError(
            f"`{variant.name}` has no form `{wanted.to}`: the result of `{entry.name}` cannot be merged into the weights",
            hint=f"export {mergeable}; its own artifact runs with peft",
        )


def _model(run: Run, wanted: ExportRequest) -> Snapshot:
    """The run's model, checked against its digest: a run.json from elsewhere names no file."""
    recorded = run.environment.get("model", {})
    name = str(recorded.get("name", run.config.get("model", "tiny")))
    if wanted.model is None and name != "tiny":
        raise UserError(f"the run's model is `{name}`", hint=f"name it in the command: `--model {name}`")
    model = find_model(wanted.model or "tiny", trust_remote_code=wanted.trust_remote_code)
    if recorded.get("digest") not in (None, model.digest):
        raise UserError(
            f"`{model.name}` is not the model of this run, or its files have changed since",
            hint=f"the run's model is `{name}`",
        )
    return model


def _recipe(run: Run, folder: Path, variant: Variant, spec: VariantSpec, base: Base, wanted: ExportRequest) -> Recipe:
    """The steps to the variant's model as trained."""
    if spec.kind == "base":
        return Recipe(base)
    if spec.kind == "adapter":
        given = find_files(spec.source, "adapter or checkpoint", revision=spec.revision)
        return _of_artifact(given.folder, base, None, wanted) if given.is_adapter else Recipe(_at(base, given.folder))
    artifact = _artifact(variant, folder)
    assert spec.entry is not None
    if spec.entry.options["saves"] == "checkpoint":
        return Recipe(_at(base, artifact))
    quant = spec.entry.quantization(spec.hyperparameters)
    return _of_artifact(artifact, _started(run, folder, spec, base), quant, wanted)


def _artifact(variant: Variant, folder: Path) -> Path:
    if variant.artifact is None:
        raise UserError(f"`{variant.name}` has no artifact in this run", hint="train it: give the run's command again")
    path = inside(folder, variant.artifact.path)
    if not any(path.glob("*.safetensors")):
        raise UserError(
            f"the artifact of `{variant.name}`, `{path}`, has no weights", hint="was it deleted? train again"
        )
    refuse_links_out(path)
    if (path / HEAD_FILE).is_file():
        raise UserError(
            f"`{variant.name}` is a reward model, whose head no server loads", hint="export a language model"
        )
    return path


def _of_artifact(artifact: Path, base: Base, quant: Any, wanted: ExportRequest) -> Recipe:
    method = recorded_method(artifact, wanted.code)
    return Recipe(replace(base, quant=quant), artifact, method=method)


def _at(base: Base, folder: Path) -> Base:
    return replace(base, folder=folder)


def _started(run: Run, folder: Path, spec: VariantSpec, base: Base) -> Base:
    """The base of an adapter: another variant's checkpoint if its training started from that."""
    shared = run.config.get("train")
    start = spec.training.get("start") or (shared.get("start") if isinstance(shared, dict) else None)
    seen: set[str] = set()
    while start is not None:
        other = next((each for each in run.variants if each.name == start), None)
        if other is None or start in seen:
            raise UserError(
                f"`{spec.source}` started from `{start}`, which is no variant of this run",
                hint="give its training command `--merge`: `harness train … --merge`",
            )
        seen.add(start)
        begun = parse_variant(other.spec)
        if begun.entry is not None and begun.entry.options["saves"] == "checkpoint":
            return _at(base, _artifact(other, folder))
        start = begun.training.get("start")
    return base


@dataclass(frozen=True)
class _Prompted:
    """The settings of a finished run that decide how its variants are prompted."""

    model: str
    apply_chat_template: bool
    num_fewshot: int | None
    shared_shots: bool


def _prompted(side: Side) -> _Prompted:
    config = side.run.config
    shots, shared = config.get("num_fewshot"), bool(config.get("shared_shots"))
    return _Prompted(str(config.get("model")), _is_templated(side.variant()), shots, shared)


def _is_templated(variant: Variant) -> bool:
    return any(score.protocol.chat_template is not None for score in variant.scores)


def _items(side: Side, spec: VariantSpec, model: Snapshot, wanted: ExportRequest) -> list[Item]:
    """Real prompts of the run, of the tasks whose files may be loaded: built-in ones, and those that the user named."""
    template = load_template(model.folder, trust_remote_code=wanted.trust_remote_code)
    found: list[Item] = []
    for info in side.run.tasks:
        try:
            task_spec = parse_task(info.name)
            file = find("task", task_spec.source).path.resolve()
            if not file.is_relative_to(BUILT_IN.resolve()) and file not in {path.resolve() for path in wanted.code}:
                continue
            task = scored_task(task_spec)
            prompting = prompting_of(_prompted(side), spec, template)
            found += render(task.name, task.task, prompting, groups=task.spec.groups, limit=_PROMPTS)
        except UserError:  # its rows are not on this machine, or its file has changed
            continue
    step = max(1, len(found) // _PROMPTS)
    return found[::step][:_PROMPTS]


def _outputs(side: Side) -> list[Request]:
    """Texts that the variant generated in the run, where no prompt can be rendered."""
    texts = [
        str(text) for info in side.run.tasks for row in side.rows(info.name).values() for text in row["outputs"][:1]
    ]
    step = max(1, len(texts) // _PROMPTS)
    found = [Request(str(n), "text", ("",), (text,)) for n, text in enumerate(texts[::step][:_PROMPTS]) if text.strip()]
    if not found:
        raise UserError(
            "the run's task files may not be loaded, so there is no real prompt to compare logits on",
            hint="name a task's file: `--allow-code FILE.py`",
        )
    return found


def _output(wanted: ExportRequest, folder: Path, variant: Variant) -> Path:
    slug = re.sub(r"[^A-Za-z0-9._-]+", "-", variant.name).strip("-.") or "variant"
    own = folder if folder.is_dir() else folder.parent
    output = wanted.output or own / "exports" / f"{slug}-{wanted.to}{'-' + wanted.kind if wanted.kind else ''}"
    if output.name.endswith(PARTIAL):
        raise UserError(f"`{output}` ends in {PARTIAL}", hint="choose another name")
    if not output.exists():
        return output
    if not wanted.force and not (output.is_dir() and not any(output.iterdir())):
        raise UserError(f"`{output}` exists", hint="choose another folder with `--out`, or replace it with `--force`")
    if output.is_dir() and any(output.iterdir()) and not _is_export(output):
        raise UserError(f"`{output}` is not an earlier export, so it is not replaced", hint="choose another folder")
    return output


def _is_export(folder: Path) -> bool:
    try:
        return "distance" in read_json(folder / _RECORD)
    except (OSError, ValueError, TypeError):
        return False


@contextmanager
def _alone(output: Path) -> Iterator[Path]:
    """Keeps a second export from the same folder."""
    lock = output.with_name(f".{output.name}.lock")
    with writing(output, hint="choose another folder with `--out`"):
        output.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(lock, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        raise UserError(f"another process is exporting to `{output}`", hint="wait, or choose another folder") from None
    try:
        yield output
    finally:
        lock.unlink(missing_ok=True)
        os.close(descriptor)
