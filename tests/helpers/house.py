"""The graph of imports between rooms (sub-packages). As a program, prints the graph:

python tests/helpers/house.py            modules and imports of each room
python tests/helpers/house.py --arrows   every import between two rooms, by module
"""

from __future__ import annotations

import ast
import shutil
import sys
from collections import defaultdict
from collections.abc import Iterable, Mapping
from pathlib import Path

ROOT = Path(__file__).parents[2]
ORDER = (
    *("lazy", "errors", "user_code", "storage", "results", "tiny", "settings", "api", "sandbox", "stats"),
    *("jobs", "data"),
    *("prompts", "tokens", "serving", "runs", "report"),
    *("metrics", "leaderboards"),
    *("registry",),
    *("config", "deploy"),
    *("models",),
    *("engine", "prepare"),
    *("finetune.training", "authoring"),
    *("finetune.stages", "worker"),
    *("comparison",),
    *("imports",),
    *("cli", "__main__"),
)
"""The rooms in order: a room imports only from earlier rooms and from itself."""
LEAVES = ("tasks", "finetune")
"""Rooms of task and method files, which import only the public names and are imported by no module."""
HEAVY = ("torch", "transformers", "peft", "datasets")
"""Packages that take seconds to import and may use a GPU or threads."""
FACADE = "harness"
"""The module of the public names, which are loaded lazily: every module may import it, and it imports from all rooms."""


def modules() -> dict[str, Path]:
    """Every module by its import path; the outer folders have the names under which they are installed."""
    found = {}
    for folder, prefix in (
        ("harness", "harness"),
        *((name, f"harness.{name}") for name in ("tasks", "finetune", "leaderboards")),
    ):
        for path in sorted((ROOT / folder).rglob("*.py")):
            parts = path.relative_to(ROOT / folder).with_suffix("").parts
            if folder == "harness" and parts[0] in ("tasks", "finetune", "leaderboards"):
                continue  # links to the outer folders, which have their own iteration
            if folder == "leaderboards" and parts[0] == "results":
                continue  # data: published runs, with task files of their own
            found[".".join((prefix, *(part for part in parts if part != "__init__")))] = path
    return found


def room_of(module: str) -> str:
    """The room of a module; all task files are one room, and all method files another.

    Example:
        >>> room_of("harness.comparison.run"), room_of("harness.finetune.training.loss"), room_of("harness.finetune.lora")
        ('comparison', 'finetune.training', 'finetune')
    """
    parts = module.split(".")[1:]
    if not parts:
        return FACADE
    if parts[0] == "finetune" and len(parts) > 1 and parts[1] in ("training", "stages"):
        return ".".join(parts[:2])
    return parts[0]


def imports_of(path: Path, known: Iterable[str], public: Iterable[str]) -> set[str]:
    """Modules of this package that a file imports at run time, without those under `if TYPE_CHECKING:`."""
    tree, known, public = ast.parse(path.read_text(encoding="utf-8")), set(known), set(public)
    for_types = _for_types(tree)
    found: set[str] = set()
    for node in ast.walk(tree):
        if node in for_types:
            continue
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and node.module.partition(".")[0] == "harness":
            for alias in node.names:
                inner = f"{node.module}.{alias.name}"
                is_public = node.module == "harness" and alias.name in public
                found.add(inner if inner in known and not is_public else node.module)
    return {name for name in found if name.partition(".")[0] == "harness"}


def heavy_imports(path: Path) -> set[str]:
    """The heavy packages that a file imports anywhere, including inside functions."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    for_types, found = _for_types(tree), set()
    for node in ast.walk(tree):
        if node in for_types:
            continue
        if isinstance(node, ast.Import):
            found |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            found.add(node.module.partition(".")[0])
    return found & set(HEAVY)


def _for_types(tree: ast.Module) -> set[ast.AST]:
    """The nodes under `if TYPE_CHECKING:`."""
    return {
        inner
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and ast.unparse(node.test).endswith("TYPE_CHECKING")
        for inner in ast.walk(node)
    }


def types_of(path: Path) -> list[str]:
    """Names of the public classes and type aliases at the top level of a module."""
    names: list[str] = []
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.ClassDef):
            names.append(node.name)
        elif isinstance(node, ast.Assign):
            names += [target.id for target in node.targets if isinstance(target, ast.Name)]
    return [name for name in names if name[0].isupper() and not name.isupper()]


def copy_of_the_package(folder: Path) -> Path:
    """Copies the package, without weights and data, so that it can be imported from `folder`."""
    for name in ("harness", "tasks", "finetune", "leaderboards"):
        ignored = shutil.ignore_patterns("__pycache__", "*.safetensors", "results", "data_files")
        shutil.copytree(ROOT / name, folder / name, symlinks=True, ignore=ignored)
    return folder


WATCH_IMPORTS = f"""
import importlib, sys
for module in sys.argv[1:]:
    importlib.import_module(module)
    if found := [name for name in {HEAVY} if name in sys.modules]:
        sys.exit(module + " imports " + ", ".join(found))
"""
"""A program that imports its arguments one by one and exits at the first one that imports a heavy package."""


def arrows(paths: Mapping[str, Path], public: Iterable[str]) -> dict[tuple[str, str], set[tuple[str, str]]]:
    """For each pair of rooms, the imports between them: (importing module, imported module)."""
    found: dict[tuple[str, str], set[tuple[str, str]]] = defaultdict(set)
    for module, path in paths.items():
        for imported in imports_of(path, paths, public):
            pair = room_of(module), room_of(imported)
            if pair[0] != pair[1] and FACADE not in pair:
                found[pair].add((module, imported))
    return dict(found)


def cycles(pairs: Iterable[tuple[str, str]]) -> list[list[str]]:
    """Groups of rooms that import from one another, directly or indirectly (strongly connected components).

    Example:
        >>> cycles([("a", "b"), ("b", "c"), ("c", "b")])
        [['b', 'c']]
    """
    reachable: dict[str, set[str]] = defaultdict(set)
    for source, target in pairs:
        reachable[source].add(target)
    changed = True
    while changed:
        changed = False
        for source in list(reachable):
            wider = set().union(reachable[source], *(reachable.get(target, set()) for target in reachable[source]))
            changed |= wider != reachable[source]
            reachable[source] = wider
    inside = sorted(source for source in reachable if source in reachable[source])
    groups = {tuple(b for b in inside if b in reachable[a] and a in reachable[b]) for a in inside}
    return [list(group) for group in sorted(groups)]


def main() -> None:
    """Prints the graph."""
    import harness

    paths = modules()
    graph = arrows(paths, harness.__all__)
    members: dict[str, list[str]] = defaultdict(list)
    for module in paths:
        members[room_of(module)].append(module)
    width = max(map(len, members))
    for name in sorted(members, key=lambda room: ORDER.index(room) if room in ORDER else -1):
        into = sorted(target for source, target in graph if source == name)
        lines = sum(len(paths[module].read_text(encoding="utf-8").splitlines()) for module in members[name])
        print(f"{name:{width}}  {len(members[name]):3} modules  {lines:5} lines  imports {', '.join(into) or '-'}")
    between = sum(map(len, graph.values()))
    print(f"{len(paths)} modules, {len(members)} rooms, {len(graph)} arrows ({between} imports behind them)")
    print(f"cycles: {cycles(graph) or 'none'}")
    if "--arrows" in sys.argv:
        for (source, target), behind in sorted(graph.items()):
            print(f"{source} -> {target}: " + ", ".join(f"{a} imports {b}" for a, b in sorted(behind)))


if __name__ == "__main__":
    main()
