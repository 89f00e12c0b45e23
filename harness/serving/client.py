"""A client of one served model: standard library and threads, with open connections that are used again.

A server that is busy is waited for, all threads together, as long as it says. What no wait can mend is one clear error. The
key is sent in a header to this one server, and is in no file, message or representation.
"""

from __future__ import annotations

import email.utils
import http.client
import json
import random
import socket
import threading
import time
import urllib.parse
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

from harness.errors import printable
from harness.jobs import Served
from harness.serving import faults
from harness.serving.environment import SECONDS, SECONDS_VARIABLE, answer_seconds, key_for
from harness.serving.faults import ServerFault

PATIENCE = 300.0
"""Seconds for which a server that is busy or does not answer is asked again, after its last answer."""
_BUSY = frozenset({408, 409, 425, 429, 502, 503, 504, 529})
_TRIES_OF_ERRORS = 2
"""Tries of a request whose answer is late or the status 500: it may be the request's own fault."""
_MOST_BYTES = 64 << 20
_LONGEST_PAUSE = 30.0
_MOST_AT_ONCE = 1024
_SHOWN = 4000
"""Bytes of an answer in which the key is looked for before some of them are shown: a key that is cut would not be found."""


class Client:
    """Asks one served model; many threads may ask at once.

    Args:
        served: The model.
        key: The key; it is never shown.
        seconds: Seconds that one answer may take.
        patience: Seconds for which a server that is busy or does not answer is asked again.

    Example:
        >>> client = Client(Served("http://127.0.0.1:8000/v1", "base"), key="secret")
        >>> client
        Client(http://127.0.0.1:8000/v1#base)
    """

    def __init__(
        self, served: Served, *, key: str | None = None, seconds: float = SECONDS, patience: float = PATIENCE
    ) -> None:
        self.served = served
        self._key = key
        self._seconds, self._patience = seconds, patience
        parts = urllib.parse.urlsplit(served.url)
        self._origin, self._path = (parts.scheme, parts.netloc), parts.path
        self._local = threading.local()
        self._closed = threading.Event()
        self._until = self._answered = 0.0
        """Times on the monotonic clock: before which nothing is asked, and of the last answer to any request."""
        self._turns = threading.Condition()
        self._active, self._allowed = 0, float(_MOST_AT_ONCE)
        """Requests that are being answered, and how many may be: half as many after the server was busy, then more again."""

    @classmethod
    def from_environment(cls, served: Served, *, patience: float | None = None) -> Client:
        """A client with the key and the time limit of the environment.

        Raises:
            UserError: See `key_for` and `answer_seconds`.
        """
        return cls(
            served,
            key=key_for(served.url),
            seconds=answer_seconds(),
            patience=PATIENCE if patience is None else patience,
        )

    def named(self, name: str, *, patience: float | None = None) -> Client:
        """A client of another model of the same server; its patience is the same, unless another one is given."""
        patience = self._patience if patience is None else patience
        return Client(Served(self.served.url, name), key=self._key, seconds=self._seconds, patience=patience)

    def __repr__(self) -> str:
        return f"Client({self.served.url}#{self.served.name})"

    def complete(self, **body: Any) -> dict[str, Any]:
        """Asks for a completion of a prompt."""
        return self.ask("/completions", {"model": self.served.name, **body})

    def chat(self, **body: Any) -> dict[str, Any]:
        """Asks for the next turn of a conversation."""
        return self.ask("/chat/completions", {"model": self.served.name, **body})

    def ask(self, path: str, body: dict[str, Any] | None = None, *, beside: bool = False) -> dict[str, Any]:
        """Sends a request and returns the answer, a JSON object; waits where the server is busy.

        Args:
            path: Path after the server's address.
            body: Content of a POST; None: GET.
            beside: Whether `path` is beside the `/v1` of the address, as the pages of a server about itself are.

        Raises:
            ServerFault: The server does not answer, refuses, or answers something else than a JSON object.
        """
        began, tries, errors = time.monotonic(), 0, 0
        where = (self._path.removesuffix("/v1") if beside else self._path) + path
        while True:
            tries += 1
            try:
                with self._turn():
                    status, headers, content = self._exchange(where, body)
            except TimeoutError:
                errors += 1
                fault, pause = faults.slow(self.served.url, self._seconds, SECONDS_VARIABLE), 0.0
                if errors >= _TRIES_OF_ERRORS:
                    raise fault from None
            except (OSError, http.client.HTTPException, UnicodeError) as error:
                fault, pause = faults.down(self.served.url, _reason(error)), _pause(tries)
                if "CERTIFICATE" in str(error).upper() or isinstance(error, UnicodeError):
                    raise fault from None
            else:
                if status in range(300, 400):
                    where = self._redirected(headers.get("location") or "")
                    if tries > 5:
                        raise ServerFault(
                            "redirect", f"`{self.served.url}` redirects in a circle", "give the last address"
                        )
                    continue
                if status == 200:
                    self._answered = time.monotonic()
                    with self._turns:
                        self._allowed = min(_MOST_AT_ONCE, self._allowed + 1 / self._allowed)
                    return self._read(content, headers)
                said = self.said(content)
                fault = faults.of_status(
                    self.served.url, path, self.served.name, status, said, has_key=self._key is not None
                )
                if fault.kind == "engine" or (status != 500 and status not in _BUSY):
                    raise fault
                errors += status == 500
                if errors >= _TRIES_OF_ERRORS:
                    raise fault
                pause = _asked_pause(headers.get("retry-after") or "") or _pause(tries)
                if status in _BUSY:
                    fault = faults.busy(self.served.url, f"{status}: {said}", tries, time.monotonic() - began)
                    with self._turns:
                        self._allowed = max(1.0, min(self._allowed, self._active) / 2)
            if time.monotonic() - max(began, self._answered) + pause > self._patience:
                raise fault
            self._until = max(self._until, time.monotonic() + pause)

    def close(self) -> None:
        """Makes requests that wait give up."""
        self._closed.set()
        with self._turns:
            self._turns.notify_all()

    @contextmanager
    def _turn(self) -> Iterator[None]:
        """Waits until the pause that the server asked for is over, and until fewer requests are being answered than may be."""
        while (pause := self._until - time.monotonic()) > 0 and not self._closed.wait(pause):
            pass
        with self._turns:
            self._turns.wait_for(lambda: self._active < self._allowed or self._closed.is_set())
            self._active += 1
        try:
            if self._closed.is_set():
                raise faults.down(self.served.url, "the client was closed")
            yield
        finally:
            with self._turns:
                self._active -= 1
                self._turns.notify_all()

    def _exchange(self, path: str, body: dict[str, Any] | None) -> tuple[int, http.client.HTTPMessage, bytes]:
        """One request and its answer, on this thread's connection; one that the server has closed since is opened again."""
        known = getattr(self._local, "connection", None)
        try:
            return self._once(known or self._open(), path, body)
        except (ConnectionError, http.client.RemoteDisconnected, http.client.CannotSendRequest):
            self._forget()
            if known is None:
                raise
            return self._once(self._open(), path, body)
        except (OSError, http.client.HTTPException):
            self._forget()
            raise

    def _once(
        self, connection: http.client.HTTPConnection, path: str, body: dict[str, Any] | None
    ) -> tuple[int, http.client.HTTPMessage, bytes]:
        deadline = time.monotonic() + self._seconds
        headers = {"Accept": "application/json", "User-Agent": "finetune-harness"}
        if self._key is not None:
            headers["Authorization"] = f"Bearer {self._key}"
        if body is None:
            connection.request("GET", path, headers=headers)
        else:
            connection.request("POST", path, json.dumps(body).encode(), {**headers, "Content-Type": "application/json"})
        answer = self._begun(connection, deadline)
        content, announced = bytearray(), answer.length
        while announced is None or len(content) < announced:
            piece = answer.read1(1 << 20)
            if not piece:
                break
            content += piece
            if time.monotonic() > deadline:
                raise TimeoutError
            if len(content) > _MOST_BYTES:
                self._forget()
                raise ServerFault(
                    "answer",
                    f"`{self.served.url}` answers with more than {_MOST_BYTES >> 20} MB",
                    "is it a model's server?",
                )
        answer.close()
        if announced is not None and len(content) < announced:
            raise http.client.IncompleteRead(bytes(content), announced - len(content))
        return answer.status, answer.headers, bytes(content)

    def _begun(self, connection: http.client.HTTPConnection, deadline: float) -> http.client.HTTPResponse:
        """The head of an answer; the limit of the socket alone would begin again with every byte of it."""
        end = threading.Timer(deadline - time.monotonic(), _shut, (connection.sock,))
        end.daemon = True
        end.start()
        try:
            answer = connection.getresponse()
        except (OSError, http.client.HTTPException):
            if time.monotonic() < deadline:
                raise
            raise TimeoutError from None
        finally:
            end.cancel()
        if time.monotonic() >= deadline:  # a head that breaks off passes for a whole one
            raise TimeoutError
        return answer

    def _open(self) -> http.client.HTTPConnection:
        scheme, netloc = self._origin
        kind = http.client.HTTPSConnection if scheme == "https" else http.client.HTTPConnection
        self._local.connection = connection = kind(netloc, timeout=self._seconds)
        return connection

    def _forget(self) -> None:
        connection, self._local.connection = getattr(self._local, "connection", None), None
        if connection is not None:
            with suppress(OSError):
                connection.close()

    def _redirected(self, location: str) -> str:
        """The path of a redirect on the same server; the key and the prompts are sent to no other."""
        self._forget()
        scheme, netloc = self._origin
        found = urllib.parse.urlsplit(urllib.parse.urljoin(f"{scheme}://{netloc}{self._path}/", location))
        if (found.scheme, found.netloc) != self._origin:
            raise ServerFault(
                "redirect",
                f"`{self.served.url}` redirects to another server, `{printable(found.scheme)}://{printable(found.netloc)}`, to which"
                " neither prompts nor a key are sent",
                "if you trust that server, give its address",
            )
        return found.path

    def _read(self, content: bytes, headers: http.client.HTTPMessage) -> dict[str, Any]:
        url = self.served.url
        try:
            found = json.loads(content)
        except (ValueError, RecursionError):
            kind = printable(headers.get_content_type())
            if content.lstrip()[:1] in (b"{", b"["):
                raise ServerFault(
                    "format",
                    f"`{url}` answers with JSON that breaks off or is malformed, {len(content):,} bytes",
                    faults.KEPT,
                ) from None
            raise ServerFault(
                "format",
                f"`{url}` answers with {kind} and not with JSON: `{self._hidden(content[:_SHOWN].decode(errors='replace'))[:60]}`",
                "is this the address of a page? most addresses end in `/v1`",
            ) from None
        if not isinstance(found, dict):
            raise ServerFault(
                "format", f"`{url}` answers with JSON that is no object", "is it an OpenAI-compatible server?"
            )
        return found

    def said(self, content: bytes) -> str:
        """The server's words about an error, in one line, without the key."""
        try:
            found = json.loads(content)
        except (ValueError, RecursionError):
            return self._hidden(content[:_SHOWN].decode(errors="replace"))[:200]
        while isinstance(found, dict) and (inner := [found[k] for k in ("error", "message", "detail") if found.get(k)]):
            found = inner[0]
        return self._hidden(found if isinstance(found, str) else json.dumps(found))

    def _hidden(self, text: str) -> str:
        text = " ".join(text.split())
        return printable(text.replace(self._key, "[key]") if self._key else text)[:300]


def _shut(opened: socket.socket | None) -> None:
    with suppress(OSError):
        if opened is not None:
            opened.shutdown(socket.SHUT_RDWR)


def _pause(tries: int) -> float:
    """Seconds before the next try: twice as long after each one, and at random, so that clients do not come together."""
    return min(_LONGEST_PAUSE, 0.5 * 2.0 ** (tries - 1)) * random.uniform(0.5, 1.5)


def _asked_pause(header: str) -> float:
    """Seconds that `Retry-After` asks for, as a number or a date; 0 without one."""
    with suppress(ValueError):
        return max(0.0, float(header)) if float(header) < float("inf") else 0.0
    with suppress(ValueError, TypeError):
        return max(0.0, email.utils.parsedate_to_datetime(header).timestamp() - time.time())
    return 0.0


def _reason(error: BaseException) -> str:
    text = getattr(error, "strerror", None) or str(error) or type(error).__name__
    return printable(" ".join(str(text).split()))[:200]
