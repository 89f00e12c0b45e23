"""`make bench-training` on the smallest models gives the loss curves of PEFT + Trainer, and of TRL if installed. No time is asserted."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import training


@pytest.mark.slow
def test_our_loss_curves_are_the_peers(tmp_path: Path) -> None:
    outcomes = training.main(["--quick", "--folder", str(tmp_path)])
    assert {outcome.row.name for outcome in outcomes} == {row.name for row in training.ROWS if row.quick}
    assert all("trainer" in outcome.apart and outcome.equal for outcome in outcomes)


def test_the_section_keeps_rows_that_did_not_run_and_the_text_around_it(tmp_path: Path) -> None:
    side = {"cpu": 2.0, "peak_bytes": 1 << 20, "total_bytes": 2 << 20, "losses": [1.0]}
    first, second = (training.Outcome(row, "s8k", 100, 1, {"ours": side, "trainer": side}) for row in training.ROWS[:2])
    page = tmp_path / "RESULTS.md"
    page.write_text("# Title\n\n| `mmlu` | 1 |\n\n## Profile\n\nlast\n", encoding="utf-8")
    training.write_section(page, [second], "usual", {})
    training.write_section(page, [first], "usual", {})
    lines = page.read_text(encoding="utf-8").splitlines()
    assert [line.split("`")[1] for line in lines if line.startswith("| `")] == ["mmlu", first.row.name, second.row.name]
    assert [line for line in lines if line.startswith("#")] == ["# Title", "## Profile", training.TITLE]


def test_a_peer_has_its_best_options_and_equal_losses_where_they_keep_the_rows_of_a_batch(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    costs = {"micro": 9.0, "grouped": 2.0, "padding_free": 3.0, "packing": 4.0}

    def side(self: Any, row: training.Row, side: str, options: dict[str, Any], steps: int) -> dict[str, Any]:
        kind = next(reversed(options), "micro")
        losses = [7.0] * steps if kind in ("grouped", "packing") else [1.0 + 0.001 * (side == "trl")] * steps
        return {"cpu": costs[kind], "peak_bytes": 1, "total_bytes": 1, "losses": losses}

    monkeypatch.setenv("HARNESS_PEER_PYTHON", "")
    monkeypatch.setattr(training.Bench, "_side", side)
    made = training.Bench(tmp_path, "usual")
    made.peer = "python"
    row = next(row for row in training.ROWS if row.name == "ragged-lora")
    (tmp_path / made._data(row)).write_text('[{"input_ids": [1, 2]}]')
    outcome = made.run(row)
    assert outcome.options == {"trainer": "grouped 4 at once", "trl": "padding-free 4 at once"}
    assert outcome.apart == {"trainer": 0.0, "trl": pytest.approx(0.001)} and not outcome.equal
    assert training.Outcome(replace(row, method="qlora"), "s8k", 1, 1, apart=outcome.apart).equal
