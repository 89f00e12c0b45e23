"""Scores, differences and verdicts of invented samples, which can be checked by hand."""

import math
from typing import Any

import pytest
from scored_rows import ACC, QA, RATIO, SUMS, lines, ones, scored

from harness import Choose, Generate, Metric, Output, Task, UserError
from harness.comparison.samples import RunningScore, observations, sample_row
from harness.comparison.scores import Scores, compute_scores
from harness.comparison.thought_notes import unfinished_thoughts
from harness.jobs import Item, Raw
from harness.prompts.render import render
from harness.results import Protocol
from harness.stats.paired import holm

PROTOCOL = Protocol(
    version=1,
    shots=0,
    mode="generate",
    numerics="fp32",
    engine="plain",
    dtype="float32",
    chat_template=None,
    token_budget=8,
    prompt_sha256="0",
)


GROUPS = "a" * 10 + "b" * 30
ROWS = {
    "base": {
        "qa": lines("acc", ones(10), groups=GROUPS, length=[5.0, 3.0] * 20),
        "sums": lines("ratio", [[1.0, 4.0], [3.0, 4.0]] * 10),
    },
    "lora": {
        "qa": lines("acc", ones(30), groups=GROUPS, cut=3, short=2, length=[2.0, 1.0] * 20),
        "sums": lines("ratio", [[1.0, 4.0], [3.0, 4.0]] * 10),
    },
    "full": {
        "qa": lines("acc", ones(5), groups=GROUPS, cut=1, length=[5.0, 4.0] * 20),
        "sums": lines("ratio", [[3.0, 4.0], [4.0, 4.0]] * 10),
    },
}


def scores_of(rows: Any = ROWS, baseline: str = "base") -> Scores:
    protocols = {name: {"qa": PROTOCOL, "sums": PROTOCOL} for name in rows}
    return compute_scores([QA, SUMS], rows, protocols, baseline, seed=0)


def test_scores_are_in_the_order_of_tasks_and_metrics() -> None:
    scores = scores_of().by_variant["lora"]
    assert [(s.task, s.metric, s.value, s.n) for s in scores] == [
        ("qa", "acc", 0.75, 40),
        ("qa", "length", 1.5, 40),
        ("sums", "ratio", 0.5, 20),
    ]
    assert all(s.low is not None and s.value is not None and s.low < s.value and s.protocol == PROTOCOL for s in scores)


def test_groups_and_their_macro_average_are_recorded() -> None:
    acc = scores_of().by_variant["lora"][0]
    assert [(group.name, group.n) for group in acc.groups] == [("a", 10), ("b", 30)]
    assert acc.groups[0].value == 1.0 and acc.macro == pytest.approx((1 + 2 / 3) / 2)
    assert scores_of().by_variant["lora"][2].groups == () and scores_of().by_variant["lora"][2].macro is None


def test_differences_are_from_the_baseline_and_verdicts_use_the_direction_of_the_metric() -> None:
    deltas = {name: [score.delta for score in scores] for name, scores in scores_of().by_variant.items()}
    assert deltas["base"] == [None, None, None]
    assert [(d.value, d.verdict) for d in deltas["lora"] if d] == [(0.5, "better"), (-2.5, None), (0, "undecided")]
    assert [d.verdict for d in deltas["full"] if d] == ["undecided", None, "better"]
    for found in (*deltas["lora"], *deltas["full"]):
        assert found is not None and found.low <= found.value <= found.high


def test_marks_and_comparisons_are_one_family() -> None:
    computed = scores_of()
    assert computed.tests == len(computed.comparisons) == 6
    adjusted = holm([found.p for found in computed.comparisons])
    assert [found.p_holm for found in computed.comparisons] == pytest.approx(adjusted)
    for found in computed.comparisons:
        for score in computed.by_variant[found.a]:
            if found.b == "base" and (score.task, score.metric) == (found.task, found.metric):
                assert score.delta is not None
                assert (score.delta.p_holm, score.delta.verdict) == (found.p_holm, found.verdict)


