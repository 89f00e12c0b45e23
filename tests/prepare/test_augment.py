"""`augment=FILE.py@function` makes rows of training rows, and never of a held-out row or of a task's scored rows."""

import json
import random
import re
import sys
from pathlib import Path
from typing import Any

import pytest

from harness.authoring.inspect_training import inspect_training
from harness.authoring.preview_training import view_training
from harness.cli import main
from harness.cli.options import Flags
from harness.config.parse import configure
from harness.data.model_files import find_model
from harness.errors import UserError
from harness.prepare.prepare import Prepared, prepare
from harness.prepare.train_data import TrainData
from harness.prepare.trainings import Training

ROWS: list[dict[str, Any]] = [{"prompt": f"Q{n}", "completion": f"a{n}", "id": n} for n in range(20)]
TWICE = """
def twice(row):
    return [row, {**row, "prompt": row["prompt"].lower()}]
"""


@pytest.fixture(autouse=True)
def _in_a_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def prepared(
    source: str, *variants: str, rows: list[dict[str, Any]] = ROWS, folds: int | None = None, **train: Any
) -> Prepared:
    Path("rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    Path("more.py").write_text(source)
    shared = {"data": "rows.jsonl", "augment": "./more.py@twice", **train}
    return prepare(configure([*variants] or ["lora"], tasks=["mini_mmlu"], limit=1, folds=folds, train=shared))


def training(source: str, variant: str = "lora", **options: Any) -> Training:
    found = prepared(source, variant, **options).variants[0].training
    assert found is not None
    return found


def texts(data: TrainData | None) -> list[str]:
    assert data is not None
    return [f"{each.prompt}={each.completion}" for each in data.examples]


def test_each_training_row_becomes_the_rows_of_the_list() -> None:
    data = training(TWICE).data
    assert texts(data)[:4] == ["Q0= a0", "q0= a0", "Q1= a1", "q1= a1"] and len(data.examples) == 40
    assert data.notes == (
        "columns of rows.jsonl not used: `id` (20 rows)",
        "`twice` made 40 rows of 20 training rows of rows.jsonl",
        "in the rows that `twice` made: columns of rows.jsonl not used: `id` (40 rows)",
    )
    even = training("def twice(row):\n    if row['id'] % 2 == 0:\n        yield row\n").data
    assert texts(even) == [f"Q{n}= a{n}" for n in range(0, 20, 2)]


def test_held_out_rows_are_as_without_the_function() -> None:
    Path("valid.jsonl").write_text('{"prompt": "Q3", "completion": "a3"}\n{"prompt": "V", "completion": "v"}\n')
    for options in ({"validation": 0.25}, {"folds": 4}, {"validation": "valid.jsonl"}):
        plain, more = training(TWICE, augment=None, **options), training(TWICE, **options)  # type: ignore[arg-type]
        assert texts(more.validation) == texts(plain.validation)
        assert texts(plain.validation)[0].lower() != texts(plain.validation)[0]
        held = {text.lower() for text in texts(plain.validation)}
        made = {text for text in texts(more.data) if text not in texts(plain.data)}
        assert made and not made & held, "no row is made of a held-out row"


def test_a_made_row_that_equals_a_held_out_row_is_left_out() -> None:
    every = "def twice(row):\n    return [{'prompt': f'Q{n}', 'completion': f'a{n}'} for n in range(20)]\n"
    found = training(every, validation=0.25, dedupe=True)
    assert sorted(texts(found.data)) == sorted({f"Q{n}= a{n}" for n in range(20)} - {*texts(found.validation)})
    assert "75 rows that `twice` made were left out: they are held out" in found.data.notes
    assert "210 rows that `twice` made were left out: they repeat others" in found.data.notes


def test_other_turns_of_a_held_out_turn_are_not_augmented() -> None:
    def talk(number: int) -> dict[str, Any]:
        said = [f"Q{number}", f"a{number}", f"R{number}", f"b{number}"]
        return {"messages": [{"role": "user" if n % 2 == 0 else "assistant", "content": t} for n, t in enumerate(said)]}

    lower = "import json\ndef twice(row):\n    return [row, json.loads(json.dumps(row).replace('Q', 'q').replace('R', 'r'))]"
    found = training(lower, rows=[talk(n) for n in range(10)], turns="all", validation=0.25)
    assert found.validation is not None
    held = {re.findall(r"Q\d", each.prompt)[0] for each in found.validation.examples}
    partly = [each for each in found.data.examples if re.search("|".join(held), each.prompt)]
    assert partly, "another turn of a held-out turn is trained on, as it is"
    made = {f"Q{number}" for each in found.data.examples for number in re.findall(r"q(\d)", each.prompt)}
    assert made == {f"Q{n}" for n in range(10)} - held
    assert any("not augmented: a part of them is held out" in note for note in found.data.notes)


def test_rows_are_read_in_the_form_of_the_whole_data() -> None:
    same = "def twice(row):\n    return [{key: row[key] for key in ('prompt', 'completion')}]\n"
    rows = [{**ROWS[0], "history": [["x", "y"]]}, *ROWS[1:]]
    assert {each.split()[0] for each in texts(training(same, rows=rows).data)} == {"User:"}


def test_scored_rows_are_not_augmented_and_the_train_split_of_a_task_is() -> None:
    source = "def twice(row):\n    assert 'question' in row\n    return [row, {**row, 'question': row['question'] + ' (again)'}]\n"
    plain = prepared(source, data="mini_gsm8k", samples=5, augment=None)
    more = prepared(source, data="mini_gsm8k", samples=5)
    assert more.variants[0].items == plain.variants[0].items
    data = more.variants[0].training.data  # type: ignore[union-attr]
    assert len(data.examples) == 10 and sum("(again)" in each.prompt for each in data.examples) == 5


def test_weights_repeat_what_is_made_and_samples_count_rows_before_it() -> None:
    weighted = texts(training(TWICE, data="rows.jsonl*2").data)
    assert len(weighted) == 80 and weighted.count("q7= a7") == weighted.count("Q7= a7") == 2
    assert len(training(TWICE, samples=5).data.examples) == 10


def test_limits_of_tokens_apply_to_the_rows_that_are_made() -> None:
    longer = "def twice(row):\n    return [row, {**row, 'prompt': row['prompt'] * 30}]\n"
    data = training(longer, max_row_tokens=30).data
    assert texts(data) == [f"Q{n}= a{n}" for n in range(20)]
    assert "20 rows that `twice` made were left out: 20 with more than 30 tokens" in data.notes


def test_notes_on_answers_are_about_the_rows_that_are_made() -> None:
    source = "def twice(row):\n    return [{**row, 'completion': ''}, row][row['id'] % 2 :]\n"
    assert training(source).data.notes[-1].startswith("10 of 30 training rows of rows.jsonl have an empty answer")
    with pytest.raises(UserError, match="every answer of the training data"):
        training("def twice(row):\n    return [{**row, 'completion': ''}]\n")


def test_the_key_follows_the_function_and_all_that_it_reads() -> None:
    source = "from words_of_mine import SUFFIX\ndef twice(row):\n    return [{**row, 'completion': row['completion'] + SUFFIX}]\n"
    found = []
    for suffix in ("x", "y"):
        Path("words_of_mine.py").write_text(f"SUFFIX = {suffix!r}\n")
        sys.modules.pop("words_of_mine", None)
        found.append(prepared(source + f"# {suffix}\n"))
    first, second = found
    assert first.identity != second.identity
    assert first.trainings[0].data.digest != second.trainings[0].data.digest
    assert prepared(TWICE).identity == prepared(TWICE).identity


def test_random_numbers_have_a_fixed_seed_and_are_restored() -> None:
    source = "import random, numpy\ndef twice(row):\n    return [{**row, 'prompt': f'{random.random()} {numpy.random.rand()}'}]\n"
    random.seed(5)
    before = random.getstate()
    one, other = training(source).data, training(source).data
    assert one.digest == other.digest and len({*texts(one)}) == 20
    assert random.getstate() == before


def test_variants_with_the_same_rows_share_what_a_function_made() -> None:
    source = "import itertools\nCOUNT = itertools.count()\ndef twice(row):\n    return [{**row, 'prompt': str(next(COUNT))}]\n"
    one, other = (variant.training for variant in prepared(source, "lora", "lora:rank=2").variants)
    assert one is not None and other is not None and one.data is other.data
    alone = prepared(TWICE, "lora", "ia3:samples=3")
    assert [len(t.data.examples) for t in (v.training for v in alone.variants) if t] == [40, 6]


def test_a_function_cannot_change_the_row_that_others_read() -> None:
    source = "def twice(row):\n    row['prompt'] = 'changed'\n    return [row]\n"
    found = prepared(source)
    assert texts(found.trainings[0].data) == [f"changed= a{n}" for n in range(20)]
    assert {row["prompt"] for row in found.trainings[0].data.sources[0].rows} == {f"Q{n}" for n in range(20)}


@pytest.mark.parametrize(
    ("source", "message"),
    [
        (
            "def twice(row):\n    return [row['question']]\n",
            r"the function `twice` failed for row 0 of `rows.jsonl`, in `more.py`\n\n  more.py:2 in twice\n"
            r"    return \[row\['question'\]\]\n  KeyError: 'question'",
        ),
        ("import sys\ndef twice(row):\n    sys.exit(0)\n", r"failed for row 0 .*\n\n  more.py:3 in twice"),
        ("def twice(row):\n    return twice(row)\n", r"(?s)  … \d+ more\n.*RecursionError"),
        ("def twice(row):\n    return row\n", "`twice` returned dict for row 0 of `rows.jsonl`, not a list of rows"),
        ("def twice(row):\n    pass\n", "`twice` returned NoneType for row 0"),
        ("def twice(row):\n    return 'ab'\n", "`twice` returned str for row 0"),
        ("def twice(row):\n    return [1]\n", "`twice` made a int of row 0 of `rows.jsonl`, not a row"),
        ("def twice(row):\n    while True:\n        yield row\n", "`twice` made more than 1000 rows of row 0"),
        ("def twice(row):\n    return []\n", "`augment` leaves none of the training rows"),
        (
            "def twice(row):\n    return [{'prompt': 'a'}]\n",
            "in the rows that `twice` made: training data `rows.jsonl`: row 0",
        ),
        ("def once(row):\n    return [row]\n", "`.*more.py` has no function `twice`"),
        ("twice = 1\n", "`.*more.py` has no function `twice`"),
        ("import nothing_of_this_name\n", r"could not load `more.py`\n\n  more.py:1"),
    ],
)
def test_errors_name_the_row_and_show_the_lines_of_the_function(source: str, message: str) -> None:
    with pytest.raises(UserError, match=message) as error:
        prepared(source)
    assert error.value.hint and len(error.value.message.splitlines()) < 40


@pytest.mark.parametrize("text", ["./none.py@twice", "./more.py", "more.txt@f"])
def test_a_setting_that_names_no_function_is_refused(text: str) -> None:
    with pytest.raises(UserError, match="names no function") as error:
        prepared(TWICE, augment=text)
    assert error.value.hint


def test_a_settings_file_starts_no_function_that_the_command_does_not_name() -> None:
    Path("more.py").write_text(TWICE)
    Path("rows.jsonl").write_text(json.dumps(ROWS[0]))
    Path("compare.yaml").write_text("train: {data: rows.jsonl, augment: ./more.py@twice}\nvariants:\n  lora: {}\n")
    with pytest.raises(UserError, match=r"compare\.yaml:1: the file names the Python code `more\.py`"):
        configure([], file=Path("compare.yaml"))
    allowed = configure([], file=Path("compare.yaml"), allow_code=["more.py"])
    assert allowed.train.augment == "./more.py@twice"


def test_what_a_function_prints_does_not_mix_with_the_output(capsys: pytest.CaptureFixture[str]) -> None:
    Path("rows.jsonl").write_text(json.dumps(ROWS[0]) + "\n")
    Path("more.py").write_text("print('at import')\ndef twice(row):\n    print('a call')\n    return [row]\n")
    command = [
        "train",
        "lora",
        "--train",
        "rows.jsonl",
        "--train-augment",
        "./more.py@twice",
        "--inspect",
        "--format",
        "json",
    ]
    assert main(command) == 0
    out = capsys.readouterr().out
    assert json.loads(out)["rows"] == 1


def test_the_flag_the_preview_and_the_description_show_what_is_made() -> None:
    assert Flags(train_augment="a.py@f").settings()["train"] == {"augment": "a.py@f"}
    found, model = training(TWICE), find_model("tiny")
    assert [row.prompt[-2:] for row in view_training(found, model, 2).rows] == ["Q0", "q0"]
    shown = {each.what: each for each in inspect_training(found, model).findings}
    assert shown["made by `augment`"].rows == tuple(range(1, 40, 2))
    assert shown["made by `augment`"].examples[0] == "q0‖·a0"
