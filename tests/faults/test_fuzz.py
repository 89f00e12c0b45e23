"""Random inputs for every reader: nothing but `UserError`. A case that fails is kept in `corpus` and stays in the suite.

`FUZZ_SECONDS` sets the time for each reader (300), `FUZZ_SEED` the random numbers.
"""

import hashlib
import os
import random
import time
from collections import Counter
from pathlib import Path

import fuzzing
import pytest

SECONDS = float(os.environ.get("FUZZ_SECONDS", "300"))
SEED = int(os.environ.get("FUZZ_SEED", "0"))
MOST = 20
"""Different failures after which a reader's time is over."""


@pytest.mark.slow
@pytest.mark.faults
@pytest.mark.parametrize("target", fuzzing.TARGETS)
def test_random_inputs_are_read_or_refused(target: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    fuzzing.quiet()
    found: dict[str, bytes] = {}
    outcomes = Counter[bool]()
    end = time.monotonic() + SECONDS
    for case in fuzzing.cases(target, random.Random(SEED)):
        if time.monotonic() > end or len(found) >= MOST:
            break
        (tmp_path / "case").write_bytes(case)  # what was read last, if it ends the process
        problem = fuzzing.fails(fuzzing.TARGETS[target], case, tmp_path)
        outcomes[problem is None] += 1
        if problem and (kind := problem.partition(": ")[0]) not in found:
            found[kind] = case
            kept = fuzzing.CORPUS / target / hashlib.sha256(case).hexdigest()[:12]
            kept.parent.mkdir(parents=True, exist_ok=True)
            kept.write_bytes(case)
            print(f"{target}: {problem}: {kept}", flush=True)
    print(f"{target}: {outcomes.total()} inputs, {outcomes[False]} failures of {len(found)} kinds")
    assert not found


KEPT = sorted(path for path in fuzzing.CORPUS.glob("*/*") if path.is_file())


@pytest.mark.parametrize("path", KEPT, ids=lambda path: f"{path.parent.name}-{path.name}")
def test_an_input_that_failed_once_is_read_or_refused(
    path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert fuzzing.fails(fuzzing.TARGETS[path.parent.name], path.read_bytes(), tmp_path) is None
