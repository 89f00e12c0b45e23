"""The server and its children as real processes: results, failed jobs, and which processes end together."""

import fcntl
import json
import os
import pickle
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import tiny_models as tiny

from harness.errors import UserError, is_out_of_memory
from harness.jobs import (
    Advanced,
    BenchJob,
    EnvironmentJob,
    Example,
    Packed,
    Recipe,
    Resumed,
    RowLengthsJob,
    ScoreJob,
    ScoreVariant,
    TrainJob,
    VariantLoading,
    VariantStarted,
)
from harness.settings import TrainingSettings
from harness.storage import writing
from harness.tokens.training_labels import row_lengths
from harness.worker import server as worker
from harness.worker.server import JobFailed, Server

METHODS = """
import os, signal, sys, time
from pathlib import Path
import torch
from harness import UserError, method

@method
def device_full(model):
    raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB")

@method
def host_full(model):
    raise MemoryError

@method
def killed(model):
    os.kill(os.getpid(), signal.SIGKILL)

@method
def crashed(model):
    os.kill(os.getpid(), signal.SIGSEGV)

@method
def left(model):
    os._exit(7)

@method
def refused(model):
    raise UserError("no such layer", hint="name another")

@method
def broken(model):
    return model.no_such_attribute

@method
def torn(model):
    # dies while sending a message longer than any buffer between the processes
    import threading
    (frame,) = [f.f_locals for f in frames() if f.f_code.co_name == "_fork"]
    connection = frame["writer"]
    threading.Timer(0.3, os.kill, (os.getpid(), signal.SIGKILL)).start()
    os.write(connection.fileno(), (1 << 20).to_bytes(4, "big") + b"half a message")
    time.sleep(60)

def frames():
    frame = sys._getframe()
    while frame:
        yield frame
        frame = frame.f_back

@method
def loud(model):
    print("to stdout")
    sys.stdout.flush()
    raise UserError("said it")

@method
def endless(model, *, mark: str = ""):
    Path(mark).write_text(f"{os.getpid()} {os.getppid()}")
    time.sleep(600)
"""


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("worker")
    tiny.save_tiny(root / "llama")
    (root / "methods.py").write_text(METHODS)
    return root


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with Server() as server:
        yield server


def training_of(root: Path, name: str, **hyperparameters: Any) -> TrainJob:
    own = f"def {name}(" in METHODS
    method = tiny.from_file(root / "methods.py", name, **hyperparameters) if own else tiny.built_in(name)
    return TrainJob(
        base=tiny.tiny_base(root / "llama"),
        method=method,
        training=TrainingSettings(lr=1e-3, steps=2, batch_size=2, micro_batch_size=2, max_length=64),
        examples=[Example("hello", " world")] * 4,
        saves="delta",
        output=root / name,
        log=root / f"{name}.jsonl",
        state=root / f"{name}.state",
        train_key="key",
    )


def scoring_of(root: Path) -> ScoreJob:
    requests = (tiny.task(tiny.choose("hello", [" world", " two"])),)
    return ScoreJob(
        [ScoreVariant("base", tiny.bare(tiny.tiny_base(root / "llama")), requests)], "auto", "fp32", 64, None, 0
    )


def test_the_server_counts_the_tokens_of_rows(server: Server, root: Path) -> None:
    rows = [Example("hello", " world", rejected=" world world"), Example("hello hello", " a")]
    found = server.run(RowLengthsJob(root / "llama", rows, answered=True))
    assert found == row_lengths(root / "llama", rows, answered=True) == [4, 5]
    assert server.run(RowLengthsJob(root / "llama", rows, answered=False)) == [1, 3]


