"""Training rows of all common formats are converted to the same examples."""

from typing import Any

import pytest

from harness import UserError
from harness.jobs import Example
from harness.prompts.chat import ChatTemplate
from harness.prompts.training_rows import read_rows

CHAT = ChatTemplate("{% for m in messages %}<{{ m.role }}>{{ m.content }}{% endfor %}<assistant>", {})


def examples_from_rows(name: str, rows: list[dict[str, Any]], **options: Any) -> list[Example]:
    return read_rows(name, rows, **options).examples


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
        ({"instruction": "Add.", "context": "1+1", "response": "2", "category": "qa"}, "Add.\n\n1+1", "\n\n2"),
        ({"instruction": "Add.", "context": "", "response": "2"}, "Add.", "\n\n2"),
        ({"prompt": "1+1 =", "completion": "2", "system": "S"}, "S\n\n1+1 =", " 2"),
        ({"prompt": "1+1 =", "completion": "2", "system": None}, "1+1 =", " 2"),
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


def test_with_every_turn_each_assistant_turn_is_an_example() -> None:
    turns = [*TURNS, {"role": "user", "content": "U2"}, {"role": "assistant", "content": "A2"}]
    first, second = examples_from_rows("x", [{"messages": turns}], template=CHAT, every_turn=True)
    assert (first.prompt, first.completion) == ("<system>S<user>U<assistant>", "A")
    assert (second.prompt, second.completion) == ("<system>S<user>U<assistant>A<user>U2<assistant>", "A2")


def test_the_system_prompt_of_a_row_has_priority_over_the_variants() -> None:
    row = {"messages": TURNS[1:], "system": "own"}
    assert one(row, template=CHAT, system="S") == ("<system>own<user>U<assistant>", "A")
    assert one({"messages": TURNS[1:]}, template=CHAT, system="S") == ("<system>S<user>U<assistant>", "A")
    assert one({"messages": TURNS}, template=CHAT, system="other") == ("<system>S<user>U<assistant>", "A")
    pair = {"prompt": "1+1", "completion": "2"}
    assert one(pair, template=CHAT, chat=True, system="S") == ("<system>S<user>1+1<assistant>", "2")
    assert one(pair, system="S") == ("S\n\n1+1", " 2")


PREFERENCES: list[dict[str, Any]] = [
    {"prompt": TURNS[:2], "chosen": "A", "rejected": "B"},
    {"prompt": TURNS[:2], "chosen": [TURNS[2]], "rejected": [{"role": "assistant", "content": "B"}]},
    {"chosen": TURNS, "rejected": [*TURNS[:2], {"role": "assistant", "content": "B"}]},
    {"prompt": "U", "chosen": TURNS, "rejected": [*TURNS[:2], {"role": "assistant", "content": "B"}]},
    {"conversations": SHAREGPT[:2], "chosen": SHAREGPT[2], "rejected": {"from": "gpt", "value": "B"}},
    {"messages": TURNS[1:2], "system": "S", "chosen": "A", "rejected": "B"},
]


@pytest.mark.parametrize("row", PREFERENCES)
@pytest.mark.parametrize("stage", ["sft", "dpo"])
def test_every_way_to_write_a_preference_is_the_same(row: dict[str, Any], stage: Any) -> None:
    (example,) = examples_from_rows("x", [row], template=CHAT, stage=stage)
    assert example == Example("<system>S<user>U<assistant>", "A", rejected="B", turn_end="")
    (plain,) = examples_from_rows("x", [row], stage=stage)
    assert plain == Example("System: S\nUser: U\nAssistant:", " A", rejected=" B")


@pytest.mark.parametrize(
    ("row", "example"),
    [
        ({"prompt": "Q:", "chosen": "yes", "rejected": " no"}, Example("Q:", " yes", rejected=" no")),
        ({"instruction": "Q", "input": "", "chosen": "a", "rejected": "b"}, Example("Q", "\n\na", rejected="\n\nb")),
        (
            {"chosen": "\n\nHuman: hi\n\nAssistant: I do.", "rejected": "\n\nHuman: hi\n\nAssistant: I don't."},
            Example("\n\nHuman: hi\n\nAssistant: I ", "do.", rejected="don't."),
        ),
        ({"chosen": "a", "rejected": "b"}, Example("", "a", rejected="b")),
    ],
)
def test_preferences_as_texts(row: dict[str, Any], example: Example) -> None:
    assert examples_from_rows("x", [row], stage="dpo") == [example]
    if "prompt" not in row and "instruction" not in row:  # the text that both share may end inside the answer
        assert examples_from_rows("x", [row], stage="dpo", template=CHAT, chat=True) == [example]


