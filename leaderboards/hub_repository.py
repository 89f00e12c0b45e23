"""A repository on the Hub that receives a run: what would change in it, and one commit that changes it."""

from __future__ import annotations

import difflib
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness.errors import UserError, one_line
from harness.leaderboards.published_files import RepoKind

_TRIES = 4
"""Times that a commit is sent to a Hub that answers 503; each names the commit before it, so that none lands twice."""
_SHOWN_LINES = 40
_REASONS = {
    401: ("does not accept the token", "log in again: `hf auth login`"),
    403: ("does not allow it", "use a token with write access, or `--create-pr`"),
    404: ("does not have it", "check the name after `--to`"),
    409: ("has a newer commit", "publish again: the difference is then computed from the newer commit"),
    412: ("has a newer commit", "publish again: the difference is then computed from the newer commit"),
    429: ("refuses so many requests", "wait some minutes and publish again"),
    503: ("is overloaded", "publish again later"),
}


@dataclass(frozen=True)
class Destination:
    """A repository as it was found, and the way in which the files reach it."""

    name: str
    kind: RepoKind
    head: str | None
    """Commit that the difference was computed from; None: the repository does not exist yet."""
    private: bool
    pull_request: bool
    changes: Mapping[str, bytes]
    """Files that are new or differ, by path."""
    difference: str


def find_destination(
    api: Any, name: str, kind: RepoKind, made: Mapping[str, bytes], *, public: bool, create_pr: bool | None
) -> Destination:
    """Looks up a repository and compares its files with those that were made; changes nothing.

    Args:
        api: A `huggingface_hub.HfApi`.
        name: `owner/name`.
        kind: Kind of the repository.
        made: The files by path.
        public: Whether everybody may read it.
        create_pr: Whether to open a pull request; None: where the owner is not the user nor an organisation of theirs.

    Raises:
        UserError: There is no token, the Hub refuses, the repository is public or of somebody else and absent.
    """
    from huggingface_hub.errors import HfHubHTTPError

    owner, _, short = name.partition("/")
    if not owner or not short or "/" in short:
        raise UserError(f"`--to {name}` is not a repository", hint="write it as `owner/name`")
    with _explained(name):
        me = api.whoami()
    ours = owner in {me["name"], *(each["name"] for each in me.get("orgs", ()))}
    with _explained(name):
        try:
            info = api.repo_info(name, repo_type=kind)
        except HfHubHTTPError as error:
            if error.response is None or error.response.status_code != 404:
                raise
            info = None
        if info is None and not ours:
            raise UserError(
                f"there is no {kind} `{name}` that your token can see, and `{owner}` is not you",
                hint=f"`--to {me['name']}/{short}` creates it in your own namespace",
            )
        if info is not None and not info.private and not public:
            raise UserError(f"{kind} `{name}` is public", hint="give `--public` if everybody may read the results")
        there = {each.rfilename: each.size for each in info.siblings or ()} if info is not None else {}
        changes, lines = _changes(api, name, kind, made, there)
    return Destination(
        name=name,
        kind=kind,
        head=info.sha if info is not None else None,
        private=info.private if info is not None else not public,
        pull_request=create_pr if create_pr is not None else not ours,
        changes=changes,
        difference="\n".join(lines),
    )


def send(api: Any, to: Destination, title: str) -> str:
    """Creates the repository if there is none, sends all changes as one commit, and returns its address.

    Raises:
        UserError: The Hub refuses; then the repository has none of the files.
    """
    from huggingface_hub import CommitOperationAdd
    from huggingface_hub.errors import HfHubHTTPError

    created = to.head is None
    with _explained(to.name):
        if created:
            more = {"space_sdk": "static"} if to.kind == "space" else {}
            api.create_repo(to.name, repo_type=to.kind, private=to.private, exist_ok=True, **more)
    with _explained(to.name, f"the {to.kind} was created and is empty" if created else "none of the files was changed"):
        for number in range(1, _TRIES + 1):
            try:
                done = api.create_commit(
                    to.name,
                    [CommitOperationAdd(path, content) for path, content in to.changes.items()],
                    commit_message=title,
                    repo_type=to.kind,
                    create_pr=to.pull_request,
                    parent_commit=to.head,
                )
                return str(done.pr_url or done.commit_url)
            except HfHubHTTPError as error:
                again = error.response is not None and error.response.status_code == 503
                # A pull request, or a commit without a parent, could land twice.
                if not again or number == _TRIES or to.pull_request or to.head is None:
                    raise
                time.sleep(2.0 ** (number - 1))
    raise AssertionError("the last try returns or raises")


def _changes(
    api: Any, name: str, kind: RepoKind, made: Mapping[str, bytes], there: Mapping[str, int | None]
) -> tuple[dict[str, bytes], list[str]]:
    """Files that are new or differ, and the difference for the screen; files that only the Hub has stay there."""
    changes, lines = {}, []
    with tempfile.TemporaryDirectory() as folder:
        for path, content in made.items():
            if path not in there:
                changes[path] = content
                lines.append(f"new      {path}  {len(content):,} bytes")
                continue
            old = Path(api.hf_hub_download(name, path, repo_type=kind, local_dir=folder)).read_bytes()
            if old == content:
                continue
            changes[path] = content
            lines.append(f"changed  {path}  {len(old):,} -> {len(content):,} bytes")
            if path.endswith(".md"):
                before, after = (text.decode(errors="replace").splitlines() for text in (old, content))
                shown = list(difflib.unified_diff(before, after, lineterm="", n=1))[2:]
                lines += [f"    {line}" for line in shown[:_SHOWN_LINES]]
                lines += [f"    … {len(shown) - _SHOWN_LINES} more lines"] * (len(shown) > _SHOWN_LINES)
    return changes, lines


@contextmanager
def _explained(name: str, left: str = "nothing was sent") -> Iterator[None]:
    """Turns errors of the Hub's client into one error with a hint, and says what is on the Hub."""
    from huggingface_hub.errors import HfHubHTTPError, LocalTokenNotFoundError, OfflineModeIsEnabled

    try:
        yield
    except LocalTokenNotFoundError as error:
        raise UserError("there is no token for the Hub", hint="log in with `hf auth login`, or set HF_TOKEN") from error
    except HfHubHTTPError as error:
        status = error.response.status_code if error.response is not None else 0
        why, hint = _REASONS.get(status, (f"answered: {one_line(error)}", "see https://status.huggingface.co"))
        raise UserError(f"`{name}`: the Hub {why} ({status}); {left}", hint=hint) from error
    except Exception as error:
        # By name: the Hub's client has changed the library of its requests twice.
        of_network = any(each.__name__ == "TransportError" for each in type(error).__mro__)
        if not of_network and not isinstance(error, (OfflineModeIsEnabled, OSError)):
            raise
        raise UserError(
            f"`{name}`: the Hub cannot be reached ({one_line(error)}); {left}", hint="check network and HF_ENDPOINT"
        ) from error
