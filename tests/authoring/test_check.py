"""`harness check` passes sound tasks, and names the sample and the problem of others."""

from pathlib import Path

import pytest

from harness import UserError
from harness.authoring.check import CheckResult, check_file
from harness.cli import main
from harness.registry.find import list_entries


@pytest.fixture(autouse=True)
def _folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def checked(arguments: str, before: str = "") -> CheckResult:
    """The verdict on a task with these arguments of `Task`."""
    code = f"from harness import Choose, Generate, Metric, Task, Text, acc, byte_ppl, exact_match, task\n{before}\n"
    Path("t.py").write_text(f"{code}@task\ndef t() -> Task:\n    return Task({arguments})\n", encoding="utf-8")
    (verdict,) = check_file("./t.py")
    return verdict


def generate(sample: str, more: str = "", metrics: str = "exact_match", before: str = "") -> CheckResult:
    rows = "[{'q': f'q{n}', 'a': f'a{n}'} for n in range(4)]"
    return checked(f"data={rows}, sample=lambda row: {sample}, metrics=[{metrics}]{more}", before)


@pytest.mark.parametrize("name", [entry.name for entry in list_entries("task") if entry.distribution is None])
def test_every_built_in_task_passes_on_the_made_up_rows(name: str, made_up_hub: Path) -> None:
    try:
        (verdict,) = check_file(name, run_unsafe_code=True)
    except UserError as error:
        if "HARNESS_DATA" in error.message:
            pytest.skip(f"tests/hub lacks the rows of {name}")
        raise
    assert verdict.problems == (), str(verdict)


def test_a_sound_task_has_no_findings() -> None:
    verdict = generate("Generate(row['q'], row['a'])")
    assert (verdict.problems, verdict.warnings) == ((), ())
    assert "exact_match  oracle 1.00 ✓  chance 0.00" in str(verdict)


def test_chance_is_the_mean_over_the_choices() -> None:
    rows = "[{'q': str(n), 'c': list('abcd'[: n + 2])} for n in range(3)]"
    verdict = checked(f"data={rows}, sample=lambda row: Choose(row['q'], row['c'], 1), metrics=[acc]")
    assert f"acc  oracle 1.00 ✓  chance {(1 / 2 + 1 / 3 + 1 / 4) / 3:.2f}" in str(verdict) and not verdict.problems


def test_a_metric_that_accepts_wrong_choices_is_a_problem() -> None:
    lenient = "lenient = Metric('lenient', score=lambda output, sample: float(max(output.loglikelihoods[:2]) == 0))\n"
    verdict = checked(
        "data=[{'q': str(n)} for n in range(3)], sample=lambda row: Choose(row['q'], list('abcd'), 1), metrics=[lenient]",
        lenient,
    )
    assert verdict.problems == ("lenient: guessing scores 0.50, but a guess is right with probability 0.25",)


def test_a_target_that_scores_badly_is_named_with_its_sample() -> None:
    half = "half = Metric('half', score=lambda prediction, target: 0.5 * (prediction == target))\n"
    assert generate("Generate(row['q'], row['a'])", metrics="half", before=half).problems == (
        "half: the target itself scores only 0.50; sample 0: 'a0'",
    )
    assert main(["check", "./t.py"]) == 1
    most = "most = Metric('most', score=lambda prediction, target: float(prediction in ('a0', 'a1', 'a2')))\n"
    assert generate("Generate(row['q'], row['a'])", metrics="exact_match, most", before=most).problems == (
        "most: the target itself scores only 0.75; sample 3: 'a3'",
    )


@pytest.mark.parametrize(
    ("sample", "more", "expected"),
    [
        ("Generate(row['q'], 'nan' if row['q'] == 'q2' else row['a'])", "", "sample 2: the target is `nan`"),
        ("Generate(row['q'], '' if row['q'] == 'q1' else row['a'])", "", "sample 1: the target is empty"),
        ("Generate(row['q'], 'a.b', stop=('.',))", "", "sample 0: the stop string '.' would cut the target to 'a'"),
        ("Generate(row['q'], row['a'] * 500, max_tokens=9)", "", "and max_tokens=9 cuts it"),
        (
            "Choose(row['q'], ['x', 'x', 'y'], 1)",
            "",
            "sample 0: the right choice is also among the wrong ones: `x`",
        ),
        ("Choose(row['q'], ['x'], 0)", "", "sample 0: there is only one choice"),
        ("Text('  ')", "", "sample 0: the text is empty"),
    ],
)
def test_serious_findings_fail_the_check(sample: str, more: str, expected: str) -> None:
    metric = {"Choose": "acc", "Text(": "byte_ppl"}.get(sample[:6].removesuffix("'"), "exact_match")
    metric = "byte_ppl" if sample.startswith("Text") else metric
    assert expected in " ".join(generate(sample, more, metric).problems)


