"""The client of served models: each fault of a server is one clear error, and the key reaches nobody else."""

import http.client
import http.server
import json
import shutil
import socket
import ssl
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import faulty_hubs
import pytest
from fake_server import FakeServer, Quirks

from harness.errors import UserError
from harness.jobs import Served
from harness.serving import client as clients
from harness.serving.address import parse_address
from harness.serving.client import Client
from harness.serving.environment import key_for
from harness.serving.faults import ServerFault
from harness.serving.parallel import in_parallel

KEY = "sk-very-secret-7"


def fault_of(quirks: Quirks, *, key: str | None = None, patience: float = 0.0, seconds: float = 5.0) -> ServerFault:
    with FakeServer(None, quirks).running() as server:
        client = Client(Served(server.url, "base"), key=key, patience=patience, seconds=seconds)
        with pytest.raises(ServerFault) as caught:
            client.complete(prompt="a", max_tokens=1)
    assert "\n" not in caught.value.message and caught.value.hint
    return caught.value


@pytest.fixture(autouse=True)
def _no_keys(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HARNESS_ENDPOINT_KEY", "OPENAI_API_KEY"):
        monkeypatch.delenv(name, raising=False)


def test_a_server_that_is_down_is_one_error() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        port = listening.getsockname()[1]
    with pytest.raises(ServerFault, match="does not answer: Connection refused") as caught:
        Client(Served(f"http://127.0.0.1:{port}/v1", "base"), patience=0).ask("/models")
    assert caught.value.kind == "down"


def test_a_host_that_does_not_exist_is_one_error(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ServerFault, match="does not answer: "):
        Client(Served(f"http://{'a' * 70}.invalid/v1", "base"), patience=0).ask("/models")

    def unknown(*_: Any, **__: Any) -> None:
        raise socket.gaierror(-2, "Name or service not known")

    monkeypatch.setattr(socket, "create_connection", unknown)
    with pytest.raises(ServerFault, match="does not answer: Name or service not known"):
        Client(Served("http://nothing.invalid/v1", "base"), patience=0).ask("/models")


def test_too_long_a_prompt_is_one_error(model_server: FakeServer) -> None:
    model_server.quirks = Quirks(context=4)
    with pytest.raises(ServerFault, match="longer than the server allows") as caught:
        Client(Served(model_server.url, "base")).complete(prompt=[3] * 9, max_tokens=1)
    assert caught.value.kind == "length" and "--num-fewshot" in str(caught.value.hint)


def test_a_silent_server_is_slow() -> None:
    with faulty_hubs.silent() as address, pytest.raises(ServerFault, match=r"within 0\.1 s") as caught:
        Client(Served(f"{address}/v1", "base"), seconds=0.1).complete(prompt="a")
    assert caught.value.kind == "slow" and "HARNESS_ENDPOINT_SECONDS" in str(caught.value.hint)


def test_a_server_that_sends_single_bytes_is_slow() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def drip() -> None:
            for _ in range(2):
                connection, _ = listening.accept()
                connection.recv(4096)
                connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n")
                try:
                    for _ in range(40):
                        connection.sendall(b" ")
                        time.sleep(0.02)
                except OSError:
                    pass

        threading.Thread(target=drip, daemon=True).start()
        client = Client(Served(f"http://127.0.0.1:{listening.getsockname()[1]}/v1", "base"), seconds=0.2)
        with pytest.raises(ServerFault, match=r"within 0\.2 s"):
            client.complete(prompt="a")


@pytest.mark.parametrize("piece", [b"X-More: 1\r\n", b"HTTP/1.1 100 Continue\r\n\r\n"], ids=["fields", "continue"])
def test_a_server_that_never_ends_the_head_of_an_answer_is_slow(piece: bytes) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def drip() -> None:
            for _ in range(2):
                try:
                    connection, _ = listening.accept()
                    connection.recv(4096)
                    connection.sendall(b"" if piece.startswith(b"HTTP") else b"HTTP/1.1 200 OK\r\n")
                    for _ in range(40):
                        connection.sendall(piece)
                        time.sleep(0.02)
                except OSError:
                    pass

        threading.Thread(target=drip, daemon=True).start()
        client = Client(Served(f"http://127.0.0.1:{listening.getsockname()[1]}/v1", "base"), seconds=0.2)
        with pytest.raises(ServerFault, match=r"within 0\.2 s"):
            client.complete(prompt="a")


def test_each_wrong_answer_is_one_error() -> None:
    assert "text/html and not with JSON" in fault_of(Quirks(wrong="html")).message
    assert "breaks off" in fault_of(Quirks(wrong="cut")).message
    assert "no object" in fault_of(Quirks(wrong="list")).message
    assert fault_of(Quirks(completions=False)).kind == "path"
    assert fault_of(Quirks(names=("other",))).kind == "model"
    assert "\x1b" not in fault_of(Quirks(wrong="no json")).message


def test_a_dead_engine_is_not_asked_again() -> None:
    with FakeServer(None, Quirks(wrong="engine")).running() as server:
        with pytest.raises(ServerFault, match="engine") as caught:
            Client(Served(server.url, "base"), patience=60).complete(prompt="a")
        assert caught.value.kind == "engine" and server.posts() == 1


def test_a_wrong_key_is_not_shown() -> None:
    fault = fault_of(Quirks(key="right"), key=KEY)
    assert fault.kind == "key" and KEY not in fault.sentence
    assert "wants a key" in fault_of(Quirks(key="right")).message


def test_the_key_is_in_no_representation() -> None:
    client = Client(Served("http://127.0.0.1:1/v1", "base"), key=KEY)
    assert KEY not in repr(client) + str(client)


def test_server_words_that_repeat_the_key_are_hidden(monkeypatch: pytest.MonkeyPatch) -> None:
    client = Client(Served("http://127.0.0.1:1/v1", "base"), key=KEY)
    assert client.said(json.dumps({"error": {"message": f"bad {KEY}"}}).encode()) == "bad [key]"
    assert KEY not in client.said(f"<html>{KEY}".encode())
    for before in range(40, 210):  # where the words are cut, too
        shown = client.said(f"<{'a' * before}{KEY}{'b' * 300}".encode())
        assert KEY[:4] not in shown
        with pytest.raises(ServerFault) as caught:
            client._read(f"<{'a' * before}{KEY}{'b' * 300}".encode(), http.client.HTTPMessage())
        assert KEY[:4] not in caught.value.sentence


def test_a_redirect_to_another_server_gets_neither_prompt_nor_key() -> None:
    received: list[str] = []

    class Other(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            received.append(self.path)

        def log_message(self, *_: Any) -> None:
            pass

    other = http.server.HTTPServer(("127.0.0.1", 0), Other)
    threading.Thread(target=other.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
    try:
        fault = fault_of(
            Quirks(wrong="elsewhere", elsewhere=f"http://127.0.0.1:{other.server_address[1]}/v1/completions"), key=KEY
        )
    finally:
        other.shutdown()
        other.server_close()
    assert fault.kind == "redirect" and not received and KEY not in fault.sentence


def test_a_redirect_in_a_circle_ends() -> None:
    assert "in a circle" in fault_of(Quirks(wrong="elsewhere", elsewhere="/v1/completions")).message


def test_a_busy_server_is_waited_for_as_long_as_it_says(
    monkeypatch: pytest.MonkeyPatch, model_server: FakeServer
) -> None:
    model_server.quirks = Quirks(busy=[(429, "0.05"), (503, None), (429, "Wed, 21 Oct 2015 07:28:00 GMT")])
    monkeypatch.setattr(clients, "_pause", lambda tries: 0.01)
    before = model_server.posts()
    answer = Client(Served(model_server.url, "base")).complete(prompt="a", max_tokens=1)
    assert answer["choices"] and model_server.posts() - before == 4


def test_a_server_that_stays_busy_is_one_error() -> None:
    fault = fault_of(Quirks(busy=[(429, "3600")]), patience=60)
    assert fault.kind == "busy" and "asked once" in fault.message
    fault = fault_of(Quirks(busy=[(429, "0.01")] * 500), patience=0.1)
    assert "times within" in fault.message and "--batch-size" in str(fault.hint)


def test_after_a_refusal_fewer_are_asked_at_once(monkeypatch: pytest.MonkeyPatch, model_server: FakeServer) -> None:
    model_server.quirks = Quirks(busy=[(429, "0.01")] * 6, seconds=0.02)
    model_server.most_at_once = 0
    client = Client(Served(model_server.url, "base"))
    jobs = list(range(12))
    found = list(in_parallel(lambda job: client.complete(prompt="a", max_tokens=1), jobs, at_once=6))
    assert sorted(job for job, _ in found) == jobs
    assert client._allowed < 6


def test_a_server_that_ends_is_one_error_and_nothing_is_asked_twice_at_once(model_server: FakeServer) -> None:
    model_server.quirks = Quirks(dies_after=model_server.posts() + 2)
    client = Client(Served(model_server.url, "base"), patience=0)
    for _ in range(2):
        assert client.complete(prompt="a", max_tokens=1)["choices"]
    with pytest.raises(ServerFault, match="does not answer"):
        client.complete(prompt="a", max_tokens=1)


def test_a_connection_that_the_server_has_closed_is_opened_again(model_server: FakeServer) -> None:
    model_server.quirks = Quirks()
    client = Client(Served(model_server.url, "base"), patience=0)
    client.complete(prompt="a", max_tokens=1)
    client._local.connection.sock.shutdown(socket.SHUT_RDWR)
    assert client.complete(prompt="a", max_tokens=1)["choices"]


def test_a_closed_client_waits_for_nothing() -> None:
    with FakeServer(None, Quirks(busy=[(429, "30")])).running() as server:
        client = Client(Served(server.url, "base"))
        threading.Timer(0.1, client.close).start()
        with pytest.raises(ServerFault, match="was closed"):
            client.complete(prompt="a")
        assert server.posts() == 1


def test_the_first_error_ends_what_is_asked_at_once() -> None:
    asked: list[int] = []

    def ask(job: int) -> int:
        asked.append(job)
        if job == 3:
            raise ValueError("three")
        time.sleep(0.01)
        return job

    with pytest.raises(ValueError, match="three"):
        list(in_parallel(ask, range(500), at_once=4))
    assert len(asked) < 50


@pytest.mark.parametrize(
    ("url", "variables", "found"),
    [
        ("https://h/v1", {"HARNESS_ENDPOINT_KEY": "a", "OPENAI_API_KEY": "b"}, "a"),
        ("https://h/v1", {"OPENAI_API_KEY": " b\n"}, "b"),
        ("http://127.0.0.1:8000/v1", {"OPENAI_API_KEY": "b"}, "b"),
        ("http://[::1]:8000/v1", {"HARNESS_ENDPOINT_KEY": "a"}, "a"),
        ("http://10.0.0.7/v1", {"OPENAI_API_KEY": "b"}, None),
        ("https://h/v1", {}, None),
    ],
)
def test_keys_come_from_the_environment(
    monkeypatch: pytest.MonkeyPatch, url: str, variables: dict[str, str], found: str | None
) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert key_for(url) == found


def test_a_key_does_not_travel_unencrypted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HARNESS_ENDPOINT_KEY", KEY)
    with pytest.raises(UserError, match="not encrypted") as caught:
        key_for("http://10.0.0.7/v1")
    assert KEY not in caught.value.sentence


def test_a_key_that_no_header_holds_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HARNESS_ENDPOINT_KEY", "a\r\nX: b")
    with pytest.raises(UserError, match="no header"):
        key_for("https://h/v1")


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("endpoint:http://h:8000/v1#base", Served("http://h:8000/v1", "base")),
        ("endpoint:https://h:443/v1/#llama3:8b", Served("https://h/v1", "llama3:8b")),
        ("endpoint:http://[::1]:8000/v1#owner/name@x", Served("http://[::1]:8000/v1", "owner/name@x")),
        ("endpoint:HTTP://H/v1#a#b", Served("http://h/v1", "a#b")),
    ],
)
def test_addresses(text: str, found: Served) -> None:
    assert parse_address(text) == found


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("endpoint:", "names no model"),
        ("endpoint:http://h/v1", "names no model"),
        ("endpoint:http://h/v1# ", "names no model"),
        ("endpoint:http://h/v1#a\x1b[31m", "names no model"),
        ("endpoint:#a", "names no server"),
        ("endpoint:ftp://h/v1#a", "no address"),
        ("endpoint:h:8000/v1#a", "no address"),
        ("endpoint:http://#a", "no address"),
        ("endpoint:http://h:99999/v1#a", "no address"),
        ("endpoint:http://[::1/v1#a", "no address"),
        ("endpoint:http://h/v1 x#a", "no address"),
        ("endpoint:http://h/v1/chat/completions#a", "one request"),
        ("endpoint:http://u:sk-secret@h/v1#a", "password or a query"),
        ("endpoint:http://h/v1?key=sk-secret#a", "password or a query"),
        ("endpoint:http://h/" + "v" * 3000 + "#a", "names no model"),
    ],
)
def test_malformed_addresses(text: str, message: str) -> None:
    with pytest.raises(UserError, match=message) as caught:
        parse_address(text)
    assert "sk-secret" not in caught.value.sentence


@pytest.fixture(scope="module")
def model_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FakeServer]:
    from tiny_models import save_tiny

    folder = save_tiny(tmp_path_factory.mktemp("model"), layers=1)
    with FakeServer(folder).running() as server:
        yield server


@pytest.mark.skipif(shutil.which("openssl") is None, reason="openssl makes the certificate")
def test_a_certificate_that_nobody_signed_is_one_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = ["-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2"]
    named = ["-subj", "/CN=127.0.0.1", "-addext", "subjectAltName=IP:127.0.0.1", "-keyout", "k.pem", "-out", "c.pem"]
    subprocess.run(["openssl", "req", *made, *named], cwd=tmp_path, check=True, capture_output=True)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(tmp_path / "c.pem", tmp_path / "k.pem")
    server = FakeServer()
    server._server.socket = context.wrap_socket(server._server.socket, server_side=True)
    served = Served(server.url.replace("http:", "https:"), "base")
    with server.running():
        with pytest.raises(ServerFault, match="certificate verify failed"):
            Client(served, key=KEY, patience=60).ask("/models")
        assert not server.asked
        monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "c.pem"))
        assert Client(served, key=KEY, patience=0).ask("/models")["data"]
