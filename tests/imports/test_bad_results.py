"""Damaged and hostile results of other tools: one clear error that names the file and the field."""

import json
import subprocess
import sys
import zipfile

import pytest
from helpers import results_of_others as others

from harness.errors import UserError
from harness.imports import archive
from harness.imports.find import load
from harness.storage import JSON_BYTES

SCORES = {"sums": [1, 0, 1, 1]}


def refusal(path) -> str:
    with pytest.raises(UserError) as caught:
        load([path])
    assert caught.value.hint
    return caught.value.message


def edited(file, **changes):
    file.write_text(json.dumps(json.loads(file.read_text()) | changes))
    return file


def samples_of(folder):
    return next(folder.glob("samples_*"))


def test_a_file_that_is_cut_short(tmp_path):
    file = others.lm_eval(tmp_path, SCORES)
    file.write_text(file.read_text()[:-30])
    assert "is not JSON" in refusal(tmp_path) and file.name in refusal(file)


def test_an_integer_that_no_number_can_hold(tmp_path):
    others.lm_eval(tmp_path, SCORES)
    file = samples_of(tmp_path)
    rows = [json.loads(line) for line in file.read_text().splitlines()]
    rows[2]["acc"] = 10**400
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert "line 3: acc` is not a finite number" in refusal(tmp_path)


def test_a_score_outside_of_its_own_scale(tmp_path):
    file = others.every_eval_ever(tmp_path, "me/a", None)
    document = json.loads(file.read_text())
    document["evaluation_results"][0]["score_details"]["score"] = 45.0
    file.write_text(json.dumps(document))
    assert "outside of `min_score`" in refusal(file)


def test_a_foreign_schema(tmp_path):
    (tmp_path / "config.json").write_text('{"model_type": "llama"}')
    assert "is not in a format that is read" in refusal(tmp_path / "config.json")


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"results": {"sums": {"acc,none": float("nan")}}}, "`results.sums.acc,none` is not a finite number"),
        ({"results": {"sums": {"acc,none": [1]}}}, "`results.sums.acc,none` is a list, not a number"),
        ({"results": {"sums": 3}}, "`sums` is a int, not an object"),
        ({"results": []}, "`results` is a list, not an object"),
        ({"results": {}}, "`results` has no task"),
        ({"group_subtasks": {"g": "sums"}}, "`group_subtasks.g` is not a list of names"),
    ],
)
def test_a_wrong_field_of_lm_eval(tmp_path, changes, words):
    assert words in refusal(edited(others.lm_eval(tmp_path, SCORES), **changes))


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("{broken\n", "line 2 is not JSON"),
        ("[1]\n", "line 2 is a list, not an object"),
        ('{"filter": "none", "metrics": ["acc"], "acc": 1}\n', "line 2 has no `doc_hash`"),
        ('{"doc_hash": "x", "metrics": ["acc"], "acc": NaN}\n', "`line 2: acc` is not a finite number"),
        ('{"doc_hash": "x", "metrics": "acc"}\n', "`metrics` is not a list"),
    ],
)
def test_a_broken_row_of_samples(tmp_path, line, words):
    others.lm_eval(tmp_path, SCORES)
    file = samples_of(tmp_path)
    rows = file.read_text().splitlines(keepends=True)
    file.write_text("".join([rows[0], line, *rows[2:]]))
    message = refusal(tmp_path)
    assert words in message and file.name in message


def test_samples_that_end_too_early(tmp_path):
    others.lm_eval(tmp_path, SCORES)
    file = samples_of(tmp_path)
    whole = file.read_text()
    file.write_text(whole[:-20])
    assert "cut short" in refusal(tmp_path)
    file.write_text("".join(whole.splitlines(keepends=True)[:3]))
    assert "it has 3 samples" in refusal(tmp_path)


def test_a_group_that_contains_itself_ends(tmp_path):
    file = edited(others.lm_eval(tmp_path, SCORES), group_subtasks={"g": ["h"], "h": ["g"]})
    assert [task.name for task in load([file])[0].tasks] == ["sums"]


def test_a_samples_file_elsewhere_is_not_read(tmp_path):
    file = others.lm_eval(tmp_path / "a", {"../b/sums": [1, 0]}, samples=False)
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / f"sums_{others.STAMP}.jsonl").write_text("{broken")
    assert load([file])[0].tasks[0].measured[0].samples is None
    others.lm_eval(tmp_path / "c", SCORES)
    link = samples_of(tmp_path / "c")
    link.rename(tmp_path / "secret")
    link.symlink_to(tmp_path / "secret")
    assert load([tmp_path / "c"])[0].tasks[0].measured[0].samples is None


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"version": 3}, "`version` is 3"),
        ({"status": "started"}, "`status` is started"),
        ({"invalidated": True}, "marked the log as invalid"),
        ({"results": None}, "`results` is missing"),
        ({"results": {"scores": []}}, "`results.scores` is not a list of scores"),
    ],
)
def test_a_wrong_field_of_inspect(tmp_path, changes, words):
    log = others.inspect_log("org/one", ["C"], **changes)
    assert words in refusal(others.inspect_zip(tmp_path / "one.eval", log))
    (tmp_path / "one.json").write_text(json.dumps(log))
    assert words in refusal(tmp_path / "one.json")


