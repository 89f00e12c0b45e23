"""A metric that scores a constant wrong answer like the right one is found without a model; sound ones never are."""

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from harness import Choose, Generate, Metric, Sample, Text, UserError, entailment_by, reward_by
from harness.metrics import find
from harness.metrics.oracle import find_blindness
from harness.prompts.render import render
from harness.registry.find import find as find_entry
from harness.registry.find import list_entries
from harness.registry.load import load_task, task_metrics


def own(score: Any, **options: Any) -> Metric:
    return Metric("own", score=score, **options)


def ask(*targets: Any, **options: Any) -> list[Sample]:
    return [Generate(f"q{n}", target, **options) for n, target in enumerate(targets)]


@pytest.mark.parametrize(
    ("metric", "samples"),
    [
        (own(lambda prediction, target: 1.0), ask("a", "b")),
        (own(lambda prediction, target: 0.0), ask("a", "b")),
        (own(lambda prediction, target: float(target.startswith(prediction))), ask("a", "b")),
        (own(lambda prediction, target: float(prediction != "")), ask("a", "b")),
        (own(lambda prediction, target: float(prediction == target)), ask("\nParis", "\nRome", stop=("\n",))),
        (own(lambda prediction, target: float(prediction == target), higher_is_better=False), ask("a", "b")),
        (own(lambda output, sample: 0.5), [Choose("q", ["a", "b"], 0)]),
        (find("strict"), ask("42", "43")),
        (find("bleu"), ask("我爱北京天安门", "我在北京")),
        (find("bleu"), ask("yes", "no")),
        (Metric("sums", stats=lambda output, sample: (1.0,), value=lambda sums: sums[0]), ask("a")),
    ],
)
def test_a_metric_that_a_constant_answer_satisfies_is_found(metric: Metric, samples: Sequence[Sample]) -> None:
    assert find_blindness(metric, samples) is not None


@pytest.mark.parametrize(
    ("metric", "samples"),
    [
        (find("exact_match"), ask("a", ("b", "c"))),
        (find("rougeL"), ask("Кот съел рыбу", "แมวกินปลา", "🎉")),
        (find("bleu"), ask(*["yes"] * 100, "four words are here")),
        (find("ter"), ask("a b c d")),
        (find("mae"), ask("1.5", "2")),
        (find("pearson"), ask("1", "1")),
        (find("acc"), [Choose("q", ["a", "a"], 0)]),
        (find("mcc"), [Choose("q", ["a", "b"], 0)] * 3),
        (find("byte_ppl"), [Text("a")]),
        (own(lambda output, sample: 0.5), [Text("a")]),
        (own(lambda prediction, target: 0.0), ask("", " ")),
        (own(lambda prediction, target: 1 / 0), ask("a")),
        (own(lambda prediction, target: float("nan")), ask("a")),
        (own(lambda prediction, target: float(prediction == target)), []),
    ],
)
def test_a_sound_or_undefined_metric_is_not(metric: Metric, samples: Sequence[Sample]) -> None:
    assert find_blindness(metric, samples) is None


def test_a_metric_that_loads_a_model_is_not_called() -> None:
    for metric in (entailment_by("no/such-model"), reward_by("./nowhere")):
        assert find_blindness(metric, ask("a")) is None


def test_a_metric_that_cannot_score_the_samples_says_so_early() -> None:
    with pytest.raises(UserError, match="`choice_letter` needs `meta`"):
        find_blindness(find("choice_letter"), ask("(A)"))


def test_a_slow_metric_is_tried_on_few_samples() -> None:
    calls = []

    def slow(prediction: str, target: str) -> float:
        calls.append(target)
        time.sleep(0.06)
        return float(prediction == target)

    assert find_blindness(own(slow), ask(*map(str, range(1000)))) is None
    assert len(calls) <= 6


@pytest.mark.parametrize("name", [entry.name for entry in list_entries("task") if entry.distribution is None])
def test_no_built_in_task_is_refused_and_the_test_is_fast(name: str, made_up_hub: Path) -> None:
    try:
        entry = find_entry("task", name)
        task = load_task(entry, {})
        samples = [item.sample for item in render(name, task)]
    except UserError as error:
        assert "HARNESS_DATA" in error.message
        pytest.skip(f"tests/hub lacks the rows of {name}")
    if task.executes_code:
        return  # the run does not try such metrics
    metric = task_metrics(task, entry.path.parent)[0]
    find_blindness(metric, samples[:1])  # loads the metric's libraries, which the run needs anyway
    start = time.process_time()
    assert find_blindness(metric, samples) is None
    assert time.process_time() - start < 0.2
