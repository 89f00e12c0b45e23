"""The embedded model: its rows follow from the seed, train and test are disjoint, and its files are as documented."""

import json
import os
import re
import subprocess
import sys
from itertools import islice
from pathlib import Path

import pytest

from harness import tiny
from harness.metrics.mini_code import passes
from harness.tiny.world import TASKS, TEST_ROWS, World

KEY = {
    "mini_mmlu": "question",
    "mini_ceval": "question",
    "mini_gsm8k": "question",
    "mini_code": "steps",
    "mini_translation": "en",
    "mini_summary": "text",
    "mini_text": "text",
}


@pytest.fixture(scope="module")
def seed() -> int:
    return int(json.loads((tiny.MODEL / "build.json").read_text())["seed"])


@pytest.mark.parametrize("hash_seed", ["0", "1"])
def test_committed_rows_follow_from_the_seed(seed: int, hash_seed: str, tmp_path: Path) -> None:
    code = (
        "import sys, pathlib; from harness.tiny.world import World, write_rows;"
        f"write_rows(World({seed}), pathlib.Path(sys.argv[1]))"
    )
    subprocess.run(
        [sys.executable, "-c", code, str(tmp_path)], check=True, env=os.environ | {"PYTHONHASHSEED": hash_seed}
    )
    assert sorted(p.name for p in tmp_path.iterdir()) == sorted(p.name for p in tiny.DATA.iterdir())
    for path in tmp_path.iterdir():
        assert path.read_bytes() == (tiny.DATA / path.name).read_bytes()


def test_another_seed_gives_another_world() -> None:
    assert World(1).rows("mini_mmlu", "test") != World(2).rows("mini_mmlu", "test")


@pytest.mark.parametrize("task", [task for task in TASKS if task != "mini_text"])
def test_train_and_test_are_disjoint(task: str) -> None:
    train = {row[KEY[task]] for row in tiny.rows(task, "train")}
    test = {row[KEY[task]] for row in tiny.rows(task, "test")}
    assert train and test
    assert not train & test


@pytest.mark.parametrize(("task", "everybody"), [("mini_mmlu", "countries"), ("mini_ceval", "people")])
def test_test_questions_are_about_other_entities_than_train_questions(seed: int, task: str, everybody: str) -> None:
    lore = getattr(World(seed), everybody)
    names = {split: {entity["name"]: entity for entity in lore.of_split(split)} for split in ("train", "test")}
    assert not set(names["train"]) & set(names["test"])
    for split, known in names.items():
        for row in tiny.rows(task, split):
            kind = row["subject"]
            (about,) = [found for form in lore.questions[kind] if (found := _asked(form, row["question"]))]
            assert row["choices"][row["answer"]] == known[about.pop("e")][kind]
            assert all(known[other][kind] in row["choices"] for other in about.values())
            assert len(set(row["choices"])) == 4


@pytest.mark.parametrize("task", ["mini_mmlu", "mini_ceval"])
def test_each_form_of_a_question_is_asked_equally_often_about_each_kind_of_fact(seed: int, task: str) -> None:
    lore = World(seed).countries if task == "mini_mmlu" else World(seed).people
    for kind, forms in lore.questions.items():
        for form in forms:
            asked = [row for row in tiny.rows(task) if row["subject"] == kind and _asked(form, row["question"])]
            assert len(asked) * len(forms) * len(lore.questions) == TEST_ROWS


def test_questions_of_mini_ceval_and_most_of_mini_mmlu_are_in_no_document(seed: int) -> None:
    text = "\n".join(islice(World(seed).documents(), 20_000))
    for lore, plain in ((World(seed).countries, 1), (World(seed).people, 0)):
        for forms in lore.questions.values():
            known = [form for form in forms if re.search(_pattern(form), text)]
            assert known == list(forms[:plain])


def test_no_test_item_is_in_the_pretraining_text(seed: int) -> None:
    documents = list(islice(World(seed).documents(), 20_000))
    text = "\n".join(documents)
    for task in TASKS:
        for row in tiny.rows(task, "test"):
            assert row[KEY[task]] not in text