def test_the_environment_is_reported(server: Server) -> None:
    told = server.run(EnvironmentJob("cpu", "auto"))
    assert told["device"] == "cpu"
    assert told["dtype"] == "float32"
    assert set(told["packages"]) == {"torch", "transformers", "peft", "bitsandbytes"}
    assert {type(version) for version in told["packages"].values()} == {str}, "another type imports torch in the parent"
    json.dumps(told)
    assert server.run(EnvironmentJob("cpu", "bfloat16"))["mixed_precision"], "what is trained is kept in float32"


def test_events_arrive_in_order_and_then_the_result(server: Server, root: Path) -> None:
    events: list[Any] = []
    assert server.run(scoring_of(root), events.append) is None
    kinds = [type(event) for event in events if not isinstance(event, Advanced)]
    assert kinds == [VariantLoading, VariantStarted, Resumed, Packed] and isinstance(events[-1], Advanced)
    assert all(
        value < 0 for value in next(event for event in events if isinstance(event, Packed)).raws[0].loglikelihoods
    )


def test_a_training_job_returns_its_record_and_leaves_its_artifact(server: Server, root: Path) -> None:
    events: list[Any] = []
    trained = server.run(training_of(root, "lora"), events.append)
    assert (trained.steps, [event.done for event in events]) == (2, [1, 2])
    assert (root / "lora" / "adapter_model.safetensors").is_file()


def test_a_bench_times_the_variant_and_its_base_in_turn(server: Server, root: Path) -> None:
    base = tiny.tiny_base(root / "llama")
    tiny.save_random_lora(root / "adapter", base)
    job = BenchJob(
        Recipe(base, root / "adapter"), True, prompt_tokens=8, new_tokens=3, warmup=1, repeats=2, batch_sizes=(1, 2)
    )
    benched = server.run(job)
    assert (benched.prompt_tokens, benched.new_tokens) == (8, 3)
    assert [len(benched.prefill_seconds), len(benched.base_prefill_seconds)] == [2, 2]
    assert [len(benched.decode_seconds), len(benched.base_decode_seconds)] == [6, 6]
    assert [size for size, _ in benched.throughput] == [1, 2]
    assert min(*benched.prefill_seconds, *benched.decode_seconds, *dict(benched.throughput).values()) > 0
    assert benched.load_seconds > 0


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("device_full", "^out of memory"),
        ("host_full", "^out of memory"),
        ("killed", "^out of memory"),
        ("torn", "^out of memory"),
        ("crashed", "^the process was killed by SIGSEGV"),
        ("left", "^the process ended with code 7"),
        ("broken", "^AttributeError: .*no_such_attribute"),
    ],
)
def test_a_job_that_fails_says_how_and_the_next_one_runs(server: Server, root: Path, name: str, message: str) -> None:
    with pytest.raises(JobFailed, match=message) as caught:
        server.run(training_of(root, name))
    if name == "broken":
        assert "methods.py" in caught.value.child_traceback
    assert server.run(EnvironmentJob("cpu", "auto"))["device"] == "cpu"


def test_a_user_error_of_a_child_is_raised_as_one(server: Server, root: Path) -> None:
    with pytest.raises(UserError, match="no such layer") as caught:
        server.run(training_of(root, "refused"))
    assert caught.value.hint == "name another"
    with pytest.raises(UserError, match="torch sees no CUDA device"):
        server.run(EnvironmentJob("cuda:99", "auto"))


