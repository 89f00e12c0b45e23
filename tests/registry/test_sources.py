"""The files behind a user's file: which they are, what changes their digest, and that changed code is the code that runs."""

import os
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from harness.registry.find import find
from harness.registry.load import import_file, load_task
from harness.registry.sources import note_loaded, recorded, sources, sources_sha256


def put(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def change_in_place(path: Path, text: str) -> None:
    """Writes other content of the same size into the same inode, and sets the modification time back."""
    status = path.stat()
    assert len(text.encode()) == status.st_size
    with path.open("r+b") as file:
        file.write(text.encode())
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))


def names(path: Path) -> list[str]:
    return [file.relative_to(path.parent.resolve()).as_posix() for file in sources(path)]


IMPORTS: dict[str, tuple[str, dict[str, str], list[str]]] = {
    "a module beside it": ("import near_a", {"near_a.py": ""}, ["near_a.py"]),
    "a module of a module": ("import near_b", {"near_b.py": "import far_b", "far_b.py": ""}, ["far_b.py", "near_b.py"]),
    "modules that import one another": (
        "import ring_a",
        {"ring_a.py": "import ring_b", "ring_b.py": "import ring_a"},
        ["ring_a.py", "ring_b.py"],
    ),
    "a module of a package": (
        "from pack_c.sub import value",
        {"pack_c/__init__.py": "", "pack_c/sub.py": "value = 1", "pack_c/other.py": ""},
        ["pack_c/__init__.py", "pack_c/sub.py"],
    ),
    "a module of a folder without __init__": ("import space_d.inner", {"space_d/inner.py": ""}, ["space_d/inner.py"]),
    "a relative import": (
        "import pack_e",
        {"pack_e/__init__.py": "from .one import x", "pack_e/one.py": "from . import two\nx = 1", "pack_e/two.py": ""},
        ["pack_e/__init__.py", "pack_e/one.py", "pack_e/two.py"],
    ),
    "an import inside a function": ("def f():\n    import near_f", {"near_f.py": ""}, ["near_f.py"]),
    "a star import": ("from near_g import *", {"near_g.py": "x = 1"}, ["near_g.py"]),
    "a module of Python's own name": ("import json, torch", {"json.py": "", "unused.py": ""}, []),
}


@pytest.mark.parametrize("case", IMPORTS)
def test_the_imports_of_a_file_are_followed(case: str, tmp_path: Path) -> None:
    text, files, expected = IMPORTS[case]
    main = put(tmp_path / "main.py", text)
    for name, content in files.items():
        put(tmp_path / name, content)
    assert names(main) == sorted([*expected, "main.py"])
    before = sources_sha256(main)
    for name in expected:
        put(tmp_path / name, f"{files[name]}\nchanged = True\n")
        assert sources_sha256(main) != before
        put(tmp_path / name, files[name])
        assert sources_sha256(main) == before


def test_times_and_folders_decide_nothing(tmp_path: Path) -> None:
    main = put(tmp_path / "a" / "main.py", "import helper_h\n")
    put(tmp_path / "a" / "helper_h.py", "x = 1\n")
    before = sources_sha256(main)
    os.utime(tmp_path / "a" / "helper_h.py", (1, 1))
    assert sources_sha256(main) == before
    (tmp_path / "a").rename(tmp_path / "b")
    assert sources_sha256(tmp_path / "b" / "main.py") == before
    put(tmp_path / "b" / "main.py", "def (\n")  # no Python
    assert sources_sha256(tmp_path / "b" / "main.py") != before


@pytest.mark.parametrize(
    "load",
    [
        "import importlib\nx = importlib.import_module('{}')",
        "import sys\nsys.path.insert(0, '{folder}/lib')\nimport {} as x",
    ],
)
def test_modules_that_the_text_does_not_show_are_found_when_the_file_is_imported(tmp_path: Path, load: str) -> None:
    name = f"hidden_{abs(hash(load)) % 10_000}"
    main = put(tmp_path / f"main_{name}.py", load.format(name, folder=tmp_path))
    hidden = put((tmp_path / "lib" if "/lib" in load else tmp_path) / f"{name}.py", "value = 1\n")
    with recorded(main):
        import_file(main)
    sys.path[:] = [each for each in sys.path if each != f"{tmp_path}/lib"]
    assert hidden.resolve() in sources(main)
    before = sources_sha256(main)
    change_in_place(hidden, "value = 2\n")
    assert sources_sha256(main) != before
    assert import_file(main).x.value == 2


