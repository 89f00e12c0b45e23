"""The order of the rooms: which room may import which, which modules may import torch, and what importing costs."""

import subprocess
import sys
from collections import Counter
from pathlib import Path

import house
import pytest

import harness

MODULES = house.modules()
GRAPH = house.arrows(MODULES, harness.__all__)

WITH_TORCH = (
    "harness.models",
    "harness.engine",
    "harness.worker.child",
    "harness.worker.deployment",
    "harness.worker.exporting",
    "harness.deploy.llmcompressor_program",  # run by the interpreter of another environment
    "harness.worker.scoring",
    "harness.worker.served",
    "harness.worker.timing",
    "harness.worker.vllm_texts",
    "harness.worker.vllm_writer",
    "harness.finetune",  # method files, the training loop and its stages
    "harness.tiny.build",
    "harness.metrics.entailment_model",
)
"""The only modules that may import torch, transformers, peft and datasets. All others belong to the parent process."""
INSIDE_A_FUNCTION = {
    "harness.data.hub": {"datasets"},
    "harness.data.arrow": {"datasets"},
    "harness.tokens.tokenizer": {"transformers"},
    "harness.authoring.check": {"transformers"},
}
"""Modules of the parent process with a function that imports such a package when it is called."""

SHARED_STEPS = {"harness.finetune._peft"}
"""Modules that method files may import besides the public names. Most of them add a peft adapter in the same way; a user's own
method calls `get_peft_model` itself, so these steps are no public name."""


def may_import_torch(module: str) -> bool:
    return any(module == name or module.startswith(f"{name}.") for name in WITH_TORCH)


def is_written_by_users(path: Path) -> bool:
    return any(line.startswith(("@task", "@method")) for line in path.read_text(encoding="utf-8").splitlines())


def test_every_room_has_a_place_in_the_order() -> None:
    rooms = {house.room_of(module) for module in MODULES} - {house.FACADE, *house.LEAVES}
    assert rooms == set(house.ORDER)
    assert len(set(house.ORDER)) == len(house.ORDER)


@pytest.mark.parametrize("module", [name for name in MODULES if house.room_of(name) in house.ORDER])
def test_a_room_imports_only_from_rooms_before_it(module: str) -> None:
    here = house.ORDER.index(house.room_of(module))
    rooms = {name: house.room_of(name) for name in house.imports_of(MODULES[module], MODULES, harness.__all__)}
    later = {
        name
        for name, room in rooms.items()
        if room in house.LEAVES or (room in house.ORDER and house.ORDER.index(room) > here)
    }
    assert later == set(), f"{module} imports {later}, which belong to later rooms"


def test_no_two_rooms_import_from_one_another() -> None:
    assert house.cycles(GRAPH) == []


@pytest.mark.parametrize(
    "module",
    [name for name, path in MODULES.items() if house.room_of(name) in house.LEAVES and is_written_by_users(path)],
)
def test_tasks_and_methods_import_public_names_and_the_shared_steps_only(module: str) -> None:
    shared = SHARED_STEPS if house.room_of(module) == "finetune" else set()
    assert house.imports_of(MODULES[module], MODULES, harness.__all__) <= {"harness"} | shared


def test_the_shared_steps_import_public_names_only() -> None:
    for module in SHARED_STEPS:
        assert house.imports_of(MODULES[module], MODULES, harness.__all__) == {"harness"}


def test_no_public_name_is_hidden_by_a_module() -> None:
    """A module `harness.task` would replace the decorator `harness.task` once it is imported."""
    names = {module.split(".")[1] for module in MODULES if "." in module}
    assert names & set(harness.__all__) == set()


def test_a_name_of_a_class_or_type_occurs_once() -> None:
    named = Counter(name for path in MODULES.values() for name in house.types_of(path))
    assert [name for name, count in named.items() if count > 1] == []


@pytest.mark.parametrize("module", [name for name in MODULES if not may_import_torch(name)])
def test_functions_of_the_parent_import_torch_nowhere_but_where_listed(module: str) -> None:
    assert house.heavy_imports(MODULES[module]) == INSIDE_A_FUNCTION.get(module, set())


def test_only_the_childs_rooms_import_torch() -> None:
    """Imports every other module in one process, then reports which heavy package was imported, and by which module."""
    modules = [name for name in MODULES if not may_import_torch(name)]
    done = subprocess.run(
        [sys.executable, "-c", house.WATCH_IMPORTS, *modules], check=False, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("module", ["harness.comparison.state", "harness.report.tables", "harness.tokens.packs"])
def test_the_guard_finds_a_planted_import(module: str, tmp_path: Path) -> None:
    """In a copy of the package, `import torch` in a module of the parent process is found, and the module is named."""
    planted = house.copy_of_the_package(tmp_path)
    (planted / "torch.py").write_text("")  # importing the real torch takes seconds
    path = planted / MODULES[module].relative_to(house.ROOT)
    path.write_text(path.read_text(encoding="utf-8") + "\nimport torch\n", encoding="utf-8")
    done = subprocess.run(
        [sys.executable, "-c", house.WATCH_IMPORTS, "harness.errors", module, "harness.cli"],
        check=False,
        capture_output=True,
        text=True,
        cwd=planted,
        env={"PYTHONPATH": str(planted), "PATH": ""},
    )
    assert done.returncode == 1 and f"{module} imports torch" in done.stderr, done.stderr


def test_what_may_import_torch_exists() -> None:
    assert [name for name in WITH_TORCH if not any(m == name or m.startswith(f"{name}.") for m in MODULES)] == []


def test_help_imports_neither_pydantic_nor_numpy() -> None:
    code = (
        "import sys; from harness.cli import main; main(['--help']);"
        "sys.exit(bool({'torch', 'numpy', 'pydantic', 'scipy'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False, stdout=subprocess.DEVNULL).returncode == 0
