"""The source files behind a user's file: the file itself and every local module that it loads, with one digest of all.

A result is reused only if nothing that decided it has changed, so keys need every file of the user's code. Two ways find
them: the imports in the text of each file, followed from file to file, and the modules that appeared while the file was
imported (`recorded`), which also finds imports through `importlib`. A module is local unless it belongs to Python, to an
installed package or to this one.

Example:
    >>> from harness.registry.find import find
    >>> [path.name for path in sources(find("method", "lora").path)]
    ['__init__.py', '_peft.py', 'lora.py']
"""

from __future__ import annotations

import ast
import functools
import hashlib
import importlib.machinery
import os
import site
import sys
import sysconfig
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import CodeType
from typing import Any

import harness
from harness.data.digests import state_of, text_sha256

_SITES = ("site-packages", "dist-packages")
_LOADED: dict[Path, set[Path]] = {}
"""Local files that appeared in `sys.modules` while a user's file was imported or called, by that file."""
_FOLDERS: list[str] = []
"""Folders of users' files that were added to `sys.path`, the latest first."""
_READ: dict[Path, str] = {}
"""Digest of each local file as this process has imported it."""


def sources(path: Path) -> list[Path]:
    """The file and every local file that it loads, directly or through others, sorted."""
    path = path.resolve()
    own = _package(path)
    waiting, found = [path, *_LOADED.get(path, ())], {path}
    while waiting:
        file = waiting.pop()
        found.add(file)
        waiting += [each for each in _imported(file, path.parent) if each not in found and _is_local(each, own)]
    return sorted(found)


def sources_sha256(path: Path) -> str:
    """SHA-256 of the names and contents of a file and of every local file that it loads; their folder does not matter."""
    root = path.resolve().parent
    named = [
        (file.relative_to(root).as_posix() if file.is_relative_to(root) else file.name, _bytes_sha256(file))
        for file in sources(path)
    ]
    return text_sha256("".join(f"{name}:{digest}\n" for name, digest in sorted(named)))


@contextmanager
def recorded(path: Path) -> Iterator[None]:
    """Records the local modules that are imported inside the block as sources of the file at `path`."""
    before = set(sys.modules)
    try:
        yield
    finally:
        note_loaded(path, _files_of(sys.modules.keys() - before))


def note_loaded(path: Path, files: Iterable[Path]) -> None:
    """Adds files that were loaded for the file at `path`, in this process or in a child, to its sources.

    Not for a built-in entry: of this package's modules it loads, besides those in its text, whichever the process has not
    imported yet, and its key would depend on what ran before.
    """
    if _is_ours(path.resolve()):
        return
    own = _package(path.resolve())
    _LOADED.setdefault(path.resolve(), set()).update(each for each in files if _is_local(each, own))


class FromSource(importlib.machinery.SourceFileLoader):
    """Loads a local module from its source, never from a `.pyc` file.

    Python trusts a `.pyc` file whose recorded size and modification time, in seconds, fit the source. A file that is
    changed in place within a second, or whose time is set back, would run with its earlier content.
    """

    def get_code(self, fullname: str) -> CodeType | None:
        """Compiles the source."""
        text = self.get_data(self.path)
        _READ[Path(self.path).resolve()] = hashlib.sha256(text).hexdigest()
        code: CodeType = self.source_to_code(text, self.path)
        return code


class _LocalFinder:
    """Finds modules as Python's own finder does, and loads local ones with `FromSource`."""

    @staticmethod
    def find_spec(name: str, path: Any = None, target: Any = None) -> Any:
        found = importlib.machinery.PathFinder.find_spec(name, path, target)
        if found is None or type(found.loader) is not importlib.machinery.SourceFileLoader or not found.origin:
            return found
        if _is_local(Path(found.origin).resolve(), None):
            found.loader = FromSource(name, found.origin)
        return found


def load_from_source() -> None:
    """Has this process load local modules from their source from now on."""
    if _LocalFinder not in sys.meta_path:
        standard = importlib.machinery.PathFinder
        place = sys.meta_path.index(standard) if standard in sys.meta_path else len(sys.meta_path)
        sys.meta_path.insert(place, _LocalFinder)


def use_folder(path: Path) -> None:
    """Lets a user's file import the modules beside it: before those of other users' files, after installed packages.

    Modules of the same name that the file of another folder has imported are forgotten.
    """
    folder = str(path.resolve().parent)
    sys.path[:] = [each for each in sys.path if each not in _FOLDERS]
    if folder not in sys.path:
        _FOLDERS[:] = [folder, *(each for each in _FOLDERS if each != folder)]
    sys.path += _FOLDERS
    here = {top for top in {name.partition(".")[0] for name in sys.modules} if _has_module(folder, top)}
    for name, module in list(sys.modules.items()):
        if name.partition(".")[0] in here:
            file = _file_of(module)
            if file in _READ and not file.is_relative_to(folder):
                del sys.modules[name]


def _has_module(folder: str, top: str) -> bool:
    return _is_folder(f"{folder}/{top}") or _is_file(f"{folder}/{top}.py")


def forget_changed(path: Path) -> None:
    """Forgets the imported modules behind a file if one of them has changed, so that all are imported again."""
    files = set(sources(path))
    if any(_READ.get(file, now) != now for file in files if (now := _bytes_sha256(file))):
        for name, module in list(sys.modules.items()):
            if _file_of(module) in files & _READ.keys():
                del sys.modules[name]


