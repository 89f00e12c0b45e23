"""Requests to the Hub that fail for a passing reason are tried again; a silent server is reported and given up."""

import http.server
import socket
import threading
from collections.abc import Iterator
from typing import Any

import pytest
from huggingface_hub import get_session
from huggingface_hub.errors import OfflineModeIsEnabled
from huggingface_hub.utils import http_backoff

from harness.data import patience


class Server(http.server.BaseHTTPRequestHandler):
    """Fails as often as its server says, each time in the next way, then answers."""

    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        server: Any = self.server
        way = server.ways.pop(0) if server.ways else "answer"
        server.seen.append(way)
        if isinstance(way, int):
            self.send_response(way)
            self.send_header("Retry-After", "0.2")
            self.send_header("Content-Length", "0")
            self.end_headers()
        elif way == "reset":
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\0\0\0\0\0\0\0")
            self.close_connection = True
            self.connection.close()
        elif way == "silent":
            server.stop.wait(5)
            self.close_connection = True
        else:
            self.send_response(200)
            self.send_header("Content-Length", "4")
            self.end_headers()
            self.wfile.write(b"ro" if way == "cut" else b"rows")
            self.close_connection = way == "cut"

    do_POST = do_GET

    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    patience.be_patient()
    monkeypatch.setattr(patience, "PAUSES", (0.01, 0.02, 0.02, 0.02, 0.02, 0.02))
    monkeypatch.setattr(patience, "_given_up", {})
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Server) as running:
        running.ways, running.seen, running.stop = [], [], threading.Event()  # type: ignore[attr-defined]
        threading.Thread(target=running.serve_forever, daemon=True).start()
        yield running
        running.stop.set()  # type: ignore[attr-defined]
        running.shutdown()


def address(server: Any) -> str:
    return f"http://127.0.0.1:{server.server_port}/file"


@pytest.mark.parametrize("way", [429, 500, 502, 503, 504, "reset", "cut"])
def test_passing_failures_are_tried_again_five_times_and_more(server: Any, way: Any) -> None:
    server.ways = [way] * 6
    assert get_session().get(address(server)).text == "rows"
    assert server.seen == [way] * 6 + ["answer"]


def test_what_does_not_pass_is_reported_at_once(server: Any) -> None:
    server.ways = [404]
    assert get_session().get(address(server)).status_code == 404
    server.ways = [503] * 9
    assert get_session().get(address(server)).status_code == 503
    assert server.seen == [404, *[503] * 7]
    server.ways = [503]
    assert get_session().post(address(server), json={}).status_code == 503  # it may write


def test_a_server_that_asks_for_a_pause_gets_it(server: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    waited: list[float] = []
    monkeypatch.setattr(patience.time, "sleep", waited.append)
    server.ways = [429, 503, "reset"]
    get_session().get(address(server))
    assert waited == [0.2, 0.2, 0.02]


def test_a_silent_server_is_reported_and_given_up(
    server: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(patience, "READ_SECONDS", 0.1)
    monkeypatch.setattr(patience, "SILENT_SECONDS", 0.35)
    server.ways = ["silent"] * 20
    with pytest.raises(OfflineModeIsEnabled, match=r"127.0.0.1 accepts connections but does not answer"):
        get_session().get(address(server))
    assert 2 <= len(server.seen) <= 4
    assert "127.0.0.1 does not answer; try 2 of 7" in capsys.readouterr().err
    seen = len(server.seen)
    with pytest.raises(OfflineModeIsEnabled, match="does not answer"):  # another request to it fails at once, and once
        http_backoff("GET", address(server))
    assert len(server.seen) == seen


def test_a_server_that_disappears_is_given_up_after_all_tries(server: Any) -> None:
    get_session().get(address(server))
    server.ways = ["reset"] * 20
    for _ in range(2):
        with pytest.raises(OfflineModeIsEnabled, match=r"127.0.0.1 is gone \("):
            http_backoff("GET", address(server))
        assert server.seen == ["answer", *["reset"] * 7]


def test_a_request_whose_answer_is_not_needed_is_sent_once(server: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(patience, "OPTIONAL", ("127.0.0.1",))
    server.ways = [503]
    assert get_session().get(f"http://127.0.0.1:{server.server_address[1]}/counter").status_code == 503
    assert server.seen == [503]


def test_a_server_that_is_silent_until_the_last_try_is_given_up(server: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """A client with a short time limit makes all tries before the minute is over."""
    monkeypatch.setattr(patience, "READ_SECONDS", 0.05)
    server.ways = ["silent"] * 20
    for _ in range(2):
        with pytest.raises(OfflineModeIsEnabled, match="does not answer"):
            get_session().get(address(server))
        assert len(server.seen) == len(patience.PAUSES) + 1