@pytest.mark.parametrize(
    ("error", "is_memory"),
    [
        (
            RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes"),
            True,
        ),
        (RuntimeError("DefaultCPUAllocator: not enough memory: you tried to allocate 9 bytes"), True),
        (RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"), True),
        (RuntimeError("CUDA error: out of memory"), True),
        (MemoryError(), True),
        (RuntimeError("mat1 and mat2 shapes cannot be multiplied"), False),
        (OSError(28, "No space left on device"), False),
    ],
)
def test_out_of_memory_is_distinguished_from_other_errors(error: BaseException, is_memory: bool) -> None:
    assert is_out_of_memory(error) is is_memory


def test_a_full_disk_is_reported_with_the_folder_as_the_parent_reports_it() -> None:
    output = Path("runs/x/adapters/lora")
    with pytest.raises(UserError) as raised, writing(output):
        raise OSError(28, "No space left on device")
    for error in (OSError(28, "No space left on device"), RuntimeError("I/O error: File too large (os error 27)")):
        failed = worker._failure(error, output)
        assert failed.error == "the disk is full: could not write `runs/x/adapters/lora`" and failed.is_users
        assert (failed.error, failed.hint) == (raised.value.message, raised.value.hint)
        assert type(error).__name__ in failed.traceback
    assert worker._failure(OSError(28, "No space left on device")).error == "the disk is full"


def test_a_lock_that_the_server_holds_outlives_the_parents_own_descriptor(server: Server, tmp_path: Path) -> None:
    with (tmp_path / "lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        server.hold(file.fileno())
        server.run(EnvironmentJob("cpu", "auto"))
    with (tmp_path / "lock").open("w") as file, pytest.raises(BlockingIOError):
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)


# Other parent processes


SCRIPT = """
import pickle, sys
from harness import UserError
from harness.worker.server import Server

print("imported", flush=True)
with Server() as server:
    with open(sys.argv[1], "rb") as file:
        for job in pickle.load(file):
            try:
                print(server.run(job)["device"], flush=True)
            except UserError as error:
                print(error, flush=True)
"""
"""A user's script without `if __name__ == "__main__"`."""


def start(folder: Path, jobs: list[Any], working: Path) -> subprocess.Popen[str]:
    (folder / "script.py").write_text(SCRIPT)
    (folder / "jobs").write_bytes(pickle.dumps(jobs))
    command = [sys.executable, str(folder / "script.py"), str(folder / "jobs")]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=working)


def gone(process: int) -> bool:
    """Returns whether a process has ended; a zombie counts as ended."""
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except (FileNotFoundError, ProcessLookupError):
        return True


def wait_for(condition: Callable[[], bool], seconds: float = 240) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "the condition never became true"
        time.sleep(0.02)


def test_a_script_without_a_main_guard_runs_once_and_owns_its_stdout(root: Path, tmp_path: Path) -> None:
    working = tmp_path / "working"
    working.mkdir()
    for name in ("peft", "finetune", "tasks"):
        (working / f"{name}.py").write_text(f"raise SystemExit('the {name}.py of the working folder was imported')")
    process = start(tmp_path, [EnvironmentJob("cpu", "auto"), training_of(root, "loud")], working)
    out, _ = process.communicate(timeout=400)
    assert process.returncode == 0
    assert out.splitlines() == ["imported", "cpu", "said it"], "a method's prints go to stderr"


def test_no_process_outlives_a_killed_parent(root: Path, tmp_path: Path) -> None:
    mark = tmp_path / "mark"
    parent = start(tmp_path, [training_of(root, "endless", mark=str(mark))], tmp_path)
    wait_for(lambda: mark.is_file() and len(mark.read_text().split()) == 2)
    child, server = map(int, mark.read_text().split())
    assert server not in (parent.pid, os.getpid())
    assert not gone(child) and not gone(server)
    os.kill(parent.pid, signal.SIGKILL)
    parent.wait()
    wait_for(lambda: gone(child) and gone(server), seconds=20)


def test_a_server_that_dies_is_started_again_for_the_next_job(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(worker, "_SERVE", "import os; os.kill(os.getpid(), 9)")
    with Server() as mine, Path(os.devnull).open() as file:
        mine.hold(file.fileno())
        for _ in range(2):
            with pytest.raises(JobFailed, match="the worker process died: out of memory"):
                mine.run(EnvironmentJob("cpu", "auto"))
        monkeypatch.undo()
        with pytest.raises(JobFailed):  # of the last server that died
            mine.run(EnvironmentJob("cpu", "auto"))
        assert mine.run(EnvironmentJob("cpu", "auto"))["device"] == "cpu"
