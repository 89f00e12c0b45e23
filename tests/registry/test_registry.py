"""The registry finds tasks and methods by path, name and entry point without importing them, and loads them."""

import sys
from pathlib import Path

import pytest

from harness import UserError
from harness.registry import find
from harness.registry.load import load_task
from harness.registry.task_spec import parse_task

TASKS = '''
import a_library_that_is_not_there
from harness import Task, task as made

LIMIT = 3

@made
def first(*, count: int = LIMIT, name: str = "x") -> Task:
    """The first one.

    At length.
    """

@made(name="2nd")
def second() -> Task: ...

def task_like(): ...
'''
GOOD = """
from harness import Generate, Task, exact_match, task

@task
def capitals(*, suffix: str = "") -> Task:
    return Task(
        data=[{"country": "France", "city": "Paris"}],
        sample=lambda row: Generate(row["country"] + suffix, row["city"]),
        metrics=[exact_match],
    )
"""
METHOD = """
from harness import method

@method(lr=3e-4, load="nf4", mergeable=False)
def mine(model, *, rank: int = 8, alpha: int | None = None, **options): ...
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    Path("tasks_here.py").write_text(TASKS)
    Path("good.py").write_text(GOOD)
    Path("m.py").write_text(METHOD)
    return tmp_path


def plugin(folder: Path, name: str, points: str) -> None:
    """An installed distribution with entry points, as pip leaves it."""
    info = folder / f"{name.replace('-', '_')}-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(points)


def test_a_file_is_read_without_being_imported(folder: Path) -> None:
    first, second = find.find_all("task", "./tasks_here.py")
    assert (first.name, first.attribute, second.name, second.attribute) == ("first", "first", "2nd", "second")
    assert first.summary == "The first one." and first.docstring.endswith("At length.")
    assert [(p.name, p.default, p.annotation) for p in first.parameters] == [("count", 3, "int"), ("name", "x", "str")]
    assert (first.kind, first.module, first.line) == ("task", None, 8)


def test_a_file_with_several_tasks_needs_a_name(folder: Path) -> None:
    assert find.find("task", "./tasks_here.py@2nd").attribute == "second"
    with pytest.raises(UserError, match=r"has 2 tasks: `first` \(line 8\), `2nd`") as error:
        find.find("task", "./tasks_here.py")
    assert error.value.hint == "name one of them, for example `./tasks_here.py@first`"


def test_a_wrong_name_in_a_file_suggests_a_similar_one(folder: Path) -> None:
    with pytest.raises(UserError, match="has no task `frist`") as error:
        find.find("task", "./tasks_here.py@frist")
    assert error.value.hint == "did you mean `first`?"


def test_method_options_come_with_their_defaults(folder: Path) -> None:
    entry = find.find("method", "m.py")
    assert entry.options == {
        "lr": 3e-4, "load": "nf4", "mergeable": False, "checkpointing": True, "padding": "any", "saves": "delta",
        "parameters": "",
    }  # fmt: skip
    assert entry.open_ended


def test_built_in_tasks_and_methods_are_listed_by_name() -> None:
    names = [entry.name for entry in find.list_entries("method")]
    assert names == sorted(names) and {"full", "lora", "qlora", "peft"} <= set(names)
    assert find.find("task", "mini_gsm8k").module == "harness.tasks.mini_gsm8k"
    assert {"acc", "exact_match", "bleu"} <= {entry.name for entry in find.list_entries("metric")}


def test_an_unknown_name_suggests_a_similar_one() -> None:
    with pytest.raises(UserError, match="unknown task `mini_gsm9k`") as error:
        find.find("task", "mini_gsm9k")
    assert error.value.hint is not None and "`mini_gsm8k`" in error.value.hint


def test_a_missing_file_suggests_a_similar_name(folder: Path) -> None:
    with pytest.raises(UserError, match=r"no file `goood\.py`") as error:
        find.find("task", "./goood.py")
    assert error.value.hint == "did you mean `good.py`?"


def test_a_folder_is_searched_and_a_duplicate_shows_both_lines(folder: Path) -> None:
    shelf = folder / "shelf"
    shelf.mkdir()
    (shelf / "a.py").write_text(GOOD)
    assert find.find("task", "./shelf").name == "capitals"
    (shelf / "b.py").write_text("\n" + GOOD)
    with pytest.raises(UserError, match=r"defined twice: shelf/a\.py:5 and shelf/b\.py:6"):
        find.find("task", "./shelf@capitals")


def test_a_reserved_hyperparameter_is_refused_without_an_import(folder: Path) -> None:
    Path("bad.py").write_text("from harness import method\n\n@method\ndef bad(model, *, seed: int = 0): ...\n")
    with pytest.raises(UserError, match=r"bad\.py:4: method `bad` declares `seed`"):
        find.find("method", "./bad.py")


def test_a_default_that_is_not_a_literal_is_refused_with_its_line(folder: Path) -> None:
    Path("bad.py").write_text("import math\nfrom harness import method\n\n@method\ndef bad(model, *, a=math.pi): ...\n")
    with pytest.raises(UserError, match=r"bad\.py:5: default of `a` is `math\.pi`, which is not a literal"):
        find.find("method", "./bad.py")


def test_a_syntax_error_shows_the_line(folder: Path) -> None:
    Path("bad.py").write_text("from harness import task\n\ndef oops(:\n")
    with pytest.raises(UserError, match=r"bad\.py:3\n    def oops\(:\n  SyntaxError"):
        find.find("task", "./bad.py")


def test_a_task_is_loaded_with_its_parameters(folder: Path) -> None:
    task = load_task(find.find("task", "./good.py"), {"suffix": "!"})
    assert task.sample({"country": "France", "city": "Paris"}).prompt == "France!"
    with pytest.raises(UserError, match="has no parameter `sufix`"):
        load_task(find.find("task", "./good.py"), {"sufix": "!"})


def test_a_user_file_cannot_hide_an_installed_package(folder: Path) -> None:
    Path("rich.py").write_text("raise RuntimeError('the user has a rich.py')")
    Path("neighbour.py").write_text("CITY = 'Paris'")
    Path("uses.py").write_text("import rich.console\nfrom neighbour import CITY\n" + GOOD)
    assert load_task(find.find("task", "./uses.py"), {}).data[0]["city"] == "Paris"


def test_an_exception_at_import_shows_only_the_users_frames(folder: Path) -> None:
    Path("bad.py").write_text(
        "import json\nfrom harness import Task, task\njson.loads('{')\n\n@task\ndef bad() -> Task: ...\n"
    )
    with pytest.raises(UserError) as error:
        load_task(find.find("task", "./bad.py"), {})
    lines = error.value.message.splitlines()
    assert lines[0] == "could not load `bad.py`"
    assert lines[2:4] == ["  bad.py:3 in <module>", "    json.loads('{')"]
    assert "JSONDecodeError" in lines[4] and len(lines) == 5
    assert error.value.hint == "for the full traceback, run `python bad.py`"


def test_a_task_that_raises_when_called_shows_its_line(folder: Path) -> None:
    Path("bad.py").write_text(
        "from harness import Task, task\n\n@task\ndef bad() -> Task:\n    return Task(exact_mach)\n"
    )
    with pytest.raises(
        UserError, match=r"bad\.py:5 in bad\n    return Task\(exact_mach\)\n  NameError: name 'exact_mach'"
    ):
        load_task(find.find("task", "./bad.py"), {})


def test_a_task_that_returns_something_else_is_refused(folder: Path) -> None:
    Path("bad.py").write_text("from harness import Task, task\n\n@task\ndef bad() -> Task:\n    return {}\n")
    with pytest.raises(UserError, match="task `bad` returned a dict, not a Task"):
        load_task(find.find("task", "./bad.py"), {})


def test_a_plugin_is_found_by_name_and_by_distribution(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = folder / "site"
    (package / "capital_pack").mkdir(parents=True)
    (package / "capital_pack" / "__init__.py").write_text("raise RuntimeError('listing imports nothing')")
    (package / "capital_pack" / "geo.py").write_text(GOOD)
    plugin(package, "capital-pack", "[harness.tasks]\ncities = capital_pack.geo:capitals\n")
    monkeypatch.syspath_prepend(str(package))
    for name in ("cities", "capital-pack/cities"):
        entry = find.find("task", name)
        assert (entry.name, entry.attribute, entry.module) == ("cities", "capitals", "capital_pack.geo")
    assert "cities" in [entry.name for entry in find.list_entries("task")]
    assert "capital_pack" not in sys.modules


def test_a_broken_plugin_hides_no_other_and_is_reported_when_requested(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = folder / "site"
    package.mkdir()
    plugin(package, "broken-pack", "[harness.tasks]\nlost = no_such_module:x\n")
    monkeypatch.syspath_prepend(str(package))
    assert "mini_gsm8k" in [entry.name for entry in find.list_entries("task")]
    with pytest.raises(UserError, match=r"task `lost` could not be read: there is no module .*broken-pack"):
        find.find("task", "lost")


def test_two_plugins_of_one_name_need_their_distribution(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = folder / "site"
    package.mkdir()
    (package / "geo_module.py").write_text(GOOD)
    plugin(package, "pack-a", "[harness.tasks]\ncities = geo_module:capitals\n")
    plugin(package, "pack-b", "[harness.tasks]\ncities = geo_module:capitals\n")
    monkeypatch.syspath_prepend(str(package))
    with pytest.raises(UserError, match="`cities` is defined twice") as error:
        find.find("task", "cities")
    assert (
        error.value.hint is not None and "`pack-a/cities`" in error.value.hint and "`pack-b/cities`" in error.value.hint
    )


def test_task_specs_have_groups_and_typed_parameters(folder: Path) -> None:
    spec = parse_task("mmlu:anatomy+virology")
    assert (spec.source, spec.groups) == ("mmlu", ("anatomy", "virology"))
    spec = parse_task("./tasks_here.py@first", {"count": "7", "name": "7", "other": "x"})
    assert spec.parameters == {"count": 7, "name": "7"}
    with pytest.raises(UserError, match="parameter `count`: expected a whole number, got `many`"):
        parse_task("./tasks_here.py@first", {"count": "many"})


@pytest.mark.parametrize("text", ["", ":anatomy", "mmlu:", "mmlu:a++b"])
def test_malformed_task_specs_are_refused(text: str) -> None:
    with pytest.raises(UserError, match="malformed task"):
        parse_task(text)


def test_the_digest_follows_the_file(folder: Path) -> None:
    entry = find.find("task", "./good.py")
    before = find.source_digest(entry)
    Path("good.py").write_text(GOOD + "\n# changed\n")
    assert len(before) == 64 and find.source_digest(entry) != before
