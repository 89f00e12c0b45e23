"""Splits of datasets on the Hugging Face Hub, read from a fetched copy if there is one, else through `datasets`.

Example:
    >>> hub("openai/gsm8k", "main", split="test").name
    'main'
"""

from __future__ import annotations

import contextlib
import functools
import re
from collections.abc import Iterator, Sequence
from contextvars import ContextVar
from dataclasses import dataclass, replace
from pathlib import Path

from harness.api import Row
from harness.data.digests import files_sha256, rows_sha256, state_of, text_sha256
from harness.data.files import expand, one_line
from harness.data.offline import Copy, find_copy, folder
from harness.data.patience import PROBE, be_patient
from harness.errors import UserError
from harness.user_code import waiting

PROBE_SECONDS = 5.0
"""Timeout after which the Hub counts as unreachable; the Hub's own client would retry for 23 s."""
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
        """The rows of the split; several configurations are concatenated, and the column `config` names each row's.

        Raises:
            UserError: The dataset, its configuration or its split is missing, gated, unreachable, or not in the folder
                named by HARNESS_DATA.
        """
        seen = _READ.get()
        if seen is not None:
            seen.update(dict.fromkeys(self.single_configurations))
        return _load_split(self, folder(), tuple(map(state_of, self._files)))

    def digest(self) -> str:
        """Digest of the commit that `load` read; without a commit, of the files or the rows."""
        if isinstance(self.name, tuple):
            return text_sha256("".join(each.digest() for each in self.single_configurations))
        rows = self.load()  # first: it may fetch a newer commit than the cached one
        commit = self.commit
        if commit is not None:
            return text_sha256(f"{replace(self, revision=None)}@{commit}")
        copy = self.copy
        return text_sha256(f"{self}@{copy.sha256s}") if copy else rows_sha256(rows)

    @property
    def single_configurations(self) -> list[Hub]:
        """This split as one `Hub` per configuration."""
        return [replace(self, name=name) for name in (self.name if isinstance(self.name, tuple) else (self.name,))]

    @property
    def copy(self) -> Copy | None:
        """The fetched copy of a single configuration, or None."""
        if self.is_local or isinstance(self.name, tuple):
            return None
        return find_copy(str(self), self.repo, self.name, self.split, self.revision)

    @property
    def commit(self) -> str | None:
        """The commit that was read: recorded in the copy's manifest or in the Hub cache. Known after `load`."""
        if isinstance(self.name, tuple):
            commits = {each.commit for each in self.single_configurations}
            return commits.pop() if len(commits) == 1 else None
        if self.is_local:
            return None
        copy = self.copy
        if copy is not None:
            return copy.files[0].revision
        return cached_commit(self)

    @property
    def _files(self) -> list[Path]:
        """The files of a local folder in Hub layout, or of a fetched copy, sorted; none for rows of the Hub."""
        if self.is_local:
            return sorted(path for path in expand(Path(self.repo)).rglob("*") if path.is_file())
        found = [copy for each in self.single_configurations if (copy := each.copy)]
        return [copy.folder / file.file for copy in found for file in copy.files if (copy.folder / file.file).is_file()]

    @property
    def is_local(self) -> bool:
        """Whether `repo` is a folder on this machine."""
        return self.repo.startswith((".", "/", "~")) and expand(Path(self.repo)).is_dir()

    def __str__(self) -> str:
        name = "+".join(self.name) if isinstance(self.name, tuple) else self.name or ""
        return f"hub:{self.repo}:{name}:{self.split}" + (f"@{self.revision}" if self.revision else "")


def hub(
    repo: str, name: str | Sequence[str] | None = None, *, split: str = "train", revision: str | None = None
) -> Hub:
    """A split of a dataset on the Hub, read when it is first needed.

    Args:
        repo: Owner and name, or the path of a local folder in Hub layout.
        name: The configuration. For a list of them, the rows are concatenated and get a column `config`.
        split: The name of the split, such as `test`.
        revision: A commit, branch or tag; None: the newest commit.

    Raises:
        UserError: The list of configurations is empty.

    Example:
        >>> str(hub("openai/gsm8k", "main", split="test"))
        'hub:openai/gsm8k:main:test'
    """
    if name is not None and not isinstance(name, str):
        name = tuple(name)
        if not name:
            raise UserError(
                f'hub("{repo}", …): the list of configurations is empty',
                hint="give at least one configuration, or None",
            )
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
        raise UserError(
            f"malformed dataset address `{text}`", hint="write `hub:OWNER/NAME[:CONFIG[:SPLIT]][@REVISION]`"
        )
    names = [name for name in (match["name"] or "").split("+") if name]
    return hub(
        match["repo"],
        names if len(names) > 1 else names[0] if names else None,
        split=match["split"] or "train",
        revision=match["revision"],
    )


