"""The house's floors: what may import what, and what importing costs."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import harness

ROOT = Path(__file__).parents[2]
FLOORS = (
    ("errors", "results", "format", "progress", "__init__"),
    ("api",),
    ("layers", "values", "configfile", "gates", "costs", "quantiles", "settings", "tuning"),
    (
        "declarations",
        "nli",
        "helper",
        "tokenizer",
        "plugin",
        "labels",
        "files",
        "mixes",
        "copies",
        "splits",
        "data",
        "chat",
        "guard",
        "guard_child",
        "guard_kernel",
    ),
    ("metrics", "registry", "tiny", "proportions", "resampling"),
    ("variants", "config", "spec", "samples", "shots", "render", "stats", "spread", "snapshot", "scaffold", "taskdoc"),
    ("fetch", "jobs", "overlap", "summary", "tables", "heatmap", "lint", "check"),
    ("runs", "traindata"),
    ("artifacts",),
    ("models", "pristine", "heads"),
    ("measure", "engine", "finetune"),
    ("encoder",),
    ("preparation", "scored", "trainings", "children"),
    ("worker", "records", "tally", "session", "demands"),
    ("replicas",),
    ("document", "sink", "card"),
    ("comparison", "planning"),
    ("report", "leaderboards", "promptview", "trainview"),
    ("cli",),
    ("__main__",),
)
"""From the ground up: a room imports from the floors below it, and from its own."""

WITHOUT_TORCH = ("cli", "report", "leaderboards", "stats", "runs", "registry", "spec", "api", "render", "metrics")


def files() -> list[tuple[str, Path]]:
    """Every module of ours by its import path, the outer folders under the name they are installed by."""
    found = []
    for folder, prefix in (
        ("harness", "harness"),
        *((f, f"harness.{f}") for f in ("tasks", "finetune", "leaderboards")),
    ):
        for path in sorted((ROOT / folder).rglob("*.py")):
            parts = path.relative_to(ROOT / folder).with_suffix("").parts
            if folder == "harness" and parts[0] in ("tasks", "finetune", "leaderboards"):
                continue  # the links, which are walked by their own folders
            found.append((".".join((prefix, *(part for part in parts if part != "__init__"))), path))
    return found


def imports(path: Path) -> set[str]:
    """Modules of ours that a file imports at run time, `if TYPE_CHECKING:` left out."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    typing_only = {
        inner
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and ast.unparse(node.test).endswith("TYPE_CHECKING")
        for inner in ast.walk(node)
    }
    names: set[str] = set()
    for node in ast.walk(tree):
        if node in typing_only:
            continue
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module == "harness":
            names |= {
                f"harness.{alias.name}" if alias.name not in harness.__all__ else "harness" for alias in node.names
            }
        elif isinstance(node, ast.ImportFrom) and node.module:
            names.add(node.module)
    return {name for name in names if name.partition(".")[0] == "harness"}


def room(module: str) -> str:
    return [*module.split("."), "__init__"][1]


def test_every_room_has_a_floor() -> None:
    placed = {name for floor in FLOORS for name in floor} | {"tasks"}
    assert {room(module) for module, _ in files()} - placed == set()


@pytest.mark.parametrize(("module", "path"), [pytest.param(m, p, id=m) for m, p in files() if room(m) != "tasks"])
def test_a_room_imports_only_from_below(module: str, path: Path) -> None:
    height = {name: index for index, floor in enumerate(FLOORS) for name in floor}
    above = {name for name in imports(path) if height.get(room(name), 0) > height.get(room(module), 0)}
    assert above == set(), f"{module} imports from above: {above}"


@pytest.mark.parametrize(
    "path",
    [
        pytest.param(path, id=module)
        for module, path in files()
        if room(module) in ("tasks", "finetune")
        and any(line.startswith(("@task", "@method")) for line in path.read_text().splitlines())
    ],
)
def test_tasks_and_methods_use_the_public_names_alone(path: Path) -> None:
    assert imports(path) <= {"harness"}


def test_no_public_name_is_hidden_by_a_module() -> None:
    """Importing `harness.task` would put a module where `@task` was."""
    assert {room(module) for module, _ in files()} & set(harness.__all__) == set()


def test_the_parents_rooms_import_no_torch() -> None:
    modules = [module for module, _ in files() if room(module) in WITHOUT_TORCH]
    code = (
        "import importlib, sys\n"
        f"for name in {modules}:\n"
        "    importlib.import_module(name)\n"
        "    assert not {'torch', 'transformers', 'peft', 'datasets'} & set(sys.modules), name\n"
    )
    done = subprocess.run([sys.executable, "-c", code], check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert {room(module) for module in modules} == set(WITHOUT_TORCH)


def test_help_imports_neither_pydantic_nor_numpy() -> None:
    code = (
        "import sys; from harness.cli import main; main(['--help']);"
        "sys.exit(bool({'torch', 'numpy', 'pydantic', 'scipy'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False, stdout=subprocess.DEVNULL).returncode == 0
