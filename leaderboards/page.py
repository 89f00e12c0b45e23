"""Renders runs as one HTML page: no server, no network, and nothing that needs JavaScript to be read.

Tables, plots, samples and every score are in the HTML. A script filters and sorts tables, opens cells, keeps its state in the
address and draws the plot of quality against cost with other axes; for that, the page has a packed copy of Vega. Above 1,000
cells each number is on the page once, above 2,000 the copy of Vega is left out, so that the page stays below 1.5 MB. The
template escapes all names from models, tasks and users.

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
from harness.leaderboards import drawing
from harness.leaderboards.axes import browser_plot
from harness.leaderboards.cost_tables import cost_tables, seeds_table
from harness.leaderboards.figures import cost_figure, curve_figure, forest_figures, spread_figure
from harness.leaderboards.forgetting import plane_figure
from harness.leaderboards.heats import heats
from harness.leaderboards.lead import Lead, lead, lead_task
from harness.leaderboards.sample_browser import sample_browser
from harness.leaderboards.sections import PageColumn, RunRows, other_metrics, page_columns, page_rows
from harness.report.footnotes import footnotes
from harness.report.header import facts, model_name
from harness.report.heatmap import grids
from harness.report.recommendation import MARGIN
from harness.report.summary import summary
from harness.results import Run

BARE_ABOVE = 1000
"""Cells above which each number is on the page once: differences and ranks are in the table of every score."""
PLAIN_ABOVE = 2000
"""Cells above which the axes of the plot cannot be chosen."""
DENSE_ABOVE = 8
"""Variants of a run above which cells have one line, and most sections are folded."""
_FOLDER = Path(__file__).parent
_LEGEND = (
    "▲ better, ▼ worse, ≈ no difference shown (it may still be there). ± is half the width of the 95 % interval of the paired"
    " difference from the baseline, unadjusted; a mark is a Holm-adjusted p < .05 over all pairs and tasks. The line under a score is"
    " its own 95 % interval, on one scale for each column. Rank 2–5: one variant is shown to be better, and all but five are shown"
    " to be worse."
)


def template_environment() -> jinja2.Environment:
    """The environment of the templates of pages: everything is escaped, and control characters are shown as escapes."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(_FOLDER),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
        finalize=lambda value: printable(value) if type(value) is str else value,  # not our own Markup
    )
    environment.filters |= {"code": code, "json": drawing.script_json, "short": lambda value: f"{value:.6g}"}
    return environment


def render(runs: Sequence[Run]) -> str:
    """Renders runs as one HTML document: one table of all, then the plots, samples and configuration of each."""
    columns = page_columns(runs)
    table = page_rows(runs, columns)
    cells = len(columns) * sum(len(rows.rows) for rows in table)
    dense = any(len(run.variants) > DENSE_ABOVE for run in runs)
    draws = drawing.can_draw()
    interactive = draws and cells <= PLAIN_ABOVE
    leads = [lead(rows) for rows in table]
    sections = [
        _section(rows, found, columns, cells=cells, draws=draws, interactive=interactive)
        for rows, found in zip(table, leads, strict=True)
    ]
    headings = dict.fromkeys(model_name(run) for run in runs)
    context: dict[str, Any] = {
        "title": " · ".join(headings),
        "heading": ", ".join(headings),
        "runs": sections,
        "columns": columns,
        "picks": {rows.key: found.choices for rows, found in zip(table, leads, strict=True)},
        "baselines": {run.baseline for run in runs},
        "count": sum(len(rows.rows) for rows in table),
        "dense": dense,
        "bare": cells > BARE_ABOVE,
        "costs": cost_tables(table),
        "seeds": seeds_table(table),
        "legend": _LEGEND,
        "margin": f"{MARGIN:g}",
        "notes": [] if draws else [f"Plots are missing: `pip install {drawing.PACKAGE}` and make the page again."],
        "tokens": drawing.TOKENS,
        "light": drawing.LIGHT,
        "packed": Markup(drawing.packed_vega()) if any(each["axes"] for each in sections) else "",
        "style": Markup((_FOLDER / "page.css").read_text(encoding="utf-8")),
        "script": Markup((_FOLDER / "page.js").read_text(encoding="utf-8")),
    }
    context["contents"] = _contents(context)
    return template_environment().get_template("page.html").render(context)


