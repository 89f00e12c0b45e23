"""Splits of datasets on the Hugging Face Hub: from a fetched copy where there is one, else through `datasets`.

Example:
    >>> hub("openai/gsm8k", "main", split="test").name
    'main'
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import json
import re
from collections.abc import Iterator, Sequence
from contextvars import ContextVar
from dataclasses import dataclass, replace
from pathlib import Path

from harness.api import Row
from harness.data.files import summary
from harness.data.offline import Copy, find_copy, folder
from harness.errors import UserError

PROBE_SECONDS = 5.0
"""How long the Hub may take to answer before it counts as out of reach: its own client would go on trying for 23 s."""
_ADDRESS = re.compile(r"hub:(?P<repo>[^:@]+)(:(?P<name>[^:@]*))?(:(?P<split>[^:@]+))?(@(?P<revision>[^:@]+))?")
_READ: ContextVar[dict[Hub, None] | None] = ContextVar("splits read", default=None)


@dataclass(frozen=True)
class Hub:
    """A split of a dataset on the Hugging Face Hub (or of a local folder in Hub layout)."""

    repo: str
    name: str | tuple[str, ...] | None
    split: str
    revision: str | None = None

    def load(self) -> Sequence[Row]:
        """The split's rows; those of several configurations one after another, each with its `config`.

        Raises:
            UserError: The dataset, its configuration or its split is missing, gated, unreachable, or not in the folder
                that HARNESS_DATA names.
        """
        seen = _READ.get()
        if seen is not None:
            seen.update(dict.fromkeys(self.parts))
        return _load_split(self, folder())

    def digest(self) -> str:
        """Of the commit that `load` read; where there is none, of the files or rows."""
        if isinstance(self.name, tuple):
            return _sha256("".join(part.digest() for part in self.parts))
        rows = self.load()  # first: it may fetch a newer commit than the cache had
        commit = self.commit
        if commit is not None:
            return _sha256(f"{replace(self, revision=None)}@{commit}")
        copy = self.copy
        return _sha256(f"{self}@{copy.sha256s}") if copy else rows_sha256(rows)

    @property
    def parts(self) -> list[Hub]:
        """One split for each configuration."""
        return [replace(self, name=name) for name in (self.name if isinstance(self.name, tuple) else (self.name,))]

    @property
    def copy(self) -> Copy | None:
        """The fetched copy of a single configuration, where there is one."""
        if self.is_local or isinstance(self.name, tuple):
            return None
        return find_copy(str(self), self.repo, self.name, self.split, self.revision)

    @property
    def commit(self) -> str | None:
        """The commit that was read: the copy's, or the one that the Hub cache recorded. Known after `load`."""
        if isinstance(self.name, tuple):
            commits = {part.commit for part in self.parts}
            return commits.pop() if len(commits) == 1 else None
        if self.is_local:
            return None
        copy = self.copy
        if copy is not None:
            return copy.parts[0].revision
        return cached_commit(self)

    @property
    def is_local(self) -> bool:
        """Whether `repo` is a folder of this machine."""
        return self.repo.startswith((".", "/", "~")) and Path(self.repo).expanduser().is_dir()

    def __str__(self) -> str:
        name = "+".join(self.name) if isinstance(self.name, tuple) else self.name or ""
        return f"hub:{self.repo}:{name}:{self.split}" + (f"@{self.revision}" if self.revision else "")


def hub(
    repo: str, name: str | Sequence[str] | None = None, *, split: str = "train", revision: str | None = None
) -> Hub:
    """A split of a dataset on the Hub; read when it is first needed.

    Args:
        repo: Owner and name, or the path of a local folder in Hub layout.
        name: The configuration; or several: their rows follow one another, and the column `config` tells them apart.
        split: Such as `test`.
        revision: A commit, branch or tag; None: the newest.

    Example:
        >>> str(hub("openai/gsm8k", "main", split="test"))
        'hub:openai/gsm8k:main:test'
    """
    if name is not None and not isinstance(name, str):
        name = tuple(name)
        if not name:
            raise UserError(f"hub(`{repo}`): the list of configurations is empty", hint="name at least one")
    return Hub(repo, name, split, revision)


def parse_hub(text: str) -> Hub:
    """Reads `hub:owner/name[:config[:split]][@revision]`; several configurations are joined with `+`.

    Raises:
        UserError: The text is malformed.

    Example:
        >>> parse_hub("hub:openai/gsm8k:main:test@v1").revision
        'v1'
    """
    match = _ADDRESS.fullmatch(text)
    if match is None:
        raise UserError(f"malformed dataset `{text}`", hint="write `hub:OWNER/NAME[:CONFIG[:SPLIT]][@REVISION]`")
    names = [name for name in (match["name"] or "").split("+") if name]
    return hub(
        match["repo"],
        names if len(names) > 1 else names[0] if names else None,
        split=match["split"] or "train",
        revision=match["revision"],
    )


