"""The server never starts CUDA: a process that did cannot give the GPU to the children it forks."""

import subprocess
import sys

PROGRAM = """
import os, sys, torch
from harness.worker import server
os.environ.update(server._environment())
touched = []
torch._C._cuda_getCurrentRawStream = lambda device: 0  # of a build with CUDA, as inductor expects
torch.cuda._is_compiled = lambda: True
torch.cuda._device_count_nvml = lambda: 1
torch._C._cuda_getDeviceCount = lambda: touched.append("device count") or 1
def start(*_):
    touched.append("start")
    raise RuntimeError("CUDA is started")
torch.cuda._lazy_init = torch.cuda.init = start
server._import_everything()
assert torch.cuda.is_available()
print(touched, "bitsandbytes" in sys.modules, "transformers" in sys.modules)
{more}
"""


def run(more: str = "") -> str:
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM.format(more=more)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_what_it_imports_leaves_cuda_alone_where_there_is_a_gpu() -> None:
    assert run() == "[] False True\n"


def test_the_test_sees_a_library_that_starts_cuda() -> None:
    assert "['start']" in run("import bitsandbytes\nprint(touched)")


JOBS = """
from pathlib import Path
from harness.jobs import Base, EnvironmentJob, MergeJob, Recipe
server.run_job = lambda job, send, further: "bitsandbytes" in sys.modules
for job in (EnvironmentJob("cpu", "auto"), MergeJob(Recipe(Base(Path("none"), "cpu", "float32")), Path("none"))):
    done = server._work(job, None, None)
    print(getattr(done, "value", done))
"""


def test_a_job_without_weights_leaves_cuda_alone_too() -> None:
    found = run(f"torch.cuda._lazy_init = torch.cuda.init = lambda: None\n{JOBS}").splitlines()
    assert found == ["[] False True", "False", "True"]