@pytest.mark.parametrize(
    ("sample", "more", "expected"),
    [
        (
            "Generate(row['q'] + ' ', row['a'])",
            "",
            "sample 0: the prompt ends in white space, and the delimiter ' ' begins with more",
        ),
        ("Generate(row['q'] + ' ', row['a'])", ", delimiter=''", "sample 0: the prompt ends in a space"),
        ("Generate(row['q'], ' ' + row['a'])", "", "sample 0: the target begins with white space, and the delimiter"),
        ("Generate('same', row['a'])", "", "samples 0 and 1 ask the same question (and 2 more)"),
        (
            "Generate(row['q'], row['a'] * 10, max_tokens=3)",
            "",
            "the target has about 5 tokens, and max_tokens=3 cuts",
        ),
        ("Generate(row['q'], row['a'] + '.', stop=('.',))", "", "would cut the target"),
        ("Choose(row['q'], ['x', 'y', 'y'], 0)", "", "sample 0: a wrong choice occurs twice: `y`"),
        ("Generate([{'role': 'user', 'content': row['q'] + ' '}], row['a'])", "", "sample 0: the prompt ends in white"),
    ],
)
def test_other_findings_are_warnings_and_pass(sample: str, more: str, expected: str) -> None:
    verdict = generate(sample, more, "acc" if sample.startswith("Choose") else "lax", before=LAX)
    assert expected in " ".join(verdict.warnings), str(verdict)
    assert verdict.problems == ()


LAX = "lax = Metric('lax', score=lambda prediction, target: float(bool(prediction)))"


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ("data=[], sample=lambda row: Generate('x', 'y'), metrics=[exact_match]", "has no rows"),
        ("data=[{'q': 1}], sample=lambda row: Generate(row['g'], 'y'), metrics=[exact_match]", "column `g`"),
        ("data=[{}], sample=lambda row: Choose('x', ['a', 'b'], 2), metrics=[acc]", "row 0: answer 2 with 2 choices"),
        ("data=[{}], sample=lambda row: Generate('x', float('nan')), metrics=[exact_match]", "`target` is the float"),
        ("data=[{}], sample=lambda row: Generate('x', 'y'), metrics=['exact_mach']", "unknown metric `exact_mach`"),
        ("data='gone.csv', sample=lambda row: Generate('x', 'y'), metrics=[exact_match]", "no file `gone.csv`"),
    ],
)
def test_samples_that_cannot_be_scored_are_an_error(arguments: str, expected: str) -> None:
    with pytest.raises(UserError) as caught:
        checked(arguments)
    assert expected in caught.value.message


def test_a_file_that_is_not_utf_8_is_named() -> None:
    Path("x.csv").write_bytes("q,a\nfür,x\n".encode("latin-1"))
    with pytest.raises(UserError, match=r"x\.csv.*not UTF-8"):
        checked("data='x.csv', sample=lambda row: Generate(row['q'], row['a']), metrics=[exact_match]")


def test_metrics_of_all_forms_are_scored() -> None:
    before = (
        "kept = Metric('kept', gather=lambda output, sample: output.texts[0], whole=lambda all: float(len(set(all))))\n"
        "void = Metric('void', gather=lambda output, sample: 0, whole=lambda all: 1 / 0)\n"
    )
    verdict = generate("Generate(row['q'], row['a'])", metrics="'exact_match', 'chrf', kept, void", before=before)
    assert "kept  oracle 4.00 ✓  chance 1.00" in str(verdict) and verdict.problems == ()
    assert verdict.warnings == ("void: a perfect model scores nan",)


def test_samples_without_a_target_have_no_oracle() -> None:
    short = "short = Metric('short', score=lambda output, sample: float(len(output.texts[0]) < 9))"
    verdict = generate("Generate(row['q'], '')", metrics="short", before=short)
    assert "short  oracle -  chance 1.00 (the samples have no target)" in str(verdict) and not verdict.problems


def test_code_is_run_only_when_that_is_confirmed(capsys: pytest.CaptureFixture[str]) -> None:
    meta = "meta={'before': 'def f():\\n    return ', 'after': '\\nassert f() == 7'}"
    verdict = generate(f"Generate(row['q'], '7', {meta})", ", executes_code=True", "'pass@1'")
    assert "not scored: its metrics run generated code" in str(verdict)
    (verdict,) = check_file("./t.py", run_unsafe_code=True)
    assert "pass@1  oracle 1.00 ✓  chance 0.00" in str(verdict)


def test_parameters_reach_the_task(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check", "long_context", "-T", "lengths=60", "-T", "depths=0+100", "-T", "samples=1"]) == 0
    assert "task long_context: 2 samples" in capsys.readouterr().out


@pytest.mark.parametrize("kind", ["generate", "choose", "text"])
def test_a_new_task_passes_its_check(kind: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["new", "task", "rivers", "--kind", kind]) == 0
    (verdict,) = check_file("./rivers.py")
    assert (verdict.problems, verdict.warnings) == ((), ())
    assert main(["new", "task", "rivers"]) == 2
    assert "exists already" in capsys.readouterr().err


def test_a_file_with_neither_task_nor_method_is_an_error() -> None:
    Path("empty.py").write_text("x = 1\n")
    with pytest.raises(UserError, match="neither a task nor a method"):
        list(check_file("./empty.py"))


def test_thousands_of_rows_take_no_longer_than_their_prompts() -> None:
    verdict = checked(
        "data=[{'n': n} for n in range(20_000)], sample=lambda row: Generate(str(row['n']), 'x'), metrics=[exact_match]"
    )
    assert verdict.title == "task t: 20,000 samples"
