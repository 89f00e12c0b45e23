"""Real rows through `datasets`, from a local copy of the Hub; each load is a separate process, as for a user."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.hub

PREPARE = """
import json, sys
from harness import UserError
from harness.prepare.prepare import prepare
from harness.config.parse import configure

for data, columns, *stage in json.loads(sys.argv[1]):
    told = {"data": data, "columns": columns, **dict(zip(["stage"], stage))}
    config = configure(["lora"], tasks=["mini_text"], limit=3, train=told)
    try:
        prepared = prepare(config)
        examples = prepared.trainings[0].data.examples
        answers = [examples[0].completion[:20], (examples[0].rejected or "")[:20]]
        print(json.dumps([len(examples), examples[0].prompt, prepared.identity, *(answers if stage else [])]))
    except UserError as error:
        print(json.dumps(error.message))
"""
COLUMNS = {"prompt": "question", "completion": "answer"}


def prepared(folder: Path, *cases: tuple[Any, ...]) -> list[Any]:
    """For each case, facts about a run prepared with its training data, or the error message; one process for all cases."""
    command = [sys.executable, "-c", PREPARE, json.dumps(cases)]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


def test_training_data_from_gsm8k_give_the_same_identity_in_a_second_process(hub: str, tmp_path: Path) -> None:
    ((rows, prompt, identity),) = prepared(tmp_path, ("hub:openai/gsm8k:main", COLUMNS))
    assert rows == 7473 and prompt.startswith("Natalia sold clips to 48 of her friends")
    assert prepared(tmp_path, ("hub:openai/gsm8k:main", COLUMNS)) == [[rows, prompt, identity]]


def test_each_missing_part_of_a_dataset_is_one_clear_error(hub: str, tmp_path: Path) -> None:
    expected = {
        ("hub:openai/gsm9k", None): "could not read hub:openai/gsm9k::train: Dataset 'openai/gsm9k' doesn't exist",
        ("hub:openai/gsm8k:mian", None): "BuilderConfig 'mian' not found. Available: ['main']",
        ("hub:openai/gsm8k:main:tset", None): "Unknown split \"tset\". Should be one of ['train', 'test']",
        ("hub:cais/mmlu", None): "Please pick one among the available configs: ['abstract_algebra'",
        ("hub:openai/gsm8k:main", None): "row 0 has the columns question, answer; a row needs prompt + completion",
    }
    messages = prepared(tmp_path, *expected, ("hub:openai/gsm8k:main", {**COLUMNS, "prompt": "q"}))
    for message, text in zip(messages, [*expected.values(), "has no column `q`"], strict=True):
        assert text in message


def test_training_files_of_other_projects_are_read_unchanged(hub: str, tmp_path: Path) -> None:
    mix = "hub:llamafactory/alpaca_en_demo*2 + hub:openai/gsm8k:main*0.1"
    alpaca, chinese, better, text, mixed = prepared(
        tmp_path,
        ("hub:llamafactory/alpaca_en_demo", None, "sft"),
        ("hub:llamafactory/alpaca_zh_demo", None, "sft"),
        ("hub:llamafactory/dpo_en_demo", None, "dpo"),
        ("hub:llamafactory/wiki_demo", None, "pretrain"),
        (mix, COLUMNS, "sft"),
    )
    assert (alpaca[0], alpaca[1], alpaca[3]) == (999, "Describe a process of making crepes.", "\n\nMaking crepes is a")
    assert chinese[0] == 1000 and chinese[1].startswith("识别并解释")
    assert better[0] == 300 and better[1].startswith("User: Hi! I'd like to create a new language game")
    assert (
        better[1].endswith("\nAssistant:") and better[3] == " That sounds like a " and better[4] not in ("", better[3])
    )
    assert text[0] > 1 and text[1] == "" and text[3]
    assert mixed[0] == 2 * 999 + 747
