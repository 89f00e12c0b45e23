"""A `compare.yaml` starts no code that the command does not name, and gives itself no permission."""

from pathlib import Path
from typing import Any

import pytest

from harness.config.parse import configure
from harness.errors import UserError
from harness.registry.find import find
from harness.registry.load import load_task

TASK = """
from harness import Generate, Task, exact_match, task

@task
def toy() -> Task:
    return Task(data=[{"a": "1"}], sample=lambda row: Generate(row["a"], row["a"]), metrics=[exact_match])
"""
METHOD = """
from harness import method

@method(lr=1e-4)
def mine(model):
    "Does nothing."
    return model
"""


@pytest.fixture(autouse=True)
def _files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("t.py").write_text(TASK)
    Path("m.py").write_text(METHOD)
    Path("evil").mkdir()
    Path("evil/t.py").write_text(TASK)
    Path("lora").mkdir()
    Path("lora/x.py").write_text(METHOD)


def written(text: str, *variants: str, **settings: Any) -> Any:
    Path("compare.yaml").write_text(text)
    return configure(variants, file=Path("compare.yaml"), **settings)


@pytest.mark.parametrize(
    ("text", "line", "named"),
    [
        ("tasks: [mini_mmlu, ./t.py]", 1, "t.py"),
        ("tasks: mini_mmlu,./t.py@toy", 1, "t.py"),
        ("tasks: [evil]", 1, "evil"),
        ("tasks: [./evil]", 1, "evil"),
        ("variants:\n  mine: {method: ./m.py@mine}", 2, "m.py"),
        ("variants:\n  mine: x=./m.py@mine@4bit", 2, "m.py"),
        ("variants:\n  ./m.py: {}", 2, "m.py"),
        ("variants:\n  ppo:\n    method: lora\n    stage: ppo\n    reward: ./m.py@mine", 5, "m.py"),
        ("train:\n  data: mini_mmlu + ./t.py*2", 2, "t.py"),
        ("train:\n  data: evil", 2, "evil"),
        ("train:\n  data: ./evil@toy", 2, "evil"),
        ("train:\n  data: ./rows.jsonl + evil", 2, "evil"),
        ("train: {validation: ./evil@toy}", 1, "evil"),
        ("tasks: mini_mmlu,evil", 1, "evil"),
        ("variants: {a: 'lora:data=./evil@toy'}", 1, "evil"),
        ("variants: {a: 'lora:data=evil'}", 1, "evil"),
        ("train: {data: lora}", 1, "lora"),
        ("train: {data: mini_mmlu, monitor: ./t.py}", 1, "t.py"),
        ("task_parameters: {reward_code: ./m.py}", 1, "m.py"),
        ("task_parameters: {x: 'evaluate:bleu'}", 1, "evaluate:bleu"),
    ],
)
def test_a_file_that_only_the_yaml_names_is_refused(text: str, line: int, named: str) -> None:
    with pytest.raises(UserError, match="only code that you name yourself runs") as refused:
        written(text)
    assert f"compare.yaml:{line}: " in refused.value.message and f"`{named}`" in refused.value.message
    assert f"--allow-code {named}" in str(refused.value.hint)


def test_a_folder_in_the_home_folder_is_a_task(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    with pytest.raises(UserError, match="only code that you name yourself runs"):
        written("train: {data: ~/evil}")


def test_code_under_a_name_that_does_not_end_in_py_is_refused() -> None:
    Path("link").symlink_to("t.py")
    with pytest.raises(UserError, match="the file names the Python code `link`"):
        written("tasks: [./link]")
    Path("notes.txt").write_text(TASK + "raise AssertionError('it ran')")
    written("tasks: [./notes.txt]")
    with pytest.raises(UserError, match=r"`notes.txt` is not a Python file"):
        load_task(find("task", "./notes.txt"), {})


def test_what_the_command_names_may_run() -> None:
    tasks = "tasks: [./t.py]\nvariants: {base: {}, mine: {method: ./m.py@mine}}"
    config = written(tasks, allow_code=[Path("t.py"), Path("./m.py")])
    assert config.tasks == ("./t.py",) and [each.name for each in config.variants] == ["base", "mine"]
    assert [path.name for path in config.method_files] == ["t.py", "m.py"]
    assert written(tasks, "base", tasks="./t.py").tasks == ("./t.py",)
    assert [each.name for each in written("tasks: [mini_mmlu]", "./m.py@mine").variants] == ["./m.py@mine"]


def test_entries_that_are_not_used_are_not_code() -> None:
    assert written("variants: {base: {}, mine: {method: ./m.py@mine}}", "base").variants[0].name == "base"
    assert written("tasks: [./t.py]", tasks="mini_mmlu").tasks == ("mini_mmlu",)


def test_a_folder_of_rows_may_hold_python_files() -> None:
    Path("evil/rows.jsonl").write_text('{"prompt": "a", "completion": "b"}\n')
    assert written("train: {data: ./evil}", "lora").train.data == "./evil"


def test_a_folder_does_not_hide_a_built_in_name() -> None:
    assert written("variants: {lora: {method: lora}}").variants[0].entry.module == "harness.finetune.lora"


@pytest.mark.parametrize("permission", ["trust_remote_code", "confirm_run_unsafe_code"])
def test_a_file_gives_itself_no_permission(permission: str) -> None:
    with pytest.raises(UserError, match=f"compare.yaml:1: a file cannot set `{permission}`") as refused:
        written(f"{permission}: true")
    assert str(refused.value.hint).endswith(f"`--{permission.replace('_', '-')}`")
    assert written(f"{permission}: false") == written("model: tiny")
    assert getattr(written(f"{permission}: true", **{permission: True}), permission)
    with pytest.raises(UserError, match="a file cannot set `allow_code`"):
        written("allow_code: [./m.py]\nvariants: {m: {method: ./m.py}}")


LAUGHS = "a: &a [x]\n" + "".join(
    f"{b}: &{b} [{', '.join([f'*{a}'] * 9)}]\n" for a, b in zip("abcdefgh", "bcdefghi", strict=True)
)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (LAUGHS, r"compare.yaml:\d: the file has more than 20,000 values, aliases .* written out"),
        ("variants: &v [*v]", "compare.yaml:1: the file is nested more than 20 levels deep"),
        ("a: " + "[" * 30 + "]" * 30, "nested more than 20 levels deep"),
        ("a: " + "[" * 5000 + "]" * 5000, "nested too deeply"),
        ("# " + "x" * 2_000_000, "has more than 1,048,576 characters, the most that are read"),
    ],
)
def test_a_file_is_bounded(text: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        written(text)
