"""Copies the Hub datasets that tasks read into a folder, so that everything runs without a network afterwards.

A split is a Parquet file; README headers make each dataset a folder in Hub layout, and the manifest says what was fetched
of which commit. The manifest is written after every file: an interrupted fetch goes on where it stopped.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import re
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from harness.data.files import file_sha256
from harness.data.hub import cached_commit, load_online
from harness.data.offline import MANIFEST, Part, check, read_manifest
from harness.data.sources import Hub
from harness.errors import UserError, together

AT_ONCE = 8
"""Splits that are asked for at the same time: most of the wait for a small one is the network's."""
PROBLEMS = 5
"""How many of them an error lists."""


@dataclass(frozen=True)
class Fetched:
    """A split that is in the folder now."""

    split: Hub
    part: Part
    bytes: int
    new: bool
    """False: it was there before."""


def fetch(splits: Iterable[Hub], to: Path) -> Iterator[Fetched]:
    """Copies splits into a folder; those that are whole there are left alone.

    Args:
        splits: Each of one configuration.
        to: The folder; made where it is not there.

    Yields:
        Each split as it is in the folder.

    Raises:
        UserError: Splits that could not be read (all of them, after the others are fetched), or a file that could not be
            written.
    """
    wanted, problems = list(dict.fromkeys(splits)), []
    with _writing(to):
        to.mkdir(parents=True, exist_ok=True)
    there = {_place(part): part for part in (read_manifest(to) if (to / MANIFEST).is_file() else [])}
    missing = [split for split in wanted if not _is_whole(to, there.get(_place_of(split)))]
    yield from (
        Fetched(split, part, (to / part.file).stat().st_size, new=False)
        for split in wanted
        if split not in missing and (part := there[_place_of(split)])
    )
    pool = ThreadPoolExecutor(AT_ONCE)
    try:
        for split, loading in [(split, pool.submit(load_online, split)) for split in missing]:
            try:
                rows = loading.result()
            except UserError as error:
                problems.append(error)
                continue
            part = _write(split, rows, to)
            yield Fetched(split, part, (to / part.file).stat().st_size, new=True)
    finally:
        pool.shutdown(cancel_futures=True)
    _raise(problems)


def verify(to: Path) -> list[Part]:
    """Makes sure that every file of a folder is what was fetched.

    Raises:
        UserError: Files are missing or were altered: all of them.
    """
    problems = []
    parts = read_manifest(to)
    for part in parts:
        try:
            check(to, part)
        except UserError as error:
            problems.append(error)
    _raise(problems)
    return parts


def _raise(problems: list[UserError]) -> None:
    """All problems as one; of very many the first, as a dataset that is not there lacks each of its subjects."""
    more = [UserError(f"… and {len(problems) - PROBLEMS} more")] if len(problems) > PROBLEMS else []
    if problems:
        raise together(problems[:PROBLEMS] + more)


def _write(split: Hub, rows: Any, to: Path) -> Part:
    """Writes a split, then the manifest and README that name it."""
    import pyarrow.parquet

    folder = to / "datasets" / split.repo
    config = split.name if isinstance(split.name, str) else None
    name = f"{config or 'default'}@{split.revision}" if split.revision else config or "default"
    path = folder / _file_name(name) / f"{_file_name(split.split)}.parquet"
    aside = path.with_suffix(f".{os.getpid()}.aside")
    with _writing(path):
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with aside.open("wb") as file:
                pyarrow.parquet.write_table(rows.with_format("arrow")[:], file)
                file.flush()
                os.fsync(file.fileno())
            aside.rename(path)
        finally:
            aside.unlink(missing_ok=True)
        part = Part(
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
        _record(part, to)
    return part


def _record(part: Part, to: Path) -> None:
    """Adds a line to the manifest, whoever else is adding lines to it."""
    with (to / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        before = read_manifest(to) if (to / MANIFEST).is_file() else []
        parts = sorted([*(p for p in before if _place(p) != _place(part)), part], key=lambda p: p.file)
        lines = ",\n".join(json.dumps(asdict(each), ensure_ascii=False) for each in parts)
        _replace(to / "datasets" / part.repo / "README.md", _readme([p for p in parts if p.repo == part.repo]))
        _replace(to / MANIFEST, f"[\n{lines}\n]\n")


def _readme(parts: Sequence[Part]) -> str:
    """The header that makes a folder of files a dataset; slices and asked revisions are in the manifest alone."""
    import yaml

    configs: dict[str, list[dict[str, str]]] = {}
    for part in parts:
        if part.asked is None and re.fullmatch(r"\w+(\.\w+)*", part.split):
            path = Path(part.file).relative_to(Path("datasets") / part.repo).as_posix()
            configs.setdefault(part.config or "default", []).append({"split": part.split, "path": path})
    header: dict[str, Any] = {"license": parts[0].license} if parts[0].license else {}
    header["configs"] = [{"config_name": name, "data_files": files} for name, files in configs.items()]
    text = yaml.safe_dump(header, sort_keys=False, allow_unicode=True)
    return f"---\n{text}---\n\nCopy of https://huggingface.co/datasets/{parts[0].repo}, commit {parts[0].revision}.\n"


def _license(split: Hub) -> str | None:
    """The licence in the dataset's card, where it has one that can be read."""
    from huggingface_hub import metadata_load, try_to_load_from_cache

    card = try_to_load_from_cache(split.repo, "README.md", repo_type="dataset", revision=split.revision)
    if not isinstance(card, str):
        return None
    try:
        license: Any = (metadata_load(card) or {}).get("license")
    except Exception:  # a card is free text, and its header anything
        return None
    return ", ".join(map(str, license)) if isinstance(license, list) else str(license) if license else None


def _place(part: Part) -> tuple[str, str | None, str, str | None]:
    return part.repo, part.config, part.split, part.asked


def _place_of(split: Hub) -> tuple[str, str | None, str, str | None]:
    return split.repo, split.name if isinstance(split.name, str) else None, split.split, split.revision


def _is_whole(to: Path, part: Part | None) -> bool:
    if part is None:
        return False
    try:
        check(to, part)
    except UserError:
        return False
    return True


def _file_name(text: str) -> str:
    """A name of a configuration or split as a file's: `train[:10%]` has characters that not every disk takes."""
    return re.sub(r"[^\w.@+-]", "_", text)


def _replace(path: Path, text: str) -> None:
    aside = path.with_name(f".{path.name}.{os.getpid()}")
    aside.write_text(text, encoding="utf-8")
    aside.rename(path)


@contextlib.contextmanager
def _writing(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise UserError(
            f"could not write `{error.filename or path}`: {error.strerror or error}",
            hint="what is whole there is kept; free some space, or name another folder: `--to DIR`",
        ) from error
