"""Serves a board on this machine while runs go on: read only, rebuilt when a run has changed.

Only names of the board's own files are answered: no path of a request is opened. A request with another `Host` than this machine's
is refused, so that a page of another site cannot read the board through a name that leads here (DNS rebinding).

Example:
    >>> server = BoardServer([Path("runs")], port=0)  # doctest: +SKIP
    >>> server.address  # doctest: +SKIP
    'http://127.0.0.1:40123/'
"""

from __future__ import annotations

import http.server
import re
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from harness.errors import UserError
from harness.leaderboards.board import board_pages, content_type
from harness.leaderboards.board_runs import RunReader

LOOPBACK = "127.0.0.1"
_HOSTS = ("127.0.0.1", "localhost")
_PAUSE_SECONDS = 5.0
"""Least time between two searches for changed runs."""
_REFRESH_SECONDS = 30
_IDLE_SECONDS = 30


class BoardServer(http.server.ThreadingHTTPServer):
    """A web server that gives the pages of a board, and nothing else.

    Args:
        folders: The folders of runs.
        port: 0: any free one.
        title: As for `board_pages`.

    Raises:
        UserError: The port is taken, or a folder does not exist.
    """

    daemon_threads = True
    allow_reuse_address = True

    def __init__(self, folders: Sequence[Path], *, port: int, title: str = "harness board") -> None:
        self._folders, self._title = list(folders), title
        self._reader, self._lock = RunReader(), threading.Lock()
        self._files: Mapping[str, bytes] = {}
        self._state: object = None
        self._next = 0.0
        self.problems: list[UserError] = []
        """Runs that could not be read when the board was last built."""
        self.files()
        try:
            super().__init__((LOOPBACK, port), _Handler)
        except OverflowError:
            raise UserError(f"`--port {port}` is not a port", hint="give a number from 0 to 65535") from None
        except OSError as error:
            raise UserError(
                f"could not listen on port {port}: {error.strerror}",
                hint="choose another with `--port`; 0: any free one",
            ) from error

    @property
    def address(self) -> str:
        """The address of the index."""
        return f"http://{LOOPBACK}:{self.server_address[1]}/"

    def is_allowed(self, host: str) -> bool:
        """Whether the `Host` of a request is this machine with this port."""
        name, _, port = host.strip().lower().rpartition(":")
        return name in _HOSTS and port == str(self.server_address[1])

    def look_again(self) -> None:
        """Searches for changed runs at the next request, however soon it comes."""
        self._next = 0.0

    def files(self) -> Mapping[str, bytes]:
        """The files of the board, built again if a run has changed."""
        with self._lock:
            if time.monotonic() >= self._next:
                runs, self.problems = self._reader.read(self._folders)
                state = {path: state for path, (state, _) in self._reader.known.items()}
                if state != self._state:
                    self._files = dict(board_pages(runs, title=self._title, left_out=len(self.problems)))
                    self._state = state
                self._next = time.monotonic() + _PAUSE_SECONDS
            return self._files


class _Handler(http.server.BaseHTTPRequestHandler):
    server: BoardServer
    server_version = "harness"
    sys_version = ""
    timeout = _IDLE_SECONDS

    def do_GET(self) -> None:
        self._answer(whole=True)

    def do_HEAD(self) -> None:
        self._answer(whole=False)

    def _answer(self, *, whole: bool) -> None:
        hosts = self.headers.get_all("Host") or []
        if len(hosts) != 1 or not self.server.is_allowed(hosts[0]):
            self._send(
                403, b"this server answers requests to this machine only\n", "text/plain; charset=utf-8", whole=whole
            )
            return
        name = re.split(r"[?#]", self.path, maxsplit=1)[0].removeprefix("/") or "index.html"
        try:
            content = self.server.files().get(name)
        except UserError as error:
            text = f"{error.message}\n".encode()
            self._send(500, text, "text/plain; charset=utf-8", whole=whole)
            return
        if content is None:
            self._send(404, b"there is no such page\n", "text/plain; charset=utf-8", whole=whole)
            return
        self._send(200, content, content_type(name), whole=whole, refresh=name.endswith(".html"))

    def _send(self, code: int, content: bytes, kind: str, *, whole: bool, refresh: bool = False) -> None:
        self.send_response(code)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(content)))
        self.send_header("Cache-Control", "no-store")
        self.send_header("X-Content-Type-Options", "nosniff")
        self.send_header("Cross-Origin-Resource-Policy", "same-origin")
        self.send_header("X-Frame-Options", "DENY")
        if refresh:
            self.send_header("Refresh", str(_REFRESH_SECONDS))
        self.end_headers()
        if whole:
            self.wfile.write(content)

    def log_message(self, format: str, *args: object) -> None:
        """Logs nothing: a request is not an event of a run."""
