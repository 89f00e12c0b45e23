"""Fixtures of all tests. Tests that need more than a CPU and a minute are skipped where they cannot run; the end of a run lists why."""

import os
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

HUB = "HARNESS_TEST_HUB"
MADE_UP_HUB = Path(__file__).parent / "hub"


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Skips tests that need something this machine lacks, and slow or parity tests unless `-m` selects them."""
    lacking = {
        "slow": "" if config.option.markexpr else "slow: `python -m pytest -m slow` runs them",
        "parity": "" if "parity" in config.option.markexpr else "parity: `make parity` runs them",
        "gpu": "" if shutil.which("nvidia-smi") else "gpu: this machine has none",
        "browser": "" if shutil.which("chromium") else "browser: chromium is not installed",
        "hub": "" if os.environ.get(HUB) else f"hub: {HUB} does not name the local Hub's folder",
    }
    for item in items:
        for marker, reason in lacking.items():
            if reason and item.get_closest_marker(marker):
                item.add_marker(pytest.mark.skip(reason=reason))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Prints how many tests were skipped, by reason."""
    reasons = Counter(
        report.longrepr[2].removeprefix("Skipped: ") for report in terminalreporter.stats.get("skipped", [])
    )
    if reasons:
        terminalreporter.section("left out")
        for reason, count in sorted(reasons.items()):
            terminalreporter.write_line(f"{count:3d}  {reason}")


@pytest.fixture(scope="session", autouse=True)
def _own_home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Keeps the caches of tests out of the user's own folder."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HARNESS_HOME", str(tmp_path_factory.mktemp("home")))
        yield


@pytest.fixture(scope="session")
def hub_endpoint() -> Iterator[str]:
    """Serves the folder in HARNESS_TEST_HUB as a local stand-in for the Hub and returns its address."""
    if not os.environ.get(HUB):
        pytest.skip(f"hub: {HUB} does not name the local Hub's folder")
    command = [sys.executable, str(Path(os.environ[HUB]) / "serve"), "--port", "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout is not None
        yield server.stdout.readline().strip()
        server.terminate()


@pytest.fixture(scope="session")
def _hub_home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("hf_home")


def _hub_variables(endpoint: str, home: Path) -> dict[str, str]:
    return {
        "HF_ENDPOINT": endpoint,
        "HF_HOME": str(home),
        "HF_HUB_DISABLE_XET": "1",
        "HF_HUB_OFFLINE": "0",
        "HF_DATASETS_OFFLINE": "0",
    }


@pytest.fixture(scope="session")
def _fetched(hub_endpoint: str, _hub_home: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("fetched")
    fetch = [sys.executable, "-m", "harness", "data", "fetch", "gsm8k", "humaneval", "mmlu", "--to", str(folder)]
    subprocess.run(fetch, check=True, capture_output=True, env=os.environ | _hub_variables(hub_endpoint, _hub_home))
    return folder


@pytest.fixture
def real_rows(_fetched: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Lets this process read GSM8K, HumanEval and MMLU from fetched files, because libraries read the Hub's address only when imported."""
    monkeypatch.setenv("HARNESS_DATA", str(_fetched))
    return _fetched


@pytest.fixture
def hub(hub_endpoint: str, _hub_home: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """Points child processes at the local Hub and returns its address."""
    for name, value in _hub_variables(hub_endpoint, _hub_home).items():
        monkeypatch.setenv(name, value)
    monkeypatch.delenv("HARNESS_DATA", raising=False)
    return hub_endpoint


@pytest.fixture
def made_up_hub(monkeypatch: pytest.MonkeyPatch) -> Path:
    """Replaces the Hub by the folder of made-up rows and returns that folder."""
    monkeypatch.setenv("HARNESS_DATA", str(MADE_UP_HUB))
    return MADE_UP_HUB


@pytest.fixture
def in_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """Runs the jobs of comparisons and memory plans in this process, and times variants briefly."""
    import in_process

    in_process.use(monkeypatch)
