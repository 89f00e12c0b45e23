"""The plot of learning against forgetting: places, marks, labels, and what is not drawn."""

from __future__ import annotations

import itertools
import random
import re
from collections.abc import Mapping
from xml.etree import ElementTree

import pytest
from hand_made_run import hand_made_run

from harness.leaderboards.forgetting import WIDTHS, Forgetting, forgetting
from harness.leaderboards.page import render
from harness.results import Run

TASKS = {"trained": "acc", "other": "acc"}


def run_of(scores: Mapping[str, tuple[float, ...]], tasks: Mapping[str, str] = TASKS, **changes: object) -> Run:
    return hand_made_run({"base": (0.5,) * len(tasks), **scores}, tasks=tasks, **changes)  # type: ignore[arg-type]


def drawn(run: Run) -> Forgetting:
    found = forgetting(run)
    assert found is not None
    return found


def elements(found: Forgetting, kind: str, width: str = "wide") -> list[ElementTree.Element]:
    return [
        each
        for each in ElementTree.fromstring(found.drawings[width]).iter()
        if each.get("class", "").split()[:1] == [kind]
    ]


def places(found: Forgetting, width: str = "wide") -> dict[str, tuple[float, float]]:
    """The place of each mark, by the name in its title."""
    return {
        (each[0].text or "").rpartition(": ")[0]: tuple(map(float, re.findall(r"[\d.]+", each.get("transform", ""))))  # type: ignore[misc]
        for each in elements(found, "mark", width)
    }


@pytest.mark.parametrize("width", WIDTHS)
def test_learning_is_up_and_forgetting_is_left(width: str) -> None:
    found = drawn(run_of({"both": (0.7, 0.4), "kept": (0.6, 0.55), "lost": (0.45, 0.5)}))
    at = places(found, width)
    x, y = zip(*(at[name] for name in ("base", "both", "kept", "lost")), strict=True)
    assert x[1] < x[0] < x[2] and x[3] == x[0]
    assert y[1] < y[2] < y[0] < y[3], "pixels are counted from the top"
    assert (x[2] - x[0]) / (x[0] - x[1]) == pytest.approx(0.5, abs=0.01)
    vertical, horizontal = elements(found, "zero", width)
    assert float(vertical.get("x1", "")) == x[0] and float(horizontal.get("y1", "")) == y[0]


def test_intervals_are_lines_through_the_marks() -> None:
    found = drawn(run_of({"lora": (0.7, 0.4)}, half=0.05))
    x, y = places(found)["lora"]
    across, up = [
        {key: float(value) for key, value in each.items() if key != "class"} for each in elements(found, "interval")
    ]
    assert across["y1"] == across["y2"] == y and up["x1"] == up["x2"] == x
    assert (across["x1"] + across["x2"]) / 2 == pytest.approx(x, abs=0.1)
    per_point = (x - places(found)["base"][0]) / -10
    assert across["x2"] - across["x1"] == pytest.approx(10 * per_point, abs=0.2)


def test_marks_follow_the_verdicts() -> None:
    found = drawn(run_of({"gained": (0.7, 0.5), "forgot": (0.7, 0.4), "same": (0.505, 0.5), "broke": (0.3, 0.5)}))
    assert found.marks == {"gained": "better", "forgot": "worse", "same": "undecided", "broke": "worse"}
    shapes = {each.get("class"): each.get("d") for each in elements(found, "mark")}
    assert len(set(shapes.values())) == 4, "a mark is told by its shape, too"
    assert [(row[0], row[1], row[3][0]) for row in found.rows] == [
        ("gained", "+20.0 ±1.0 points", "▲"),
        ("forgot", "+20.0 ±1.0 points", "▼"),
        ("same", "+0.5 ±1.0 points", "○"),
        ("broke", "-20.0 ±1.0 points", "▼"),
    ]


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
    assert forgetting(run) is None
    assert "Learned against forgotten" not in render([run])


def test_a_change_without_a_valid_interval_has_no_line() -> None:
    found = drawn(run_of({"lora": (0.7, 0.4)}, untestable=("other",)))
    assert len(elements(found, "interval")) == 1 and "lora" in places(found)


def test_a_run_without_any_change_is_drawn() -> None:
    found = drawn(run_of({"lora": (0.5, 0.5)}, half=0.0))
    assert places(found)["lora"] == places(found)["base"]


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("count", [4, 60])
def test_labels_cover_no_mark_and_no_other_label(width: str, count: int) -> None:
    draw = random.Random(count).uniform
    found = drawn(run_of({f"variant-{number}": (0.5 + draw(0, 0.3), 0.5 + draw(-0.2, 0.1)) for number in range(count)}))
    boxes = []
    for label in elements(found, "label", width):
        left, baseline = float(label.get("x", "")), float(label.get("y", ""))
        boxes.append((left, baseline - 9, left + 6.5 * len(label.text or ""), baseline + 2))
        assert left >= 0 and boxes[-1][2] <= WIDTHS[width][0]
    boxes += [(x - 4, y - 4, x + 4, y + 4) for x, y in places(found, width).values()]
    labels = len(elements(found, "label", width))
    for (number, one), (_, other) in itertools.combinations(enumerate(boxes), 2):
        if number < labels:
            assert one[2] <= other[0] or other[2] <= one[0] or one[3] <= other[1] or other[3] <= one[1]
    assert labels == count + 1 if count == 4 else labels > 5
    assert any("no room" in note for note in found.notes) == (count == 60)


def test_the_page_has_the_plot_and_its_numbers_as_plain_text() -> None:
    evil = "<img src=x>\u202e"
    tasks = {"trained": "acc", "other": "acc", "pages": "word_ppl"}
    run = run_of({evil: (0.7, 0.4, 0.6), "base-fewshot": (0.6, 0.6, 0.5)}, tasks, lower_is_better=("pages",))
    text = re.sub(r"<script.*?</script>", "", render([run]), flags=re.DOTALL)
    section = text[text.index('<section class="forgetting"') :]
    section = section[: section.index("</section>")]
    assert section.count("<svg") == 2 and section.count("&lt;img src=x&gt;\\u202e") >= 5
    assert "<img" not in text and "\u202e" not in text
    assert (
        "pages (word_ppl)" in section and "was not trained: base-fewshot" in section and "-10.0 ±1.0 points" in section
    )
