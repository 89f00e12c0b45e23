"""The comparison, end to end, on the embedded model: its output, its files, resuming and repeating."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import fault_runs as faults
import pytest
from in_process import ONE_REPEAT, SHORT_TIMING, command

from harness import UserError, compare, evaluate, train
from harness.cli import main
from harness.report.gains import gains
from harness.report.recommendation import recommendation
from harness.results import Run
from harness.runs.folder import load_run
from harness.runs.prompts import read_prompts

TASKS = ["mini_mmlu", "mini_gsm8k", "mini_text"]
SHORT = ["--tasks", ",".join(TASKS), "--limit", "12", "--steps", "4"]


def harness(
    folder: Path, *arguments: str, timing: Mapping[str, Any] | None = SHORT_TIMING
) -> subprocess.CompletedProcess[str]:
    """Runs the command in a folder."""
    asked = command(*arguments, timing=timing)
    return subprocess.run(asked, cwd=folder, capture_output=True, text=True, check=False, timeout=600)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("compared")


@pytest.fixture(scope="module")
def done(folder: Path) -> subprocess.CompletedProcess[str]:
    return harness(folder, "compare", "base", "lora", "qlora", *SHORT, timing=ONE_REPEAT)


@pytest.fixture(scope="module")
def run(folder: Path, done: subprocess.CompletedProcess[str]) -> Run:
    assert done.returncode == 0, done.stderr
    return load_run(next((folder / "runs").iterdir()))


def scores(run: Run) -> dict[tuple[str, str, str], float | None]:
    return {(v.name, s.task, s.metric): s.value for v in run.variants for s in v.scores}


def samples(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted((folder / "samples").rglob("*.jsonl"))}


def test_every_variant_is_trained_scored_and_timed(run: Run) -> None:
    assert [variant.status for variant in run.variants] == ["done"] * 3
    for variant in run.variants:
        assert {score.task for score in variant.scores} == set(TASKS)
        assert all(score.n == 12 and score.value is not None for score in variant.scores)
        assert variant.inference is not None and variant.inference.decode_seconds_per_token_p50 > 0
        assert (variant.train is None) == (variant.name == "base")
    lora = run.variant("lora")
    assert lora.train is not None and lora.train.steps == 4 and lora.train.tokens > 0
    assert lora.parameters is not None and 0 < lora.parameters.trainable < lora.parameters.total
    assert lora.artifact is not None and lora.artifact.bytes > 0


def test_the_four_bit_base_takes_less_memory_than_the_full_one(run: Run) -> None:
    base, qlora = run.variant("base").model_bytes, run.variant("qlora").model_bytes
    assert base is not None and qlora is not None and qlora < base


def test_every_score_has_protocol_n_and_interval(run: Run) -> None:
    for variant in run.variants:
        for score in variant.scores:
            assert score.low is not None and score.value is not None and score.high is not None
            assert score.low <= score.value <= score.high
            assert len(score.protocol.prompt_sha256) == 64
        assert (variant.scores[0].delta is None) == (variant.name == run.baseline)


def test_all_pairs_of_headlines_are_compared(run: Run) -> None:
    pairs = {(c.task, c.a, c.b) for c in run.comparisons}
    assert pairs == {(t, a, b) for t in TASKS for a, b in [("lora", "base"), ("qlora", "base"), ("qlora", "lora")]}


def test_gains_and_the_recommendation_are_in_the_document(run: Run) -> None:
    assert list(run.gains) == gains(run) and [gain.variant for gain in run.gains] == ["lora", "qlora"]
    assert run.recommendation is not None and run.recommendation == recommendation(run)
    assert run.recommendation.tasks == ("mini_mmlu", "mini_gsm8k")
    lora = run.variant("lora").train
    assert lora is not None and lora.data is not None and lora.data.tasks == ("mini_mmlu", "mini_gsm8k")


def test_the_document_has_all_that_a_page_shows(folder: Path, run: Run) -> None:
    [place] = (folder / "runs").iterdir()
    lora = run.variant("lora")
    assert lora.train is not None and [point.step for point in lora.train.curve_points] == [1, 2, 3, 4]
    last = lora.train.curve_points[-1]
    assert last.tokens == lora.train.tokens and last.loss and last.lr is not None and last.grad_norm
    assert last.seconds == pytest.approx(lora.train.train_seconds, rel=1e-4)
    assert lora.inference is not None and len(lora.inference.raw_summary["decode"]) <= 100
    assert {(t.name, t.scale, t.decimals, t.chance) for t in run.tasks} == {
        ("mini_mmlu", "fraction", 1, 0.25),
        ("mini_gsm8k", "fraction", 1, None),
        ("mini_text", "perplexity", 3, None),
    }
    for task in run.tasks:
        prompts = read_prompts(place, task.name)
        assert len(prompts) == 12 and all(prompt.prompt for prompt in prompts.values())
        score = lora.headline(task)
        assert score is not None and score.delta is not None and score.delta.win_rate is not None
        assert (score.delta.win_rate_low or 0) <= score.delta.win_rate <= (score.delta.win_rate_high or 0)
        assert all(group.delta and group.delta.low <= group.delta.value for group in score.groups)
    for shown in run.samples_shown:
        mine = next(each for each in shown.variants if each.variant == "lora")
        assert mine.won + mine.lost + mine.tied == 12
        delta = lora.score(shown.task, next(t.headline for t in run.tasks if t.name == shown.task)).delta  # type: ignore[union-attr]
        assert delta is not None and delta.win_rate == pytest.approx((mine.won + mine.tied / 2) / 12)
    resolved = run.config_resolved
    assert resolved["numerics"] == "fp32" and resolved["variants"]["lora"]["train"]["optimizer"]
    assert resolved["variants"]["base"]["train"] is None and "warmup" in str(resolved["train"])


def test_text_without_a_train_split_is_a_forgetting_column(run: Run) -> None:
    assert {task.name: task.trained_on for task in run.tasks} == {
        "mini_mmlu": True,
        "mini_gsm8k": True,
        "mini_text": False,
    }


def test_stdout_is_the_screen_and_stderr_the_progress(done: subprocess.CompletedProcess[str]) -> None:
    assert "Quality" in done.stdout and "Cost" in done.stdout and "Summary" in done.stdout
    assert "Plan" in done.stderr and "Train" in done.stderr and "Quality" not in done.stderr


def test_the_same_command_reprints_and_starts_nothing(folder: Path, run: Run) -> None:
    again = harness(folder, "compare", "base", "lora", "qlora", *SHORT, "--format", "json", timing=None)
    assert again.returncode == 0, again.stderr
    assert json.loads(again.stdout) == json.loads(run.to_json())
    assert len(list((folder / "runs").iterdir())) == 1


def compare_again(folder: Path, *variants: str, **settings: Any) -> Run:
    """Runs the comparison of `folder` again with other settings, into the same output directory."""
    return compare(*variants, tasks=TASKS, limit=12, train={"steps": 4}, output_dir=folder / "runs", **settings)


def test_another_batch_size_gives_the_same_scores_from_the_same_artifacts(
    folder: Path, run: Run, in_process: None
) -> None:
    other = compare_again(folder, "base", "lora", "qlora", batch_size=3)
    assert all(variant.train.reused for variant in other.variants if variant.train)
    assert scores(other).keys() == scores(run).keys()
    for where, value in scores(run).items():
        assert scores(other)[where] == pytest.approx(value, rel=1e-5), where


def test_the_plain_engine_gives_the_same_scores(folder: Path, run: Run, in_process: None) -> None:
    other = compare_again(folder, "base", "lora", engine="plain")
    assert {name for name, _, _ in scores(other)} == {"base", "lora"}
    for where, value in scores(other).items():
        assert scores(run)[where] == pytest.approx(value, rel=1e-5), where


def test_a_run_whose_parent_is_killed_resumes_with_the_same_bytes(tmp_path: Path, folder: Path, run: Run) -> None:
    undisturbed = next(p for p in (folder / "runs").iterdir() if load_run(p).config_sha256 == run.config_sha256)
    for left in ("runs/*/train/lora*.jsonl", "runs/*/samples/*/*.jsonl"):
        kill_once(tmp_path, left)
    finished = harness(tmp_path, "compare", "base", "lora", "qlora", *SHORT, "--format", "json")
    assert finished.returncode == 0, finished.stderr
    assert scores(Run.model_validate(json.loads(finished.stdout))) == scores(run)
    (continued,) = (tmp_path / "runs").glob("*/run.json")
    assert samples(continued.parent) == samples(undisturbed)


def kill_once(folder: Path, left: str) -> None:
    """Starts the comparison and kills its parent when a file is there; no process may remain."""
    begun = command("compare", "base", "lora", "qlora", *SHORT)
    process = subprocess.Popen(begun, cwd=folder, start_new_session=True, stdout=-3, stderr=-3)
    while next(folder.glob(left), None) is None:
        assert process.poll() is None, "it finished before it could be killed"
        time.sleep(0.01)
    process.kill()
    process.wait()
    faults.wait_until_gone(process.pid, seconds=5)


def test_ctrl_c_exits_with_130_and_shows_the_command_that_resumes(tmp_path: Path) -> None:
    process = subprocess.Popen(
        command("compare", "base", "lora", *SHORT, timing=None),
        cwd=tmp_path,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        # a background job of a script ignores the signal, and so do its children
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    assert process.stderr is not None
    said = ""
    while "Train" not in said:
        said += process.stderr.readline()
    os.killpg(process.pid, signal.SIGINT)
    said += process.stderr.read()
    assert process.wait(timeout=30) == 130
    assert "harness compare base lora --tasks" in said
    assert not faults.processes(process.pid)


def test_a_second_process_on_the_same_run_is_refused(tmp_path: Path) -> None:
    asked = command("compare", "base", "lora", *SHORT, timing=None)
    first = subprocess.Popen(asked, cwd=tmp_path, stdout=-3, stderr=subprocess.PIPE, text=True)
    assert first.stderr is not None
    while "Plan" not in first.stderr.readline():
        assert first.poll() is None
    second = harness(tmp_path, "compare", "base", "lora", *SHORT)
    first.kill()
    first.wait()
    assert second.returncode == 2
    assert "another process is writing" in second.stderr and "Traceback" not in second.stderr


METHODS = '''
from harness import method

@method
def hungry(model, *, gib: int = 4096):
    """Needs more memory than available."""
    import torch
    model.waste = torch.ones(gib << 30, dtype=torch.uint8)
    return model.requires_grad_(True)

@method
def crashing(model):
    """Kills its process."""
    import os, signal
    os.kill(os.getpid(), signal.SIGKILL)

@method
def late(model):
    """Trains, and kills its process when it is loaded again."""
    import os, pathlib, signal
    calls = pathlib.Path(__file__).with_name("calls")
    with calls.open("a") as file:
        file.write(".")
    if calls.stat().st_size > 2:  # after the check before training, and the training run
        os.kill(os.getpid(), signal.SIGKILL)
    for name, parameter in model.named_parameters():
        parameter.requires_grad_("norm" in name)
    return model

@method
def idle(model):
    """Trains nothing."""
    return model
'''


def test_a_variant_out_of_memory_fails_alone_and_the_exit_code_is_one(tmp_path: Path) -> None:
    (tmp_path / "methods.py").write_text(METHODS)
    variants = ["base", *(f"{name}=./methods.py@{name}" for name in ("hungry", "crashing", "late"))]
    asked = ["--tasks", "mini_mmlu", "--limit", "4", "--steps", "1"]
    done = harness(tmp_path, "compare", *variants, *asked, "--format", "json")
    assert done.returncode == 1, done.stderr
    found = Run.model_validate(json.loads(done.stdout))
    assert [variant.status for variant in found.variants] == ["done", "failed", "failed", "failed"]
    assert all("out of memory" in str(variant.error) for variant in found.variants[1:])
    assert found.variants[0].scores


def test_a_method_that_trains_nothing_is_a_user_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, in_process: None, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "methods.py").write_text(METHODS)
    monkeypatch.chdir(tmp_path)
    assert main(["compare", "base", "./methods.py@idle", *SHORT]) == 2
    said = capsys.readouterr().err
    assert "no parameter of this model to train" in said and "hint:" in said and "Traceback" not in said


CUSTOM = """
from harness import Generate, Task, exact_match, task

