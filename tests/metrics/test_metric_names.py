"""Finding metrics by name: built-in, pass@K, from the `evaluate` library, from a user's file, from a plugin; and listing them."""

import json
import sys
from pathlib import Path

import pytest

from harness import Choose, Generate, Metric, Output, Task, Text, UserError
from harness.api import Sample
from harness.cli import main
from harness.metrics.by_name import split_name
from harness.registry import find
from harness.registry.load import find_metric, task_metrics

MODULE = """
import datasets
import evaluate

class Module(evaluate.Metric):
    def _info(self):
        text, number = datasets.Value("string"), datasets.Value("{dtype}")
        return evaluate.MetricInfo(description="", citation="", inputs_description="", features={features})

    def _compute(self, predictions, references):
        return {result}
"""
ONE = 'datasets.Features({"predictions": text, "references": text})'
SEVERAL = 'datasets.Features({"predictions": text, "references": datasets.Sequence(text)})'
NUMBERS = 'datasets.Features({"predictions": number, "references": number})'
SOURCES = 'datasets.Features({"sources": text, "predictions": text, "references": text})'
EQUAL = "{'equal': sum(map(lambda p, r: p == r, predictions, references)) / len(predictions)}"


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def module(name: str, features: str = ONE, result: str = EQUAL, dtype: str = "int32") -> None:
    """Makes a folder with a script in the layout of the `evaluate` library."""
    Path(name).mkdir(parents=True)
    script = MODULE.replace("{features}", features).replace("{result}", result).replace("{dtype}", dtype)
    Path(name, f"{Path(name).name}.py").write_text(script)


def whole(metric: Metric, *measured: tuple[Output, Sample]) -> float:
    assert metric.whole is not None
    gathered = [metric.measure(output, sample) for output, sample in measured]
    return metric.whole(json.loads(json.dumps(gathered)))


def wrote(text: str, *targets: str) -> tuple[Output, Sample]:
    return Output(texts=(text,)), Generate("q", targets[0] if len(targets) == 1 else targets)


def chose(index: int, answer: int) -> tuple[Output, Sample]:
    return Output(loglikelihoods=tuple(-float(i != index) for i in range(3))), Choose("q", ["a", "b", "c"], answer)


# Built-in


def test_built_in_metrics_are_found_by_name() -> None:
    for name in ("acc", "exact_match", "auc", "macro_f1", "pearson", "word_ppl"):
        assert find_metric(name).name == name


def test_every_built_in_metric_can_be_found_and_is_listed() -> None:
    listed = {entry.name for entry in find.list_entries("metric") if entry.distribution is None}
    for name in listed - {"pass@K", "evaluate:NAME[:KEY]"}:
        assert isinstance(find_metric(name), Metric)
    assert {"pass@K", "evaluate:NAME[:KEY]", "auc", "rmse", "em"} <= listed


def test_pass_at_any_k_is_a_name() -> None:
    assert [find_metric(name).name for name in ("pass@1", "pass@10")] == ["pass@1", "pass@10"]


@pytest.mark.parametrize("name", ["exact_mach", "pass@0", "pass@", "pass@two", "", "rougel", "pass@K"])
def test_an_unknown_name_is_reported_with_similar_ones(name: str) -> None:
    with pytest.raises(UserError) as error:
        find_metric(name)
    assert error.value.hint
    if name == "exact_mach":
        assert error.value.hint == "did you mean `exact_match`?"


def test_names_and_metrics_mix_in_a_task_and_must_differ() -> None:
    own = Metric("own", score=lambda output, sample: 1.0)
    task = Task([{}], lambda row: Generate("q", "a"), ["exact_match", own, "pass@5"])
    assert [metric.name for metric in task_metrics(task)] == ["exact_match", "own", "pass@5"]
    hidden = Metric("exact_match", score=lambda output, sample: 1.0)
    with pytest.raises(UserError, match="same name: exact_match, exact_match"):
        task_metrics(Task([{}], lambda row: Generate("q", "a"), ["./x.py@exact_match", hidden]), wrote_metric())


def wrote_metric() -> Path:
    Path("x.py").write_text("from harness import Metric\nexact_match = Metric('exact_match', score=lambda o, s: 1.0)\n")
    return Path()


