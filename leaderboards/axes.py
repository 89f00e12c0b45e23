"""The plot of quality against cost for the browser, where a reader chooses the task and the cost.

The page has the numbers of all tasks and costs, and one compiled plot, which `page.js` fills. A browser has what Vega needs to
place labels.
"""

from __future__ import annotations

from collections.abc import Mapping

from harness.errors import printable
from harness.leaderboards.drawing import FONT, LIGHT, Spec, compiled
from harness.leaderboards.figures import WIDE, cost_axis, cost_measure
from harness.leaderboards.plot_parts import can_be_drawn
from harness.leaderboards.plots import CostPoint, cost_plot
from harness.report import numbers
from harness.report.costs import measures
from harness.report.scores import scale_of, shown_better, titles
from harness.results import Run, TaskInfo, Variant

_LABELS: Spec = {
    "type": "text",
    "from": {"data": "layer_2_marks"},
    "encode": {
        "enter": {
            "text": {"signal": "datum.datum.label"},
            "fontSize": {"value": 11.5},
            "font": {"value": FONT},
            "fontWeight": {"signal": "datum.datum.standing != 'off' ? 600 : 400"},
            "fill": {"signal": f"datum.datum.standing != 'off' ? '{LIGHT['ink']}' : '{LIGHT['muted']}'"},
        }
    },
    "transform": [
        {
            "type": "label",
            "size": {"signal": "[width + 12, height]"},
            "anchor": ["right", "top-right", "bottom-right", "left", "top-left", "bottom-left", "top", "bottom"],
            "offset": [4],
            "avoidMarks": ["layer_1_marks"],
        }
    ],
}


def browser_plot(run: Run, names: Mapping[int, str], first: str) -> Spec:
    """The data from which the page draws quality against cost for any task and cost, and the compiled plot to draw it with.

    Args:
        run: The run.
        names: The run's tasks by the key of their column on the page.
        first: The task that is drawn at first.
    """
    by_name = {task.name: task for task in run.tasks}
    variants = [v for v in run.variants if any(v.headline(task) for task in run.tasks)]
    spec = cost_plot(
        [CostPoint("a", 1.0, 1.0, 0.0, 2.0, "on"), CostPoint("b", 2.0, 2.0, 1.0, 3.0, "off")],
        title="-",
        cost="-",
        size=WIDE,
    )
    spec["layer"] = spec["layer"][:3]
    spec["data"]["name"] = "points"  # which `page.js` looks for
    vega = compiled(spec)
    vega["marks"].append(_LABELS)
    tasks = []
    for key, name in names.items():
        task = by_name[name]
        scale, better = scale_of(run, name, task.headline), shown_better(run, task)
        tasks.append({
            "key": key, "label": f"{titles(run)[name]} {numbers.with_arrow(task.headline, task.higher_is_better(task.headline))}",
            "points": [_scaled_score(variant, task, scale.factor) for variant in variants],
            "better": ["".join("1" if better(a.name, b.name) else "0" for b in variants) for a in variants],
        })  # fmt: skip
    costs: list[Spec] = []
    chosen, first_cost = cost_measure(run), 0
    for measure in measures(run):
        factor, label = cost_axis(measure, run)
        known = [measure.comparable(variant) for variant in variants]
        values = [None if v is None or not can_be_drawn(v) else float(f"{v / factor:.5g}") for v in known]
        if any(value is not None for value in values):
            if chosen is not None and measure.name == chosen.name:
                first_cost = len(costs)
            costs.append({"label": label, "values": values})
    return {
        "vega": vega,
        "names": [printable(v.name) for v in variants],
        "tasks": tasks,
        "costs": costs,
        "cost": first_cost,
        "task": next(key for key, name in names.items() if name == first),
    }


def _scaled_score(variant: Variant, task: TaskInfo, factor: float) -> list[float | None] | None:
    score = variant.headline(task)
    if score is None or score.value is None:
        return None
    ends = [None if each is None else each * factor for each in (score.value, score.low, score.high)]
    return [None if each is None else float(f"{each:.5g}") for each in ends] if can_be_drawn(*ends) else None