def test_a_zip_that_is_none_unfinished_or_ambiguous(tmp_path):
    file = tmp_path / "one.eval"
    file.write_bytes(b"PK\x03\x04 no zip")
    assert "not a ZIP file" in refusal(file)
    with zipfile.ZipFile(file, "w") as opened:
        opened.writestr("_journal/start.json", "{}")
    assert "not finished" in refusal(file)
    with pytest.warns(UserWarning):
        others.inspect_zip(file, others.inspect_log("org/one", ["C"]), {"header.json": "{}"})
    assert "twice" in refusal(file)


def test_a_zip_cannot_write_files_or_fill_the_memory(tmp_path, monkeypatch):
    inside = tmp_path / "in"
    inside.mkdir()
    log = others.inspect_log("org/one", ["C", "I"])
    file = others.inspect_zip(inside / "one.eval", log, {"../escaped.json": "{}", "/absolute.json": "{}"})
    assert len(load([file])[0].tasks[0].measured[0].samples.values) == 2
    assert [path.name for path in tmp_path.rglob("*")] == ["in", "one.eval"]
    monkeypatch.setattr(archive, "JSON_BYTES", 1 << 16)
    bomb = others.inspect_zip(inside / "bomb.eval", log, {"samples/x_epoch_1.json": "0" * (1 << 20)})
    assert "unpacks to more than 65,536 bytes" in refusal(bomb)
    assert JSON_BYTES == 64 << 20


def test_grades_that_are_no_numbers(tmp_path):
    log = others.inspect_log("org/one", ["C", "I"])
    log["samples"][1]["scores"]["match"]["value"] = {"a": 1}
    (run,) = load([others.inspect_zip(tmp_path / "one.eval", log)])
    assert run.tasks[0].measured[0].samples is None
    log["samples"][1]["scores"]["match"]["value"] = float("nan")
    assert "`scores.match.value` is not a finite number" in refusal(others.inspect_zip(tmp_path / "two.eval", log))


@pytest.mark.parametrize(
    ("part", "changes", "words"),
    [
        ("train_info", {"status": "failed"}, "`train_info.status` is failed"),
        ("train_info", {"metrics": []}, "`train_info.metrics` is not a list of measurements"),
        ("train_info", {"metrics": [{"step": 1}]}, "has no `test accuracy`"),
        ("train_info", {"train_time": "1"}, "`train_info.train_time` is a str, not a number"),
        ("run_info", {"train_config": None}, "`train_config` is missing"),
        ("run_info", {"experiment_name": "x" * 999}, "`run_info.experiment_name` has 999 characters"),
    ],
)
def test_a_wrong_field_of_peft(tmp_path, part, changes, words):
    document = others.peft("lora/x", 600)
    document[part] |= changes
    (tmp_path / "one.json").write_text(json.dumps(document))
    assert words in refusal(tmp_path / "one.json")


def test_a_wrong_field_of_every_eval_ever(tmp_path):
    file = others.every_eval_ever(tmp_path, "org/one", [1, 0])
    assert "`schema_version` is 9.0" in refusal(edited(file, schema_version="9.0"))
    rows = json.loads(file.read_text())["evaluation_results"]
    assert "has `sums` twice" in refusal(edited(file, schema_version="0.3.0", evaluation_results=rows * 2))
    edited(file, evaluation_results=rows)
    (tmp_path / f"{file.stem}_samples.jsonl").write_text('{"input": {}, "evaluation": {"score": "1"}}\n')
    assert "`line 1: evaluation.score` is a str" in refusal(file)


def test_a_damaged_parquet_file(tmp_path):
    file = others.lighteval(tmp_path, "org/one", [1, 0])
    (parquet,) = tmp_path.rglob("*.parquet")
    parquet.write_bytes(parquet.read_bytes()[:-40])
    assert "not a Parquet file" in refusal(file)


def test_an_empty_folder_says_what_is_read(tmp_path):
    (tmp_path / "one.eval").write_bytes(b"")
    assert "not a ZIP file" in refusal(tmp_path)


@pytest.mark.slow
def test_a_million_samples_take_little_memory(tmp_path):
    others.lm_eval(tmp_path, {"sums": [1, 0]})
    file = samples_of(tmp_path)
    row = json.loads(file.read_text().splitlines()[0])
    row = {name: row[name] for name in ("filter", "metrics", "prompt_hash", "target_hash", "acc")}
    count = 1_000_000
    with file.open("w") as opened:
        for index in range(count):
            opened.write(json.dumps(row | {"doc_hash": f"{index:064}"}) + "\n")
    results = next(tmp_path.glob("results_*"))
    document = json.loads(results.read_text())
    document["n-samples"]["sums"]["effective"] = count
    document["results"]["sums"]["acc,none"] = 1.0
    results.write_text(json.dumps(document))
    program = (
        "import resource, sys; from pathlib import Path; from harness.imports.find import load;"
        "before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss; (run,) = load([Path(sys.argv[1])]);"
        "print(len(run.tasks[0].measured[0].samples.values), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)"
    )
    done = subprocess.run([sys.executable, "-c", program, str(tmp_path)], capture_output=True, text=True, check=True)
    samples, kib = map(int, done.stdout.split())
    assert samples == count and kib < 400_000
