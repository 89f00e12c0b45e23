"""The gates of the GitHub Action in leaderboards/README.md, run as written there."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import in_process
import pytest
import yaml

from harness.cli import main

ROOT = Path(__file__).parents[2]


def test_the_published_github_action_runs_and_its_exit_code_follows_its_gates(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    in_process.use(monkeypatch)
    monkeypatch.chdir(tmp_path)
    [snippet] = re.findall(
        r"```yaml\n(name: quality\n.*?)```",
        (ROOT / "leaderboards" / "README.md").read_text(encoding="utf-8"),
        re.DOTALL,
    )
    *_, step = yaml.safe_load(snippet)["jobs"]["gates"]["steps"]
    text = step["run"].replace("\\\n", " ").replace("--limit 100 --steps 100", "--limit 20 --steps 8")  # cheaper
    program, *arguments = shlex.split(text)
    assert program == "harness" and "20" in arguments
    code = main([*arguments, "-q"])
    written = capfd.readouterr().err
    outcomes = re.findall(r"^(PASS|FAIL|UNDECIDED) --fail-(if|unless) ", written, re.MULTILINE)
    assert [flag for _, flag in outcomes] == ["if", "unless"], written
    assert code == int(("FAIL", "if") in outcomes or ("PASS", "unless") not in outcomes), written
    asked = arguments[: arguments.index("--fail-if")]
    assert main([*asked, "-q", "--fail-if", "lora.mini_gsm8k < 0", "--fail-unless", "lora.mini_gsm8k < 2"]) == 0
    assert main([*asked, "-q", "--fail-if", "lora.mini_gsm8k < 2"]) == 1, "the finished run, judged again"
    assert "FAIL --fail-if lora.mini_gsm8k < 2" in capfd.readouterr().err
