"""Training files of every customary format become the same examples."""

from typing import Any

import pytest

from harness import UserError
from harness.chat import ChatTemplate
from harness.finetune.formats import examples_from_rows
from harness.render import Example

CHAT = ChatTemplate("{% for m in messages %}<{{ m.role }}>{{ m.content }}{% endfor %}<assistant>", {})


def one(row: dict[str, Any], **options: Any) -> tuple[str, str]:
    (example,) = examples_from_rows("data.jsonl", [row], **options)
    assert example.append_eos
    return example.prompt, example.completion


@pytest.mark.parametrize(
    ("row", "prompt", "completion"),
    [
        ({"prompt": "1+1 =", "completion": "2"}, "1+1 =", " 2"),
        ({"prompt": "1+1 =", "completion": " 2"}, "1+1 =", " 2"),
        ({"prompt": "1+1 =\n", "completion": "2"}, "1+1 =\n", "2"),
        ({"prompt": "", "completion": "2"}, "", "2"),
        ({"instruction": "Add.", "input": "1+1", "output": "2"}, "Add.\n\n1+1", "\n\n2"),
        ({"instruction": "Add.", "input": "", "output": "2"}, "Add.", "\n\n2"),
        ({"instruction": "Add.", "input": None, "output": "2"}, "Add.", "\n\n2"),
        ({"instruction": "Add.", "output": "2", "text": "ignored"}, "Add.", "\n\n2"),
        ({"text": "Once."}, "", "Once."),
    ],
)
def test_plain_formats(row: dict[str, Any], prompt: str, completion: str) -> None:
    assert one(row) == (prompt, completion)


TURNS = [{"role": "system", "content": "S"}, {"role": "user", "content": "U"}, {"role": "assistant", "content": "A"}]
SHAREGPT = [{"from": "system", "value": "S"}, {"from": "human", "value": "U"}, {"from": "gpt", "value": "A"}]


@pytest.mark.parametrize(
    "row",
    [
        {"messages": TURNS},
        {"conversations": SHAREGPT},
        {"messages": [*TURNS, {"role": "user", "content": "never answered"}]},
        {"prompt": TURNS[:2], "completion": TURNS[2:]},
        {"prompt": TURNS[:2], "completion": "A"},
    ],
)
def test_every_way_to_write_a_conversation_is_the_same(row: dict[str, Any]) -> None:
    assert one(row, template=CHAT) == ("<system>S<user>U<assistant>", "A")
    assert one(row) == ("System: S\nUser: U\nAssistant:", " A")


def test_only_the_last_assistant_turn_is_learned() -> None:
    turns = [*TURNS, {"role": "user", "content": "U2"}, {"role": "assistant", "content": "A2"}]
    assert one({"messages": turns}, template=CHAT) == ("<system>S<user>U<assistant>A<user>U2<assistant>", "A2")


def test_plain_prompts_become_user_turns_only_when_asked() -> None:
    assert one({"prompt": "1+1", "completion": "2"}, template=CHAT) == ("1+1", " 2")
    assert one({"prompt": "1+1", "completion": "2"}, template=CHAT, chat=True) == ("<user>1+1<assistant>", "2")
    assert (
        one({"instruction": "A", "input": "B", "output": "C"}, template=CHAT, chat=True)[0] == "<user>A\n\nB<assistant>"
    )


def test_columns_may_have_other_names() -> None:
    row = {"question": "1+1", "answer": "2", "text": "ignored"}
    assert one(row, columns={"prompt": "question", "completion": "answer"}) == ("1+1", " 2")
    assert one(row, columns={"text": "question"}) == ("", "1+1")
    assert one({"dialog": TURNS}, columns={"messages": "dialog"}, template=CHAT)[0] == "<system>S<user>U<assistant>"


def test_of_a_pair_only_one_column_need_be_mapped() -> None:
    assert one({"question": "1+1", "completion": "2"}, columns={"prompt": "question"}) == ("1+1", " 2")


def test_a_missing_column_lists_those_there_are() -> None:
    rows = [{"question": "1+1", "answer": "2"}]
    with pytest.raises(UserError, match="has no column `reply`") as error:
        examples_from_rows("data.jsonl", rows, columns={"prompt": "question", "completion": "reply"})
    assert error.value.hint == "it has: question, answer"
    with pytest.raises(UserError, match="row 1, has no column `answer`"):
        examples_from_rows(
            "data.jsonl", [*rows, {"question": "2"}], columns={"prompt": "question", "completion": "answer"}
        )


def test_columns_that_are_no_known_format_get_the_flag_to_type() -> None:
    with pytest.raises(UserError, match="row 0 has the columns question, answer; wanted: prompt") as error:
        one({"question": "1+1", "answer": "2"})
    assert error.value.hint == "map them: `--train-columns prompt=question,completion=answer`"
    with pytest.raises(UserError, match="row 0 has the columns none"):
        one({})


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ({"prompt": "1+1", "completion": 2}, "row 0 has int in `completion`"),
        ({"prompt": None, "completion": "2"}, "row 0 has NoneType in `prompt`"),
        ({"instruction": ["x"], "output": "2"}, "row 0 has list in `instruction`"),
        ({"text": 3.5}, "row 0 has float in `text`"),
        ({"messages": None}, "row 0 has no assistant turn"),
        ({"messages": "hi"}, "row 0 has no assistant turn"),
        ({"messages": TURNS[:2]}, "row 0 has no assistant turn"),
        ({"messages": TURNS[2:]}, "row 0 has no assistant turn"),
        ({"messages": ["hi", "yo"]}, "row 0 has a str as a turn"),
        ({"messages": [{"role": "user", "content": [{"type": "text", "text": "hi"}]}]}, "list in `user turn`"),
        ({"prompt": ["hi"], "completion": "yo"}, "row 0 has a str as a turn"),
    ],
)
def test_what_is_not_text_is_named_with_row_and_column(row: dict[str, Any], said: str) -> None:
    with pytest.raises(UserError, match=said):
        one(row)


def test_empty_texts_are_left_out_unless_nothing_is_left() -> None:
    assert examples_from_rows("x", [{"text": ""}, {"text": "a"}]) == [Example("", "a")]
    with pytest.raises(UserError, match="has no text in any of its 2 rows"):
        examples_from_rows("x", [{"text": ""}, {"text": ""}])
    with pytest.raises(UserError, match="has no rows"):
        examples_from_rows("x", [])
