"""`--until-decided`: scoring stops where a difference is decided, and continues where it was interrupted."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from in_process import InProcess

import harness
from harness.cli import main
from harness.jobs import Packed, Raw, Resumed, ScoreJob, VariantLoading, VariantStarted
from harness.results import Run
from harness.runs import folder
from harness.runs.folder import load_run
from harness.worker.server import JobFailed

TASKS = """
from harness import Choose, Metric, Task, acc, task

ROWS = [{"number": n} for n in range(300)]

def sample(row):
    return Choose(f"Question {row['number']}:", ["right", "wrong"], 0, id=str(row["number"]))

@task
def easy() -> Task:
    return Task(data=ROWS, sample=sample, shots_from=ROWS[:3], metrics=[acc])

@task
def corpus() -> Task:
    chosen = Metric("chosen", stats=lambda output, sample: (float(output.loglikelihoods[0] == 0), 1.0),
                    value=lambda sums: sums[0] / sums[1])
    return Task(data=ROWS[:40], sample=sample, shots_from=ROWS[:3], metrics=[chosen])
"""
SHARE_RIGHT = {"base": 5, "same": 5, "better": 9, "small": 5}
"""Of ten samples, the number that each variant gets right."""
ASKED = ["compare", "base", "better=base:shots=1", "same=base:shots=2", "--until-decided", "--no-timing", "--allow-cut"]

SETTINGS = """
variants:
  base: {}
  better: {method: base, shots: 1}
  same: {method: base, shots: 2}
