"""Generated programs that ran out of time are counted in the samples, in the score, and in a note."""

import pytest
from scored_rows import lines, scored
from test_found import PROTOCOL

from harness import Generate, Task
from harness.comparison.document import timed_out_programs
from harness.comparison.samples import sample_row
from harness.comparison.scores import compute_scores
from harness.jobs import Raw
from harness.metrics import code, find
from harness.prompts.render import render
from harness.sandbox.run import Outcome


def test_a_line_of_a_samples_file_counts_the_texts_that_ran_out_of_time(monkeypatch: pytest.MonkeyPatch) -> None:
    ran: list[str] = []

    def judge(program: str, tests: str, given: str) -> Outcome:
        ran.append(program)
        return Outcome(False, "timeout", "not done") if "while" in program else Outcome(passed="7" in program)

    monkeypatch.setattr(code, "judge", judge)
    code._judged.cache_clear()
    task = scored("sums", find("pass@1"), find("pass@2"))
    sample = Generate("q", "7", samples=4, temperature=1.0, meta={"after": "\nassert x"})
    (item,) = render("t", Task([{}], lambda row: sample, [find("pass@1")]))
    raw = Raw(0, prompt_tokens=1, truncated=False, tokens=1, texts=("7", "while 1: 1", "8", "while 2: 2"))
    row = sample_row(task, item, raw, "k")
    assert (row["timed_out"], row["metrics"]["pass@1"]) == (2, 0.25)
    assert len(ran) == 4
    code._judged.cache_clear()
    assert sample_row(scored("qa", find("exact_match")), item, raw, "k")["timed_out"] == 0


def test_the_score_has_their_number_and_a_note_names_the_variant() -> None:
    task = scored("code", find("pass@1"))
    rows = {}
    for name, count in (("base", 3), ("lora", 1), ("full", 0), ("old", None)):
        made = lines("pass@1", [0.0] * 40)
        if count is not None:
            made = [{**row, "timed_out": int(number < count)} for number, row in enumerate(made)]
        rows[name] = {"code": made}
    scores = compute_scores([task], rows, {name: {"code": PROTOCOL} for name in rows}, "base", seed=0)
    assert [scores.by_variant[name][0].timed_out for name in rows] == [3, 1, 0, 0]
    assert timed_out_programs(scores) == [
        "base: on code, 3 generated programs timed out, also when run alone, and count as wrong",
        "lora: on code, 1 generated program timed out, also when run alone, and counts as wrong",
    ]
