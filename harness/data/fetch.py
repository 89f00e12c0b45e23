"""Copies Hub datasets that tasks read into a folder, so that everything then runs without a network.

Each split becomes a Parquet file. README headers make each dataset a folder in Hub layout, and the manifest records the
files and the commits that they were copied from. The manifest is written after every file, so an interrupted fetch
continues where it stopped.
"""

from __future__ import annotations

import fcntl
import json
import re
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from harness.data.digests import file_sha256
from harness.data.hub import cached_commit, load_online
from harness.data.offline import MANIFEST, FetchedFile, check, read_manifest
from harness.data.sources import Hub
from harness.errors import UserError, together
from harness.storage import whole_file, write_whole, writing

PARALLEL_REQUESTS = 8
"""Splits that are loaded at the same time: for a small split, most of the time is spent waiting for the network."""
MAX_PROBLEMS = 5
"""Problems that one error lists."""
HINT = "files already fetched are kept: free some space, or choose another folder with `--to DIR`"


@dataclass(frozen=True)
class FetchedSplit:
    """A split that is now in the folder."""

    split: Hub
    file: FetchedFile
    bytes: int
    new: bool
    """False: it was in the folder before."""


def fetch(splits: Iterable[Hub], to: Path) -> Iterator[FetchedSplit]:
    """Copies splits into a folder; splits that are already there, complete and unchanged, are skipped.

    Args:
        splits: The splits, one configuration each.
        to: The folder; created if missing.

    Yields:
        Each split, as soon as it is in the folder.

    Raises:
        UserError: Splits could not be read (raised after all others are fetched), or a file could not be written.
    """
    wanted, problems = list(dict.fromkeys(splits)), []
    with writing(to, hint=HINT):
        to.mkdir(parents=True, exist_ok=True)
    before = {_identity(file): file for file in (read_manifest(to) if (to / MANIFEST).is_file() else [])}
    missing = [split for split in wanted if not _is_complete(to, before.get(_identity_of(split)))]
    yield from (
        FetchedSplit(split, file, (to / file.file).stat().st_size, new=False)
        for split in wanted
        if split not in missing and (file := before[_identity_of(split)])
    )
    pool = ThreadPoolExecutor(PARALLEL_REQUESTS)
    try:
        for split, loading in [(split, pool.submit(load_online, split)) for split in missing]:
            try:
                rows = loading.result()
            except UserError as error:
                problems.append(error)
                continue
            file = _write(split, rows, to)
            yield FetchedSplit(split, file, (to / file.file).stat().st_size, new=True)
    finally:
        pool.shutdown(cancel_futures=True)
    _raise(problems)


def verify(to: Path) -> list[FetchedFile]:
    """Makes sure that every file of a folder exists and is unchanged since it was fetched.

    Raises:
        UserError: Files are missing or have changed; up to five of them are listed.
    """
    problems = []
    files = read_manifest(to)
    for file in files:
        try:
            check(to, file)
        except UserError as error:
            problems.append(error)
    _raise(problems)
    return files


def _raise(problems: list[UserError]) -> None:
    """Raises the first problems as one error: a missing dataset gives one problem for each of its configurations."""
    more = [UserError(f"… and {len(problems) - MAX_PROBLEMS} more")] if len(problems) > MAX_PROBLEMS else []
    if problems:
        raise together(problems[:MAX_PROBLEMS] + more)


def _write(split: Hub, rows: Any, to: Path) -> FetchedFile:
    """Writes a split, then the manifest and the README that list it."""
    import pyarrow.parquet

    folder = to / "datasets" / split.repo
    config = split.name if isinstance(split.name, str) else None
    name = f"{config or 'default'}@{split.revision}" if split.revision else config or "default"
    path = folder / _file_name(name) / f"{_file_name(split.split)}.parquet"
    with whole_file(path, hint=HINT) as opened:
        pyarrow.parquet.write_table(rows.with_format("arrow")[:], opened)
    file = FetchedFile(
        repo=split.repo,
        config=config,
        split=split.split,
        file=path.relative_to(to).as_posix(),
        rows=len(rows),
        sha256=file_sha256(path),
        revision=cached_commit(split),
        asked=split.revision,
        license=_license(split),
    )
    with writing(to / MANIFEST, hint=HINT):
        _record(file, to)
    return file


def _record(file: FetchedFile, to: Path) -> None:
    """Adds a file to the manifest and the README; a lock makes this safe while other processes add theirs."""
    with (to / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        before = read_manifest(to) if (to / MANIFEST).is_file() else []
        others = [other for other in before if _identity(other) != _identity(file)]
        files = sorted([*others, file], key=lambda each: each.file)
        lines = ",\n".join(json.dumps(asdict(each), ensure_ascii=False) for each in files)
        readme = _readme([each for each in files if each.repo == file.repo])
        write_whole(to / "datasets" / file.repo / "README.md", readme, hint=HINT)
        write_whole(to / MANIFEST, f"[\n{lines}\n]\n", hint=HINT)


def _readme(files: Sequence[FetchedFile]) -> str:
    """The README that makes a folder of files a dataset; slices and requested revisions are only in the manifest."""
    import yaml

    configs: dict[str, list[dict[str, str]]] = {}
    for file in files:
        if file.asked is None and re.fullmatch(r"\w+(\.\w+)*", file.split):
            path = Path(file.file).relative_to(Path("datasets") / file.repo).as_posix()
            configs.setdefault(file.config or "default", []).append({"split": file.split, "path": path})
    header: dict[str, Any] = {"license": files[0].license} if files[0].license else {}
    header["configs"] = [{"config_name": name, "data_files": entries} for name, entries in configs.items()]
    text = yaml.safe_dump(header, sort_keys=False, allow_unicode=True)
    return f"---\n{text}---\n\nCopy of https://huggingface.co/datasets/{files[0].repo}, commit {files[0].revision}.\n"


def _license(split: Hub) -> str | None:
    """The licence in the dataset's card, or None."""
    from huggingface_hub import metadata_load, try_to_load_from_cache

    card = try_to_load_from_cache(split.repo, "README.md", repo_type="dataset", revision=split.revision)
    if not isinstance(card, str):
        return None
    try:
        license: Any = (metadata_load(card) or {}).get("license")
    except Exception:  # a card is written by hand: its header may be malformed in any way
        return None
    return ", ".join(map(str, license)) if isinstance(license, list) else str(license) if license else None


def _identity(file: FetchedFile) -> tuple[str, str | None, str, str | None]:
    return file.repo, file.config, file.split, file.asked


def _identity_of(split: Hub) -> tuple[str, str | None, str, str | None]:
    return split.repo, split.name if isinstance(split.name, str) else None, split.split, split.revision


def _is_complete(to: Path, file: FetchedFile | None) -> bool:
    if file is None:
        return False
    try:
        check(to, file)
    except UserError:
        return False
    return True


def _file_name(text: str) -> str:
    """A configuration or split as a file name: `train[:10%]` has characters that some file systems reject."""
    return re.sub(r"[^\w.@+-]", "_", text)
