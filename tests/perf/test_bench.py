"""`make bench` at a tenth of its size gives the scores of lm-evaluation-harness. No time is asserted."""

from pathlib import Path

import bench
import pytest
from outcome import Outcome, agreement, write_results

pytestmark = pytest.mark.slow


@pytest.mark.hub
@pytest.mark.skipif(bench.find_peer()[0] is None, reason=bench.NO_PEER)
def test_every_row_has_the_peers_scores(tmp_path: Path) -> None:
    outcomes = bench.main(["--quick", "--folder", str(tmp_path)])
    compared = [outcome for outcome in outcomes if not outcome.name.startswith("growth")]
    assert all(outcome.agreement is not None and outcome.agreement.equal for outcome in compared)
    assert {outcome.name for outcome in outcomes} == {row.name for row in bench.ROWS}


def test_a_table_keeps_its_other_rows_and_leaves_other_sections_alone(tmp_path: Path) -> None:
    path = tmp_path / "RESULTS.md"
    figures = {"wall": 2.0, "cpu": 2.0, "process": 3.0, "peak_bytes": 1 << 20}
    for name in ("first", "second"):
        write_results(path, [Outcome(name, "s8k", "work", ours=figures)], "quick", 1, {})
        path.write_text(path.read_text() + "\n## Training\n\n| `third` | x |\n" * (name == "first"))
    table, _, behind = path.read_text().partition("\n## ")
    assert "`first`" in table and "`second`" in table and "`third`" not in table
    assert behind == "Training\n\n| `third` | x |\n"


def test_differences_are_counted() -> None:
    ours = [[[-1.0, -2.0], [True, False], []], [[], [], ["a"]]]
    assert agreement(ours, ours).equal
    assert agreement(ours, [[[-1.0, -2.001], [True, False], []], ours[1]]).wrong == 1
    assert agreement(ours, [ours[0], [[], [], ["b"]]]).wrong == 1
