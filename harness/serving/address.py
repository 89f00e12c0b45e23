"""Addresses of served models as typed: `endpoint:http://127.0.0.1:8000/v1#name`.

Example:
    >>> parse_address("endpoint:http://127.0.0.1:8000/v1/#base")
    Served(url='http://127.0.0.1:8000/v1', name='base')
"""

from __future__ import annotations

import ipaddress
import re
import urllib.parse

from harness.errors import UserError, printable
from harness.jobs import SERVED_PREFIX as PREFIX
from harness.jobs import Served

_FORM = "write `endpoint:http://HOST:PORT/v1#NAME`; the server lists its names at `/v1/models`"
_MOST_CHARACTERS = 2000
_PATHS = ("/chat/completions", "/completions", "/models")
"""Paths of single requests, which are no part of an address."""


def is_address(text: str) -> bool:
    """Whether a model or a source names a served model."""
    return text.startswith(PREFIX)


def split_address(text: str) -> tuple[str, str, str]:
    """Splits the keys off an address: `(address, ":", "key=value,…")`; a name may have colons of its own.

    Example:
        >>> split_address("endpoint:http://h:8000/v1#llama3:8b:shots=5")
        ('endpoint:http://h:8000/v1#llama3:8b', ':', 'shots=5')
    """
    found = re.search(r":(?=[A-Za-z_]\w*=)", text[len(PREFIX) :])
    if found is None:
        return text, "", ""
    at = len(PREFIX) + found.start()
    return text[:at], ":", text[at + 1 :]


def parse_address(text: str, shared: str | None = None) -> Served:
    """Reads the address of a served model.

    Args:
        text: As typed, with or without `endpoint:`; `#NAME` alone is another model of the server `shared`.
        shared: URL of the server of `--model`.

    Raises:
        UserError: The address is malformed, or holds a password or a query, which could be a key.

    Example:
        >>> parse_address("endpoint:#lora", "http://127.0.0.1:8000/v1").name
        'lora'
    """
    url, mark, name = text.removeprefix(PREFIX).partition("#")
    shown = printable(text if text.startswith(PREFIX) else PREFIX + text)[:200]
    if not mark or not name.strip() or name != printable(name) or len(text) > _MOST_CHARACTERS:
        raise UserError(f"`{shown}` names no model of the server", hint=_FORM)
    if not url:
        if shared is None:
            raise UserError(
                f"`{shown}` names no server", hint=f"give the server as the model (`--model endpoint:…`), or {_FORM}"
            )
        return Served(shared, name)
    try:
        parts = urllib.parse.urlsplit(url)
        host, port = parts.hostname, parts.port
    except ValueError as error:
        raise UserError(f"`{shown}` is no address: {error}", hint=_FORM) from None
    if parts.username or parts.password or parts.query:
        raise UserError(
            f"the address of the model `{printable(name)}` holds a password or a query, which may be a key",
            hint="addresses are written to files and shown: give a key in the environment variable `HARNESS_ENDPOINT_KEY`",
        )
    if parts.scheme not in ("http", "https") or not host or not url.isascii() or url != printable(url) or " " in url:
        raise UserError(f"`{shown}` is no address of a server", hint=_FORM)
    path = parts.path.rstrip("/")
    if found := next((each for each in _PATHS if path.endswith(each)), None):
        raise UserError(f"`{shown}` is the address of one request", hint=f"leave out `{found}`")
    where = f"[{host}]" if ":" in host else host
    default = {"http": 80, "https": 443}[parts.scheme]
    return Served(f"{parts.scheme}://{where}{'' if port in (None, default) else f':{port}'}{path}", name)


def is_loopback(url: str) -> bool:
    """Whether an address leads to this machine alone.

    Example:
        >>> is_loopback("http://127.0.0.1:8000/v1"), is_loopback("http://10.0.0.7/v1")
        (True, False)
    """
    host = urllib.parse.urlsplit(url).hostname or ""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
