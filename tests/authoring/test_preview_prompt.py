"""`harness show TASK --sample N` prints the input of the model: every character, every id, and where scoring begins."""

import json
from pathlib import Path
from typing import Any

import pytest
from tiny_models import save_tiny, tiny_tokenizer

from harness import Choose, Generate, Task, Text, acc
from harness.authoring.preview_prompt import View, view, visible
from harness.cli import main
from harness.data.model_files import Snapshot, find_model
from harness.prompts.render import render


def viewed(sample: Any, folder: Path | None = None, **options: Any) -> View:
    task = Task([{}], lambda row: sample, [acc], **options)
    return view("toy", render("toy", task)[0], Snapshot("model", folder) if folder else find_model("tiny"))


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("one two", "one two"),
        ("ends \nhere ", "ends·↵\nhere·"),
        ("a  b\tc", "a··b→c"),
        ("    return x\n", "····return x↵"),
        ("\n\nx", "↵\n↵\nx"),
        ("a\u200bb\r\u00a0\x1b[2J", "a\\u200bb\\r\\xa0\\x1b[2J"),
        ("测试 🙂", "测试 🙂"),
        ("", ""),
    ],
)
def test_white_space_is_visible_where_it_matters(text: str, shown: str) -> None:
    assert visible(text) == shown


def test_choices_are_scored_from_where_the_context_ends() -> None:
    found = viewed(Choose("The sky is", ["blue", "very red"], 0))
    for row, text in zip(found.rows, ("The sky is blue", "The sky is very red"), strict=True):
        assert "".join(row.pieces) == text
        assert "".join(row.pieces[: row.scored_from]) == "The sky is"
    assert "' blue'  ← right\n' very red'\n" in str(found) and "\n…  ‖  " in str(found)


def test_spaces_at_the_end_of_a_context_are_scored_with_the_choice() -> None:
    (row, _) = viewed(Choose("The sky is  ", ["blue", "red"], 1), delimiter="").rows
    assert "".join(row.pieces[: row.scored_from]) == "The sky is"
    assert "".join(row.pieces[row.scored_from :]) == "  blue"


def test_a_text_is_scored_after_a_prefix_token_and_a_window_at_a_time(tmp_path: Path) -> None:
    folder = save_tiny(tmp_path / "m", context=16)
    found = viewed(Text("hello world, this is a small tokenizer 0 1 2 3 4 5 6 7 8 9"), folder)
    assert len(found.rows) > 1 and found.rows[0].pieces[0] == "<s>" and found.rows[0].scored_from == 1
    scored = "".join("".join(row.pieces[row.scored_from :]) for row in found.rows)
    assert scored == "hello world, this is a small tokenizer 0 1 2 3 4 5 6 7 8 9"


def test_a_cut_prompt_is_marked(tmp_path: Path) -> None:
    folder = save_tiny(tmp_path / "m", context=16)
    found = viewed(Generate("hello world " * 20, "x", max_tokens=4), folder)
    assert found.truncated and len(found.rows[0].ids) == 15
    assert "15, continued by generation, cut on the left to fit the context" in str(found)


def test_parts_of_a_character_are_shown_as_the_vocabulary_has_them() -> None:
    (row,) = viewed(Generate("🙂", "x")).rows
    assert len(row.pieces) > 1 and "\ufffd" not in "".join(row.pieces)
    assert all(piece.isprintable() for piece in row.pieces)


def test_json_holds_the_exact_texts(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "t.py"
    file.write_text(
        "from harness import Generate, Task, exact_match, task\n\n@task\ndef t() -> Task:\n"
        "    rows = [{'q': f' a\\t{n} ', 'a': 'b'} for n in range(4)]\n"
        "    return Task(data=rows, sample=lambda row: Generate(row['q'], row['a'], stop=('\\n',)), shots_from=rows,"
        " metrics=[exact_match])\n"
    )
    assert main(["show", str(file), "--sample", "3", "-f", "1", "--format", "json"]) == 0
    shown = json.loads(capsys.readouterr().out)
    assert shown["contexts"] == [" a\t0  b\n\n a\t3 "] and shown["stop"] == ["\n"] and shown["target"] == "b"
    assert "".join(shown["rows"][0]["pieces"]) == shown["contexts"][0]
    assert main(["show", str(file), "--sample", "4"]) == 2


def test_a_chat_template_is_the_models_own(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = save_tiny(tmp_path / "m")
    tokenizer = tiny_tokenizer()
    (folder / "chat_template.jinja").write_text(
        "{{ bos_token }}{% for m in messages %}[{{ m.role }}] {{ m.content }}\n{% endfor %}"
    )
    assert (
        main(["show", "mini_mmlu", "--sample", "0", "-m", str(folder), "--apply-chat-template", "--format", "json"])
        == 0
    )
    shown = json.loads(capsys.readouterr().out)
    assert shown["contexts"][0].startswith("<s>[system] The following")
    assert shown["rows"][0]["ids"].count(tokenizer.bos_token_id) == 1
    assert main(["show", "mini_mmlu", "--sample", "0", "--apply-chat-template"]) == 2
    assert "`tiny` has no chat template" in capsys.readouterr().err