def test_the_data_are_small_and_answers_are_balanced() -> None:
    assert sum(path.stat().st_size for path in tiny.DATA.iterdir()) < 2_000_000
    for task in ("mini_mmlu", "mini_ceval"):
        answers = [row["answer"] for row in tiny.rows(task)]
        assert all(answers.count(place) > len(answers) / 8 for place in range(4))


def test_the_model_is_small_and_records_how_it_was_trained() -> None:
    assert (tiny.MODEL / "model.safetensors").stat().st_size < 10_000_000
    made = json.loads((tiny.MODEL / "build.json").read_text())
    assert {"seed", "minutes", "steps", "tokens", "final_loss", "parameters", "torch", "transformers"} <= set(made)


@pytest.mark.parametrize(
    "text",
    [
        "The flag of Vello is yellow. 51-43=8.",
        "今天早上，疲倦的男孩在河边看见了四只蓝色的鸟。",
        "f = lambda x: sum([i+3 for i in x if i>12][::-1])\n\n    return x",
        "never seen before: naïve ☃ 龘 \t end",
    ],
)
def test_the_tokenizer_decodes_what_it_encoded(text: str) -> None:
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(tiny.MODEL)
    ids = tokenizer(text)["input_ids"]
    assert tokenizer.decode(ids) == text
    assert tokenizer.eos_token_id not in ids
    assert len({tokenizer.eos_token_id, tokenizer.pad_token_id}) == 2
    assert [len(tokenizer.decode([i]).strip()) for i in tokenizer("4217")["input_ids"]] == [1, 1, 1, 1]


def test_the_model_loads_and_has_learned_its_world() -> None:
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(tiny.MODEL)
    model = AutoModelForCausalLM.from_pretrained(tiny.MODEL, dtype=torch.float32)
    ids = tokenizer(tiny.rows("mini_text")[0]["text"], return_tensors="pt")["input_ids"]
    with torch.no_grad():
        assert float(model(ids, labels=ids).loss) < 2.0


def test_the_judge_of_code_passes_every_reference_answer() -> None:
    for split in ("train", "test"):
        for row in tiny.rows("mini_code", split):
            assert passes(row["code"], row["cases"])


@pytest.mark.parametrize(
    "code",
    [
        "",
        "return x",
        "sorted(x",
        "x.sort()",
        "().__class__",
        "__import__('os')",
        "open('/etc/passwd')",
        "(lambda: x)()",
        "[i for i in x for j in x]",
        "[[k for k in x for j in x] for i in x]",
        "'a' * 10",
        "x * 1000000000",
        "1000000000 * x",
        "9**9**9",
        "99999999 * 99999999 * 99999999",
        "[x := 1]",
        "f'{x}'",
        "sorted(x, key=len)",
        "eval(x)",
        "while True: pass",
        "(" * 5000,
        "-" * 199 + "1",
        "x + 1",
        "x[0.5]",
        "x[9]",
        "1 // 0",
    ],
)
def test_the_judge_of_code_refuses_everything_else(code: str) -> None:
    assert not passes(code, [[[3, 1, 2], [1, 2, 3]]])


def test_the_judge_of_code_stops_long_computations() -> None:
    long = "x"
    for _ in range(6):
        long = f"[{long} for i in x]"
    assert not passes(f"len({long})", [[list(range(12)), 12]])


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        ("x", [3, 1, 2]),
        ("sorted(x)[:2]", [1, 2]),
        ("[i * 2 for i in x if i > 1][::-1]", [4, 6]),
        ("sum(i for i in x)", 6),
        ("max(x) - min(x) % 2", 2),
        ("x + [-1]", [3, 1, 2, -1]),
        ("len(x[1:]) == 2", True),
        ("x[-1] // 2", 1),
    ],
)
def test_the_judge_of_code_computes_as_python_does(code: str, expected: object) -> None:
    assert passes(code, [[[3, 1, 2], expected]])


def _asked(form: str, question: str) -> dict[str, str]:
    """The entities in a question of a form: `e` is asked about, `o` is another one; empty if it has another form."""
    found = re.fullmatch(_pattern(form), question)
    return found.groupdict() if found else {}


def _pattern(form: str) -> str:
    pattern = re.escape(form)
    for name in ("e", "o"):
        place = rf"\{{{name}\}}"
        pattern = pattern.replace(place, rf"(?P<{name}>\w+)", 1).replace(place, rf"(?P={name})")
    return pattern
