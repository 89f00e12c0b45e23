"""The wheel holds one import package with every module and all data, and the links are in place."""

import re
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.version import Version

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
OUTER = ("tasks", "finetune", "leaderboards")


def packages() -> set[str]:
    """Returns every folder with an `__init__.py` by its installed import path."""
    found = set()
    for top in ("harness", *OUTER):
        for init in (ROOT / top).rglob("__init__.py"):
            parts = init.parent.relative_to(ROOT).parts
            if parts[:1] == ("harness",) and parts[1:2] and parts[1] in OUTER:
                continue  # seen through a link
            found.add(".".join(parts if parts[0] == "harness" else ("harness", *parts)))
    return found


def test_every_package_is_listed() -> None:
    assert set(PROJECT["tool"]["setuptools"]["packages"]) == packages()


@pytest.mark.parametrize("name", OUTER)
def test_links_point_to_the_outer_folders(name: str) -> None:
    link = ROOT / "harness" / name
    assert link.is_symlink() and str(link.readlink()) == f"../{name}"
    assert PROJECT["tool"]["setuptools"]["package-dir"][f"harness.{name}"] == name


@pytest.mark.parametrize("name", ["tasks", "leaderboards"])
def test_tasks_and_leaderboards_have_no_sub_packages(name: str) -> None:
    assert [init.parent.name for init in (ROOT / name).rglob("__init__.py")] == [name]


def test_every_pinned_dependency_is_asked_for_and_every_asked_one_pinned() -> None:
    pinned = {line.split("==")[0].lower().replace("_", "-") for line in (ROOT / "constraints.txt").read_text().split()}
    extras = PROJECT["project"]["optional-dependencies"]["dev"]
    for requirement in [*PROJECT["project"]["dependencies"], *extras]:
        name = requirement.split(">")[0].split("[")[0].strip().lower().replace("_", "-")
        assert name in pinned, f"{name} has no line in constraints.txt"


def test_make_test_oldest_installs_the_lower_bounds() -> None:
    lines = (ROOT / "constraints-oldest.txt").read_text().split()
    pinned = dict(line.lower().replace("_", "-").split("==") for line in lines)
    pinned["torch"] = re.search(r"^TORCH \?= (\S+)$", (ROOT / "Makefile").read_text(), re.MULTILINE)[1]  # type: ignore[index]
    for requirement in map(Requirement, PROJECT["project"]["dependencies"]):
        (low,) = (each.version for each in requirement.specifier if each.operator == ">=")
        found = pinned.get(requirement.name.lower().replace("_", "-"))
        assert found, f"{requirement.name} has no line in constraints-oldest.txt"
        assert Version(found) == Version(low), f"{requirement.name} is tested at {found}, its lower bound is {low}"


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> zipfile.ZipFile:
    """Builds the wheel in a copy of the repository, so that no build folder is left here."""
    import shutil

    place = tmp_path_factory.mktemp("wheel")
    left_out = shutil.ignore_patterns(
        ".git", ".venv*", "build", "dist", "*.egg-info", ".*_cache", "__pycache__", "tests"
    )

    def ignored(folder: str, names: list[str]) -> set[str]:
        return left_out(folder, names) | ({"runs"} if Path(folder) == ROOT else set())  # harness/runs is a package

    shutil.copytree(ROOT, place / "source", symlinks=True, ignore=ignored)
    command = [sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "--no-build-isolation", "-w", str(place)]
    done = subprocess.run([*command, str(place / "source")], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    (path,) = place.glob("*.whl")
    return zipfile.ZipFile(path)


def test_the_wheel_holds_one_import_package(wheel: zipfile.ZipFile) -> None:
    (top_level,) = [name for name in wheel.namelist() if name.endswith(".dist-info/top_level.txt")]
    assert wheel.read(top_level).decode().split() == ["harness"]
    assert {name.split("/")[0] for name in wheel.namelist() if ".dist-info/" not in name} == {"harness"}


def test_the_wheel_holds_every_module_and_all_data(wheel: zipfile.ZipFile) -> None:
    data = ("*.py", "*.html", "*.css", "*.js", "*.jsonl", "py.typed", "*.safetensors", "tokenizer.json")
    wanted = set()
    for top in ("harness", *OUTER):
        for pattern in data:
            for path in (ROOT / top).rglob(pattern):
                parts = path.relative_to(ROOT).parts
                if parts[:1] == ("harness",) and parts[1] in OUTER:
                    continue
                if "results" not in parts:
                    wanted.add("/".join(parts if parts[0] == "harness" else ("harness", *parts)))
    assert wanted - set(wheel.namelist()) == set()
    assert any(name.endswith("tasks/mini_gsm8k.py") for name in wanted)


def test_the_wheel_runs_from_another_folder(wheel: zipfile.ZipFile, tmp_path: Path) -> None:
    """A user's own `tasks.py` and `finetune.py` neither break the command nor replace our packages."""
    wheel.extractall(tmp_path / "site")
    user = tmp_path / "user"
    user.mkdir()
    for name in ("tasks", "finetune", "leaderboards"):
        (user / f"{name}.py").write_text("raise RuntimeError('this is the user own file')")
    code = (
        f"import sys; sys.meta_path[:] = [f for f in sys.meta_path if 'editable' not in repr(f).lower()];"
        f"sys.path.insert(0, {str(tmp_path / 'site')!r}); sys.path.insert(0, '');"
        "import harness; assert 'site' in harness.__file__, harness.__file__;"
        "from harness.cli import main; main(['ls', 'tasks'])"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=user, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "mini_gsm8k" in done.stdout
