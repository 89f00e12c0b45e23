"""Our own run folders, as the other tools' results are read, so that both are in one table."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from harness.comparison.sample_diff import Side
from harness.imports.bounded import is_finite, lines, refused
from harness.imports.record import ImportedRun, ImportedTask, Measured, SampleColumns, SampleText, Texts, digest
from harness.report.header import device_name, model_name
from harness.report.scores import titles
from harness.results import Run, Score, TaskInfo
from harness.runs.folder import load_shown, sample_log
from harness.runs.prompts import output_of_row, read_prompts


def read(path: Path) -> list[ImportedRun]:
    """Reads a run: one entry for each variant that was scored, with its costs.

    Raises:
        UserError: The run is damaged.
    """
    run, folder = load_shown(path), path if path.is_dir() else path.parent
    names = titles(run)
    comparisons = tuple(each.model_copy(update={"task": names[each.task]}) for each in run.comparisons)
    found: list[ImportedRun] = []
    for variant in run.variants:
        tasks = tuple(
            _task(run, folder, info, variant.name, score)
            for info in run.tasks
            if (score := variant.headline(info)) is not None
        )
        if not tasks:
            continue
        found.append(
            ImportedRun(
                name=variant.name,
                tool=f"harness {run.harness}",
                file=path,
                spec=variant.spec,
                model=model_name(run),
                created=run.created,
                tasks=tasks,
                lacks=(),
                variant=variant,
                device=device_name(run),
                comparisons=comparisons,
                notes=() if found else run.notes,
            )
        )
    if not found:
        raise refused(path, "no variant of the run has a score yet", "wait until the run has finished")
    return found


def _task(run: Run, folder: Path, info: TaskInfo, variant: str, headline: Score) -> ImportedTask:
    file = sample_log(folder, Side(run, folder, variant).stored_as(), info.name).path
    columns = SampleColumns()
    labels: dict[str, list[str | None]] = {"group": [], "cluster": []}
    for line, row in lines(file) if file.is_file() else ():
        asked, metrics = row.get("prompt_sha256"), row.get("metrics")
        if not isinstance(asked, str) or not isinstance(metrics, dict):
            raise refused(file, f"line {line} has no `prompt_sha256` or no `metrics`")
        values = {
            name: float(each) for name, each in metrics.items() if isinstance(each, int | float) and is_finite(each)
        }
        key = digest(asked)
        columns.add(key, key, values, key)
        for name, found in labels.items():
            label = row.get(name)
            found.append(label if isinstance(label, str) else None)
    groups, clusters = (_whole(each) for each in labels.values())
    measured = []
    for metric in info.metrics:
        score = next((s for s in run.variant(variant).scores if (s.task, s.metric) == (info.name, metric.name)), None)
        if score is None:
            continue
        samples = None if info.until_decided else columns.of(metric.name, groups, clusters)
        if samples is not None and not _is_mean(samples.values, score.value):
            samples = None
        in_unit = samples is not None and bool(((samples.values >= 0) & (samples.values <= 1)).all())
        measured.append(
            Measured(
                metric.name,
                score.value,
                metric.higher_is_better,
                score.n,
                low=score.low,
                high=score.high,
                bounds=(0.0, 1.0) if in_unit else None,
                samples=samples,
            )
        )
    first = [each for each in measured if each.metric == info.headline]
    return ImportedTask(
        name=titles(run)[info.name],
        measured=(*first, *(each for each in measured if each.metric != info.headline)),
        protocol=headline.protocol,
        settings={"harness task version": str(headline.protocol.version), "kind of requests": _kind(headline)},
        definition="harness",
        texts=_texts(folder, info.name, file),
        data=info.data,
        trained_on=info.trained_on,
    )


def _whole(labels: list[str | None]) -> tuple[str, ...] | None:
    found = tuple(label for label in labels if label is not None)
    return found if found and len(found) == len(labels) else None


def _is_mean(values: NDArray[np.float64], score: float | None) -> bool:
    """Whether a score is the mean of its samples; metrics of the whole set, and damaged files, are not."""
    return score is not None and abs(float(values.mean()) - score) <= 1e-6 * max(1.0, abs(score))


def _kind(score: Score) -> str:
    return "generate_until" if score.protocol.mode == "generate" else "multiple_choice"


def _texts(folder: Path, task: str, file: Path) -> Texts:
    def read_texts(_: str, indices: Collection[int]) -> dict[int, SampleText]:
        wanted, found = set(indices), dict[int, SampleText]()
        prompts = read_prompts(folder, task)
        for index, (_line, row) in enumerate(lines(file)):
            if index in wanted:
                prompt = prompts.get(str(row.get("id")))
                whole = isinstance(row.get("outputs"), list) and isinstance(row.get("loglikelihoods"), list)
                found[index] = SampleText(
                    id=str(row.get("id"))[:80],
                    prompt=prompt.prompt if prompt else None,
                    target=prompt.target if prompt else None,
                    answer=output_of_row(row, prompt.choices if prompt else ()) if whole else "",
                )
        return found

    return read_texts
