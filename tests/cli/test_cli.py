"""The command line: arguments, output and exit codes."""

import json
import os
import signal
import subprocess
import sys
import time
import types
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import pytest
from example_run import example_run

from harness.cli import main
from harness.cli.options import Flags, takes
from harness.comparison import dry_run
from harness.comparison import run as comparison
from harness.config.config import Config
from harness.config.parse import configure
from harness.settings import TrainSettings
from harness.worker import server


@pytest.fixture(autouse=True)
def _folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """Replaces `comparison.run`: records its arguments and returns `asked["run"]`."""
    asked: dict[str, Any] = {"run": example_run()}

    def run(config: Any, *, progress: Any, fresh: bool, command: str) -> Any:
        asked.update(config=config, fresh=fresh, command=command)
        return asked["run"]

    monkeypatch.setattr(comparison, "run", run)
    return asked


def test_flags_become_the_configuration(asked: dict[str, Any]) -> None:
    code = main(
        [
            "compare",
            "base",
            "l=lora:rank=8",
            "-m",
            "tiny",
            "-t",
            "mini_gsm8k,mini_mmlu",
            "-n",
            "50",
            "--num_fewshot",
            "2",
            "--train",
            "mini_gsm8k",
            "--train-samples",
            "100",
            "--steps",
            "10",
            "--lr",
            "1e-4",
            "--seed",
            "3",
            "--device",
            "cpu",
            "--dtype",
            "float32",
            "--numerics",
            "lm-eval",
            "--engine",
            "plain",
            "--batch-size",
            "3",
            "--baseline",
            "l",
            "-o",
            "out",
            "--fresh",
            "--quiet",
        ]
    )
    assert code in (0, 1) and asked["fresh"]
    config = asked["config"]
    assert config == configure(
        ["base", "l=lora:rank=8"], tasks=["mini_gsm8k", "mini_mmlu"], limit=50, num_fewshot=2, seed=3, device="cpu",
        train={"data": "mini_gsm8k", "samples": 100, "steps": 10, "lr": 1e-4}, dtype="float32", numerics="lm-eval",
        engine="plain", batch_size=3, baseline="l", output_dir="out",
    )  # fmt: skip


def test_every_flag_sets_a_field_that_exists() -> None:
    sets = [field.metadata["sets"] for field in fields(Flags) if field.metadata["sets"]]
    train = {name.removeprefix("train.") for name in sets if name.startswith("train.")}
    assert train <= set(TrainSettings.model_fields)
    assert {name for name in sets if "." not in name} <= set(Config.model_fields)


def test_the_help_of_every_setting_says_its_default() -> None:
    for each in fields(Flags):
        group, _, name = each.metadata["sets"].rpartition(".")
        said = each.metadata["option"].help
        if not name or isinstance(each.default, bool) or "repeatable" in said:
            continue
        default = (TrainSettings if group else Config).model_fields[name].default
        shown = str(default) if isinstance(default, str | int | Path) else ""
        assert f"default: {shown}" in said.replace("`", ""), f"{each.name}: {said}"


def test_a_command_takes_only_flags_that_are_declared() -> None:
    with pytest.raises(TypeError, match="limt"):
        takes("model limt")


def test_json_is_the_only_thing_on_stdout(asked: dict[str, Any], capfd: pytest.CaptureFixture[str]) -> None:
    main(["compare", "base", "lora", "--format", "json"])
    out, err = capfd.readouterr()
    assert json.loads(out) == json.loads(asked["run"].to_json())
    assert "Read" in err


def test_quiet_says_nothing_on_stderr(asked: dict[str, Any], capfd: pytest.CaptureFixture[str]) -> None:
    main(["compare", "base", "lora", "--format", "json", "-q"])
    assert capfd.readouterr().err == ""


