"""The messages between the harness and the two processes of a generated program. See `harness.sandbox.child`."""

from __future__ import annotations

import ast
import contextlib
import os
import select
import selectors
import signal
import subprocess
import time
from dataclasses import dataclass, field

START_SECONDS = 60.0
"""Time limit until the first line of the program; only a broken or overloaded machine needs longer."""
END_SECONDS = 1.0
"""Time limit for the process of the tests to end by itself after the program was killed."""
REPORT_BYTES = 1 << 16
"""Bytes after which the parent stops reading: a real report is much shorter."""


@dataclass
class Exchange:
    """The messages between parent and child."""

    child: subprocess.Popen[bytes]
    """The process that becomes that of the tests."""
    message: bytes
    """The job, and the tests with the question, which are sent to the child."""
    report: bytearray = field(default_factory=bytearray)
    """Bytes from the process of the tests."""
    notes: bytearray = field(default_factory=bytearray)
    """Bytes from both: what was refused, or why they did not start."""
    program: int = 0
    """The number of the program's process; 0 before it has started."""
    in_time: bool = True
    protections: dict[str, str] = field(default_factory=dict)

    def run(self, wall_seconds: float) -> None:
        """Sends the message and reads the answers, until there is a verdict or the time is over."""
        assert self.child.stdin is not None and self.child.stdout is not None and self.child.stderr is not None
        to_child, received = self.child.stdin.fileno(), {self.child.stdout.fileno(): self.report}
        received[self.child.stderr.fileno()] = self.notes
        os.set_blocking(to_child, False)
        unsent = memoryview(self.message)
        deadline = time.monotonic() + START_SECONDS
        with selectors.DefaultSelector() as selector:
            selector.register(to_child, selectors.EVENT_WRITE)
            for descriptor in received:
                selector.register(descriptor, selectors.EVENT_READ)
            while len(self.notes) <= REPORT_BYTES and len(self.report) <= REPORT_BYTES:
                ready = selector.select(max(0.0, deadline - time.monotonic()))
                if not ready:
                    self.in_time = False
                    return
                for key, _ in ready:
                    if key.fd == to_child:
                        try:
                            unsent = unsent[os.write(to_child, unsent) :]
                        except BrokenPipeError:
                            unsent = unsent[:0]
                        if not unsent:
                            selector.unregister(to_child)
                        continue
                    part = os.read(key.fd, 4096)
                    received[key.fd] += part
                    if not part:
                        selector.unregister(key.fd)
                        if received[key.fd] is self.report:  # the process of the tests has ended, without a verdict
                            self._wait(deadline)
                            return
                if not self.program and self.report.startswith(b"ready ") and b"\n" in self.report:
                    _, number, protections = self.report.split(b"\n", 1)[0].decode().split(" ", 2)
                    self.program, self.protections = int(number), ast.literal_eval(protections)
                    deadline = time.monotonic() + wall_seconds
                if self.report.endswith(b"\n") and self.report.find(b"\n") < len(self.report) - 1:
                    return

    def _wait(self, deadline: float) -> None:
        """Waits for the end of the process of the tests, and reads why it ended."""
        assert self.child.stderr is not None
        try:
            self.child.wait(max(0.0, deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            self.in_time = False
        os.set_blocking(self.child.stderr.fileno(), False)
        self.notes += self.child.stderr.read(REPORT_BYTES) or b""

    def end(self) -> None:
        """Kills the program, then lets the process of the tests end, which keeps the number of the program's till then."""
        assert self.child.stdin is not None and self.child.stdout is not None
        if self.program and self.child.poll() is None:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(self.program, signal.SIGKILL)
            self.child.stdin.close()
            pipe, deadline = self.child.stdout.fileno(), time.monotonic() + END_SECONDS
            while select.select([pipe], [], [], max(0.0, deadline - time.monotonic()))[0] and os.read(pipe, 4096):
                pass  # its end is the end of the process; `Popen.wait` with a time limit would sleep for milliseconds
