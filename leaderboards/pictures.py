"""The plots of runs as one picture, for a README, a paper or slides: SVG, or PNG with two pixels for each.

Example:
    >>> Path("report.png").write_bytes(png([run]))  # doctest: +SKIP
"""

from __future__ import annotations

from collections.abc import Sequence

from harness.errors import UserError, printable
from harness.leaderboards.drawing import Spec, picture
from harness.leaderboards.figures import WIDE, cost_figure
from harness.leaderboards.forgetting import plane_figure
from harness.leaderboards.lead import lead_task
from harness.leaderboards.sections import page_columns, page_rows
from harness.results import Run

_APART = {"scale": {name: "independent" for name in ("color", "fill", "shape", "stroke")}}
"""Each plot has scales of its own."""


def overview(runs: Sequence[Run]) -> Spec:
    """Quality against cost and learning against forgetting side by side, one line for each run.

    Raises:
        UserError: No run has numbers for a plot.
    """
    found = []
    for rows in page_rows(runs, page_columns(runs)):
        task = lead_task(rows)
        figures = (cost_figure(rows.run, task, "") if task else None, plane_figure(rows.run))
        specs = [each.make(WIDE) for each in figures if each]
        if specs:
            title = {"text": printable(rows.label), "fontSize": 14, "offset": 14}
            found.append({"hconcat": specs, "spacing": 40, "title": title, "resolve": _APART})
    if not found:
        raise UserError(
            "no run has a score and a cost to draw",
            hint="the tables have what is known: `--to md`; timing needs scores",
        )
    return {"vconcat": found, "spacing": 40, "resolve": _APART}


def svg(runs: Sequence[Run]) -> bytes:
    """Draws runs as SVG.

    Raises:
        UserError: Nothing can be drawn, or the package that draws is not installed.
    """
    return picture(overview(runs), "svg")


def png(runs: Sequence[Run]) -> bytes:
    """Draws runs as PNG.

    Raises:
        UserError: Nothing can be drawn, or the package that draws is not installed.
    """
    return picture(overview(runs), "png")
