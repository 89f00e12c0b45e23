"""The plots of a page: places, marks, labels, and what is not drawn."""

from __future__ import annotations

import itertools
import random
import re
from collections.abc import Mapping
from typing import Any
from xml.etree import ElementTree

import pytest
from hand_made_run import hand_made_run
from large_run import large_run

from harness.leaderboards import drawing, figures, plot_parts, plots, row_plots
from harness.leaderboards.forgetting import plane_figure
from harness.leaderboards.labels import Box, Spot, placed, width_of
from harness.leaderboards.plots import CostPoint, PlaneAxes, PlanePoint
from harness.leaderboards.row_plots import ForestRow
from harness.leaderboards.sections import page_columns, page_rows
from harness.results import CurvePoint, Run

TASKS = {"trained": "acc", "other": "acc"}
needs_drawing = pytest.mark.skipif(not drawing.can_draw(), reason=f"`{drawing.PACKAGE}` is not installed")


def run_of(scores: Mapping[str, tuple[float, ...]], tasks: Mapping[str, str] = TASKS, **changes: Any) -> Run:
    return hand_made_run({"base": (0.5,) * len(tasks), **scores}, tasks=tasks, **changes)


def values_of(figure: figures.RunFigure | None) -> dict[str, dict[str, Any]]:
    assert figure is not None
    return {value["name"]: value for value in figure.make(figures.WIDE)["data"]["values"]}


# Learned against forgotten


def test_learning_is_up_and_forgetting_is_left() -> None:
    at = values_of(plane_figure(run_of({"both": (0.7, 0.4), "kept": (0.6, 0.55), "lost": (0.45, 0.5)})))
    assert {name: (round(each["x"], 1), round(each["y"], 1)) for name, each in at.items()} == {
        "both": (-10.0, 20.0),
        "kept": (5.0, 10.0),
        "lost": (0.0, -5.0),
    }
    assert {name: each["mark"] for name, each in at.items()} == {"both": "worse", "kept": "better", "lost": "worse"}
    assert at["kept"]["x1"] == pytest.approx(4) and at["kept"]["y2"] == pytest.approx(11)


def test_shares_of_samples_won_are_drawn_if_all_tasks_have_them() -> None:
    figure = plane_figure(large_run(4, 7))
    assert figure is not None and "samples won" in figure.make(figures.WIDE)["title"]["text"]
    for value in values_of(figure).values():
        assert 0 <= value["x1"] <= value["x"] <= value["x2"] <= 100


@pytest.mark.parametrize(
    "run",
    [
        run_of({}),
        run_of({"lora": (0.7,)}, {"trained": "acc"}),
        run_of({"lora": (0.7,)}, {"other": "acc"}),
        run_of({"base-fewshot": (0.7, 0.6)}),
        run_of({"lora": (0.7, 9.0)}, {"trained": "acc", "other": "word_ppl"}, lower_is_better=("other",)),
        run_of({"lora": (0.7, 0.6)}, failed=("lora",)),
        run_of({"lora": (1e300, 0.6)}),
    ],
    ids=[
        "one variant",
        "no other task",
        "no trained task",
        "nothing trained",
        "no points",
        "failed",
        "no size of points",
    ],
)
def test_nothing_is_drawn_where_nothing_is_known(run: Run) -> None:
    assert plane_figure(run) is None


def test_a_variant_that_was_not_trained_is_named_below() -> None:
    figure = plane_figure(run_of({"lora": (0.7, 0.4), "base-fewshot": (0.6, 0.6)}))
    assert figure is not None and "was not trained: base-fewshot" in figure.caption


# Quality against cost


def test_the_front_is_made_from_verdicts() -> None:
    run = run_of(
        {"lora": (0.8, 0.5), "same": (0.805, 0.5), "worse": (0.6, 0.5)},
        half=0.02,
        memory={"lora": 100, "same": 200, "worse": 300},
    )
    measure = figures.cost_measure(run)
    assert measure is not None and measure.name == "peak RSS"
    points = {point.name: point for point in figures.cost_points(run, run.tasks[0], measure)}
    assert {name: point.standing for name, point in points.items()} == {"lora": "on", "same": "maybe", "worse": "off"}
    assert points["lora"].value == pytest.approx(80) and figures.cost_axis(measure, run)[1].endswith(", MiB")


def test_a_wide_range_of_costs_has_a_logarithmic_axis() -> None:
    points = [CostPoint(name, cost, 1.0, None, None, "off") for name, cost in (("a", 1.0), ("b", 100.0))]
    for given, kind in ((points, "log"), (points[:1], "linear")):
        spec = plots.cost_plot(given, title="t", cost="c", size=figures.WIDE)
        assert spec["layer"][0]["encoding"]["x"]["scale"]["type"] == kind
        low, high = spec["layer"][0]["encoding"]["x"]["scale"]["domain"]
        assert 0 < low < 1 < high


# Labels


