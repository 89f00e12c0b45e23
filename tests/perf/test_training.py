"""`make bench-training` on the smallest models gives the loss curves of PEFT + Trainer, and of TRL if installed. No time is asserted."""

from pathlib import Path

import pytest
import training

pytestmark = pytest.mark.slow


def test_our_loss_curves_are_the_peers(tmp_path: Path) -> None:
    outcomes = training.main(["--quick", "--folder", str(tmp_path)])
    assert {outcome.row.name for outcome in outcomes} == {row.name for row in training.ROWS if row.quick}
    assert all(outcome.apart["trainer"] <= training.TOLERANCE for outcome in outcomes)


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
