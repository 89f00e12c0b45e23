"""A third-party package with a task, a method and a metric, installed by pip and used by name."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "plugin_package"


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Installs the package into a folder, offline, from a copy of its sources, because pip may write beside them."""
    folder = tmp_path_factory.mktemp("plugin")
    shutil.copytree(PACKAGE, folder / "source")
    options = ["--no-deps", "--no-build-isolation", "--no-index", "--disable-pip-version-check", "--quiet"]
    command = [
        sys.executable,
        "-m",
        "pip",
        "install",
        *options,
        "--target",
        str(folder / "site"),
        str(folder / "source"),
    ]
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return folder / "site"


def harness(site: Path, tmp_path: Path, *arguments: str) -> str:
    done = subprocess.run(
        [sys.executable, "-m", "harness", *arguments],
        check=False,
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(site)},
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_it_is_listed_without_being_imported(site: Path, tmp_path: Path) -> None:
    (row,) = [
        row for row in json.loads(harness(site, tmp_path, "ls", "tasks", "--format", "json")) if row["name"] == "rivers"
    ]
    assert row["distribution"] == "harness-rivers" and row["licence"] == "CC0"
    assert row["metrics"] == ["exact_match", "same_letter"]
    (line,) = [
        line for line in harness(site, tmp_path, "ls", "methods").splitlines() if line.startswith("lora_of_rivers")
    ]
    assert line.endswith("LoRA on the queries alone.")
    assert "same_letter" in harness(site, tmp_path, "ls", "metrics")


def test_it_is_shown_and_checked(site: Path, tmp_path: Path) -> None:
    assert "Dataset: " not in harness(site, tmp_path, "show", "rivers")
    assert "verb=flows" in harness(site, tmp_path, "show", "harness-rivers/rivers")
    shown = harness(site, tmp_path, "show", "rivers", "--sample", "3", "-T", "verb=runs", "--format", "json")
    assert json.loads(shown)["contexts"] == ["The 长江 runs into the"]
    said = harness(site, tmp_path, "check", "rivers")
    assert "same_letter  oracle 1.00 ✓  chance 0.00" in said and "✗" not in said


def test_a_comparison_takes_its_names(site: Path, tmp_path: Path) -> None:
    code = (
        "from harness.prepare.prepare import prepare\nfrom harness.config.parse import configure\n"
        "made = prepare(configure(['base', 'lora_of_rivers:rank=3'], tasks=['rivers'], device='cpu'))\n"
        "(training,), (task,) = made.trainings, made.tasks\n"
        "print(training.hyperparameters, training.data.examples[0].completion, [m.name for m in task.metrics])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], check=True, capture_output=True, text=True, cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(site)},
    )  # fmt: skip
    assert done.stdout == "{'rank': 3}  Mediterranean\n ['exact_match', 'same_letter']\n"