def _files_of(names: Iterable[str]) -> set[Path]:
    files = (_file_of(sys.modules.get(name)) for name in list(names))
    return {file for file in files if file is not None}


def _file_of(module: Any) -> Path | None:
    file = getattr(module, "__file__", None)
    return Path(file).resolve() if isinstance(file, str) and file.endswith(".py") else None


@functools.cache
def _ours() -> tuple[Path, ...]:
    """Folders of this package; in a checkout, some of them are links to folders beside it."""
    here = Path(harness.__file__).resolve().parent
    return (here, *(each.resolve() for each in here.iterdir() if each.is_symlink()))


def _is_ours(path: Path) -> bool:
    return any(folder in path.parents for folder in _ours())


@functools.cache
def _foreign() -> tuple[Path, ...]:
    """Folders of modules that a version identifies: Python's, those of installed packages, and this package's."""
    installed = [sysconfig.get_path(name) for name in ("stdlib", "platstdlib", "purelib", "platlib")]
    places = [*installed, *site.getsitepackages(), site.getusersitepackages()]
    return (*dict.fromkeys(Path(each).resolve() for each in places), *_ours())


def _package(path: Path) -> Path | None:
    """The package of an installed plugin, or the folder of a built-in entry; None: a user's own file."""
    if _is_ours(path):
        return path.parent
    sites = [number for number, part in enumerate(path.parts) if part in _SITES]
    return Path(*path.parts[: sites[-1] + 2]) if sites else None


def _is_local(file: Path, own: Path | None) -> bool:
    """Whether a module's file is a user's own, or of the package `own`."""
    if own is not None and (own == file or own in file.parents):
        return True
    return _is_users(file)


@functools.lru_cache(maxsize=4096)
def _is_users(file: Path) -> bool:
    return not {*_SITES} & {*file.parts} and not any(folder in file.parents for folder in _foreign())


def _bytes_sha256(path: Path) -> str:
    try:
        return hashlib.sha256(path.read_bytes()).hexdigest()
    except OSError:
        return ""


def _imported(file: Path, root: Path) -> list[Path]:
    """Files of the modules that a file imports anywhere in its text, of those that can be local."""
    try:
        wanted = _imports(file, state_of(file))
    except OSError:  # it was deleted after it was loaded
        return []
    found: list[Path] = []
    for level, name in wanted:
        if level:
            start = str(file.parents[min(level, len(file.parents)) - 1])
            found += _module_files([start], name.split(".") if name else [])
        elif name.partition(".")[0] not in sys.stdlib_module_names:
            found += _module_files(_places(name.partition(".")[0], file, root), name.split("."))
    return found


def _places(top: str, file: Path, root: Path) -> tuple[str, ...]:
    """Folders in which Python looks for a module of that first name, for a file in the folder `root`; none if it is installed."""
    if top == "harness":  # built-in methods share steps; an editable installation is not on `sys.path`
        return (str(Path(harness.__file__).parents[1]),) if root in _ours() else ()
    path = tuple(each for each in sys.path if each not in _FOLDERS)
    return () if _is_foreign(top, path, str(root)) else (*path, str(root), str(file.parent), *_FOLDERS)


@functools.lru_cache(maxsize=4096)
def _is_foreign(top: str, path: tuple[str, ...], root: str) -> bool:
    """Whether a module by its first name is an installed one: it is first found in a folder of installed packages."""
    for folder in path:
        if _has_module(folder, top):
            return folder.rpartition("/")[2] in _SITES and not root.startswith(f"{folder}/")
    return False


@functools.lru_cache(maxsize=4096)
def _imports(file: Path, _state: tuple[int, ...]) -> tuple[tuple[int, str], ...]:
    """Each import as (level, dotted name); `from a import b` gives `a` and `a.b`, since `b` may be a module."""
    try:
        tree = ast.parse(file.read_bytes())
    except (SyntaxError, ValueError, RecursionError):
        return ()
    found: dict[tuple[int, str], None] = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {(0, alias.name): None for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            module = node.module or ""
            found[node.level, module] = None
            found |= {(node.level, ".".join(filter(None, (module, alias.name)))): None for alias in node.names}
    return tuple(found)


def _module_files(folders: Iterable[str], parts: list[str]) -> list[Path]:
    """Files that importing a dotted name runs: of the packages on the way, and of the module; from the first folder that has it."""
    for folder in folders:
        here = folder or "."
        if not parts or _has_module(here, parts[0]):
            return _files_on_the_way(here, parts)
    return []


def _files_on_the_way(folder: str, parts: list[str]) -> list[Path]:
    found = [] if parts else [f"{folder}/__init__.py"]
    for part in parts:
        folder, module = f"{folder}/{part}", f"{folder}/{part}.py"
        package = f"{folder}/__init__.py"
        if not _is_file(package) and _is_file(module):
            found.append(module)
            break
        found.append(package)
    return [Path(each).resolve() for each in found if _is_file(each)]


def _is_file(path: str) -> bool:
    return os.path.isfile(path)  # noqa: PTH113 - called a thousand times for a file, and three times as fast


def _is_folder(path: str) -> bool:
    return os.path.isdir(path)  # noqa: PTH112
