"""Runs that end early: scores are saved before timing begins, and what is known and missing is shown."""

import fcntl
import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from safetensors import SafetensorError

from harness.cli import main
from harness.comparison import run as comparison
from harness.config.parse import configure
from harness.finetune.training import trainer
from harness.finetune.training.loop import Loop
from harness.jobs import BenchJob, ScoreJob
from harness.report.progress import Progress
from harness.results import Run
from harness.runs.folder import LOCK, load_run, load_shown

ASKED = ["compare", "base", "lora:rank=2", "--tasks", "mini_mmlu,mini_text", "--limit", "6", "--steps", "1"]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, in_process: None) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def interrupt(patch: pytest.MonkeyPatch, ends: Any) -> None:
    """Interrupts the run at the first job for which `ends` holds."""
    server: Any = comparison.Server
    plain = server.run

    def run(self: Any, job: Any, on_event: Any = lambda event: None) -> Any:
        if ends(job):
            raise KeyboardInterrupt
        return plain(self, job, on_event)

    patch.setattr(server, "run", run)


def test_scores_are_saved_and_shown_before_timing_begins(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.argv", ["harness", *ASKED])
    with monkeypatch.context() as patch:
        interrupt(patch, lambda job: isinstance(job, BenchJob))
        assert main(ASKED) == 130
    said = capsys.readouterr().err
    assert "Score  mini_mmlu acc: base " in said and said.index("Count") < said.index("Score  mini_mmlu")
    [path] = (folder / "runs").iterdir()
    saved = load_run(path)
    assert all({score.task for score in each.scores} == {"mini_mmlu", "mini_text"} for each in saved.variants)
    assert saved.variants[1].scores[0].delta is not None
    assert main(["show", str(path)]) == 0
    shown = capsys.readouterr().out
    assert "interrupted" in shown and "running" not in shown
    assert "base has no timing; lora:rank=2 has no timing" in " ".join(shown.split())
    assert "to continue: harness" in " ".join(shown.split())
    assert main(["report", str(path), "--to", "md,csv,html,json,tex"]) == 0
    assert main(["ls", "runs"]) == 0
    assert "0/2 done, interrupted: base" in capsys.readouterr().out
    assert main(ASKED) == 0
    after = load_run(path)
    assert [each.status for each in after.variants] == ["done", "done"]
    assert [each.scores for each in after.variants] == [each.scores for each in saved.variants]
    assert main(["show", str(path)]) == 0
    assert "not finished" not in capsys.readouterr().out


def test_an_unfinished_run_shows_the_scores_of_finished_tasks(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    seen: list[str] = []

    class Interrupting(Progress):
        def start(self, label: str, what: str, total: int | None = None) -> None:
            seen.append(f"{label} {what}")
            if seen[-1] == "Eval lora  mini_text":
                raise KeyboardInterrupt

    config = configure(["base", "lora"], tasks=["mini_mmlu", "mini_text"], limit=6, train={"steps": 1})
    with pytest.raises(KeyboardInterrupt):
        comparison.run(config, progress=Interrupting())
    [path] = (folder / "runs").iterdir()
    shown = load_shown(path)
    assert [each.status for each in shown.variants] == ["interrupted", "interrupted"]
    assert {score.task for score in shown.variants[0].scores} == {"mini_mmlu", "mini_text"}
    assert {score.task for score in shown.variants[1].scores} == {"mini_mmlu"}
    with (path / LOCK).open("rb") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        assert "interrupted" not in {each.status for each in load_shown(path).variants}
    assert main(["show", str(path)]) == 0
    text = " ".join(capsys.readouterr().out.split())
    assert "lora has no score on mini_text and no timing" in text


def test_a_run_that_scores_nothing_yet_says_so(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with monkeypatch.context() as patch:
        interrupt(patch, lambda job: isinstance(job, ScoreJob))
        assert main(ASKED) == 130
    [path] = (folder / "runs").iterdir()
    capsys.readouterr()
    assert main(["show", str(path), "--format", "json"]) == 0
    run = Run.model_validate(json.loads(capsys.readouterr().out))
    assert [each.status for each in run.variants] == ["interrupted", "interrupted"]
    assert run.variants[1].train is not None and not run.variants[1].scores
    (path / LOCK).unlink()
    assert load_shown(path).variants[0].status == "interrupted"


def test_a_reward_model_that_another_variant_needs_is_trained_and_not_scored(folder: Path) -> None:
    rows = [{"prompt": f"{n} =", "chosen": f" {n}", "rejected": " no"} for n in range(4)]
    (folder / "pairs.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (folder / "prompts.jsonl").write_text("".join(json.dumps({"prompt": f"{n} ="}) + "\n" for n in range(4)))
    variants = [
        "base",
        "sft=lora:rank=2",
        "rm=lora:rank=2,stage=reward,start=sft,data=pairs.jsonl",
        "rl=lora:rank=2,stage=grpo,start=sft,reward=rm,data=prompts.jsonl,generations=2,max_tokens=2",
    ]
    train = {"steps": 1, "batch_size": 2, "data": "mini_gsm8k"}
    run = comparison.run(configure(variants, tasks=["mini_gsm8k"], limit=2, train=train))
    assert [each.status for each in run.variants] == ["done"] * 4
    assert [bool(each.scores) for each in run.variants] == [True, True, False, True]
    assert run.variants[2].train is not None
    assert any("rm: trained and not scored" in note for note in run.notes)
    again = comparison.run(configure(variants, tasks=["mini_gsm8k"], limit=2, train=train))
    assert again == run


def test_what_was_trained_is_kept_when_the_disk_is_full_while_it_is_saved(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    asked = ["compare", "lora:rank=2", "--tasks", "mini_mmlu", "--limit", "2", "--steps", "3"]
    steps: list[int] = []
    plain = Loop.step

    def counted(self: Loop) -> None:
        steps.append(1)
        plain(self)

    def full(*_: Any, **__: Any) -> None:
        raise SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)")

    monkeypatch.setattr(Loop, "step", counted)
    with monkeypatch.context() as patch:
        patch.setattr(trainer, "save_artifact", full)
        assert main(asked) == 2
    said = capsys.readouterr().err
    assert "error: the disk is full" in said and "give the same command again" in said
    assert not list(folder.glob("runs/*/adapters/*.partial")) and len(steps) == 3
    assert main(asked) == 0
    assert len(steps) == 3, "the steps were made again"


def test_a_disk_without_room_for_the_artifact_is_found_before_training(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(trainer.shutil, "disk_usage", lambda _: SimpleNamespace(free=1000))
    monkeypatch.setattr(Loop, "step", lambda self: pytest.fail("it was trained"))
    assert main(["compare", "lora:rank=2", "--tasks", "mini_mmlu", "--limit", "2", "--steps", "3"]) == 2
    assert "the disk is too full to train: the artifact needs about" in capsys.readouterr().err
