"""`harness train VARIANT --inspect` describes training data before anything is trained."""

import json
from pathlib import Path
from typing import Any

import pytest

from harness.authoring.inspect_training import Inspection, inspect_training
from harness.authoring.preview_training import view_training
from harness.cli import main
from harness.config.parse import configure
from harness.data.model_files import find_model
from harness.prepare.prepare import prepare
from harness.prepare.trainings import Training

SENTENCE = "The old miller of Bree sold his mill to a baker from the town of Anset last year because the river was dry"
PLAIN = [{"prompt": f"Q{n}: what is {n} and {n}?", "completion": f"It is {2 * n}, which is easy."} for n in range(30)]


@pytest.fixture(autouse=True)
def _in_a_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def prepared(rows: list[dict[str, Any]], **settings: Any) -> Training:
    Path("rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    config = configure(["lora"], tasks=["mini_mmlu"], limit=1, train={"data": "rows.jsonl", **settings})
    training = prepare(config).variants[0].training
    assert training is not None
    return training


def inspected(rows: list[dict[str, Any]], **settings: Any) -> Inspection:
    return inspect_training(prepared(rows, **settings), find_model("tiny"))


def found(rows: list[dict[str, Any]], **settings: Any) -> dict[str, tuple[int, ...]]:
    return {finding.what: finding.rows for finding in inspected(rows, **settings).findings}


def test_lengths_are_those_of_the_preview() -> None:
    training, model = prepared(PLAIN), find_model("tiny")
    rows = view_training(training, model, len(PLAIN)).rows
    lengths = sorted(len(row.ids) for row in rows)
    tokens = inspect_training(training, model).tokens
    assert (tokens["row"].least, tokens["row"].most, tokens["row"].total) == (lengths[0], lengths[-1], sum(lengths))
    assert tokens["row"].median == round((lengths[14] + lengths[15]) / 2)
    assert tokens["learned"].total == sum(len(row.ids) - row.learned_from for row in rows)
    assert tokens["prompt"].total + tokens["learned"].total == tokens["row"].total


def test_rows_that_would_be_cut_or_left_out_are_named() -> None:
    long = {"prompt": "Q", "completion": "word " * 60}
    rows = [*PLAIN, long, {"prompt": "word " * 60, "completion": "A"}]
    whole, short = inspected(rows), inspected(rows, max_length=40)
    assert whole.lost_tokens == 0
    cut = {finding.what: finding.rows for finding in short.findings}
    assert cut["longer than 40 tokens, cut on the right"] == (30,)
    assert cut["left out, because the prompt alone has 40 tokens or more"] == (31,)
    assert short.lost_tokens == sum(
        row.lost_tokens for row in view_training(prepared(rows, max_length=40), find_model("tiny"), 32).rows
    )
    assert f"{short.lost_tokens} tokens are beyond the maximum length of 40" in str(short)


def test_copies_and_near_copies_are_named_with_their_original() -> None:
    rows = [*PLAIN, *({"prompt": "Tell me.", "completion": SENTENCE + end} for end in ("", " indeed", ""))]
    findings = {finding.what: finding for finding in inspected(rows).findings}
    assert findings["copies of earlier rows"].rows == (32,)
    assert findings["copies of earlier rows"].examples[0].startswith("as row 30: Tell·me.‖")
    assert findings["nearly copies of earlier rows"].rows == (31,)
    assert "% as row 30: " in findings["nearly copies of earlier rows"].examples[0]


@pytest.mark.parametrize(
    ("answer", "what"),
    [
        ("", "an empty answer"),
        ("nan", "a missing value as the answer, such as `nan`"),
        ("caf\ufffd", "characters that could not be decoded (U+FFFD)"),
        ("cafÃ©", "UTF-8 read as Latin-1, such as `Ã©`"),
        ("a\x00b", "control characters"),
        ("one&nbsp;<br/>two", "HTML tags or entities"),
        ("the same line\n" * 5, "a line that is repeated"),
        ("please repeat this whole sentence", "the prompt repeated as the answer"),
    ],
)
def test_odd_rows_are_named(answer: str, what: str) -> None:
    rows = [*PLAIN, {"prompt": "Now please repeat this whole sentence.", "completion": answer}]
    assert found(rows) == {what: (30,)}
    assert found(PLAIN) == {}


def test_a_preference_without_a_preference_is_odd() -> None:
    rows = [{"prompt": f"Q{n}", "chosen": f"good {n}", "rejected": f"bad {n}" if n else "good 0 "} for n in range(3)]
    assert found(rows, stage="dpo") == {"the same text chosen and rejected": (0,)}


def test_languages_are_counted() -> None:
    german = {"prompt": "Sag etwas", "completion": "Der Hund schläft im Garten, und die Katze schläft auch im Haus."}
    found = inspected([*({"prompt": f"Say {n}", "completion": f"{SENTENCE} {n}"} for n in range(3)), german])
    assert found.languages == {"en": 3, "de": 1}
    assert "languages: en 3, de 1" in str(found)


def test_the_command_prints_text_or_json_and_trains_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    rows = [{**row, "id": n} for n, row in enumerate(PLAIN)]
    Path("rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert main(["train", "lora", "--train", "rows.jsonl", "--inspect"]) == 0
    out, error = capsys.readouterr()
    assert out.startswith("30 rows of rows.jsonl, in tokens of tiny\n") and "nothing odd was found" in out
    assert "columns of rows.jsonl not used: `id` (30 rows)" in " ".join(error.split())
    assert main(["train", "lora", "--train", "rows.jsonl", "--inspect", "--format", "json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["rows"] == 30 and document["tokens"]["row"]["most"] > 0
    assert not Path("runs").exists()