@functools.cache
def _load_split(split: Hub, _copies: Path, _states: tuple[tuple[int, ...], ...]) -> Sequence[Row]:
    """Reads a split once per process and state of its files: a task may use it for its rows, solved examples and digest."""
    if isinstance(split.name, tuple):
        return [{**row, "config": each.name} for each in split.single_configurations for row in each.load()]
    copy = split.copy
    return copy.load() if copy is not None else load_online(split)


def load_online(split: Hub) -> Sequence[Row]:
    """Reads one configuration with `datasets.load_dataset`, from the Hub or the cache of `datasets`.

    Raises:
        UserError: The dataset, its configuration or its split is missing, gated or unreachable.
    """
    import datasets

    datasets.disable_progress_bars()
    be_patient()
    repo = str(expand(Path(split.repo))) if split.is_local else split.repo
    try:
        with waiting(), contextlib.nullcontext() if split.is_local or _reachable() else _offline():
            loaded: Sequence[Row] = datasets.load_dataset(
                repo, split.name, split=split.split, revision=split.revision, cache_dir=_cache_of(split)
            )
    except Exception as error:  # the library raises a dozen types, its own and those of the network libraries
        raise UserError(f"could not read {split}: {one_line(error)}", hint=_hint(split, error)) from error
    return loaded


def _cache_of(split: Hub) -> str | None:
    """A cache of prepared rows for the content of a local folder: `datasets` recognises its files by their times alone."""
    if not split.is_local:
        return None
    import datasets

    folder = expand(Path(split.repo))
    return str(Path(datasets.config.HF_DATASETS_CACHE) / "local" / files_sha256(split._files, folder)[:16])


def cached_commit(split: Hub) -> str | None:
    """The commit that the Hub cache recorded for a split's revision, or None."""
    if re.fullmatch("[0-9a-f]{40}", split.revision or ""):
        return split.revision
    from huggingface_hub import constants

    cache = Path(constants.HF_HUB_CACHE) / ("datasets--" + split.repo.replace("/", "--"))
    reference = cache / "refs" / (split.revision or "main")
    return reference.read_text().strip() if reference.is_file() else None


@contextlib.contextmanager
def watched() -> Iterator[dict[Hub, None]]:
    """Records the splits that are read inside the block, one configuration each, in order.

    Some tasks read rows while they are being built, for example to collect their labels.
    """
    seen: dict[Hub, None] = {}
    token = _READ.set(seen)
    try:
        yield seen
    finally:
        _READ.reset(token)


def _reachable() -> bool:
    from huggingface_hub import constants

    return constants.HF_HUB_OFFLINE or _answers(constants.ENDPOINT)  # in offline mode the client sends no request


@functools.cache
def _answers(endpoint: str) -> bool:
    """Whether the Hub's address answers, through the client's own proxies and certificates."""
    from huggingface_hub import get_session

    try:
        get_session().head(endpoint, timeout=PROBE_SECONDS, extensions={PROBE: True})
    except Exception as error:  # connection refused, unknown host, blocked socket; a slow server is still reachable
        return type(error).__name__ == "ReadTimeout"
    return True


@contextlib.contextmanager
def _offline() -> Iterator[None]:
    """Reads only from the cache, without any request to the network."""
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
            f"offline? run `harness data fetch {split} --to DIR` on a machine with a network, then set HARNESS_DATA=DIR"
            " here; or give a local file"
        )
    if "server error" in text or "timed out" in text:
        return "the Hub has a problem: try again in a few minutes; files already fetched are kept"
    if "no space left" in text:
        return "free some space, or set HF_HOME to a folder on another disk"
    if "builderconfig" in text or "config name" in text:
        return "choose one of the configurations listed above: `hub:OWNER/NAME:CONFIG`"
    if "split" in text:
        return "choose one of the splits listed above: `hub:OWNER/NAME:CONFIG:SPLIT`"
    if "notfound" in text or "doesn't exist" in text or "404" in text or "repo id" in text:
        return "check the owner and the name; a private dataset needs `hf auth login`"
    return f"to see the full error, run `hf download --repo-type dataset {repo}`; or give a local file"