def test_what_a_child_has_loaded_counts_but_not_installed_packages(tmp_path: Path) -> None:
    main, other = put(tmp_path / "main_i.py", ""), put(tmp_path / "elsewhere" / "other.py", "")
    note_loaded(main, [other.resolve(), Path(pytest.__file__), Path(os.__file__)])
    assert set(sources(main)) == {main.resolve(), other.resolve()}


def test_a_built_in_method_has_the_shared_steps_among_its_sources() -> None:
    assert {"lora.py", "_peft.py"} <= {path.name for path in sources(find("method", "lora").path)}
    assert [path.name for path in sources(find("method", "bitfit").path)] == ["bitfit.py"]


def test_the_sources_of_a_built_in_method_are_found_wherever_the_package_is_installed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    lora = find("method", "lora").path
    before = sources(lora)
    installed = [each for each in sys.path if each.endswith("-packages")]
    monkeypatch.setattr(sys, "path", installed)  # an editable installation is found by an import hook
    assert sources(lora) == before and lora.parent / "_peft.py" in before


def test_what_a_process_happens_to_import_with_a_built_in_method_is_none_of_its_sources() -> None:
    lora = find("method", "lora").path
    before = sources(lora)
    note_loaded(lora, [lora.parent / "training" / "loss.py"])
    assert sources(lora) == before


def test_a_plugin_has_its_own_package_among_its_sources(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    site = tmp_path / "lib" / "site-packages"
    monkeypatch.syspath_prepend(str(site))
    plugin = put(site / "plugin_j" / "tasks.py", "from plugin_j.helper import x\nimport other_j\n")
    for name in ("plugin_j/__init__.py", "plugin_j/helper.py", "other_j.py"):
        put(site / name, "x = 1\n")
    assert [path.name for path in sources(plugin)] == ["__init__.py", "helper.py", "tasks.py"]


TASK = """
from harness import Generate, Task, exact_match, task
import words_k
@task
def it() -> Task:
    return Task(data=[{"q": "a"}], sample=lambda row: Generate(words_k.PROMPT, "b"), metrics=[exact_match])
"""


def prompt_of(path: Path) -> str:
    task = load_task(find("task", str(path)), {})
    sample = task.sample({"q": "a"})
    return str(sample.prompt)  # type: ignore[union-attr]


@pytest.mark.parametrize("how", [change_in_place, put], ids=["in place, time kept", "written again"])
def test_a_helper_that_changes_between_two_calls_of_one_process_is_loaded_again(
    tmp_path: Path, how: Callable[[Path, str], None]
) -> None:
    """Python itself would keep the module, or take a `.pyc` file whose time in seconds and size still fit."""
    main = put(tmp_path / "main_k.py", TASK.replace("words_k", f"words_{how.__name__}"))
    helper = put(tmp_path / f"words_{how.__name__}.py", 'PROMPT = "one"\n')
    assert prompt_of(main) == "one"
    how(helper, 'PROMPT = "two"\n')
    assert prompt_of(main) == "two"
    change_in_place(main, main.read_text().replace('"b"', '"c"'))
    assert prompt_of(main) == "two"
    assert not list(tmp_path.rglob("*.pyc"))


def test_two_files_have_each_the_helper_beside_it(tmp_path: Path) -> None:
    """Both helpers have one name; Python alone would take the first for both."""
    for folder in ("one", "two"):
        put(tmp_path / folder / "main_l.py", "import helper_l\nvalue = helper_l.VALUE\n")
        put(tmp_path / folder / "helper_l.py", f"VALUE = {folder!r}\n")
    for folder in ("one", "two", "one"):
        main = tmp_path / folder / "main_l.py"
        assert import_file(main).value == folder
        assert names(main) == ["helper_l.py", "main_l.py"]
    assert sources_sha256(tmp_path / "one" / "main_l.py") != sources_sha256(tmp_path / "two" / "main_l.py")
