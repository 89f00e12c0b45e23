"""NaN, no memory, a crash and a hang, in training and in scoring: the row fails with a clear sentence, the others finish.

Each fault is a method of a user's file that misbehaves at the forward of one stage, in the real child.
"""

import json
from pathlib import Path

import fault_runs as faults
import pytest

pytestmark = [pytest.mark.slow, pytest.mark.faults]

METHODS = '''
import ctypes, os, resource, sys, time
import torch
from harness import method

def stage():
    """The stage of this child, by the functions that are running."""
    frame, names = sys._getframe(), set()
    while frame:
        names.add(frame.f_code.co_name)
        frame = frame.f_back
    return "train" if "_forward_and_backward" in names else "score" if "_score_task" in names else "other"

def fill():
    """Lowers the limit of this process to what it has, as `prlimit --as` does from outside, and goes on."""
    pages = int(open("/proc/self/statm").read().split()[0])
    limit = pages * resource.getpagesize()
    resource.prlimit(os.getpid(), resource.RLIMIT_AS, (limit, limit))
    return torch.ones(1 << 28)

FAULTS = {
    "nan": lambda: float("nan"),
    "memory": lambda: fill()[0],
    "crash": lambda: ctypes.string_at(0),
    "hang": lambda: time.sleep(10**6),
}

@method(lr=1e-2)
def faulty(model, *, fault: str = "nan", when: str = "train"):
    """Trains the last norm, and misbehaves in one stage."""
    norm = model.model.norm
    norm.requires_grad_(True)
    norm.register_forward_hook(lambda module, given, made: made * FAULTS[fault]() if stage() == when else None)
    return model
'''
SENTENCES = {
    ("nan", "train"): "the loss of step 1 is nan",
    ("nan", "score"): "are not numbers",
    ("memory", "train"): "out of memory",
    ("memory", "score"): "out of memory",
    ("crash", "train"): "the process was killed by SIGSEGV, in code of `faulty.py`",
    ("crash", "score"): "the process was killed by SIGSEGV, in code of `faulty.py`",
    ("hang", "train"): "the process hung, in code of `faulty.py` or below it: for 8 s it reported nothing",
    ("hang", "score"): "the process hung, in code of `faulty.py` or below it: for 8 s it reported nothing",
}
GOOD = ("base", "first=lora", "last=lora:rank=4")


def test_a_fault_fails_its_row_alone(tmp_path: Path) -> None:
    (tmp_path / "faulty.py").write_text(METHODS)
    rows = {f"{fault}-{when}": f"./faulty.py@faulty:fault={fault},when={when}" for fault, when in SENTENCES}
    variants = [*GOOD[:2], *(f"{name}={spec}" for name, spec in rows.items()), GOOD[2]]
    asked = (*variants, "--tasks", "mini_mmlu", "--limit", "8", "--steps", "2", "--train-batch-size", "4")
    code, run, said = faults.finish(tmp_path, *asked, "--no-timing", HARNESS_HANG_SECONDS="8")
    assert run is not None, said
    print(json.dumps({each.name: each.error for each in run.variants}, indent=1))
    assert code == 1 and "Traceback" not in said, said
    for variant in run.variants:
        if variant.name in rows:
            fault, when = variant.name.split("-")
            assert variant.status == "failed" and SENTENCES[fault, when] in str(variant.error)
        else:
            assert (variant.status, variant.error) == ("done", None) and variant.scores
    assert faults.leftovers(tmp_path) == []
    faults.refuse_held_lock(tmp_path)
