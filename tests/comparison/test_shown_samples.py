"""The samples in a run's document: counted, drawn evenly, and no more than a page can hold."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from harness.api import Generate, Metric
from harness.comparison.document import chance
from harness.comparison.shown_samples import LONGEST, MOST, MOST_OF_A_KIND, shown_samples
from harness.jobs import Item, Request
from harness.metrics.ngram import bleu
from harness.prepare.tasks import ScoredTask


def task_of(name: str = "t", metric: Metric | None = None) -> ScoredTask:
    return SimpleNamespace(name=name, metrics=(metric or Metric("acc", score=lambda o, s: 1.0),))  # type: ignore[return-value]


def rows_of(scores: list[Any], name: str = "acc", text: str = "x") -> list[dict[str, Any]]:
    return [
        {
            "id": str(n),
            "group": None,
            "cluster": None,
            "outputs": [text],
            "loglikelihoods": [],
            "metrics": {name: score},
        }
        for n, score in enumerate(scores)
    ]


def items_of(count: int, prompt: str = "?") -> list[Item]:
    return [Item(Request(str(n), "generate", ("",)), Generate(prompt, "x"), None, None) for n in range(count)]


def test_won_lost_and_tied_are_counted_and_a_few_are_drawn() -> None:
    base, lora = [0.0] * 30 + [1.0] * 20, [1.0] * 20 + [0.0] * 10 + [1.0] * 17 + [0.0] * 3
    rows = {"base": {"t": rows_of(base)}, "lora": {"t": rows_of(lora, text="y" * 9999)}}
    [found] = shown_samples([task_of()], rows, {"t": items_of(50)}, "base", seed=0)
    [mine] = found.variants
    assert (mine.won, mine.lost, mine.tied) == (20, 3, 27)
    assert [each.kind for each in mine.outputs] == ["won"] * MOST_OF_A_KIND + ["lost"] * 3
    assert {each.id for each in mine.outputs} == {each.id for each in found.prompts}
    for each in mine.outputs:
        assert (lora[int(each.id)] > base[int(each.id)]) == (each.kind == "won") and len(each.output) <= LONGEST
    again = shown_samples([task_of()], rows, {"t": items_of(50)}, "base", seed=0)
    assert again == (found,) != shown_samples([task_of()], rows, {"t": items_of(50)}, "base", seed=1)


def test_lower_may_be_better() -> None:
    metric = Metric("loss", score=lambda o, s: 1.0, higher_is_better=False)
    rows = {"base": {"t": rows_of([2.0, 1.0], "loss")}, "lora": {"t": rows_of([1.0, 2.0], "loss")}}
    [found] = shown_samples([task_of(metric=metric)], rows, {"t": items_of(2)}, "base", seed=0)
    assert {each.id: each.kind for each in found.variants[0].outputs} == {"0": "won", "1": "lost"}


def test_a_corpus_metric_scores_each_sample_alone() -> None:
    stats = [bleu.measure(SimpleNamespace(texts=(text,)), Generate("", "a b c d e")) for text in ("a b c d e", "a b")]  # type: ignore[arg-type]
    rows = {"base": {"t": rows_of([stats[1]], "bleu")}, "lora": {"t": rows_of([stats[0]], "bleu")}}
    [found] = shown_samples([task_of(metric=bleu)], rows, {"t": items_of(1)}, "base", seed=0)
    assert found.variants[0].won == 1 and found.variants[0].outputs[0].score == pytest.approx(100)


def test_many_variants_and_tasks_share_the_room() -> None:
    names = [f"t{n}" for n in range(40)]
    rows = {"base": {name: rows_of([0.0, 1.0]) for name in names}}
    rows |= {f"v{n}": {name: rows_of([1.0, 0.0]) for name in names} for n in range(40)}
    found = shown_samples([task_of(n) for n in names], rows, {n: items_of(2) for n in names}, "base", seed=0)
    shown = [len(each.outputs) for task in found for each in task.variants]
    assert sum(shown) == MOST and all(task.variants[0].won == 1 for task in found)


def test_nothing_is_shown_where_nothing_can_be_compared() -> None:
    rows = {"lora": {"t": rows_of([1.0])}}
    assert shown_samples([task_of()], rows, {"t": items_of(1)}, "base", seed=0) == ()
    whole = Metric("all", gather=lambda o, s: 1, whole=lambda values: 1.0)
    both = {"base": {"t": rows_of([1], "all")}, "lora": {"t": rows_of([2], "all")}}
    assert shown_samples([task_of(metric=whole)], both, {"t": items_of(1)}, "base", seed=0) == ()


def test_chance_is_that_of_random_choices() -> None:
    from harness.api import Choose

    assert chance("acc", [Choose("", "abcd", 0), Choose("", "ab", 1)]) == pytest.approx(0.375)
    assert chance("acc", [Choose("", "abcd", [0, 1])]) == 0.5
    assert chance("strict", [Choose("", "ab", 0)]) is None and chance("acc", [Generate("", "")]) is None
