"""The server never starts CUDA: a process that did cannot give the GPU to the children it forks."""

import subprocess
import sys
from collections.abc import Sequence

PROGRAM = """
import os, sys, torch
from harness.worker import server
os.environ.update(server._environment())
touched = []
torch.version.cuda = "13.0"
torch._C._cuda_getCurrentRawStream = lambda device: 0  # of a build with CUDA, as inductor expects
torch.cuda._is_compiled = lambda: True
torch.cuda._device_count_nvml = lambda: {count}
server._GPUS = {files}
torch._C._cuda_getDeviceCount = lambda: touched.append("device count") or 1
def start(*_):
    touched.append("start")
    raise RuntimeError("CUDA is started")
torch.cuda._lazy_init = torch.cuda.init = start
server._import_everything()
print(str(touched), torch.cuda.is_available(), "bitsandbytes" in sys.modules, "transformers" in sys.modules)
{more}
"""


def run(more: str = "", *, count: int = 1, files: Sequence[str] = ()) -> str:
    program = PROGRAM.format(more=more, count=count, files=tuple(files))
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


JOBS = """
torch.cuda._lazy_init = torch.cuda.init = lambda: None
from pathlib import Path
from harness.jobs import Base, EnvironmentJob, MergeJob, Recipe
server.run_job = lambda job, send, further: "bitsandbytes" in sys.modules
for job in (EnvironmentJob("cpu", "auto"), MergeJob(Recipe(Base(Path("none"), "cpu", "float32")), Path("none"))):
    done = server._work(job, None, None)
    print(getattr(done, "value", done))
"""


def test_what_it_imports_leaves_cuda_alone_where_there_is_a_gpu_and_so_does_a_job_without_weights() -> None:
    assert run(JOBS).splitlines() == ["[] True False True", "False", "True"]


def test_parts_of_a_gpu_which_only_cuda_can_count_are_left_alone_too() -> None:
    before, after = run("print(touched)", count=-1, files=["/dev/null"]).splitlines()
    assert (before, after) == ("[] True False True", "['device count']"), "counted by this test alone, at the end"


def test_the_test_sees_a_library_that_starts_cuda() -> None:
    assert "['start']" in run("import bitsandbytes\nprint(touched)")
