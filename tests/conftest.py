"""Fixtures for all tests. Tests that this machine cannot run are skipped, and the summary lists them with the reasons."""

import gc
import os
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import faulty_hubs as hubs
import pytest

HUB = "HARNESS_TEST_HUB"
MADE_UP_HUB = Path(__file__).parent / "hub"


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Skips tests that need something this machine lacks, and slow, parity or real tests unless `-m` selects them."""
    lacking = {
        "slow": "" if config.option.markexpr else "slow: `python -m pytest -m slow` runs them",
        "parity": "" if "parity" in config.option.markexpr else "parity: `make parity` runs them",
        "real": "" if "real" in config.option.markexpr else "real: `make real` runs them",
        "vllm": "" if "vllm" in config.option.markexpr else "vllm: `make vllm HARNESS_VLLM=/path/to/python` runs them",
        "gpu": "" if shutil.which("nvidia-smi") else "gpu: this machine has none",
        "browser": "" if shutil.which("chromium") else "browser: chromium is not installed",
        "hub": "" if os.environ.get(HUB) else f"hub: {HUB} is not set to the folder of the local Hub",
    }
    for item in items:
        for marker, reason in lacking.items():
            if reason and item.get_closest_marker(marker):
                item.add_marker(pytest.mark.skip(reason=reason))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Lists skipped tests by reason."""
    reasons = Counter(
        report.longrepr[2].removeprefix("Skipped: ") for report in terminalreporter.stats.get("skipped", [])
    )
    if reasons:
        terminalreporter.section("left out")
        for reason, count in sorted(reasons.items()):
            terminalreporter.write_line(f"{count:3d}  {reason}")


@pytest.fixture(autouse=True)
def _no_vllm(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Hides a vLLM of this machine from tests that are not about it."""
    if not request.node.get_closest_marker("vllm"):
        monkeypatch.delenv("HARNESS_VLLM", raising=False)


@pytest.fixture(scope="session", autouse=True)
def _own_home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Sets `HARNESS_HOME` to a temporary folder, so that tests never write to the user's own."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HARNESS_HOME", str(tmp_path_factory.mktemp("home")))
        yield


@pytest.fixture(scope="module", autouse=True)
def _frozen() -> None:
    """Takes all that has been imported out of the garbage collection that every load of a base and every training starts."""
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="session")
def hub_endpoint() -> Iterator[str]:
    """Address of a local copy of the Hub, served from the folder in HARNESS_TEST_HUB."""
    if not os.environ.get(HUB):
        pytest.skip(f"hub: {HUB} is not set to the folder of the local Hub")
    with hubs.hub() as address:
        yield address


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
    """Fetched copies of GSM8K, HumanEval and MMLU for this process (libraries read the Hub's address only at import)."""
    monkeypatch.setenv("HARNESS_DATA", str(_fetched))
    return _fetched


@pytest.fixture
def hub(hub_endpoint: str, _hub_home: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """Address of the local Hub, which child processes use through their environment."""
    for name, value in _hub_variables(hub_endpoint, _hub_home).items():
        monkeypatch.setenv(name, value)
    monkeypatch.delenv("HARNESS_DATA", raising=False)
    return hub_endpoint


@pytest.fixture
def made_up_hub(monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of made-up rows in Hub layout, which is read instead of the Hub."""
    monkeypatch.setenv("HARNESS_DATA", str(MADE_UP_HUB))
    return MADE_UP_HUB


@pytest.fixture
def in_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """Runs the jobs of comparisons and memory plans in this process, and times variants briefly."""
    import in_process

    in_process.use(monkeypatch)
