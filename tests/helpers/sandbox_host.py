"""The machine around generated programs: what an attack could harm, and checks that it did not."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest


class Host:
    """The machine outside the sandbox: a file, a server, processes, and a folder for temporary files."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.canary = folder / "home" / "canary.txt"
        self.canary.parent.mkdir()
        self.canary.write_text("alive")
        self.before = self.canary.stat()
        self.server = socket.create_server(("127.0.0.1", 0))
        self.server.settimeout(0)
        self.port = self.server.getsockname()[1]

    def fill(self, source: str) -> str:
        return source.replace("CANARY", repr(str(self.canary))).replace("PORT", str(self.port))

    def processes(self) -> list[str]:
        """Processes whose HOME is in our folder, which is true of every program in the sandbox, whatever its parent is."""
        found = []
        for entry in Path("/proc").glob("[0-9]*"):
            try:
                if b"HOME=" + bytes(self.folder) in (entry / "environ").read_bytes():
                    found.append((entry / "cmdline").read_text())
            except OSError:  # the process has ended
                pass
        return found

    def assert_unharmed(self) -> None:
        after = self.canary.stat()
        assert self.canary.read_text() == "alive"
        assert (after.st_mode, after.st_mtime_ns, after.st_uid) == (
            self.before.st_mode,
            self.before.st_mtime_ns,
            self.before.st_uid,
        )
        with pytest.raises(BlockingIOError):  # no connection was made
            self.server.accept()
        assert self.processes() == []
        assert [entry.name for entry in self.folder.iterdir()] == ["home"]