def test_a_prompt_under_another_name_is_never_left_out_of_a_preference() -> None:
    row = {"system": "S", "question": "1+1", "chosen": "It is 2", "rejected": "It is 3"}  # as in Intel/orca_dpo_pairs
    with pytest.raises(UserError, match="no `prompt`, and its column `question` would not be used") as error:
        examples_from_rows("x", [row], stage="dpo")
    assert "--train-columns prompt=question" in error.value.hint
    (example,) = examples_from_rows("x", [row], stage="dpo", columns={"prompt": "question"})
    assert example == Example("S\n\n1+1", " It is 2", rejected=" It is 3")
    (example,) = examples_from_rows("x", [row], stage="dpo", columns={"chosen": "chosen", "rejected": "rejected"})
    assert example == Example("S\n\nIt is ", "2", rejected="3")


@pytest.mark.parametrize(
    ("row", "expected"),
    [
        ({"prompt": "Q", "completion": "A"}, "row 0 has the columns prompt, completion; `stage=dpo` learns from"),
        ({"prompt": "Q", "chosen": "A"}, "`stage=dpo` learns from `chosen` and `rejected`"),
        ({"prompt": "Q", "chosen": "A", "rejected": None}, "row 0 has null in `rejected`, not text"),
        ({"prompt": "Q", "chosen": 1, "rejected": "B"}, "row 0 has int in `chosen`"),
        ({"chosen": TURNS, "rejected": TURNS[:2]}, "one assistant turn in `chosen` and one in `rejected`"),
        ({"chosen": TURNS[2:], "rejected": TURNS[2:]}, "one assistant turn in `chosen`"),
        ({"prompt": TURNS[:2], "chosen": [], "rejected": "B"}, "one assistant turn in `chosen`"),
        ({"text": "x"}, "row 0 has the columns text"),
    ],
)
def test_rows_without_a_better_and_a_worse_answer_are_refused(row: dict[str, Any], expected: str) -> None:
    with pytest.raises(UserError, match=expected):
        examples_from_rows("x", [row], stage="dpo")


def test_prompts_are_enough_for_stages_that_generate_answers() -> None:
    for row, example in (
        ({"prompt": "Q"}, Example("Q", "")),
        ({"prompt": "Q", "completion": "A"}, Example("Q", " A")),
        ({"instruction": "Q", "input": "x"}, Example("Q\n\nx", "")),
        ({"messages": TURNS[:2]}, Example("System: S\nUser: U\nAssistant:", "")),
        ({"messages": TURNS}, Example("System: S\nUser: U\nAssistant:", " A")),
        ({"prompt": TURNS[:2]}, Example("System: S\nUser: U\nAssistant:", "")),
    ):
        assert examples_from_rows("x", [row], stage="grpo") == [example]
    with pytest.raises(UserError, match="`stage=grpo` learns from a `prompt`"):
        examples_from_rows("x", [{"text": "x"}], stage="grpo")


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


def test_columns_of_one_format_are_mapped_together() -> None:
    row = {"question": "Add.", "context": "1+1", "answer": "2", "system": "S"}
    mapped = {"instruction": "question", "input": "context", "output": "answer"}
    assert one(row, columns=mapped) == ("S\n\nAdd.\n\n1+1", "\n\n2")
    (pair,) = examples_from_rows(
        "x", [{"q": "Q", "chosen": "a", "worse": "b"}], columns={"prompt": "q", "rejected": "worse"}, stage="dpo"
    )
    assert pair == Example("Q", " a", rejected=" b")


def test_only_one_column_of_a_pair_needs_a_mapping() -> None:
    assert one({"question": "1+1", "completion": "2"}, columns={"prompt": "question"}) == ("1+1", " 2")


def test_a_missing_column_lists_the_existing_ones() -> None:
    rows = [{"question": "1+1", "answer": "2"}]
    with pytest.raises(UserError, match="has no column `reply`") as error:
        examples_from_rows("data.jsonl", rows, columns={"prompt": "question", "completion": "reply"})
    assert error.value.hint == "its columns: question, answer"
    with pytest.raises(UserError, match="row 1, has no column `answer`"):
        examples_from_rows(
            "data.jsonl", [*rows, {"question": "2"}], columns={"prompt": "question", "completion": "answer"}
        )


@pytest.mark.parametrize(
    ("columns", "stage", "mapping"),
    [
        ("question answer", "sft", "`--train-columns prompt=question,completion=answer`"),
        ("id question answer level", "sft", "`--train-columns prompt=question,completion=answer`"),
        ("id problem level", "sft", "`--train-columns prompt=problem,completion=COLUMN` (columns: id, problem, level)"),
        ("a b", "sft", "`--train-columns prompt=COLUMN,completion=COLUMN` (columns: a, b)"),
        ("", "sft", "`--train-columns prompt=COLUMN,completion=COLUMN` (columns: none)"),
        ("prompt answer", "sft", "`--train-columns completion=answer`"),
        ("instruction input answer", "sft", "`--train-columns output=answer`"),
        ("id problem answer", "grpo", "`--train-columns prompt=problem`"),
        ("prompt completion", "dpo", "`--train-columns chosen=COLUMN,rejected=COLUMN` (columns: prompt, completion)"),
        ("prompt chosen worse", "dpo", "`--train-columns rejected=COLUMN` (columns: prompt, chosen, worse)"),
    ],
)
def test_columns_of_no_known_format_get_the_flag_to_type(columns: str, stage: Any, mapping: str) -> None:
    row = dict.fromkeys(columns.split(), "x")
    with pytest.raises(UserError, match=f"row 0 has the columns {', '.join(row) or 'none'}; ") as error:
        one(row, stage=stage)
    needs = (
        "this stage needs a better and a worse answer to each prompt; if they have other names"
        if stage == "dpo"
        else "map the columns"
    )
    assert error.value.hint == f"{needs}: {mapping}"


