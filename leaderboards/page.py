"""Renders runs as one self-contained HTML file: no server, no network, and JavaScript only for interaction.

Tables and sentences are plain HTML. A short script sorts the tables and draws the Pareto plot as SVG: a plotting library
would add 4.8 MB to every page, the script adds a few kilobytes. The template escapes all names from models, tasks and
users.

Example:
    >>> Path("report.html").write_text(render([run]))  # doctest: +SKIP
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jinja2
import yaml
from markupsafe import Markup, escape

from harness.errors import printable
from harness.leaderboards.forgetting import forgetting
from harness.report import numbers
from harness.report.costs import Measure, measures
from harness.report.footnotes import footnotes
from harness.report.header import facts, model_name
from harness.report.heatmap import grids
from harness.report.scores import leading_task, scale_of, titles
from harness.report.summary import front_of, summary
from harness.report.tables import cost, latency, quality, trainings
from harness.results import Run, TaskInfo

_FOLDER = Path(__file__).parent
_SECONDS = ((3600, "h"), (60, "min"), (1, "s"), (1e-3, "ms"))
_BYTES = ((1024**3, "GiB"), (1024**2, "MiB"), (1024, "KiB"))
_COUNTS = ((1e9, "billions"), (1e6, "millions"), (1e3, "thousands"))


def render(runs: Sequence[Run]) -> str:
    """Renders runs as one HTML document with a section for each."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(_FOLDER),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
        finalize=lambda value: printable(value) if type(value) is str else value,  # not our own Markup
    )
    environment.filters["code"] = code
    return environment.get_template("page.html").render(
        title=" · ".join(dict.fromkeys(model_name(run) for run in runs)),
        style=Markup((_FOLDER / "page.css").read_text(encoding="utf-8")),
        script=Markup((_FOLDER / "page.js").read_text(encoding="utf-8")),
        sections=[_section(run) for run in runs],
        plots=[plot(run) for run in runs],
    )


def code(text: str) -> Markup:
    """Escapes text and marks the parts in backticks as code."""
    parts = (escape(part) if index % 2 == 0 else Markup("<code>{}</code>").format(part)
             for index, part in enumerate(printable(text).split("`")))  # fmt: skip
    return Markup("").join(parts)


def _section(run: Run) -> dict[str, Any]:
    return {
        "run": run,
        "model": model_name(run),
        "facts": facts(run),
        "quality": quality(run),
        "trainings": trainings(run),
        "cost": cost(run),
        "latency": latency(run),
        "grids": grids(run),
        "summary": summary(run),
        "forgetting": forgetting(run),
        "footnotes": footnotes(run),
        "scores": _scores(run),
        "config": yaml.safe_dump(run.config, sort_keys=False, allow_unicode=True),
        "environment": yaml.safe_dump(run.environment, sort_keys=False, allow_unicode=True),
    }


def _scores(run: Run) -> list[list[str]]:
    """Formats every metric of every variant, one row for each."""
    found = []
    for task in run.tasks:
        for metric in task.metrics:
            scale = scale_of(run, task.name, metric.name)
            for variant in run.variants:
                score = variant.score(task.name, metric.name)
                if score is None:
                    continue
                delta = score.delta
                shown = "" if delta is None else scale.difference(delta.value, delta.low, delta.high)
                found.append([
                    titles(run)[task.name], numbers.with_arrow(metric.name, metric.higher_is_better), variant.name,
                    scale.value(score.value), scale.interval(score.low, score.high), shown,
                    "" if delta is None else numbers.probability(delta.p),
                    "" if delta is None or delta.p_holm is None else numbers.probability(delta.p_holm),
                    "" if delta is None or delta.win_rate is None else f"{100 * delta.win_rate:.1f}",
                    str(score.n), f"{score.protocol.shots}{' shared' * score.protocol.shared_shots}", str(score.protocol.version), score.protocol.mode,
                ])  # fmt: skip
    return found


def plot(run: Run) -> dict[str, Any]:
    """Collects the data of the Pareto plot: for each quality and cost, the variants' numbers in display units and the front.

    Returns:
        `variants`: names. `qualities`: label, the maximum possible value or null, and [value, low, high] or null for each
        variant. `costs`: label, and [number, text] or null for each variant. `fronts`: names, by quality and cost in that
        order; `maybe`: the same of variants that may be on the front. `first`: index of the quality that is selected at first.
    """
    qualities = [(task, metric.name) for task in run.tasks for metric in task.metrics]
    qualities.sort(key=lambda quality: quality[1] != quality[0].headline)  # headlines first
    costs = measures(run)
    leading = leading_task(run)
    first = [task for task, _ in qualities].index(leading) if leading and qualities else 0
    fronts = [[front_of(run, task, metric, measure)[1] for measure in costs] for task, metric in qualities]
    return {
        "first": first,
        "variants": [printable(variant.name) for variant in run.variants],
        "qualities": [_quality_axis(run, task, metric) for task, metric in qualities],
        "costs": [_cost_axis(run, measure) for measure in costs],
        "fronts": [[[printable(name) for name in front.on] if front else [] for front in row] for row in fronts],
        "maybe": [[[printable(name) for name in front.maybe] if front else [] for front in row] for row in fronts],
    }


def _quality_axis(run: Run, task: TaskInfo, metric: str) -> dict[str, Any]:
    scale = scale_of(run, task.name, metric)
    points: list[list[float | None] | None] = []
    for variant in run.variants:
        score = variant.score(task.name, metric)
        shown = None if score is None or score.value is None else (score.value, score.low, score.high)
        points.append(shown and [None if number is None else number * scale.factor for number in shown])
    label = f"{printable(titles(run)[task.name])} {numbers.with_arrow(metric, task.higher_is_better(metric))}"
    return {"label": label, "most": 100 if scale.factor == 100 else None, "points": points}


def _cost_axis(run: Run, measure: Measure) -> dict[str, Any]:
    values = [measure.comparable(variant) for variant in run.variants]
    largest = max((value for value in values if value is not None), default=0.0)
    scales: dict[Any, tuple[tuple[float, str], ...]] = {
        numbers.seconds: _SECONDS,
        numbers.count: _COUNTS,
        numbers.money: (),
    }
    units = scales.get(measure.write, _BYTES)
    factor, unit = next(((factor, unit) for factor, unit in units if largest >= factor), (1, ""))
    return {
        "label": f"{measure.words}{f', {unit}' if unit else ''}",
        "points": [None if value is None else [value / factor, measure.write(value)] for value in values],
    }
