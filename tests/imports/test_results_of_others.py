"""Results of other tools become one table with the paired test that their own tools do not give."""

import csv
import json
import math

import numpy as np
import pytest
from helpers import results_of_others as others

from harness.cli import main
from harness.errors import UserError
from harness.imports.changed import changed_samples
from harness.imports.find import is_own, load
from harness.imports.record import Samples, distinct, joined
from harness.imports.table import read_table
from harness.leaderboards import export
from harness.results import Run
from harness.stats.proportions import mcnemar_interval, mcnemar_p
from harness.stats.unpaired import mean_difference, share_difference

WORSE = [1, 0, 0, 1] * 10
BETTER = [1, 1, 0, 1] * 10


def table(*paths, baseline=None) -> Run:
    return read_table(list(paths), command="harness report", baseline=baseline)


def test_two_lm_eval_runs_get_the_paired_test(tmp_path):
    others.lm_eval(tmp_path / "a", {"sums": WORSE})
    others.lm_eval(tmp_path / "b", {"sums": BETTER}, model="me/lora")
    run = table(tmp_path / "a", tmp_path / "b")
    (found,) = run.comparisons
    assert (found.a, found.b, found.test, found.value) == ("lora", "base", "mcnemar mid-p", 0.25)
    assert found.p == mcnemar_p(40, 10, 0) and (found.low, found.high) == mcnemar_interval(40, 10, 0)
    assert run.variant("lora").headline(run.tasks[0]).delta.verdict == "better"
    assert run.variant("lora").source.tool == "lm-eval 0.4.13"
    assert any("training settings, seeds and costs" in note for note in run.notes)
    assert Run.model_validate_json(run.to_json()) == run


def test_samples_are_paired_by_document_whatever_their_order(tmp_path):
    others.lm_eval(tmp_path / "a", {"sums": WORSE})
    others.lm_eval(tmp_path / "b", {"sums": BETTER}, model="me/lora")
    (file,) = (tmp_path / "b").glob("samples*")
    file.write_text("".join(reversed(file.read_text().splitlines(keepends=True))))
    (found,) = table(tmp_path / "a", tmp_path / "b").comparisons
    assert found.p == mcnemar_p(40, 10, 0)


def test_what_two_runs_do_not_share_is_left_out_and_said(tmp_path):
    others.lm_eval(tmp_path / "a", {"sums": WORSE})
    others.lm_eval(tmp_path / "b", {"sums": BETTER[:20]}, model="me/lora")
    run = table(tmp_path / "a", tmp_path / "b")
    assert run.comparisons[0].p == mcnemar_p(20, 5, 0)
    assert any("compared on 20 of 40 samples" in note for note in run.notes)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"version": 2.0}, "another lm-eval task version: 2.0 and 1.0"),
        ({"shots": 5}, "another shots: 5 and 0"),
        ({"prefix": "Think. "}, "other prompts for the same 40 documents"),
    ],
)
def test_another_protocol_is_never_paired_silently(tmp_path, changes, reason):
    others.lm_eval(tmp_path / "a", {"sums": WORSE})
    others.lm_eval(tmp_path / "b", {"sums": BETTER}, model="me/lora", **changes)
    run = table(tmp_path / "a", tmp_path / "b")
    assert not run.comparisons and run.variant("lora").headline(run.tasks[0]).delta is None
    assert any(reason in note for note in run.notes), run.notes


def test_without_samples_the_test_is_unpaired_and_says_so(tmp_path):
    others.lm_eval(tmp_path / "a", {"sums": WORSE}, samples=False)
    others.lm_eval(tmp_path / "b", {"sums": BETTER}, model="me/lora", samples=False)
    run = table(tmp_path / "a", tmp_path / "b")
    assert run.comparisons[0].test == "unpaired z"
    assert run.comparisons[0].p == share_difference(0.75, 40, 0.5, 40).p
    assert any("(unpaired)" in note for note in run.notes)
    assert run.variant("base").source.lacks[0].startswith("samples")


