"""Tasks, methods and metrics are checked when they are defined, and samples before a model is loaded."""

import pickle
from typing import Any

import pytest

from harness import Choose, Generate, Metric, Output, Task, Text, UserError, exact_match, method, task
from harness.errors import did_you_mean, together
from harness.prompts.samples import sample_fault


def ask(row: Any) -> Generate:
    return Generate(row["q"], row["a"])


def test_a_task_is_called_with_its_parameters() -> None:
    @task
    def numbers(*, count: int = 2) -> Task:
        """Counts."""
        return Task([{"q": str(n), "a": str(n)} for n in range(count)], ask, [exact_match])

    assert (numbers.name, numbers.__doc__, len(numbers().data), len(numbers(count=5).data)) == (  # type: ignore[arg-type]
        "numbers",
        "Counts.",
        2,
        5,
    )
    assert numbers.file == __file__ and numbers.line > 1


def test_task_and_method_may_be_renamed() -> None:
    @task(name="2nd")
    def second() -> Task: ...

    @method(name="3rd", lr=1e-3, load="nf4")
    def third(model: Any) -> Any:
        return model

    assert (second.name, third.name, third.lr, third.load, third(7)) == ("2nd", "3rd", 1e-3, "nf4", 7)


def test_a_task_parameter_must_be_keyword_only_with_a_default() -> None:
    with pytest.raises(UserError, match="`count` of task `bad`") as error:

        @task
        def bad(count: int = 2) -> Task: ...

    assert error.value.hint == "write `def bad(*, count=…)`"


@pytest.mark.parametrize(
    ("function", "expected"),
    [
        (lambda: None, "does not take the model"),
        (lambda *, rank=8: None, "does not take the model"),
        (lambda model, rank=8: None, "`rank` of method"),
        (lambda model, *, rank: None, "`rank` of method"),
        (lambda model, *, lr=1.0: None, "declares `lr`, which is a key of every variant"),
    ],
)
def test_a_malformed_method_is_refused_with_the_reason(function: Any, expected: str) -> None:
    with pytest.raises(UserError, match=expected):
        method(function)


def test_a_method_may_accept_any_other_key() -> None:
    @method
    def open_ended(model: Any, **options: Any) -> Any:
        return options

    assert open_ended(None, r=8) == {"r": 8}


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"metrics": []}, "at least one metric"),
        ({"metrics": exact_match}, "must be a list of metrics"),
        ({"metrics": [1]}, "must be a list of metrics"),
        ({"metrics": "exact_match"}, "must be a list of metrics"),
        ({"metrics": [exact_match, exact_match]}, "same name: exact_match, exact_match"),
        ({"sample": "row"}, "must be a function"),
        ({"shots": -1}, "-1 shots"),
        ({"shots_order": "last"}, "unknown `shots_order`: `last`"),
    ],
)
def test_a_malformed_task_is_refused_with_the_reason(fields: dict[str, Any], expected: str) -> None:
    with pytest.raises(UserError, match=expected):
        Task(**{"data": [], "sample": ask, "metrics": [exact_match], **fields})


def test_a_metric_is_a_score_or_stats_with_a_value() -> None:
    for wrong in ({}, {"score": len, "stats": len, "value": len}, {"stats": len}, {"score": len, "value": len}):
        with pytest.raises(UserError, match="metric `m` needs either"):
            Metric("m", **wrong)  # type: ignore[arg-type]


def test_a_metric_of_all_samples_can_gather_any_value() -> None:
    distinct = Metric(
        "d", gather=lambda output, sample: output.texts[0], whole=lambda texts: len(set(texts)) / len(texts)
    )
    assert distinct.measure(Output(texts=("a b",)), Generate("", "")) == "a b"
    assert distinct.whole is not None and distinct.whole(["a", "a", "b", "c"]) == 0.75
    for parts in ({"gather": len}, {"whole": len}, {"gather": len, "whole": len, "score": len}):
        with pytest.raises(UserError, match="needs either"):
            Metric("d", **parts)  # type: ignore[arg-type]


def test_the_short_form_takes_the_best_of_several_targets() -> None:
    length = Metric("length", score=lambda prediction, target: len(prediction) * len(target))
    assert length.measure(Output(texts=("ab", "ignored")), Generate("?", ["x", "xyz"])) == 6.0