def test_metrics_besides_the_headline_have_an_interval_and_no_verdict() -> None:
    delta = scores_of().by_variant["lora"][1].delta
    assert delta is not None and delta.low < delta.value < delta.high
    assert delta.p_holm is delta.verdict is delta.mark is None


def test_the_verdict_uses_the_adjusted_p_value() -> None:
    """Six more correct samples: p = 0.016 alone, 0.094 as one of six tests."""
    rows = {
        name: {"qa": lines("acc", ones(right), length=[1.0] * 40), "sums": ROWS["base"]["sums"]}
        for name, right in {"base": 10, "lora": 16, "full": 16}.items()
    }
    delta = scores_of(rows).by_variant["lora"][0].delta
    assert delta is not None and delta.p == pytest.approx(0.5**6)
    assert delta.p_holm is not None and delta.p_holm > 0.05 and delta.verdict == "undecided"


def test_comparisons_are_all_pairs_of_headlines() -> None:
    computed = scores_of()
    pairs = [(c.task, c.metric, c.a, c.b) for c in computed.comparisons]
    expected = [("lora", "base"), ("full", "base"), ("full", "lora")]
    assert pairs == [(t, m, a, b) for t, m in (("qa", "acc"), ("sums", "ratio")) for a, b in expected]
    assert [c.test for c in computed.comparisons] == ["mcnemar mid-p"] * 3 + ["paired jackknife"] * 3
    assert [c.value for c in computed.comparisons[:3]] == pytest.approx([0.5, -0.125, -0.625])
    assert [c.verdict for c in computed.comparisons] == [
        "better",
        "undecided",
        "worse",
        "undecided",
        "better",
        "better",
    ]
    adjusted = holm([c.p for c in computed.comparisons])
    assert [c.p_holm for c in computed.comparisons] == pytest.approx(adjusted)


def test_a_reversed_comparison_exchanges_the_variants_and_the_verdict() -> None:
    there = scores_of().comparisons[2]
    back = there.reversed()
    assert (there.a, there.b, there.verdict) == ("full", "lora", "worse")
    assert (back.a, back.b, back.verdict) == ("lora", "full", "better")
    assert there.win_rate is not None and back.win_rate == pytest.approx(1 - there.win_rate) and back.win_rate > 0.5
    assert (back.low, back.high, back.p) == (-there.high, -there.low, there.p)
    assert back.win_rate_low is not None and back.win_rate_low < back.win_rate < (back.win_rate_high or 0)
    there_and_back = back.reversed()
    for name in ("win_rate", "win_rate_low", "win_rate_high"):
        assert getattr(there_and_back, name) == pytest.approx(getattr(there, name))
    exact = {name: getattr(there, name) for name in ("win_rate", "win_rate_low", "win_rate_high")}
    assert there_and_back.model_copy(update=exact) == there


def test_another_baseline_reverses_the_differences() -> None:
    computed = scores_of(baseline="lora")
    base, lora = computed.by_variant["base"][0].delta, computed.by_variant["lora"][0].delta
    assert lora is None and base is not None and (base.value, base.verdict) == (-0.5, "worse")
    assert [(c.a, c.b) for c in computed.comparisons[:3]] == [("base", "lora"), ("full", "lora"), ("full", "base")]


def test_without_the_baseline_there_are_scores_and_comparisons_but_no_differences() -> None:
    computed = scores_of({name: ROWS[name] for name in ("lora", "full")})
    assert all(score.delta is None for scores in computed.by_variant.values() for score in scores)
    assert [(c.task, c.a, c.b) for c in computed.comparisons] == [("qa", "full", "lora"), ("sums", "full", "lora")]
    assert computed.smallest == {"qa": None, "sums": None}


def test_when_all_variants_failed_there_are_no_scores() -> None:
    computed = scores_of({})
    assert (computed.by_variant, computed.comparisons, computed.truncated) == ({}, [], {"qa": 0, "sums": 0})


def test_the_smallest_difference_is_the_largest_over_the_variants() -> None:
    everything, one = scores_of().smallest, scores_of({name: ROWS[name] for name in ("base", "full")}).smallest
    assert everything["qa"] is not None and one["qa"] is not None and everything["qa"] >= one["qa"] > 0


