"""Patience with the Hub: requests that fail for a passing reason are tried again, with growing pauses.

Answers such as 429 and 503, refused and reset connections, and bodies that end early are passing reasons. The Hub's own client
tries some of them again, but gives up at the first bad answer to a download. A server that accepts a connection and never
answers is reported after 15 s and given up after a minute, one that disappears after all tries. A server that was given up is
asked nothing for a while, since the Hub's client and `datasets` would try each request again.
"""

from __future__ import annotations

import functools
import sys
import time
from collections.abc import Callable
from typing import Any

PAUSES = (0.5, 1.0, 2.0, 4.0, 8.0, 15.0)
"""Seconds before each further try."""
LONGEST_PAUSE = 30.0
"""Seconds that a server may ask for with `Retry-After`."""
PASSING = (429, 500, 502, 503, 504)
"""Answers after which a request is tried again."""
READ_SECONDS = 10.0
"""Time without an answer after which a request is tried again, and the user is told."""
SILENT_SECONDS = 50.0
"""Time without any answer after which a server is given up; the Hub's address is probed for 5 s before."""
OPTIONAL = ("s3.amazonaws.com", "datasets-server.")
"""Beginnings of hosts that `datasets` asks for a count of downloads and for conversions: it goes on without their answers."""
PROBE = "harness_probe"
"""Extension of a request that is sent once."""

UNREACHABLE_TRIES = 3
"""Tries of a server that refuses connections, or has no address, and has not answered before."""

_answered: set[str] = set()
"""Servers that have answered this process."""
_given_up: dict[str, tuple[float, str]] = {}
"""Servers that were given up, with the time and the reason: further requests to them fail at once."""


def say(text: str) -> None:
    """Tells the user why nothing moves."""
    sys.stderr.write(f"Hub    {text}\n")
    sys.stderr.flush()


@functools.cache
def be_patient() -> None:
    """Has every request to the Hub of this process tried again where that can help."""
    import huggingface_hub
    from huggingface_hub.utils._http import default_client_factory

    def patient_client() -> Any:
        client: Any = default_client_factory()
        client.send = functools.partial(_send, client.send)
        return client

    huggingface_hub.set_client_factory(patient_client)


def _send(send: Callable[..., Any], request: Any, **options: Any) -> Any:
    """Sends a request, again and again if it fails for a passing reason; the last answer or error is the result."""
    if PROBE in request.extensions or not _repeatable(request):
        return send(request, **options)
    host = request.url.host
    since, why = _given_up.get(host, (-SILENT_SECONDS, ""))
    if time.monotonic() - since < SILENT_SECONDS:
        raise _no_more(host, why)
    began = time.monotonic()
    given = request.extensions.get("timeout") or {}
    request.extensions["timeout"] = {
        name: min(given.get(name) or READ_SECONDS, READ_SECONDS) for name in ("connect", "read", "write", "pool")
    }
    for number, pause in enumerate((*PAUSES, None), 1):
        try:
            response = send(request, **options)
            _answered.add(host)
            if response.status_code not in PASSING or pause is None:
                return response
            reason, asked = f"answered {response.status_code}", _retry_after(response)
            response.close()
        except Exception as error:
            if not _passes(error) or (number >= UNREACHABLE_TRIES and _is_unreachable(request, error)):
                raise
            last = pause is None or time.monotonic() - began + READ_SECONDS > SILENT_SECONDS
            if pause is None or (last and _is_silence(error)):
                why = "accepts connections but does not answer" if _is_silence(error) else f"is gone ({error})"
                _given_up[host] = time.monotonic(), why
                raise _no_more(host, why) from error
            reason, asked = ("does not answer" if _is_silence(error) else "broke the connection"), 0.0
        wait = min(max(pause, asked), LONGEST_PAUSE)
        if number > 2 or asked > 2 or reason == "does not answer":
            say(f"{host} {reason}; try {number + 1} of {len(PAUSES) + 1} in {wait:g} s")
        time.sleep(wait)
    raise AssertionError("the last try returns or raises")


def _repeatable(request: Any) -> bool:
    """Whether sending a request twice helps and does no harm: its answer is needed, and it reads or asks for sizes of files."""
    if request.url.host.startswith(OPTIONAL):
        return False
    return request.method in ("GET", "HEAD") or (request.method == "POST" and "/paths-info/" in request.url.path)


def _retry_after(response: Any) -> float:
    """The seconds that a server asks to wait; 0 if it does not say, or gives a date."""
    try:
        return float(response.headers.get("Retry-After", 0))
    except ValueError:
        return 0.0


def _names(error: BaseException) -> set[str]:
    return {each.__name__ for each in type(error).__mro__}


def _passes(error: BaseException) -> bool:
    """Whether an error of the connection may not come again."""
    return bool(_names(error) & {"TimeoutException", "NetworkError", "RemoteProtocolError"})


def _is_unreachable(request: Any, error: BaseException) -> bool:
    """Whether no connection was made to a server that has never answered: it is offline, or the network is."""
    return "ConnectError" in _names(error) and request.url.host not in _answered


def _is_silence(error: BaseException) -> bool:
    return "ReadTimeout" in _names(error)


def _no_more(host: str, why: str) -> Exception:
    """The error for a server that was given up: the Hub's client does not try again, as in offline mode."""
    from huggingface_hub.errors import OfflineModeIsEnabled

    return OfflineModeIsEnabled(f"{host} {why}")