def test_the_short_form_refuses_samples_without_a_target() -> None:
    short = Metric("short", score=lambda prediction, target: 1.0)
    with pytest.raises(UserError, match="which a Choose sample does not have"):
        short.measure(Output(), Choose("?", ["a"], 0))


def test_the_long_form_sees_output_and_sample() -> None:
    margin = Metric("margin", score=lambda output, sample: output.loglikelihoods[sample.answer])
    assert margin.measure(Output(loglikelihoods=(-3, -1)), Choose("?", ["a", "b"], 1)) == -1.0
    stats = Metric("s", stats=lambda output, sample: (1, len(sample.text)), value=lambda sums: sums[1] / sums[0])
    assert stats.measure(Output(), Text("abc")) == (1.0, 3.0)


def test_per_choice_contexts_are_distinguished_from_messages() -> None:
    assert Choose(["He ran", "She ran"], ["."] * 2, 0).per_choice_contexts
    assert not Choose("He ran", ["."], 0).per_choice_contexts
    assert not Choose([{"role": "user", "content": "?"}], ["."], 0).per_choice_contexts


@pytest.mark.parametrize(
    "sample",
    [
        Generate("", "x"),
        Generate("q", ("x", "y"), stop=("\n",)),
        Generate([{"role": "user", "content": "q"}], "x", samples=4, temperature=0.7),
        Choose("q", "AB", 1),
        Choose(["p", "q"], ["a", "b"], (0, 1)),
        Text(""),
    ],
)
def test_sound_samples_have_no_fault(sample: Any) -> None:
    assert sample_fault(sample) is None


@pytest.mark.parametrize(
    ("sample", "expected"),
    [
        (Generate("q", 42), "`target` is the int '42', not a text"),
        (Generate("q", []), "`target` is the list"),
        (Generate("q", ["x", None]), "`target` is the NoneType"),
        (Generate("q", "x", stop="\n\n"), "not a tuple of non-empty texts"),
        (Generate("q", "x", stop=("",)), "not a tuple of non-empty texts"),
        (Generate("q", "x", max_tokens=0), "max_tokens=0"),
        (Generate("q", "x", temperature=-1), "temperature=-1"),
        (Generate("q", "x", samples=3), "`samples` is 3, but at temperature 0"),
        (Generate(None, "x"), "`prompt` is the NoneType"),
        (Generate([{"role": "user"}], "x"), "`prompt` is the list"),
        (Generate([], "x"), "`prompt` is the list"),
        (Choose("q", ["a", "b"], 2), "answer 2 with 2 choices"),
        (Choose("q", ["a", "b"], -1), "answer -1 with 2 choices"),
        (Choose("q", ["a", "b"], "A"), "answer 'A' with 2 choices"),
        (Choose("q", ["a", "b"], None), "answer None with 2 choices"),
        (Choose("q", ["a", "b"], ()), r"answer \(\) with 2 choices"),
        (Choose("q", [], 0), "answer 0 with 0 choices"),
        (Choose("q", [3, 4], 0), "a choice is the int '3'"),
        (Choose(["p"], ["a", "b"], 0), "1 contexts for 2 choices"),
        (Text(None), "`text` is the NoneType"),
    ],
)
def test_a_faulty_sample_is_refused_with_the_reason(sample: Any, expected: str) -> None:
    fault = sample_fault(sample)
    assert fault is not None
    with pytest.raises(UserError, match=expected):
        raise fault


def test_a_user_error_can_be_pickled() -> None:
    back = pickle.loads(pickle.dumps(UserError("no `x`", hint="try `y`")))
    assert (back.message, back.hint) == ("no `x`", "try `y`")


def test_suggestions_without_known_names_are_complete_sentences() -> None:
    assert did_you_mean("x", []) == "none are defined"
    assert did_you_mean("x", [], listing="`harness ls tasks`") == "`harness ls tasks`"
    assert did_you_mean("1", [12, "z"]) == "did you mean `12`?"  # type: ignore[list-item]


def test_errors_listed_together_stay_single_when_nested() -> None:
    inner = together([UserError("a"), UserError("b", hint="c")])
    outer = together([inner, UserError("d")])
    assert [each.message for each in outer.problems] == ["a", "b", "d"]
    assert outer.message.startswith("3 problems")
