"""Completion in the shell: the words of variants, tasks and runs, and the script that sets it up."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from harness.cli import completion


def test_words_begin_as_typed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("tiny-1", "tiny-2"):
        (tmp_path / "runs" / name).mkdir(parents=True)
        (tmp_path / "runs" / name / "run.json").write_text("{}")
    assert {"lora", "lora_fa"} <= set(completion.variants("lor")) and list(completion.variants("bas")) == ["base"]
    assert list(completion.tasks("mini_gsm8k,mini_mm")) == ["mini_gsm8k,mini_mmlu"]
    assert list(completion.runs("")) == ["latest", "tiny-2", "tiny-1"]
    assert list(completion.runs("tiny-1")) == ["tiny-1"]


def test_the_shell_gets_words_and_nothing_else() -> None:
    asked = {"_HARNESS_COMPLETE": "complete_bash", "COMP_WORDS": "harness compare base -t mini_mm", "COMP_CWORD": "4"}
    script = "import sys; sys.argv = ['harness']; from harness.cli import main; sys.exit(main())"
    done = subprocess.run(
        [sys.executable, "-c", script], env={**os.environ, **asked}, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout.split(), done.stderr) == (0, ["mini_mmlu"], "")
