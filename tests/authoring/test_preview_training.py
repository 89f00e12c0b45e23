"""`harness train VARIANT --preview N` prints training rows as the model receives them."""

import json
from pathlib import Path
from typing import Any

import pytest

from harness.authoring.preview_training import TrainView, view_training
from harness.cli import main
from harness.config.parse import configure
from harness.data.model_files import find_model
from harness.jobs import Example
from harness.prepare.prepare import prepare


@pytest.fixture(autouse=True)
def _in_a_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def view(row: dict[str, Any], count: int = 1, *, repeats: int = 1, **settings: Any) -> TrainView:
    Path("rows.jsonl").write_text((json.dumps(row) + "\n") * repeats)
    config = configure(["lora"], tasks=["mini_mmlu"], limit=1, train={"data": "rows.jsonl", **settings})
    training = prepare(config).rows[0].training
    assert training is not None
    return view_training(training, find_model("tiny"), count)


def test_learned_tokens_are_after_the_mark_and_end_with_eos() -> None:
    found = view({"prompt": "Q: one?\nA: ", "completion": "two"})
    (row,) = found.rows
    assert (row.prompt, row.answer) == ("Q: one?\nA:", " two<eos>")
    assert "".join(row.pieces[: row.learned_from]) == row.prompt
    assert str(found).splitlines()[:3] == [
        f"── row 0: {len(row.ids)} tokens of tiny, {len(row.ids) - row.learned_from} learned, after ‖",
        "Q: one?↵",
        "A:‖·two<eos>",
    ]
    assert f"‖  ·two│{row.ids[row.learned_from]}" in str(found)


def test_only_tokens_that_are_read_are_dim() -> None:
    text = view({"prompt": "Q: one?", "completion": "two"}).styled()
    dim = "".join(text.plain[span.start : span.end] for span in text.spans if span.style == "dim")
    assert dim.startswith("Q: one?Q│") and "two" not in dim and "──" not in dim


def test_tokens_that_do_not_fit_are_reported() -> None:
    whole = view({"prompt": "Q: one?", "completion": "a b c d e f"}).rows[0]
    assert whole.lost_tokens == 0
    cut = view({"prompt": "Q: one?", "completion": "a b c d e f"}, max_length=len(whole.ids) - 4)
    assert cut.rows[0].ids == whole.ids[:-4] and "; 4 more were cut off" in str(cut) and " ✂" in str(cut)
    gone = view({"prompt": "Q: one?", "completion": "a b c d e f"}, max_length=2)
    assert "left out, because the answer does not fit" in str(gone) and "‖" not in str(gone)


def test_a_preference_is_two_rows_and_plain_text_is_blocks() -> None:
    pair = view({"prompt": "Q", "chosen": "good", "rejected": "bad"}, stage="dpo")
    assert [(row.title, row.answer) for row in pair.rows] == [
        ("row 0, chosen", " good<eos>"),
        ("row 0, rejected", " bad<eos>"),
    ]
    blocks = view({"text": "one two three"}, 2, repeats=9, stage="pretrain", max_length=8)
    assert [row.title for row in blocks.rows] == ["block 0", "block 1"]
    assert [(len(row.ids), row.learned_from) for row in blocks.rows] == [(8, 1), (8, 1)]


def test_prompts_of_online_stages_are_shown_without_an_answer() -> None:
    Path("rows.jsonl").write_text('{"prompt": "Q"}\n')
    Path("r.py").write_text("def length(prompts, completions, references): return [0.0 for _ in prompts]\n")
    settings = {"data": "rows.jsonl", "stage": "grpo", "reward": "r.py@length"}
    training = prepare(configure(["lora"], tasks=["mini_mmlu"], limit=1, train=settings)).rows[0].training
    assert training is not None and training.data.examples == (Example("Q", ""),)
    assert "none learned" in str(view_training(training, find_model("tiny"), 5))


def test_the_command_prints_text_or_json_and_trains_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    Path("rows.jsonl").write_text('{"prompt": "é\\u200b 测试", "completion": "🙂\\n"}\n' * 3)
    assert main(["train", "lora", "--train", "rows.jsonl", "--preview", "2", "--quiet"]) == 0
    printed = capsys.readouterr().out
    assert printed.count("── row") == 2 and "é\\u200b 测试‖·🙂↵" in printed and "\x1b" not in printed
    assert main(["train", "lora", "--train", "rows.jsonl", "--preview", "1", "--quiet", "--format", "json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["data"] == "rows.jsonl" and document["rows"][0]["answer"] == " 🙂\n<eos>"
    assert main(["train", "lora", "--train", "rows.jsonl", "--preview", "0"]) == 2
    assert not Path("runs").exists()
