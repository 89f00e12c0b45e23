"""`run.json` of a stranger: a fault is named with its field, and the other runs of the folder are listed."""

import copy
import json
from pathlib import Path
from typing import Any

import pytest
from example_run import example_run

from harness.cli import main
from harness.errors import UserError
from harness.leaderboards.drawing import can_draw
from harness.leaderboards.files import FORMATS
from harness.report.screen import screen
from harness.runs.folder import RunFolder, list_runs, load_run

DRAWN = [name for name in FORMATS if can_draw() or name not in ("svg", "png")]
GOOD: dict[str, Any] = json.loads(example_run("base", "lora", "qlora").to_json())


SHOWN: dict[str, Any] = {
    "variant": "lora", "won": 1, "lost": 0, "tied": 0, "outputs": [{"id": "7", "kind": "won", "output": "x", "score": 1.0}],
}  # fmt: skip


def changed(place: str, value: Any) -> str:
    document = copy.deepcopy(GOOD)
    *outer, last = place.split(".")
    inner: Any = document
    for key in outer:
        inner = inner[int(key) if key.isdigit() else key]
    inner[int(last) if last.isdigit() else last] = value
    return json.dumps(document)


FAULTS = {
    "deep": ("[" * 200_000, "nested too deeply"),
    "deep in a free field": (changed("config.x", json.loads("[" * 60 + "]" * 60)), "nested too deeply"),
    "no tasks": (changed("tasks", []), "`variants.0.scores.0` is of no task of the run"),
    "an unknown task": (
        changed("variants.0.scores.0.task", "evil"),
        "`variants.0.scores.0` is of no task of the run: `evil`",
    ),
    "NaN": (changed("variants.0.scores.0.value", float("nan")), "`variants.0.scores.0.value` is not a finite number"),
    "infinite": (json.dumps(GOOD).replace('"seed": ', '"seed": 1e999, "was": ', 1), "`seed` is not a finite number"),
    "negative n": (changed("tasks.0.n", -3), "`tasks.0.n` is -3"),
    "a name twice": (changed("variants.1.name", "base"), "`variants` has `base` twice"),
    "many notes": (changed("notes", ["x"] * 1_000_000), "`notes` has 1,000,000 entries"),
    "a long note": (changed("notes", ["x" * 3_000_000]), "`notes.0` has 3,000,000 characters"),
    "a headline of no metric": (changed("tasks.0.headline", "evil"), "`tasks.0.headline` names no metric"),
    "a baseline of no variant": (changed("baseline", "evil"), "`baseline` names no variant: `evil`"),
    "a wrong type": (changed("variants.0.scores", 3), r"`variants.0.scores`: input should be"),
    "an unknown key": (changed("evil", 3), "`evil`: extra inputs are not permitted"),
    "a model that is a list": (changed("environment.model", [1]), "`environment.model` is not an object"),
    "half of a character": (changed("command", "\ud83d"), "`command` has half of a character"),
    "a billion decimals": (
        changed("tasks.0.decimals", 10**9),
        "`tasks.0.decimals`: input should be less than or equal to 9",
    ),
    "samples of no variant": (
        changed("samples_shown", [{"task": "mini_mmlu", "prompts": [], "variants": [SHOWN | {"variant": "evil"}]}]),
        "`samples_shown.0` is of no task or variant of the run",
    ),
    "an output without its prompt": (
        changed("samples_shown", [{"task": "mini_mmlu", "prompts": [], "variants": [SHOWN]}]),
        "`samples_shown.0` has an output without its prompt",
    ),
    "a time of zero": (
        changed("variants.1.inference.raw_seconds.prefill.0", 0.0),
        "`variants.1.inference.raw_seconds.prefill` has a time that is not above zero",
    ),
    "a pair of times without its other half": (
        changed("variants.1.inference.raw_seconds.base_prefill", [0.1]),
        "`variants.1.inference.raw_seconds.base_prefill` has another number of times",
    ),
    "a block of steps without time": (
        changed("variants.1.train.block_seconds", [1.0, 0.0]),
        "`variants.1.train.block_seconds` has a time that is not above zero",
    ),
    "gains of no variant": (
        changed("gains", [{"variant": "evil", "trained": {}, "other": {}}]),
        "`gains.0` is of no variant of the run",
    ),
    "a recommendation of no variant": (
        changed("recommendation", {"choices": ["evil"], "margin": 2, "tasks": [], "cost": None, "text": ""}),
        "`recommendation` names no variant of the run",
    ),
    "no variants": (changed("variants", []), "`variants` is empty"),
}


@pytest.mark.parametrize("name", FAULTS)
def test_a_fault_is_named_with_its_field(name: str, tmp_path: Path) -> None:
    text, message = FAULTS[name]
    (tmp_path / "run.json").write_text(text)
    with pytest.raises(UserError, match="is not the results of a run") as refused:
        load_run(tmp_path)
    assert message in refused.value.message and len(refused.value.message) < 600


def test_a_document_that_is_too_large_is_not_read(tmp_path: Path) -> None:
    with (tmp_path / "run.json").open("wb") as file:
        file.truncate(3 << 30)
    with pytest.raises(UserError, match=r"has 3,221,225,472 bytes, and at most 67,108,864 are read"):
        load_run(tmp_path)


def test_a_run_that_cannot_be_read_is_named_and_does_not_stop_the_others(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, text in (("good", json.dumps(GOOD)), ("evil", FAULTS["deep"][0])):
        (tmp_path / name).mkdir()
        (tmp_path / name / "run.json").write_text(text)
    skipped: list[UserError] = []
    assert [path.name for path, _ in list_runs(tmp_path, skipped)] == ["good"]
    assert main(["ls", "runs", "-o", str(tmp_path)]) == 0
    out, err = capsys.readouterr()
    assert out.startswith("good") and "evil" not in out and f"skipped: `{tmp_path}/evil/run.json`" in err
    with RunFolder.open(tmp_path, "tiny", "0") as folder:
        assert ["evil" in problem.message for problem in folder.skipped] == [True]
    assert main(["report", str(tmp_path / "evil")]) == 2


def test_numbers_at_the_edge_of_floats_can_be_shown(tmp_path: Path) -> None:
    """Sums of such numbers are infinite or not a number, which no sentence may fail on."""
    document = json.loads(json.dumps(GOOD))
    for found in document["comparisons"]:
        found |= {"value": 1e308, "low": -1e308, "high": 1e308}
    for score in (score for variant in document["variants"] for score in variant["scores"] if score["delta"]):
        score["delta"] |= {"value": 1e308, "low": -1e308, "high": 1e308}
        score |= {"value": 1e308, "low": -1e308, "high": 1e308}
    document["tasks"][0] |= {"scale": "fraction", "decimals": 1}
    document["variants"][1]["train"] |= {
        "train_seconds": 1e300,
        "block_seconds": [],
        "curve_points": [{"step": 1, "loss": 1e308}],
    }
    (tmp_path / "run.json").write_text(json.dumps(document))
    run = load_run(tmp_path)
    assert screen(run, width=100) and all(FORMATS[name]([run]) for name in DRAWN)


def test_what_is_read_can_be_shown(tmp_path: Path) -> None:
    (tmp_path / "run.json").write_text(json.dumps(GOOD))
    run = load_run(tmp_path)
    assert screen(run, width=100) and all(FORMATS[name]([run]) for name in DRAWN)