def test_a_number_that_is_not_the_mean_of_its_samples_is_not_paired(tmp_path):
    for name, scores in (("a", WORSE), ("b", BETTER)):
        file = others.lm_eval(tmp_path / name, {"sums": scores}, model=f"me/{name}")
        document = json.loads(file.read_text())
        document["results"]["sums"]["acc,none"] = 0.625
        file.write_text(json.dumps(document))
    run = table(tmp_path / "a", tmp_path / "b")
    assert [each.test for each in run.comparisons] == ["unpaired z"]
    assert any("not the mean of its samples" in note for note in run.notes)


def test_the_subtasks_of_a_group_are_strata_of_one_task(tmp_path):
    for name, scores in (("a", WORSE), ("b", BETTER)):
        parts = {"quiz_law": scores, "quiz_art": scores[:20]}
        others.lm_eval(tmp_path / name, parts, model=f"me/{name}", groups={"quiz": list(parts)})
    run = table(tmp_path / "a", tmp_path / "b")
    assert [task.name for task in run.tasks] == ["quiz"]
    score = run.variant("b").scores[0]
    assert [(group.name, group.n) for group in score.groups] == [("quiz_law", 40), ("quiz_art", 20)]
    assert run.comparisons[0].p == mcnemar_p(60, 15, 0)


def test_of_a_task_that_was_run_twice_the_newest_result_counts(tmp_path):
    others.lm_eval(tmp_path, {"sums": BETTER}, date=2e9, stamp="2033-05-18T00-00-00")
    others.lm_eval(tmp_path, {"sums": WORSE}, stamp="2026-01-01T00-00-00", date=1.7e9)
    run = table(tmp_path)
    assert run.variants[0].scores[0].value == 0.75
    assert any("the newest counts" in note for note in run.notes)


def test_a_token_among_the_arguments_is_not_shown(tmp_path):
    file = others.lm_eval(tmp_path, {"sums": WORSE})
    document = json.loads(file.read_text())
    document["config"]["model_args"] |= {"token": "hf_secret", "tokenizer": "org/words"}
    file.write_text(json.dumps(document))
    text = table(tmp_path).to_json()
    assert "hf_secret" not in text and "tokenizer=org/words" in text


def test_two_runs_of_one_name_are_told_apart(tmp_path):
    others.lm_eval(tmp_path / "a", {"sums": WORSE})
    others.lm_eval(tmp_path / "b", {"sums": BETTER})
    assert [each.name for each in table(tmp_path / "a", tmp_path / "b").variants] == ["a-base", "b-base"]


@pytest.mark.usefixtures("in_process")
def test_our_own_run_is_paired_with_lm_eval_by_its_requests(tmp_path, monkeypatch):
    rows = [{"q": f"sums {n} =", "right": n % 2} for n in range(12)]
    (tmp_path / "sums.py").write_text(
        "from harness import Choose, Task, acc, task\n\n"
        "@task\ndef sums() -> Task:\n"
        f"    return Task(data={rows!r}, sample=lambda row: Choose(row['q'], ['yes', 'no'], 0), metrics=[acc])\n"
    )
    monkeypatch.chdir(tmp_path)
    code = main(["eval", "base", "--tasks", "./sums.py", "--no-timing", "--dtype", "float32"])
    assert code in (0, None)
    others.lm_eval(tmp_path / "a", {"sums": [1, 0] * 6}, model="me/lm")
    (folder,) = (tmp_path / "runs").iterdir()
    run = table(folder, tmp_path / "a")
    assert [task.name for task in run.tasks] == ["sums"]
    (found,) = run.comparisons
    assert found.test == "mcnemar mid-p" and run.variant("base").source is None
    own = run.variants[0].scores[0].value
    assert math.isclose(found.value, 0.5 - own)
    mine, theirs = load([folder, tmp_path / "a"])
    lost = changed_samples(theirs, mine, "sums").samples[0]
    assert lost.prompt and lost.prompt.startswith("sums ") and lost.target == " yes"
    assert {lost.a.text.strip(), lost.b.text.strip()} == {"yes", "no"}


