"""Checks our numbers against lm-evaluation-harness: `make parity` runs every case and writes the table in README.md."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from cases import CASES, REAL, Case

pytestmark = [pytest.mark.parity, pytest.mark.hub]

HERE = Path(__file__).parent
SHAPES = ("script", "llama", "qwen3", "gpt2")
Found = dict[tuple[str, str], list[dict[str, object]]]


@pytest.fixture(scope="module")
def verdicts(tmp_path_factory: pytest.TempPathFactory) -> Found:
    """Runs the job, which also writes the page, and returns all verdicts by case and shape."""
    pytest.importorskip("lm_eval", reason="parity: `pip install -e '.[parity]'`")
    folder = tmp_path_factory.mktemp("parity")
    with served(folder / "hub") as endpoint:
        environment = {
            "HF_ENDPOINT": endpoint,
            "HF_HOME": str(
                folder / "hf"
            ),  # a fresh cache: it decides the order of choices in lm-evaluation-harness's gpqa
            "HF_HUB_DISABLE_XET": "1",
            "HF_HUB_DISABLE_PROGRESS_BARS": "1",
            "HF_DATASETS_DISABLE_PROGRESS_BARS": "1",
            "TQDM_DISABLE": "1",
            "TOKENIZERS_PARALLELISM": "false",
        }
        inherited = {
            name: value for name, value in os.environ.items() if name not in ("HARNESS_DATA", "HF_HUB_OFFLINE")
        }
        subprocess.run(
            [sys.executable, str(HERE / "job.py"), str(folder), str(HERE / "README.md")],
            env=inherited | environment,
            check=True,
        )
    found: Found = {}
    for line in (folder / "verdicts.jsonl").read_text().splitlines():
        verdict = json.loads(line)
        found.setdefault((verdict["case"], verdict["shape"]), []).append(verdict)
    return found


@contextmanager
def served(root: Path) -> Iterator[str]:
    """Serves a stand-in for the Hub, with real rows where they are available and made-up rows elsewhere."""
    real = Path(os.environ["HARNESS_TEST_HUB"])
    for hub in (HERE.parent / "hub", real):
        for dataset in (hub / "datasets").glob("*/*"):
            link = root / dataset.relative_to(hub)
            if hub != real or "/".join(dataset.parts[-2:]) in REAL:
                link.parent.mkdir(parents=True, exist_ok=True)
                link.unlink(missing_ok=True)
                link.symlink_to(dataset)
    command = [sys.executable, str(real / "serve"), "--port", "0", "--root", str(root)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout is not None
        yield server.stdout.readline().strip()
        server.terminate()


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.id)
def test_both_sides_agree(case: Case, shape: str, verdicts: Found) -> None:
    found = verdicts[case.id, shape]
    assert [verdict["difference"] for verdict in found if verdict["difference"]] == []
    assert len(found) == (1 if shape == "script" else 2)