def test_a_failed_variant_makes_the_exit_code_1(asked: dict[str, Any]) -> None:
    run = asked["run"]
    assert main(["compare", "-q"]) == int(any(variant.status == "failed" for variant in run.variants))
    done = [variant.model_copy(update={"status": "done"}) for variant in run.variants]
    asked["run"] = run.model_copy(update={"variants": tuple(done)})
    assert main(["compare", "-q"]) == 0
    asked["run"] = run.model_copy(update={"variants": (*done[:-1], done[-1].model_copy(update={"status": "failed"}))})
    assert main(["compare", "-q"]) == 1


def test_a_gate_that_is_shown_makes_the_exit_code_1(asked: dict[str, Any], capfd: pytest.CaptureFixture[str]) -> None:
    run = asked["run"]
    done = tuple(variant.model_copy(update={"status": "done"}) for variant in run.variants)
    asked["run"] = run.model_copy(update={"variants": done})
    names = [variant.name for variant in done][:2]
    tasks = run.tasks[0].name
    headline = {
        v.name: next(s.value for s in v.scores if (s.task, s.metric) == (tasks, run.tasks[0].headline))
        for v in done[:2]
    }
    bound = headline[names[1]] + 1
    specs = [names[0], *(f"{name}=lora" for name in names[1:])]
    above, below = (f"{names[1]}.{tasks} {sign} {bound}" for sign in "><")
    assert main(["compare", *specs, "-q", "--fail-if", above]) == 0
    assert main(["compare", *specs, "-q", "--fail-if", below]) == 1
    assert f"FAIL --fail-if {below}" in capfd.readouterr().err
    assert main(["compare", *specs, "-q", "--fail-unless", below]) == 0
    assert main(["compare", *specs, "-q", "--fail-unless", above]) == 1
    assert f"FAIL --fail-unless {above}" in capfd.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "error", "hint"),
    [
        ("compar", "no such command 'compar'", "did you mean 'compare'?"),
        ("compare --modle x", "no such option: --modle", "did you mean `--model`?"),
        ("compare lor", "unknown method `lor`", "did you mean `lora`"),
        ("compare --limit many", "invalid value for '--limit'", "--help"),
        ("compare base -t mini_gsm9k", "unknown task `mini_gsm9k`", "`mini_gsm8k`"),
        ("compare base -T year", "`-T year` is not key=value", "-T year=2024"),
        ("compare base -c gone.yaml", "could not read `gone.yaml`", "--config"),
        ("eval", "missing argument 'VARIANT'", "--help"),
        ("train base", "`base` is not trained", "ls methods"),
        ("show nothing_like_it", "no run, task or method `nothing_like_it`", ""),
        ("show mini_gsm8k --sample 100000", "has no sample 100000", "from 0"),
        ("check gone.py", "no file `gone.py`", ""),
        ("report gone", "no run at `gone`", ""),
        ("new task import", "`import` cannot be the name of a task", ""),
        ("ls task", "'task' is not one of", ""),
    ],
)
def test_a_mistake_gets_error_hint_and_exit_code_2(
    arguments: str, error: str, hint: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*arguments.split(), *(["-q"] if arguments.startswith(("compare", "train")) else [])]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    first, _, rest = err.partition("\n\nhint: ")
    assert first.startswith("error: ") and error in first and hint in rest and "Traceback" not in err


def test_a_mistake_is_a_document_where_json_was_asked_for(capsys: pytest.CaptureFixture[str]) -> None:
    for asked in (["show", "nowhere", "--format", "json"], ["show", "nowhere", "--format=json"]):
        assert main(asked) == 2
        out, err = capsys.readouterr()
        assert json.loads(out)["error"] == "no run, task or method `nowhere`" and json.loads(out)["hint"]
        assert err.startswith("error: no run, task or method `nowhere`")