@task
def capitals() -> Task:
    return Task(
        data=[{"country": "France", "city": "Paris"}, {"country": "Japan", "city": "Tokyo"}],
        sample=lambda row: Generate(f"The capital of {row['country']} is", row["city"], stop=["."], max_tokens=8),
        metrics=[exact_match],
        train=[{"country": "Spain", "city": "Madrid"}] * 8,
    )
"""


def test_the_python_api_works_without_a_main_guard(tmp_path: Path) -> None:
    (tmp_path / "capitals.py").write_text(CUSTOM)
    (tmp_path / "script.py").write_text(
        "import sys\n"
        "import harness\n"
        "row = harness.evaluate('base', tasks=['./capitals.py'])\n"
        "print(row.scores[0].metric, row.scores[0].n)\n"
        "print(harness.train('lora:rank=4', tasks=['./capitals.py'], train={'steps': 2}))\n"
        "print('torch' in sys.modules)\n"
    )
    done = subprocess.run([sys.executable, "script.py"], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    first, artifact, torch_is_here = done.stdout.splitlines()
    assert first == "exact_match 2"
    assert torch_is_here == "False"
    assert (tmp_path / artifact / "adapter_model.safetensors").is_file()
    assert done.stdout.count("exact_match") == 1


def test_the_python_api_raises_the_user_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match="unknown task"):
        evaluate("base", tasks=["mini_mlu"])
    with pytest.raises(UserError, match="nothing to train on"):
        train("lora", tasks=["mini_text"])
    with pytest.raises(UserError, match="runs"):
        compare("base", tasks=["mini_mmlu"], limit=2, output_dir="/proc/runs")
