"""A group given on the command line reads only its own rows, where a task has one configuration on the Hub per group."""

from typing import Any

import pytest

from harness import UserError
from harness.authoring.task_splits import splits_of
from harness.data import hub as hub_module
from harness.data.hub import Hub
from harness.prepare.tasks import scored_task
from harness.prompts.render import Prompting, render
from harness.registry.task_spec import parse_task


def loaded_configurations(spec: str, monkeypatch: pytest.MonkeyPatch) -> tuple[list[str], list[Any]]:
    """Renders a task with one shot from a made-up Hub; returns the splits that were read, and the items."""
    row = {"question": "问", "A": "1", "B": "2", "C": "3", "D": "4", "answer": "A", "choices": list("1234")}
    read: list[str] = []

    def load_online(split: Hub) -> list[dict[str, Any]]:
        read.append(f"{split.name}:{split.split}")
        return [
            {**row, "subject": split.name, "answer": 0 if split.repo == "cais/mmlu" else "A", "n": n} for n in (0, 1)
        ]

    monkeypatch.setattr(hub_module, "load_online", load_online)
    hub_module._load_split.cache_clear()
    task = scored_task(parse_task(spec))
    items = render(task.name, task.task, Prompting(shots=1), groups=task.spec.groups)
    hub_module._load_split.cache_clear()
    return read, items


@pytest.mark.parametrize(
    ("spec", "read"),
    [
        ("ceval:logic", ["logic:val", "logic:dev"]),
        ("ceval:logic+law", ["logic:val", "law:val", "logic:dev", "law:dev"]),
        ("mmlu_stem:astronomy", ["astronomy:test", "astronomy:dev"]),
    ],
)
def test_a_requested_group_reads_its_own_configuration_alone(
    spec: str, read: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    found, items = loaded_configurations(spec, monkeypatch)
    assert sorted(found) == sorted(read)
    assert {item.group for item in items} == set(spec.partition(":")[2].split("+"))


def test_a_misspelt_group_is_refused_before_anything_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UserError, match="task `ceval` has no group `logik`") as caught:
        loaded_configurations("ceval:logik", monkeypatch)
    assert caught.value.hint == "did you mean `logic`?"


def test_data_fetch_of_a_group_lists_its_own_configuration() -> None:
    assert [str(split) for split in splits_of("ceval:logic")] == [
        "hub:ceval/ceval-exam:logic:val",
        "hub:ceval/ceval-exam:logic:dev",
    ]