@pytest.fixture
def passages(tmp_path, monkeypatch):
    """A run of our own on samples in passages of four."""
    (tmp_path / "sums.py").write_text(
        "from harness import Choose, Task, acc, task\n\n"
        "ROWS = [{'q': f'sums {n} =', 'right': 0, 'passage': str(n // 4)} for n in range(40)]\n\n"
        "@task\ndef sums() -> Task:\n"
        "    return Task(data=ROWS, sample=lambda row: Choose(row['q'], ['yes', 'no'], row['right']),"
        " metrics=[acc], cluster='passage')\n"
    )
    monkeypatch.chdir(tmp_path)
    assert main(["eval", "base", "--tasks", "./sums.py", "--no-timing", "--dtype", "float32"]) in (0, None)
    return next((tmp_path / "runs").iterdir())


def test_samples_of_one_passage_are_not_independent_in_a_table_of_two_tools(tmp_path, passages):
    others.lm_eval(tmp_path / "a", {"sums": [n // 4 % 2 for n in range(40)]}, model="me/lm")
    (found,) = table(passages, tmp_path / "a").comparisons
    assert found.test == "clustered t and sign flips"


def test_a_score_of_our_own_that_is_not_the_mean_of_its_samples_is_not_paired(tmp_path, passages):
    document = json.loads((passages / "run.json").read_text())
    document["variants"][0]["scores"][0]["value"] = 0.123
    (passages / "run.json").write_text(json.dumps(document))
    others.lm_eval(tmp_path / "a", {"sums": [1, 0] * 20}, model="me/lm")
    assert not table(passages, tmp_path / "a").comparisons


def test_two_tools_are_not_compared_without_samples(tmp_path, passages):
    others.lm_eval(tmp_path / "a", {"sums": [1, 0] * 20}, model="me/lm", samples=False)
    run = table(passages, tmp_path / "a")
    assert not run.comparisons and any("asked the same" in note for note in run.notes)


def test_without_samples_other_questions_are_no_comparison(tmp_path):
    others.lm_eval(tmp_path / "a", {"sums": WORSE}, samples=False)
    file = others.lm_eval(tmp_path / "b", {"sums": BETTER}, model="me/lora", samples=False)
    document = json.loads(file.read_text())
    document["configs"]["sums"]["doc_to_text"] = "Think. {{q}}"
    file.write_text(json.dumps(document))
    run = table(tmp_path / "a", tmp_path / "b")
    assert not run.comparisons and any("another template of prompts" in note for note in run.notes)


def test_scores_in_per_cent_have_intervals_around_them(tmp_path):
    for name, value in (("a", 45.0), ("b", 52.0)):
        file = others.lm_eval(tmp_path / name, {"squad": WORSE}, model=name, samples=False)
        document = json.loads(file.read_text())
        document["results"]["squad"] = {"f1,none": value, "f1_stderr,none": 1.0}
        file.write_text(json.dumps(document))
    (score, other) = (each.scores[0] for each in table(tmp_path / "a", tmp_path / "b").variants)
    assert score.low < 45 < score.high and other.low < 52 < other.high


def test_subtasks_that_ask_the_same_are_paired_one_to_one():
    same = np.array([7, 7, 8], dtype=np.uint64)
    parts = [(name, Samples(np.zeros(3), requests=distinct(same))) for name in ("a", "b")]
    assert len(np.unique(joined(parts).requests)) == 6


def test_inspect_logs_of_both_kinds_are_the_same(tmp_path):
    log = others.inspect_log("org/one", ["C", "I", "P", "C"])
    others.inspect_zip(tmp_path / "one.eval", log)
    (tmp_path / "two.json").write_text(json.dumps(others.inspect_log("org/two", ["C", "C", "C", "C"])))
    run = table(tmp_path)
    assert [variant.scores[0].value for variant in run.variants] == [0.625, 1.0]
    assert run.comparisons[0].test == "skewness-corrected t"
    (same,) = load([tmp_path / "one.eval"])
    assert same.tasks[0].measured[0].samples.values.tolist() == [1, 0, 0.5, 1]


def test_epochs_of_a_document_are_one_sample(tmp_path):
    log = others.inspect_log("org/one", ["C", "I", "C", "C"], epochs=2)
    (run,) = load([others.inspect_zip(tmp_path / "one.eval", log)])
    assert run.tasks[0].measured[0].samples.values.tolist() == [0.5, 1.0]


def test_a_log_packed_with_zstandard_is_read(tmp_path):
    import zlib

    pyarrow = pytest.importorskip("pyarrow")
    from harness.imports import archive

    content = json.dumps(others.inspect_log("org/one", ["C"])).encode()
    packed = pyarrow.Codec("zstd").compress(content).to_pybytes()
    name = b"header.json"
    sizes = [
        zlib.crc32(content).to_bytes(4, "little"),
        *(len(each).to_bytes(4, "little") for each in (packed, content)),
    ]
    head = b"\x14\0\0\0\x5d\0\0\0\0\0" + b"".join(sizes) + len(name).to_bytes(2, "little") + b"\0\0"
    local = b"PK\x03\x04" + head + name + packed
    entry = b"PK\x01\x02\x14\0" + head + b"\0" * 14 + name
    end = (
        b"PK\x05\x06\0\0\0\0\x01\0\x01\0"
        + len(entry).to_bytes(4, "little")
        + len(local).to_bytes(4, "little")
        + b"\0\0"
    )
    (tmp_path / "one.eval").write_bytes(local + entry + end)
    with archive.zipfile.ZipFile(tmp_path / "one.eval") as opened:
        assert archive.json_entry(opened, tmp_path / "one.eval", "header.json") == json.loads(content)


def test_peft_experiments_count_their_ties_and_refuse_old_forgetting(tmp_path):
    for n in range(9):
        old = n % 2 == 0
        document = others.peft(
            f"lora/llama-3.2-3B-rank{n}", 600 + 15 * n, forgetting=0.1,
            created="2026-07-13T23:00:00+00:00" if old else "2026-07-14T01:00:00+00:00",
        )  # fmt: skip
        (tmp_path / f"{n}.json").write_text(json.dumps(document))
    run = table(tmp_path, baseline="lora-rank0")
    assert len(run.variants) == 9 and run.variant("lora-rank3").train.lr == 1e-4
    deltas = [variant.scores[0].delta for variant in run.variants if variant.name != "lora-rank0"]
    tied = sum(delta.verdict == "undecided" for delta in deltas)
    assert 0 < tied < 8
    assert f"MetaMathQA: {tied} of 8 other rows are not shown to differ from lora-rank0" in run.notes
    assert [len(variant.scores) for variant in run.variants] == [1, 2] * 4 + [1]
    assert any("3419" in note and "(5 rows)" in note for note in run.notes)


def test_lighteval_details_are_paired(tmp_path):
    others.lighteval(tmp_path / "a", "org/one", WORSE)
    others.lighteval(tmp_path / "b", "org/two", BETTER)
    (found,) = table(tmp_path / "a", tmp_path / "b").comparisons
    assert found.test == "mcnemar mid-p" and found.p == mcnemar_p(40, 10, 0)


def test_every_eval_ever_is_paired_with_its_samples_and_not_without(tmp_path):
    others.every_eval_ever(tmp_path / "a", "org/one", WORSE)
    others.every_eval_ever(tmp_path / "b", "org/two", BETTER)
    others.every_eval_ever(tmp_path / "c", "org/three", None)
    run = table(*(tmp_path / name for name in "abc"))
    tests = {(each.a, each.b): each.test for each in run.comparisons}
    assert tests == {("two", "one"): "mcnemar mid-p", ("three", "one"): "unpaired z", ("three", "two"): "unpaired z"}


def test_metrics_of_two_tools_have_a_column_each(tmp_path):
    others.lm_eval(tmp_path / "a", {"doubles": WORSE})
    others.inspect_zip(tmp_path / "one.eval", others.inspect_log("org/one", ["C", "I"]))
    run = table(tmp_path / "a", tmp_path / "one.eval")
    assert [task.name for task in run.tasks] == ["doubles", "doubles (inspect_ai match accuracy)"]
    assert not run.comparisons


def test_every_export_takes_the_table(tmp_path, capsys):
    others.lm_eval(tmp_path / "a", {"sums": WORSE})
    others.lm_eval(tmp_path / "b", {"sums": BETTER}, model="me/lora")
    given = [
        str(tmp_path / "a"),
        str(tmp_path / "b"),
        "--to",
        "md,html,csv,json,tex,parquet",
        "--out",
        str(tmp_path / "out"),
    ]
    assert main(["report", *given]) in (0, None)
    assert "+25.0" in (tmp_path / "out" / "report.md").read_text()
    rows = list(csv.DictReader((tmp_path / "out" / "report.csv").open()))
    assert [(row["variant"], row["value"], row["verdict"], row["source"]) for row in rows] == [
        ("base", "0.5", "", "lm-eval 0.4.13"),
        ("lora", "0.75", "better", "lm-eval 0.4.13"),
    ]
    again = Run.model_validate_json((tmp_path / "out" / "report.json").read_text())
    assert again.variant("lora").source.file.startswith("results_")
    capsys.readouterr()
    assert main(["show", str(tmp_path / "a")]) in (0, None)
    assert "results of lm-eval 0.4.13" in " ".join(capsys.readouterr().out.split())


def test_won_and_lost_samples_are_shown_with_their_texts(tmp_path, capsys):
    others.lm_eval(tmp_path / "a", {"sums": WORSE})
    others.lm_eval(tmp_path / "b", {"sums": BETTER}, model="me/lora")
    (first,), (second,) = load([tmp_path / "b"]), load([tmp_path / "a"])
    found = changed_samples(first, second, "sums")
    assert (found.won, found.lost, found.n) == (10, 0, 40)
    assert (found.samples[0].prompt, found.samples[0].target) == ("sums 1 =", " yes")
    assert (found.samples[0].a.text, found.samples[0].b.text) == (" yes", " no")
    assert main(["diff", str(tmp_path / "b"), "lora", "base", "--other", str(tmp_path / "a"), "--show", "1"]) in (
        0,
        None,
    )
    assert "10 won, 0 lost" in capsys.readouterr().out


def test_a_missing_baseline_names_the_rows(tmp_path):
    others.lm_eval(tmp_path, {"sums": WORSE})
    with pytest.raises(UserError, match="no row `lora`"):
        table(tmp_path, baseline="lora")


def test_our_own_runs_stay_with_their_reader(tmp_path):
    (tmp_path / "run.json").write_text("{}")
    assert (
        is_own(tmp_path) and is_own(tmp_path / "nothing") and not list((tmp_path / "nothing").parent.glob("results*"))
    )


def test_copies_of_a_document_are_told_apart_by_their_place():
    keys = np.array([5, 7, 5, 5], dtype=np.uint64)
    found = distinct(keys)
    assert len(set(found.tolist())) == 4 and found[0] == 5 and found[1] == 7
    assert set(distinct(keys[::-1].copy()).tolist()) == set(found.tolist())


@pytest.mark.parametrize(
    ("a", "b", "n"), [(0.5, 0.5, 20), (1.0, 0.0, 5), (1.0, 1.0, 5), (0.55, 0.4, 100), (0.6, 0.4, 97)]
)
def test_an_unpaired_interval_excludes_zero_exactly_when_its_test_rejects(a, b, n):
    found = share_difference(a, n, b, n)
    assert (found.p < 0.05) == (found.low > 0 or found.high < 0)
    assert found.low <= found.value <= found.high
    assert share_difference(b, n, a, n).p == found.p


def test_errors_of_zero_are_no_test():
    assert mean_difference(1.0, 0.0, 0.5, 0.0) is None


def test_names_of_others_cannot_run_anywhere(tmp_path):
    bad = "<script>alert(1)</script>\u202e\x1b[31m=cmd()"
    others.lm_eval(tmp_path / "a", {"sums": WORSE}, model=bad)
    file = others.lm_eval(tmp_path / "b", {"x": BETTER}, samples=False)
    document = json.loads(file.read_text())
    for name in ("results", "configs", "versions", "n-shot", "higher_is_better", "n-samples"):
        document[name] = {bad: document[name]["x"]}
    file.write_text(json.dumps(document))
    written = export([table(tmp_path / "a", tmp_path / "b")], ["md", "html", "csv", "tex", "json"], tmp_path / "out")
    for path in written:
        text = path.read_text()
        assert "\u202e" not in text and "\x1b" not in text
        assert path.suffix != ".html" or "<script>alert" not in text
        assert path.suffix != ".md" or "<script>alert" not in text.replace("\\<script", "")
