"""`make bench` at a tenth of its size gives the scores of lm-evaluation-harness. No time is asserted."""

from pathlib import Path
from typing import Any

import bench
import outcome
import pytest
from outcome import Outcome, agreement, refuse_a_mixture, write_results


@pytest.mark.slow
@pytest.mark.hub
@pytest.mark.skipif(bench.find_peer()[0] is None, reason=bench.NO_PEER)
def test_every_row_has_the_peers_scores(tmp_path: Path) -> None:
    outcomes = bench.main(["--quick", "--folder", str(tmp_path)])
    compared = [row for row in outcomes if not row.name.startswith("growth")]
    assert all(row.agreement is not None and (row.equal or not row.exact) for row in compared)
    assert {row.name for row in outcomes} == {row.name for row in bench.ROWS}


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
    assert agreement(ours, [[[-1.0, -2.001], [True, False], []], [[], [], ["b"]]]).others == 1


def test_a_page_holds_rows_of_one_commit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    page, figures = tmp_path / "RESULTS.md", {"wall": 2.0, "cpu": 2.0, "process": 3.0, "peak_bytes": 1 << 20}
    monkeypatch.setattr(outcome, "commit", lambda: "abc")
    write_results(page, [Outcome("first", "s8k", "work", ours=figures)], "quick", 1, {})
    refuse_a_mixture(page.read_text(), whole=False)
    monkeypatch.setattr(outcome, "commit", lambda: "def")
    with pytest.raises(SystemExit, match="the other rows are of another commit: run all rows"):
        refuse_a_mixture(page.read_text(), whole=False)
    write_results(page, [Outcome("second", "s8k", "work", ours=figures)], "quick", 1, {})
    assert "`first`" not in page.read_text() and "`second`" in page.read_text()
    monkeypatch.setattr(outcome, "commit", lambda: "def+")
    with pytest.raises(SystemExit, match="changes that are not committed"):
        refuse_a_mixture(page.read_text(), whole=True)


def test_a_row_shows_vllm_beside_us_and_bfloat16_without_a_verdict() -> None:
    figures = {"wall": 2.0, "cpu": 2.0, "process": 3.0, "peak_bytes": 1 << 20}
    texts = [[[], [], ["a"]], [[], [], ["b"]]]
    found = agreement(texts, [texts[0], [[], [], ["c"]]])
    side = figures | {"cpu": 3.0, "start_cpu": 17.2}
    row = Outcome("r", "q151", "work", ours=figures, vllm=side, vllm_agreement=found, exact=False)
    assert "| 3.0, 17 to start, ×1.50, 1 of 2 alike, 0e+00 |" in row.line()
    row.exact = True
    assert "1 of 2 DIFFER" in row.line() and not row.equal


def test_the_peer_takes_its_best_batch_size_and_no_larger_one_than_its_rows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HARNESS_PEER_PYTHON", "")
    monkeypatch.delenv("HARNESS_VLLM", raising=False)
    asked: list[tuple[int, int]] = []

    def side(row: bench.Row, do: str, *, batch: int, share: int = 1) -> dict[str, Any]:
        asked.append((batch, share))
        rows = 12 if share == 1 else 2 * batch
        return {"cpu": rows * abs(batch - 7.5), "rows": rows, "batch": batch}

    made = bench.Bench(tmp_path, "usual")
    monkeypatch.setattr(made, "_side", side)
    rows = {row.name: row for row in bench.ROWS}
    best = made._best_batch(rows["gsm8k-q151"])
    assert (best["batch"], asked) == (8, [(4, 1), (8, 1), (12, 1)]), "all rows, so the best run is the result"
    asked.clear()
    best = made._best_batch(rows["hellaswag"])
    assert (best["batch"], asked) == (8, [(1, 8), (4, 8), (8, 8), (16, 8), (8, 1)])


def test_an_interpreter_without_a_peer_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HARNESS_VLLM", "/nowhere/python")
    with pytest.raises(SystemExit, match="HARNESS_VLLM=/nowhere/python is no interpreter"):
        bench.find_vllm()
