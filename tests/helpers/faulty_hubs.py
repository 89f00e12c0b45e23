"""Local Hubs for commands in processes of their own: sound, failing, silent, and one that disappears."""

import os
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path


@contextmanager
def hub(*fault: str) -> Iterator[str]:
    """The address of a local Hub with a fault."""
    serve = Path(os.environ["HARNESS_TEST_HUB"]) / "serve"
    command = [sys.executable, str(serve), "--port", "0", *fault]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout is not None
        try:
            yield server.stdout.readline().strip()
        finally:
            server.terminate()


@contextmanager
def silent() -> Iterator[str]:
    """The address of a server that accepts connections and never answers."""
    with socket.create_server(("127.0.0.1", 0), backlog=64) as listening:
        yield _address(listening)


def of(address: str, folder: Path) -> dict[str, str]:
    """Variables of a command that knows only this Hub and has empty caches."""
    return {
        "HF_ENDPOINT": address,
        "HF_HOME": str(folder / "hf"),
        "HF_HUB_DISABLE_XET": "1",
        "HARNESS_HOME": str(folder / "home"),
    }


class Wire:
    """Passes bytes between clients and a Hub, until so many have come back; then nobody is reached."""

    def __init__(self, address: str, most: int) -> None:
        self.passed = 0
        self._server = ("127.0.0.1", int(address.rsplit(":", 1)[1]))
        self._most = most
        self._listening = socket.create_server(("127.0.0.1", 0), backlog=64)
        self._open: list[socket.socket] = []
        self.address = _address(self._listening)
        threading.Thread(target=self._accept, daemon=True).start()

    def cut(self) -> None:
        """Closes everything."""
        for each in (self._listening, *self._open):
            with suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
            each.close()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                client, _ = self._listening.accept()
                server = socket.create_connection(self._server)
                self._open += [client, server]
                for source, target, back in ((client, server, False), (server, client, True)):
                    threading.Thread(target=self._pass, args=(source, target, back), daemon=True).start()

    def _pass(self, source: socket.socket, target: socket.socket, back: bool) -> None:
        with suppress(OSError):
            while data := source.recv(1024):
                if back:
                    self.passed += len(data)
                    if self.passed > self._most:
                        self.cut()
                        return
                target.sendall(data)
            target.shutdown(socket.SHUT_WR)


def _address(listening: socket.socket) -> str:
    return f"http://127.0.0.1:{listening.getsockname()[1]}"