def test_truncated_prompts_are_counted_for_the_worst_variant() -> None:
    assert scores_of().truncated == {"qa": 3, "sums": 0}


def test_cut_prompts_and_shortened_answers_are_counted_for_each_score() -> None:
    scored = {name: [(each.truncated, each.shortened) for each in row] for name, row in scores_of().by_variant.items()}
    assert scored == {
        "base": [(0, 0), (0, 0), (0, 0)],
        "lora": [(3, 2), (3, 2), (0, 0)],
        "full": [(1, 0), (1, 0), (0, 0)],
    }
    assert scores_of().shortened == {"qa": 2, "sums": 0}


def test_a_single_sample_is_scored() -> None:
    rows = {
        name: {"qa": lines("acc", [right], length=[1.0]), "sums": lines("ratio", [[1.0, 2.0]])}
        for name, right in {"base": 0.0, "lora": 1.0}.items()
    }
    computed = scores_of(rows)
    assert [score.value for score in computed.by_variant["lora"]] == [1.0, 1.0, 0.5]
    assert computed.by_variant["lora"][2].low is None and computed.by_variant["lora"][2].delta is None


def test_a_value_that_cannot_be_computed_is_none_and_not_a_crash() -> None:
    import math

    for value in (lambda sums: sums[0] / sums[1], lambda sums: math.log(sums[1])):
        metric = Metric("m", stats=lambda output, sample: (1, 0), value=value)
        rows = lines("m", [[1.0, 0.0]] * 3)
        assert math.isnan(running(metric, rows))
        found = compute_scores([scored("t", metric)], {"base": {"t": rows}}, {"base": {"t": PROTOCOL}}, "base", seed=0)
        assert found.by_variant["base"][0].value is None


def test_the_running_score_covers_the_samples_so_far() -> None:
    assert running(ACC, ROWS["lora"]["qa"][:31]) == pytest.approx(30 / 31)
    assert running(ACC, ROWS["lora"]["qa"][:20], ROWS["lora"]["qa"][20:31]) == pytest.approx(30 / 31)
    assert running(RATIO, ROWS["full"]["sums"][:1]) == 0.75
    assert math.isnan(running(ACC))


def running(metric: Metric, *packs: list[dict[str, Any]]) -> float:
    so_far = RunningScore(metric)
    for rows in packs:
        so_far.add(rows)
    return so_far.value


def test_a_metric_of_the_whole_is_scored_and_compared() -> None:
    distinct = Metric("distinct", gather=lambda output, sample: output.texts[0], whole=lambda all: len(set(all)) / 40)
    task = scored("t", distinct)
    rows = {
        "base": {"t": lines("distinct", ["same"] * 40)},
        "lora": {"t": lines("distinct", [f"text {number}" for number in range(40)])},
    }
    found = compute_scores([task], rows, {name: {"t": PROTOCOL} for name in rows}, "base", seed=0)
    assert [found.by_variant[name][0].value for name in rows] == [1 / 40, 1.0]
    assert found.by_variant["lora"][0].delta is not None
    assert found.by_variant["lora"][0].delta.value == pytest.approx(39 / 40)
    assert found.comparisons[0].test == "paired jackknife"
    assert math.isnan(running(distinct, rows["lora"]["t"])), "it needs all samples"
    assert sample_row(task, an_item(Generate("q", "a")), Raw(0, 1, False, 1, texts=("hm",)), "key")["metrics"] == {
        "distinct": "hm"
    }


def test_stats_of_different_lengths_are_refused() -> None:
    with pytest.raises(UserError, match="metric `ratio` gives 2 numbers for one sample and 3 for another"):
        observations(RATIO, lines("ratio", [[1.0, 2.0], [1.0, 2.0, 3.0]]))


def an_item(sample: Any) -> Item:
    return render("t", Task([{"s": "law"}], lambda row: sample, [ACC], group="s"))[0]