def test_a_bug_shows_its_traceback_and_exits_3(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(comparison, "run", lambda *_, **__: 1 / 0)
    assert main(["compare", "-q"]) == 3
    assert "ZeroDivisionError" in capsys.readouterr().err


def test_a_full_disk_is_a_user_error(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def run(*_: Any, **__: Any) -> None:
        raise OSError(28, "No space left on device", "runs/x")

    monkeypatch.setattr(comparison, "run", run)
    assert main(["compare", "-q"]) == 2
    assert "the disk is full: could not write `runs/x`" in capsys.readouterr().err


def test_a_reader_that_has_seen_enough_gets_no_error() -> None:
    Path("runs/r1").mkdir(parents=True)
    Path("runs/r1/run.json").write_text(example_run().to_json())
    for form in ("human", "json"):
        shown = subprocess.Popen(
            [sys.executable, "-m", "harness", "show", "r1", "--format", form],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        assert shown.stdout is not None and shown.stderr is not None
        shown.stdout.close()
        assert (shown.stderr.read(), shown.wait()) == ("", 141)


def test_ctrl_c_exits_130(monkeypatch: pytest.MonkeyPatch) -> None:
    def run(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(comparison, "run", run)
    assert main(["compare", "-q"]) == 130


PLAN = dry_run.Plan(
    model="tiny",
    digest="9db9fa5b569d0000",
    train=(dry_run.PlannedTraining("lora:rank=4", "150 steps", 16, 2e-3, False, 800, "mini_mmlu", 0),),
    score=(dry_run.PlannedTask("mini_mmlu", 7, "choose", 1200, 300, 0),),
    rows={"base": "base", "lora:rank=4": "lora:rank=4"},
    fails={},
)


def test_a_dry_run_prints_a_file_that_asks_for_the_same(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(dry_run, "plan", lambda config: PLAN)
    assert main(["compare", "base", "lora:rank=4", "--limit", "7", "--dry-run", "-q"]) == 0
    out = capsys.readouterr().out
    assert out.startswith(
        "# model  tiny  9db9fa5b569d\n# train  lora:rank=4  150 steps of batch 16, lr 0.002, 800 rows"
    )
    Path("again.yaml").write_text(out)
    assert configure(file=Path("again.yaml")) == configure(["base", "lora:rank=4"], limit=7)


def test_a_dry_run_as_json_has_the_plan_and_the_configuration(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(dry_run, "plan", lambda config: replace(PLAN, fails={"lora:rank=4": "no such layer"}))
    assert main(["eval", "lora:rank=4", "--limit", "7", "--dry-run", "--format", "json"]) == 1
    found = json.loads(capsys.readouterr().out)
    assert found["config"]["limit"] == 7
    assert found["plan"]["score"][0]["tokens_computed"] == 300
    assert found["plan"]["fails"] == {"lora:rank=4": "no such layer"}


def test_ls_and_show_list_what_exists(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["ls", "tasks"]) == 0 and "mini_gsm8k" in capsys.readouterr().out
    assert main(["ls", "methods", "--format", "json"]) == 0
    assert "lora" in [row["name"] for row in json.loads(capsys.readouterr().out)]
    assert main(["show", "lora"]) == 0
    assert "rank=16   int" in capsys.readouterr().out
    assert main(["ls", "runs"]) == 0
    assert capsys.readouterr().err == "no runs found\n"


def test_show_prints_the_exact_prompt(capsys: pytest.CaptureFixture[str]) -> None:
    Path("t.py").write_text(
        "from harness import Generate, Task, exact_match, task\n\n@task\ndef t(*, end: str = '?') -> Task:\n"
        "    return Task(data=[{'q': 'a', 'a': 'b'}], sample=lambda row: Generate(row['q'] + end, row['a']),"
        " metrics=[exact_match])\n"
    )
    assert main(["show", "./t.py", "--sample", "0", "-T", "end=!"]) == 0
    assert "── prompt\na!\n── stop [], at most 256 tokens\n── target\nb\n" in capsys.readouterr().out


def test_a_run_is_shown_listed_and_reported(capsys: pytest.CaptureFixture[str]) -> None:
    run = example_run()
    Path("runs/r1").mkdir(parents=True)
    Path("runs/r1/run.json").write_text(run.to_json())
    assert main(["ls", "runs"]) == 0 and "r1" in capsys.readouterr().out
    assert main(["show", "r1"]) == 0 and run.variants[0].name in capsys.readouterr().out
    assert main(["show", "runs/r1", "--format", "json"]) == 0
    assert json.loads(capsys.readouterr().out) == json.loads(run.to_json())
    assert main(["report", "r1", "--to", "md,csv"]) == 0
    written = [Path(line) for line in capsys.readouterr().out.split()]
    assert len(written) == 2 and all(path.is_file() for path in written)


def test_the_latest_run_needs_no_name(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["show", "latest"]) == 2
    assert "error: `runs` has no run" in capsys.readouterr().err
    for day, name in ((2, "new"), (1, "old")):
        folder = Path("elsewhere", name)
        folder.mkdir(parents=True)
        run = example_run().model_copy(update={"created": f"2026-01-0{day}T00:00:00+00:00", "notes": (name,)})
        (folder / "run.json").write_text(run.to_json())
    assert main(["show", "latest", "-o", "elsewhere", "--format", "json"]) == 0
    assert json.loads(capsys.readouterr().out)["notes"] == ["new"]
    assert main(["report", "latest", "-o", "elsewhere"]) == 0
    assert capsys.readouterr().out == "elsewhere/new/report.md\n"


def test_a_new_method_is_listed_and_reads_as_a_variant() -> None:
    assert main(["new", "method", "rivers"]) == 0
    assert configure(["./rivers.py:rank=4"]).variants[0].hyperparameters == {"rank": 4, "alpha": 8}


@pytest.mark.slow
def test_a_new_method_passes_its_check(capsys: pytest.CaptureFixture[str]) -> None:
    main(["new", "method", "rivers"])
    assert main(["check", "rivers.py"]) == 0
    assert "parameters of a tiny random Llama are trained" in capsys.readouterr().out


def test_env_shows_no_secret_and_imports_no_torch(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_very_secret")
    monkeypatch.setenv("HARNESS_HOME", "/somewhere")
    assert main(["env", "--format", "json"]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert facts["HF_TOKEN"] == "(set)" and facts["HARNESS_HOME"] == "/somewhere"
    assert facts["torch"][0].isdigit() and facts["harness"]


def test_a_line_is_on_stderr_before_anything_slow_is_imported() -> None:
    command = [sys.executable, "-X", "importtime", "-m", "harness", "compare", "base", "--dry-run"]
    imported = set()
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        for line in process.stderr:
            if not line.startswith("import time:"):
                break
            imported.add(line.rsplit("|", 1)[1].strip())
        process.kill()
    assert line.startswith("Read") and "harness.cli" in imported
    assert not {"torch", "transformers", "datasets", "tokenizers", "numpy"} & imported


def test_modules_of_commands_do_not_shadow_public_names() -> None:
    import harness

    assert not isinstance(harness.compare, types.ModuleType)


def test_the_command_alone_prints_help_and_no_error(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 0
    said = capsys.readouterr()
    assert "compare" in said.out and "error:" not in said.out + said.err


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129)])
def test_signals_end_a_command_with_one_sentence(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], number: int, code: int
) -> None:
    def interrupted(config: Any, **_: Any) -> Any:
        os.kill(os.getpid(), number)
        time.sleep(5)

    before = signal.signal(number, signal.default_int_handler)  # a background job of a script ignores Ctrl-C
    monkeypatch.setattr(comparison, "run", interrupted)
    assert main(["compare", "base", "--limit", "2", "--fresh", "-q"]) == code
    signal.signal(number, before)
    said = capsys.readouterr().err.strip()
    assert said == "interrupted; finished work is kept. To continue: harness compare base --limit 2 -q"


def test_a_worker_that_dies_at_its_start_is_one_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(server, "_SERVE", "import sys; sys.exit(3)")
    assert main(["compare", "base", "--limit", "2", "-o", str(tmp_path), "-q"]) == 2
    said = capsys.readouterr().err
    assert "the worker process could not start the run: the worker process died: the process ended with code 3" in said
    assert "Traceback" not in said and "harness env" in said and not list(tmp_path.iterdir())