def test_a_row_that_differs_from_the_first_gets_no_mapping() -> None:
    with pytest.raises(UserError, match="row 1 has the columns a, b") as error:
        examples_from_rows("x", [{"prompt": "Q", "completion": "A"}, {"a": "Q", "b": "A"}])
    assert error.value.hint == "fix the row, or leave it out"


@pytest.mark.parametrize(
    ("row", "expected"),
    [
        ({"prompt": "1+1", "completion": 2}, "row 0 has int in `completion`"),
        ({"prompt": None, "completion": "2"}, "row 0 has null in `prompt`, not text"),
        ({"instruction": ["x"], "output": "2"}, "row 0 has list in `instruction`"),
        ({"text": 3.5}, "row 0 has float in `text`"),
        ({"messages": None}, "row 0 has null, not a list of turns, in `messages`"),
        ({"messages": "hi"}, "row 0 has str, not a list of turns, in `messages`"),
        ({"messages": []}, "row 0 has an empty list in `messages`"),
        ({"conversations": []}, "row 0 has an empty list in `conversations`"),
        ({"messages": [*TURNS[:2], {"from": "zzz", "value": "A"}]}, "row 0 has a turn with the unknown role `zzz`"),
        ({"messages": [{"role": "user", "content": []}, TURNS[2]]}, "row 0 has no `content` in turn 0"),
        ({"prompt": TURNS, "completion": None}, "row 0 has null in `completion`, not text"),
        ({"messages": TURNS[:2]}, "row 0 has no assistant turn"),
        ({"messages": TURNS[2:]}, "row 0 has no assistant turn"),
        ({"messages": ["hi", "yo"]}, "row 0 has a str as a turn"),
        ({"messages": [{"role": "user", "content": [{"type": "image"}]}]}, "row 0 has a part of the type `image`"),
        ({"prompt": ["hi"], "completion": "yo"}, "row 0 has a str as a turn"),
    ],
)
def test_values_that_are_not_text_are_named_with_row_and_column(row: dict[str, Any], expected: str) -> None:
    with pytest.raises(UserError, match=expected):
        one(row)


CALL = {"tool_calls": [{"function": {"name": "add", "arguments": "{}"}}]}


@pytest.mark.parametrize(
    ("turn", "expected", "hint"),
    [
        ({"role": "assistant", "content": None, **CALL}, "a tool call in turn 2", "write the call"),
        ({"role": "assistant", "content": "", **CALL}, "a tool call in turn 2", "write the call"),
        ({"role": "assistant", **CALL}, "a tool call in turn 2", "write the call into `content`"),
        ({"role": "assistant", "content": None}, "no `content` in turn 2", "give the turn a text"),
        ({"role": "assistant"}, "no `content` in turn 2", "give the turn a text"),
        ({"from": "gpt", "value": None}, "no `content` in turn 2", "give the turn a text"),
    ],
)
def test_a_turn_without_text_is_refused(turn: dict[str, Any], expected: str, hint: str) -> None:
    good = {"messages": TURNS}
    for turns in ([*TURNS[:2], turn], [*TURNS[:2], turn, *TURNS[1:]]):
        with pytest.raises(UserError, match=rf"`x`: row 1 has {expected} \(assistant\)") as error:
            examples_from_rows("x", [good, {"messages": turns}], template=CHAT)
        assert str(error.value.hint).startswith(hint)


def test_empty_turns_are_kept() -> None:
    turns = [{"role": "system", "content": ""}, {"role": "user", "content": "", "tool_calls": None}, TURNS[2]]
    assert one({"messages": turns}, template=CHAT) == ("<system><user><assistant>", "A")
    # an empty `completion` is the answer, not the assistant turn before it
    assert one({"prompt": [*TURNS, TURNS[1]], "completion": ""}, template=CHAT)[1] == ""


def test_empty_texts_are_left_out_and_nothing_else_is_an_error() -> None:
    assert examples_from_rows("x", [{"text": ""}, {"text": "a"}]) == [Example("", "a")]
    with pytest.raises(UserError, match="has no text in any of its 2 rows"):
        examples_from_rows("x", [{"text": ""}, {"text": ""}])
    with pytest.raises(UserError, match="has no rows"):
        examples_from_rows("x", [])