def test_a_line_has_the_model_output_and_the_metric_values() -> None:
    task = scored("qa", Metric("best", score=lambda output, sample: output.loglikelihoods[sample.answer]), RATIO)
    item = an_item(Choose("q", ["x", "y"], 1, id="7"))
    raw = Raw(0, prompt_tokens=3, truncated=True, tokens=2, loglikelihoods=(-1.0, -2.0), is_greedy=(True, False))
    row = sample_row(task, item, raw, "k")
    assert row["metrics"] == {"best": -2.0, "ratio": (1.0, 2.0)}
    assert (row["key"], row["id"], row["group"], row["cluster"], row["truncated"]) == ("k", "7", "law", None, True)
    assert row["loglikelihoods"] == [-1.0, -2.0] and row["prompt_sha256"] == item.request.sha256


def test_a_failing_metric_shows_the_authors_line_and_the_sample() -> None:
    def broken(output: Output, sample: Any) -> float:
        return float(output.texts[7])

    task = scored("qa", Metric("broken", score=broken), path=__file__)
    raw = Raw(0, prompt_tokens=1, truncated=False, tokens=1, texts=("x",))
    with pytest.raises(UserError, match=r"an error in `test_scores\.py`") as error:
        sample_row(task, an_item(Generate("q", "a", id="row-7")), raw, "k")
    assert "return float(output.texts[7])" in error.value.message and "IndexError" in error.value.message
    assert "api.py" not in error.value.message
    assert error.value.hint == "metric `broken` failed on sample `row-7`"


def test_a_metric_that_returns_none_is_a_user_error() -> None:
    task = scored("qa", Metric("none", score=lambda output, sample: None))  # type: ignore[arg-type, return-value]
    raw = Raw(0, prompt_tokens=1, truncated=False, tokens=1, texts=("x",))
    with pytest.raises(UserError, match="TypeError") as error:
        sample_row(task, an_item(Generate("q", "a")), raw, "k")
    assert "metric `none` failed on sample `0`" in str(error.value.hint)


# Thoughts


def test_metrics_see_the_answer_after_a_thought_and_the_samples_keep_both() -> None:
    task = scored("qa", Metric("right", score=lambda output, sample: float(output.texts[0] == sample.target)))
    texts = ("<think>maybe 41</think>\n\n42", "<think>42", "42")
    item = an_item(Generate("6*7 =", "42", samples=3, temperature=1.0))
    rows = [sample_row(task, item, Raw(0, 1, False, 9, texts=(text,)), "k") for text in texts]
    assert [row["metrics"]["right"] for row in rows] == [1.0, 0.0, 1.0]
    assert [row["outputs"] for row in rows] == [[text] for text in texts]
    assert [row["unfinished_thoughts"] for row in rows] == [0, 1, 0]
    assert unfinished_thoughts({"base": {"qa": rows}, "lora": {"qa": rows[:1]}}) == [
        "base: on qa, 1 of 3 texts end inside a thought and count as no answer"
    ]


def test_metrics_count_the_tokens_of_the_answer_alone() -> None:
    task = scored("qa", Metric("tokens", score=lambda output, sample: float(output.tokens)))
    raw = Raw(0, 1, False, 9, texts=("<think>41</think> 42",), thought_tokens=7)
    row = sample_row(task, an_item(Generate("6*7 =", "42")), raw, "k")
    assert (row["metrics"]["tokens"], row["tokens"], row["thought_tokens"]) == (2.0, 9, 7)


def test_samples_from_before_thoughts_were_counted_have_none() -> None:
    assert unfinished_thoughts({"base": {"qa": [{"outputs": ["<think>"]}]}}) == []


def test_what_cannot_be_tested_or_is_rough_is_said_once_for_each_metric() -> None:
    def passages(right: int) -> list[dict[str, Any]]:
        return [line | {"cluster": str(int(line["id"]) // 10)} for line in lines("acc", ones(right))]

    rows = {name: {"t": passages(right)} for name, right in {"base": 5, "lora": 30, "full": 20}.items()}
    found = compute_scores([scored("t", ACC)], rows, {name: {"t": PROTOCOL} for name in rows}, "base", seed=0)
    assert found.warnings == [
        "t: `acc`: lora and base: only 4 clusters: at least 6 are needed for a test; the same of 2 other pairs"
    ]
    assert [c.verdict for c in found.comparisons] == ["undecided"] * 3
    assert {c.mark for c in found.comparisons} == {"untestable"}
