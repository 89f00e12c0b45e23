"""The faults of servers: one error for each, in one sentence with a hint."""

from __future__ import annotations

from typing import Literal

from harness.errors import UserError

FaultKind = Literal[
    "down", "slow", "busy", "key", "path", "model", "format", "engine", "length", "request", "redirect", "answer"
]
"""Kinds of faults: `request` is a field or value that the server refuses, `answer` an answer that cannot be right."""


class ServerFault(UserError):
    """A server that does not answer, refuses, or answers something that cannot be used.

    Args:
        kind: What is wrong.
        message: What is wrong, in words.
        hint: What the user can do about it.
    """

    def __init__(self, kind: FaultKind, message: str, hint: str | None = None) -> None:
        super().__init__(message, hint)
        self.kind = kind

    def __reduce__(self) -> tuple[type[ServerFault], tuple[FaultKind, str, str | None]]:  # type: ignore[override]
        return (type(self), (self.kind, self.message, self.hint))


KEPT = "finished samples are kept: the same command continues"


def down(url: str, why: str) -> ServerFault:
    """The server cannot be reached, or ends the connection."""
    return ServerFault(
        "down", f"`{url}` does not answer: {why}", f"is the server running, and the address right? {KEPT}"
    )


def slow(url: str, seconds: float, variable: str) -> ServerFault:
    """An answer takes too long."""
    hint = f"ask less at once (`--batch-size 1`), or set `{variable}` above {seconds:g} for more time; {KEPT}"
    return ServerFault("slow", f"`{url}` did not answer within {seconds:g} s", hint)


def busy(url: str, said: str, tries: int, seconds: float) -> ServerFault:
    """The server refuses requests for now, again and again."""
    again = f"{tries} times within {seconds:.0f} s" if tries > 1 else "once"
    hint = f"ask less at once (`--batch-size 1`), or later; {KEPT}"
    return ServerFault("busy", f"`{url}` is busy ({said}), asked {again}", hint)


def of_status(url: str, path: str, name: str, status: int, said: str, *, has_key: bool) -> ServerFault:
    """The fault of an answer with an error's status.

    Args:
        url: Address of the server.
        path: Path of the request.
        name: The model's name.
        status: Status of HTTP.
        said: The server's words.
        has_key: Whether a key was sent.
    """
    words = said.lower()
    if status in (401, 403):
        return ServerFault(
            "key",
            f"`{url}` refuses the key ({status})" if has_key else f"`{url}` wants a key ({status})",
            "set the environment variable `HARNESS_ENDPOINT_KEY`",
        )
    if "enginecore" in words or "engine is dead" in words or "enginedead" in words:
        return ServerFault("engine", f"the engine of `{url}` has failed: {said}", f"restart the server; {KEPT}")
    if "context" in words and any(each in words for each in ("length", "size", "window", "exceed")):
        return ServerFault(
            "length",
            f"`{url}`: a prompt is longer than the server allows: {said}",
            "give fewer solved examples (`--num-fewshot`), or start the server with a longer context",
        )
    if (status == 404 or "model_not_found" in words) and "model" in words:
        return ServerFault("model", f"`{url}` has no model `{name}`: {said}", f"its names are at `{url}/models`")
    if status in (404, 405):
        return ServerFault(
            "path", f"`{url}` has no `{path}` ({status})", "most addresses end in `/v1`: `http://HOST:PORT/v1#NAME`"
        )
    return ServerFault("request", f"`{url}` refuses a request ({status}): {said}", "see the server's own log")