@pytest.mark.parametrize("size", [figures.WIDE, figures.NARROW])
@pytest.mark.parametrize("count", [4, 60])
def test_labels_cover_no_mark_and_no_other_label(size: plot_parts.Size, count: int) -> None:
    draw, (width, height) = random.Random(count).uniform, size
    spots = [
        Spot(f"variant-{n}" if n % 5 else f"中文{n}", draw(0, width), draw(0, height), n < 2) for n in range(count)
    ]
    lines = [Box(spot.x - 1, spot.y - 30, spot.x + 1, spot.y + 30) for spot in spots]
    labels = placed(spots, width, height, lines)
    assert len(labels) == count if count == 4 else len(labels) > 5
    by_name = {spot.name: spot for spot in spots}
    boxes = []
    for label in labels:
        spot, size_of = by_name[label.name], width_of(label.text)
        left = spot.x + label.dx - {"left": 0, "right": size_of, "center": size_of / 2}[label.align]
        boxes.append(Box(left, spot.y + label.dy - 5, left + size_of, spot.y + label.dy + 5))
        assert left >= -6 and boxes[-1].right <= width + 12
    taken = [Box(spot.x - 4, spot.y - 4, spot.x + 4, spot.y + 4) for spot in spots] + lines
    assert not any(one.overlaps(other) for one, other in itertools.combinations(boxes, 2))
    assert not any(box.overlaps(other) for box in boxes for other in taken)
    assert placed(spots, width, height, lines) == labels


def test_a_long_name_is_cut_in_the_plot() -> None:
    [label] = placed([Spot("n" * 99, 10, 10)], 540, 300)
    assert label.name == "n" * 99 and len(label.text) == 28 and label.text.endswith("…")


# Curves


def test_a_few_curves_are_in_colour_and_the_others_have_fewer_points() -> None:
    curve = [CurvePoint(step=step, loss=None if step == 3 else 3 / step) for step in range(1, 201)]
    lines = [(f"v{number}", curve) for number in range(60)]
    spec = row_plots.curves(lines, strong=[f"v{number}" for number in range(9)], size=figures.WIDE)
    grey, strong, ends = (layer["data"]["values"] for layer in spec["layer"])
    assert {value["name"] for value in strong} == {"v0", "v1", "v2", "v3"} and len(strong) == 4 * 199
    assert len(grey) < 2600 and {value["name"] for value in grey} == {f"v{number}" for number in range(4, 60)}
    assert all(value["step"] != 3 for value in (*grey, *strong))
    heights = sorted(end["label"] for end in ends)
    assert all(b - a > 0 for a, b in itertools.pairwise(heights)), "names at the ends are one above another"


def test_runs_of_earlier_versions_have_no_curve() -> None:
    assert figures.curve_figure(run_of({"lora": (0.7, 0.4)}), []) is None


# Drawing


@needs_drawing
def test_a_drawing_has_variables_for_colours_and_text_as_it_is() -> None:
    evil = '<b>#0072b1 fill="#0072b1" &\u202e'
    rows = [ForestRow(evil, -0.25, -0.5, 0.123456789, "worse"), ForestRow(evil, 0.1, 0.0, 0.2, "undecided")]
    svg = drawing.drawing(row_plots.forest(rows, title=evil, subtitle="s"), evil, kind="wide")
    root = ElementTree.fromstring(svg)
    assert root.get("class") == "plot wide" and root.get("role") == "img"
    assert root.get("aria-label") == evil.replace("\u202e", "\\u202e")
    colours = {each.get(name) for each in root.iter() for name in ("fill", "stroke")} - {None}
    assert {"var(--worse)", "var(--muted)"} <= colours and not any(str(colour).startswith("#") for colour in colours)
    texts = [each.text for each in root.iter() if each.tag.endswith("text")]
    assert texts.count(evil.replace("\u202e", "\\u202e")) == 1, "the title; axis labels are cut"
    assert len([text for text in texts if text and text.startswith("<b>#0072b1 fill")]) == 3, "equal names are two rows"
    assert not re.search(r' d="[^"]*\d\.\d\d', svg)


@needs_drawing
@pytest.mark.parametrize(("form", "start"), [("svg", b"<svg"), ("png", b"\x89PNG")])
def test_a_picture_is_a_file_of_its_own(form: Any, start: bytes) -> None:
    spec = plots.plane(
        [PlanePoint("lora", (30, 20, 40), (70, 60, 80), "better")], PlaneAxes(50, "l", "k", " %"), (300, 200)
    )
    found = drawing.picture(spec, form)
    assert found.startswith(start) and b"var(--" not in found


def test_json_for_a_script_cannot_end_it() -> None:
    text = drawing.script_json({"</script><!--": "\u2028&\u202e"})
    assert "<" not in text and "\u2028" not in text and "&" not in text and "\u202e" not in text


@needs_drawing
def test_all_plots_of_a_run_are_drawn_for_two_widths() -> None:
    run = large_run(6, 7)
    [rows] = page_rows([run], page_columns([run]))
    found = [
        figures.cost_figure(run, run.tasks[0], "words"),
        plane_figure(run),
        figures.curve_figure(run, ["lora"]),
        figures.spread_figure(run),
    ]
    for figure in found:
        assert figure is not None and figure.svg.count("<svg") == 2 and figure.caption
    forest = figures.forest_figures(run, 3)
    assert len(forest) == 3 and all("triangle" not in svg and "gsm8k" in forest[0] for svg in forest)
    assert rows.rows[5].note.startswith("failed")