tasks: [tasks.py@easy]
until_decided: true
smallest: 10pts
no_timing: true
allow_cut: true
output_dir: runs
"""


@pytest.fixture
def jobs(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, in_process: None) -> list[ScoreJob]:
    """The scoring jobs that were run; a stand-in for the model answers them."""
    ran: list[ScoreJob] = []
    plain = InProcess.run

    def run(self: InProcess, job: Any, on_event: Any = lambda event: None) -> Any:
        if not isinstance(job, ScoreJob):
            return plain(self, job, on_event)
        ran.append(job)
        for variant in job.variants:
            on_event(VariantLoading(variant.name))
            on_event(VariantStarted(variant.name, 1, 1))
            for task in variant.tasks:
                on_event(Resumed(variant.name, task.task, task.first + len(task.done), task.first))
                raws = []
                for index, request in enumerate(task.requests, start=task.first):
                    if index not in task.done:
                        right = int(request.id) * 7 % 10 < SHARE_RIGHT[variant.name]
                        logs = (0.0, -1.0) if right else (-1.0, 0.0)
                        raws.append(Raw(index, 3, False, 1, loglikelihoods=logs, is_greedy=(right, not right)))
                for half in (raws[:20], raws[20:]):
                    if half:
                        on_event(Packed(variant.name, task.task, tuple(half)))
        return None

    monkeypatch.setattr(InProcess, "run", run)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "tasks.py").write_text(TASKS)
    return ran


def compare(output: str, *arguments: str, code: int = 0, tasks: str = "tasks.py@easy") -> Run:
    assert main([*ASKED, "--tasks", tasks, "-o", output, *arguments]) == code
    return load_run(next(path for path in Path(output).iterdir() if path.is_dir()))


def files(output: str) -> dict[str, bytes]:
    [run] = Path(output).iterdir()
    return {str(path.relative_to(run)): path.read_bytes() for path in sorted(run.rglob("*.jsonl"))}


def test_a_clear_difference_stops_early_and_the_baseline_goes_as_far_as_the_slowest(
    jobs: list[ScoreJob], capsys: pytest.CaptureFixture[str]
) -> None:
    run = compare("runs")
    base, better, same = (variant.scores[0] for variant in run.variants)
    assert better.n < 150 and base.n == same.n == 300
    assert better.delta and better.delta.early and better.delta.early.outcome == "shown"
    assert better.delta.verdict == "better" and better.delta.low > 0 and better.delta.early.n == better.n
    assert (
        same.delta
        and same.delta.early
        and same.delta.early.outcome == "undecided"
        and same.delta.verdict == "undecided"
    )
    assert {found.b for found in run.comparisons} == {"base"} and run.tests == 2
    said = capsys.readouterr()
    assert f"▲ at {better.n} of 300" in said.out and "undecided at 300" in said.out and "saved" in said.out
    assert load_run(next(Path("runs").iterdir())) == run


def test_equal_variants_stop_where_a_difference_that_matters_is_excluded(
    jobs: list[ScoreJob], capsys: pytest.CaptureFixture[str]
) -> None:
    run = compare("runs", "--smallest", "10pts", "--fail-unless", "same.tasks.py@easy > base.tasks.py@easy - 0.11")
    same = run.variants[2].scores[0]
    assert same.delta and same.delta.early and same.delta.early.outcome == "within" and same.n < 300
    assert same.delta.early.smallest == pytest.approx(0.1)
    said = capsys.readouterr()
    assert f"≈ within ±10 at {same.n}" in said.out and "PASS" in said.err


def test_all_variants_score_the_same_samples_in_the_same_random_order(jobs: list[ScoreJob]) -> None:
    compare("runs")
    orders = [
        [line.split(b'"id": "')[1].split(b'"')[0] for line in text.splitlines()] for text in files("runs").values()
    ]
    longest = max(orders, key=len)
    assert all(order == longest[: len(order)] for order in orders)
    assert longest != sorted(longest, key=int) and sorted(map(int, longest)) == list(range(300))
    assert {len(task.requests) for job in jobs for each in job.variants for task in each.tasks} <= {32, 300 % 32}


def test_an_interrupted_run_ends_with_the_same_bytes(jobs: list[ScoreJob], monkeypatch: pytest.MonkeyPatch) -> None:
    whole = compare("whole", "--smallest", "10pts")
    plain, count = InProcess.run, 0

    def run(self: InProcess, job: Any, on_event: Any = lambda event: None) -> Any:
        nonlocal count

        def stopping(event: Any) -> None:
            nonlocal count
            count += isinstance(event, Packed)
            if count == 10:  # in the middle of the second round
                raise KeyboardInterrupt
            on_event(event)

        return plain(self, job, stopping)

    with monkeypatch.context() as patch:
        patch.setattr(InProcess, "run", run)
        compare("parts", "--smallest", "10pts", code=130)
    parts = compare("parts", "--smallest", "10pts")
    assert files("parts") == files("whole")
    ignored = {"created": "", "seconds": {}, "command": "", "config": {}, "config_resolved": {}}
    assert parts.model_copy(update=ignored) == whole.model_copy(update=ignored)
    jobs.clear()
    assert compare("parts", "--smallest", "10pts") == parts and not jobs


def test_a_file_and_python_ask_for_the_same_run_as_the_flags(jobs: list[ScoreJob]) -> None:
    run = compare("runs", "--smallest", "10pts")
    jobs.clear()
    Path("compare.yaml").write_text(SETTINGS)
    assert main(["compare", "--config", "compare.yaml", "--allow-code", "tasks.py"]) == 0
    settings = yaml.safe_load(SETTINGS)
    given = {name: value for name, value in settings.items() if name not in ("variants", "output_dir")}
    assert harness.compare(*ASKED[1:4], output_dir=Path("runs"), **given) == run
    assert not jobs and len(list(Path("runs").iterdir())) == 1, "it is the finished run"


@pytest.mark.parametrize(
    ("before", "after", "said"),
    [
        ("10pts", "10", "write `--smallest 10pts`"),
        ("10pts", "[10pts]", "is not a difference in points"),
        ("until_decided: true", "until_decided: perhaps", "until_decided"),
        ("until_decided: true", "until_decided: false", "needs `--until-decided`"),
    ],
)
def test_mistakes_in_a_file_are_errors(
    before: str, after: str, said: str, jobs: list[ScoreJob], capsys: pytest.CaptureFixture[str]
) -> None:
    Path("compare.yaml").write_text(SETTINGS.replace(before, after))
    assert main(["compare", "--config", "compare.yaml", "--allow-code", "tasks.py"]) == 2
    shown = " ".join(capsys.readouterr().err.split())
    assert said in shown and "Traceback" not in shown and not jobs


def test_only_the_samples_of_a_pack_are_read_for_a_decision(
    jobs: list[ScoreJob], monkeypatch: pytest.MonkeyPatch
) -> None:
    lines: list[bytes] = []
    plain = folder._complete_row
    monkeypatch.setattr(folder, "_complete_row", lambda line: lines.append(line) or plain(line))
    compare("runs")
    scored = [text for name, text in files("runs").items() if not name.startswith("samples/prompts/")]
    assert len(lines) == sum(len(text.splitlines()) for text in scored)


def test_the_base_stays_in_memory_where_it_is_the_only_one_or_all_bases_fit(jobs: list[ScoreJob]) -> None:
    compare("runs")
    assert len(jobs) > 5 and all(job.more for job in jobs)
    jobs.clear()
    compare("two", "small=base@8bit")
    assert [job.more for job in jobs] == [False, False, *[True] * (len(jobs) - 2)]
    assert {len({variant.recipe.base for variant in job.variants}) for job in jobs} == {1}


@pytest.mark.parametrize(("failing", "rounds"), [("base", 6), ("same", 2)])
def test_a_variant_that_fails_between_two_packs_fails_alone_and_is_continued(
    failing: str, rounds: int, jobs: list[ScoreJob], monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, died = compare("whole"), list[str]()
    plain = InProcess.run

    def run(self: InProcess, job: Any, on_event: Any = lambda event: None) -> Any:
        if isinstance(job, ScoreJob) and len(jobs) == rounds and died.append(failing) is None and len(died) == 1:
            on_event(VariantLoading(failing))
            raise JobFailed("the worker process died")
        return plain(self, job, on_event)

    jobs.clear()
    with monkeypatch.context() as patch:
        patch.setattr(InProcess, "run", run)
        parts = compare("parts", code=1)
    assert [variant.status for variant in parts.variants].count("failed") == 1
    assert parts.variant(failing).error == "the worker process died"
    again = compare("parts")
    assert files("parts") == files("whole")
    assert again.comparisons == whole.comparisons


def test_a_corpus_metric_is_scored_whole_and_the_rest_goes_on(
    jobs: list[ScoreJob], capsys: pytest.CaptureFixture[str]
) -> None:
    run = compare("runs", tasks="tasks.py")
    corpus = next(task for task in run.tasks if "corpus" in task.name)
    assert not corpus.until_decided and corpus.n == 40
    scores = [variant.score(corpus.name, "chosen") for variant in run.variants]
    assert all(score and score.n == 40 for score in scores)
    assert run.variants[1].scores[0].n < 300
    assert len([found for found in run.comparisons if found.early is None]) == 3 and run.tests == 5
    assert any("`chosen` is a number of the whole set of samples" in note for note in run.notes)
    assert "scored whole" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--smallest", "5"], "write `--smallest 5pts`"),
        (["--smallest", "wide"], "is not a difference in points"),
        (["--smallest", "0pts"], "more than 0"),
        (["--seeds", "3"], "keep one"),
        (["--folds", "3"], "keep one"),
    ],
)
def test_settings_that_cannot_be_decided_are_refused(
    arguments: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["compare", "base", "lora", "--until-decided", *arguments]) == 2
    assert said in " ".join(capsys.readouterr().err.split())


def test_the_flags_need_each_other_and_a_second_variant(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["compare", "base", "lora", "--smallest", "5pts"]) == 2
    assert "`--smallest` needs `--until-decided`" in capsys.readouterr().err
    assert main(["compare", "base", "--until-decided"]) == 2
    assert "name a second variant" in capsys.readouterr().err