def code(text: str) -> Markup:
    """Escapes text and marks the parts in backticks as code."""
    parts = (escape(part) if index % 2 == 0 else Markup("<code>{}</code>").format(part)
             for index, part in enumerate(printable(text).split("`")))  # fmt: skip
    return Markup("").join(parts)


def _section(
    rows: RunRows, found: Lead, columns: Sequence[PageColumn], *, cells: int, draws: bool, interactive: bool
) -> dict[str, Any]:
    """Everything of one run that is not in the common tables."""
    run = rows.run
    mine = [column for column in columns if any(row.cells[column.key] is not None for row in rows.rows)]
    task = lead_task(rows)
    cost = cost_figure(run, task, found.sentence) if draws and task else None
    curves = curve_figure(run, found.choices) if draws else None
    times = spread_figure(run) if draws else None
    groups, tiles = heats(run, many=cells > BARE_ABOVE), grids(run)
    others = {} if cells > BARE_ABOVE else other_metrics(run)
    inside = (
        ("loss curves", curves),
        ("measured times", times),
        *((f"{each.title} by group", each) for each in groups),
        ("heat maps", tiles),
    )
    extra = cells > BARE_ABOVE and any(len(task.metrics) > 1 for task in run.tasks)
    return {
        "rows": rows,
        "lead": found,
        "facts": [*facts(run), run.created[:10]],
        "summary": summary(run),
        "footnotes": footnotes(run),
        "cost_figure": cost,
        "plane_figure": plane_figure(run) if draws else None,
        "forest": forest_figures(run, 8 if cells <= BARE_ABOVE else 4) if draws and len(run.variants) > 1 else [],
        "curves": curves,
        "times": times,
        "heats": groups,
        "grids": tiles,
        "inside": ", ".join(words for words, each in inside if each),
        "samples": sample_browser(rows, columns, room=200_000 if cells <= BARE_ABOVE else 60_000),
        "axes": browser_plot(run, {column.key: column.task for column in mine}, task.name)
        if interactive and cost and task
        else None,
        "columns": mine,
        "others": others,
        "tests": {
            column.key: ", ".join(
                dict.fromkeys(cell.test for row in rows.rows if (cell := row.cells[column.key]) and cell.test)
            )
            for column in mine
        },
        "count": sum(cell is not None for row in rows.rows for cell in row.cells) + sum(map(len, others.values())),
        "left_out": "Other metrics than the headlines are left out here; `--to csv` has them." if extra else "",
        "config": _yaml(run.config),
        "resolved": _yaml(run.config_resolved) if run.config_resolved else "",
        "environment": _yaml(run.environment),
    }


def _contents(context: dict[str, Any]) -> list[tuple[str, str]]:
    """The links of the bar at the top: only to what is there."""
    first = context["runs"][0]
    known = (
        ("quality", "Quality", True),
        ("seeds", "Training runs", context["seeds"]),
        ("cost", "Cost", context["costs"]),
        ("plots", "Quality against cost", first["cost_figure"] or first["plane_figure"]),
        ("differences", "Differences", first["forest"]),
        ("training", "Training", first["inside"]),
        ("samples", "Samples", first["samples"]),
        ("notes", "Notes", True),
        ("reproduce", "Reproduce", True),
    )
    return [(id, words) for id, words, there in known if there]


def _yaml(content: dict[str, Any]) -> str:
    return str(yaml.safe_dump(content, sort_keys=False, allow_unicode=True, width=100))