@functools.cache
def _load_split(split: Hub, _copies: Path) -> Sequence[Row]:
    """Read once a process: a task may use a split for its rows, its solved examples and its digest."""
    if isinstance(split.name, tuple):
        return [{**row, "config": part.name} for part in split.parts for row in part.load()]
    copy = split.copy
    return copy.load() if copy is not None else load_online(split)


def load_online(split: Hub) -> Sequence[Row]:
    """The rows of one configuration through `datasets.load_dataset`, from the Hub or the cache of `datasets`.

    Raises:
        UserError: The dataset, its configuration or its split is missing, gated or unreachable.
    """
    import datasets

    datasets.disable_progress_bars()
    repo = str(Path(split.repo).expanduser()) if split.is_local else split.repo
    try:
        with contextlib.nullcontext() if split.is_local or _reachable() else _offline():
            loaded: Sequence[Row] = datasets.load_dataset(repo, split.name, split=split.split, revision=split.revision)
    except Exception as error:  # the library raises a dozen kinds, from its own to those of the network
        raise UserError(f"could not read {split}: {summary(error)}", hint=_hint(split, error)) from error
    return loaded


def cached_commit(split: Hub) -> str | None:
    """The commit that the Hub cache recorded for a split's revision; None where it has none."""
    if re.fullmatch("[0-9a-f]{40}", split.revision or ""):
        return split.revision
    from huggingface_hub import constants

    cache = Path(constants.HF_HUB_CACHE) / ("datasets--" + split.repo.replace("/", "--"))
    reference = cache / "refs" / (split.revision or "main")
    return reference.read_text().strip() if reference.is_file() else None


@contextlib.contextmanager
def watched() -> Iterator[dict[Hub, None]]:
    """The splits that are read meanwhile, one configuration each, in order: some tasks read rows to know their labels."""
    seen: dict[Hub, None] = {}
    token = _READ.set(seen)
    try:
        yield seen
    finally:
        _READ.reset(token)


def _reachable() -> bool:
    from huggingface_hub import constants

    return constants.HF_HUB_OFFLINE or _answers(constants.ENDPOINT)  # told to be offline: nothing will be tried


@functools.cache
def _answers(endpoint: str) -> bool:
    """Whether anything answers at the Hub's address, through the client's own proxies and certificates."""
    from huggingface_hub import get_session

    try:
        get_session().head(endpoint, timeout=PROBE_SECONDS)
    except Exception as error:  # refused, no such name, a blocked socket; a slow answer is an answer
        return type(error).__name__ == "ReadTimeout"
    return True


@contextlib.contextmanager
def _offline() -> Iterator[None]:
    """What is in the cache can be read, and nothing else is tried."""
    import datasets
    from huggingface_hub import constants

    before = constants.HF_HUB_OFFLINE, datasets.config.HF_HUB_OFFLINE
    constants.HF_HUB_OFFLINE = datasets.config.HF_HUB_OFFLINE = True
    try:
        yield
    finally:
        constants.HF_HUB_OFFLINE, datasets.config.HF_HUB_OFFLINE = before


def _hint(split: Hub, error: Exception) -> str:
    repo, text = split.repo, f"{type(error).__name__} {error}".lower()
    if "gated" in text or "401" in text or "403" in text:
        return f"ask for access on https://huggingface.co/datasets/{repo}, then `hf auth login` or set HF_TOKEN"
    if "reach" in text or "offline" in text or "connection" in text:
        return (
            f"offline? where there is a network: `harness data fetch {split} --to DIR`, then set HARNESS_DATA=DIR here;"
            " or give a local file"
        )
    if "server error" in text or "timed out" in text:
        return "the Hub has trouble: try again in a while; what was fetched is kept"
    if "no space left" in text:
        return "free some space, or set HF_HOME to a folder on another disk"
    if "builderconfig" in text or "config name" in text:
        return "name one of the configurations listed above: `hub:OWNER/NAME:CONFIG`"
    if "split" in text:
        return "name one of the splits listed above: `hub:OWNER/NAME:CONFIG:SPLIT`"
    if "notfound" in text or "doesn't exist" in text or "404" in text or "repo id" in text:
        return "check the owner and the name; a private dataset needs `hf auth login`"
    return f"to see it in full: `hf download --repo-type dataset {repo}`; or give a local file"


def rows_sha256(rows: Sequence[Row]) -> str:
    """SHA-256 of rows as JSON."""
    hasher = hashlib.sha256()
    for row in rows:
        hasher.update(json.dumps(row, sort_keys=True, default=repr).encode())
    return hasher.hexdigest()


def _sha256(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
