"""Private text in files that leave the machine: local paths, names, addresses and tokens.

Example:
    >>> shortened("harness eval base --model /srv/models/llama -o ~/runs")
    'harness eval base --model …/llama -o …/runs'
"""

from __future__ import annotations

import getpass
import re
import socket
from pathlib import Path
from typing import Any

_PATH = re.compile(r"(?<![\w/.<…])(?:~[\w.-]*|\.\.|[A-Za-z]:)?(?:[/\\][^\s/\\'\"`,;:@#=()\[\]{}<>|+]+)+[/\\]?")
_SERVER = re.compile(r"https?://(?!huggingface\.co|hf\.co)[^\s#'\"`,)]+")
_SHORTEST_NAME = 4
"""Names of users and machines with fewer letters are words of other things as well."""
_COMMON_NAMES = {"root", "user", "admin", "ubuntu", "localhost", "harness", "base", "lora", "full", "none"}
SECRETS = {
    "a Hugging Face token": re.compile(r"\bhf_[A-Za-z0-9]{30,}"),
    "an API key": re.compile(r"\b(?:sk-[A-Za-z0-9_-]{20,}|AIza[0-9A-Za-z_-]{35}|xox[abprs]-[A-Za-z0-9-]{10,})"),
    "a GitHub token": re.compile(r"\b(?:gh[opsur]_[A-Za-z0-9]{30,}|github_pat_[A-Za-z0-9_]{30,})"),
    "an AWS key": re.compile(r"\b(?:AKIA|ASIA)[0-9A-Z]{16}\b"),
    "a private key": re.compile(r"-----BEGIN [A-Z ]*PRIVATE KEY-----"),
    "an address with a password": re.compile(r"://[^/\s:@\"']+:[^/\s@\"']+@"),
}
"""Texts that look like secrets, by their name in a message."""


def names_of_machine() -> tuple[str, ...]:
    """Names of the user and of the machine that are long enough to be recognised."""
    try:
        found = {getpass.getuser(), socket.gethostname()}
    except (OSError, KeyError):
        found = {socket.gethostname()}
    return tuple(sorted(name for name in found if len(name) >= _SHORTEST_NAME and name.lower() not in _COMMON_NAMES))


def shortened(text: str, names: tuple[str, ...] = ()) -> str:
    """Returns text with local paths cut to their last part, servers' addresses left out, and names replaced."""
    for folder in (str(Path.cwd()), str(Path.home())):  # first: they may have blanks
        if len(folder) > 1:
            text = text.replace(folder + "/", "~/")
    text = _SERVER.sub("…", text)
    text = _PATH.sub(lambda found: "…/" + re.split(r"[/\\]", found[0].rstrip("/\\"))[-1], text)
    for name in names:
        text = re.sub(rf"(?<!\w){re.escape(name)}(?!\w)", "…", text)
    return text


def shortened_document(value: Any, names: tuple[str, ...] = ()) -> Any:
    """Returns a JSON value with `shortened` applied to all texts and keys."""
    if isinstance(value, str):
        return shortened(value, names)
    if isinstance(value, dict):
        return {shortened(key, names): shortened_document(each, names) for key, each in value.items()}
    return [shortened_document(each, names) for each in value] if isinstance(value, list | tuple) else value


def secret_in(text: str, token: str | None = None) -> str | None:
    """Returns the kind of the first text that looks like a secret, and its line; None if there is none."""
    if token and token in text:
        return f"your token, line {text[: text.index(token)].count(chr(10)) + 1}"
    for kind, pattern in SECRETS.items():
        if found := pattern.search(text):
            return f"{kind}, line {text[: found.start()].count(chr(10)) + 1}"
    return None
