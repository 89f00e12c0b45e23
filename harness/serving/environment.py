"""Environment variables about servers: the key, which is in no file, and the time that an answer may take."""

from __future__ import annotations

import os

from harness.errors import UserError
from harness.serving.address import is_loopback
from harness.user_code import seconds_from

KEY_VARIABLES = ("HARNESS_ENDPOINT_KEY", "OPENAI_API_KEY")
"""Environment variables with the key, in the order in which they are looked for."""
SECONDS_VARIABLE = "HARNESS_ENDPOINT_SECONDS"
"""Environment variable with the seconds that one answer may take."""
SECONDS = 600.0


def key_for(url: str) -> str | None:
    """The key for a server from the environment.

    `HARNESS_ENDPOINT_KEY` is meant for the server that the user named. `OPENAI_API_KEY`, which may be set for other programs, is
    used where nobody on the way can read it.

    Raises:
        UserError: `HARNESS_ENDPOINT_KEY` would travel unencrypted to another machine, or cannot be sent.
    """
    safe = url.startswith("https:") or is_loopback(url)
    name = next((each for each in KEY_VARIABLES if os.environ.get(each, "").strip()), None)
    if name is None or (name != KEY_VARIABLES[0] and not safe):
        return None
    if not safe:
        raise UserError(
            f"`{url}` is not encrypted, and the key in `{name}` could be read on its way",
            hint="use https, or a tunnel: `ssh -L 8000:localhost:8000 HOST` and `http://127.0.0.1:8000/v1`",
        )
    key = os.environ[name].strip()
    if not key.isascii() or not key.isprintable():
        raise UserError(f"the key in `{name}` has characters that no header can hold", hint="set it again")
    return key


def answer_seconds() -> float:
    """The seconds that one answer may take.

    Raises:
        UserError: The environment variable is not a number above zero.
    """
    return seconds_from(SECONDS_VARIABLE, SECONDS)