# Files and plugins


FILE = """
from harness import Metric

def _length(prediction, target):
    return float(len(prediction))

length = Metric("length", score=_length, higher_is_better=False)
\"\"\"Characters of the text.\"\"\"

twice = Metric("twice", score=lambda output, sample: 2.0)
"""


def test_a_metric_of_a_file_is_found_beside_the_task_and_in_the_working_folder(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Path("mine").mkdir()
    Path("mine/labels.py").write_text(FILE)
    assert find_metric("./mine/labels.py@length").higher_is_better is False
    assert find_metric("./labels.py@twice", folder / "mine").measure(*wrote("abc", "d")) == 2
    task = Task([{}], lambda row: Generate("q", "a"), ["./labels.py@length"])
    assert task_metrics(task, folder / "mine")[0].measure(*wrote("abc", "d")) == 3
    with pytest.raises(UserError, match=r"no file `labels\.py`"):
        find_metric("./labels.py@twice")


def test_what_is_wrong_with_a_metric_of_a_file_is_said() -> None:
    Path("labels.py").write_text(FILE)
    with pytest.raises(UserError, match="has 2 metrics: `length`"):
        find_metric("./labels.py")
    with pytest.raises(UserError, match="has no metric `lenght`") as error:
        find_metric("./labels.py@lenght")
    assert error.value.hint == "did you mean `length`?"
    Path("none.py").write_text("x = 1\n")
    with pytest.raises(UserError, match="has no metric") as error:
        find_metric("./none.py@x")
    assert "Metric(" in str(error.value.hint)
    Path("bad.py").write_text(FILE + "\n1 / 0\n")
    with pytest.raises(UserError, match=r"(?s)could not load `bad\.py`.*ZeroDivisionError"):
        find_metric("./bad.py@length")
    Path("later.py").write_text(FILE + "\nlength = 3\n")
    with pytest.raises(UserError, match=r"`length` in `later\.py` is not a metric"):
        find_metric("./later.py@length")


def test_a_plugins_metric_is_found_by_name_and_by_distribution(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    info = folder / "site" / "text_pack-1.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: text-pack\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[harness.metrics]\nlength = text_pack_metrics:length\n")
    (folder / "site" / "text_pack_metrics.py").write_text(FILE)
    monkeypatch.syspath_prepend(str(folder / "site"))
    for name in ("length", "text-pack/length"):
        assert find_metric(name).measure(*wrote("abcd", "d")) == 4


def test_ls_lists_families_beside_the_single_metrics(capsys: pytest.CaptureFixture[str]) -> None:
    main(["ls", "metrics", "--format", "json"])
    rows = {row["name"]: row["summary"] for row in json.loads(capsys.readouterr().out)}
    assert all(rows[name] for name in ("pass@K", "evaluate:NAME[:KEY]", "auc", "mae", "em"))


# The `evaluate` library


@pytest.mark.parametrize(
    ("name", "parts"),
    [
        ("evaluate:bleu", ("bleu", None)),
        ("evaluate:rouge:rougeL", ("rouge", "rougeL")),
        ("evaluate:owner/thing:f1", ("owner/thing", "f1")),
        ("evaluate:./a:b/c.py", ("./a:b/c.py", None)),
        ("evaluate:./c.py:key", ("./c.py", "key")),
    ],
)
def test_an_evaluate_name_is_a_module_and_a_key(name: str, parts: tuple[str, str | None]) -> None:
    assert split_name(name) == parts


@pytest.mark.parametrize("name", ["evaluate:", "evaluate::key", "evaluate:x:"])
def test_a_malformed_evaluate_name_is_refused(name: str) -> None:
    with pytest.raises(UserError, match="malformed metric"):
        find_metric(name)


def test_a_local_script_scores_all_samples_at_once(folder: Path) -> None:
    module("mods/equal")
    for name, start in (("evaluate:./mods/equal", None), ("evaluate:./equal/equal.py", folder / "mods")):
        metric = find_metric(name, start)
        assert metric.name == "equal" and metric.higher_is_better
        assert whole(metric, wrote("x", "x"), wrote("y", "z", "y"), wrote("", "")) == pytest.approx(2 / 3)
        assert whole(metric, chose(1, 1), chose(0, 2)) == 0.5  # a text metric receives the texts of the choices


def test_several_references_go_to_a_module_that_takes_them(folder: Path) -> None:
    module("any", f"[{ONE}, {SEVERAL}]", "{'any': float(sum(p in r for p, r in zip(predictions, references)))}")
    metric = find_metric("evaluate:./any")
    assert whole(metric, wrote("x", "x"), wrote("y", "z", "y"), wrote("q", "z", "y")) == 2


def test_numbers_are_indices_of_choices_or_read_from_texts(folder: Path) -> None:
    module("same", NUMBERS)
    metric = find_metric("evaluate:./same")
    assert whole(metric, chose(2, 2), chose(1, 0)) == 0.5
    assert whole(metric, wrote(" 7 ", "7"), wrote("seven", "7")) == 0.5
    with pytest.raises(UserError, match="takes numbers, and the target 'seven' is not a number"):
        metric.measure(*wrote("7", "seven"))
    module("mae", NUMBERS, "{'mae': sum(abs(p - r) for p, r in zip(predictions, references))}", "float32")
    assert not find_metric("evaluate:./mae").higher_is_better


def test_a_key_is_named_where_there_are_several(folder: Path) -> None:
    module("two", ONE, "{'share': 0.25, 'words': 3, 'kind': 'x', 'parts': [1]}")
    assert find_metric("evaluate:./two:words").name == "two.words"
    with pytest.raises(UserError, match="returns several numbers: share, words") as error:
        find_metric("evaluate:./two")
    assert error.value.hint == "name one: `evaluate:./two:share`"
    with pytest.raises(UserError, match="returns no `shares`"):
        find_metric("evaluate:./two:shares")
    module("own", ONE, "{'own': 1.0, 'words': 3}")
    module("scored", ONE, "{'score': 1.0, 'words': 3}")
    assert (find_metric("evaluate:./own").name, find_metric("evaluate:./scored").name) == ("own", "scored.score")


def test_a_module_that_does_not_fit_is_refused_before_any_model(folder: Path) -> None:
    module("sourced", SOURCES)
    with pytest.raises(UserError, match=r"takes other inputs .*sources"):
        find_metric("evaluate:./sourced")
    module("empty", ONE, "{}")
    with pytest.raises(UserError, match="returns no number"):
        find_metric("evaluate:./empty")
    module("failing", ONE, "1 / 0")
    with pytest.raises(UserError, match="failed on two synthetic samples: ZeroDivisionError"):
        find_metric("evaluate:./failing")
    Path("needy").mkdir()
    Path("needy/needy.py").write_text("import evaluate\nimport a_library_that_is_not_there\n" + MODULE)
    with pytest.raises(UserError, match="a_library_that_is_not_there"):
        find_metric("evaluate:./needy")
    module("fits")
    with pytest.raises(UserError, match="a Text sample has none"):
        find_metric("evaluate:./fits").measure(Output(), Text("x"))


def test_a_missing_script_is_named(folder: Path) -> None:
    with pytest.raises(UserError, match=r"there is no file `nothing/nothing\.py`") as error:
        find_metric("evaluate:./nothing")
    assert "script" in str(error.value.hint)


def test_a_module_that_is_not_at_hand_offline_says_what_to_put_where(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import evaluate

    def offline(*args: object, **options: object) -> None:
        raise FileNotFoundError("Couldn't find a module script")

    monkeypatch.setattr(evaluate, "load", offline)
    with pytest.raises(UserError, match="finds no module `accuracy`") as error:
        find_metric("evaluate:accuracy")
    assert "evaluate-metric/accuracy" in str(error.value.hint) and "`evaluate:./accuracy`" in str(error.value.hint)


def test_the_evaluate_library_is_not_imported_for_other_metrics() -> None:
    import subprocess

    code = (
        "import sys; from harness.registry.find import list_entries; from harness.registry.load import find_metric\n"
        "list_entries('metric'); find_metric('exact_match'); find_metric('macro_f1')\n"
        "sys.exit(bool({'evaluate', 'torch', 'datasets', 'scipy.stats'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
