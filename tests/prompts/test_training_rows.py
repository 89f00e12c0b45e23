"""Rows as other programs write them: what is learned, what is context, what is refused, and what is reported."""

import json
from typing import Any

import pytest
from transformers.utils import chat_template_utils

from harness import UserError
from harness.data.arrow import ArrowTable
from harness.jobs import Example
from harness.prompts.chat import ChatTemplate
from harness.prompts.training_rows import read_rows

CHATML = ChatTemplate(
    "{% for m in messages %}<{{ m.role }}>{{ m.content }}</>{% endfor %}{% if add_generation_prompt %}<assistant>{% endif %}",
    {},
)
FULL = ChatTemplate(
    "{% if tools %}<tools>{% for t in tools %}{{ t | tojson }}{% endfor %}</>{% endif %}"
    "{% for m in messages %}<{{ m.role }}>"
    "{% if m.reasoning_content %}<think>{{ m.reasoning_content }}</think>{% endif %}{{ m.content }}"
    "{% for c in m.tool_calls or [] %}<call>{{ c.function.name }} {{ c.function.arguments | tojson }}</call>{% endfor %}"
    "</>{% endfor %}{% if add_generation_prompt %}<assistant>{% endif %}",
    {},
)
"""Renders reasoning, tools and calls."""
OPENED = ChatTemplate(
    "{% for m in messages %}<{{ m.role }}>{% if m.role == 'assistant' %}<think></think>{% endif %}{{ m.content }}</>"
    "{% endfor %}{% if add_generation_prompt %}<assistant><think>\n{% endif %}",
    {},
)
"""Its prompt opens a thought, and no answered turn begins with that prompt."""


def user(content: str, **keys: Any) -> dict[str, Any]:
    return {"role": "user", "content": content, **keys}


def assistant(content: str | None, **keys: Any) -> dict[str, Any]:
    return {"role": "assistant", "content": content, **keys}


def read(*rows: dict[str, Any], template: ChatTemplate | None = CHATML, **options: Any) -> list[tuple[str, str]]:
    return [(each.prompt, each.completion) for each in read_rows("x", rows, template=template, **options).examples]


def notes(*rows: dict[str, Any], template: ChatTemplate | None = CHATML, **options: Any) -> list[str]:
    return read_rows("x", rows, template=template, **options).notes


# tools written as JSON text


@pytest.mark.parametrize("tools", ["null", "[]", ""])
def test_no_tools_as_json_text_are_no_tools(tools: str) -> None:
    assert read({"messages": [user("q"), assistant("a")], "tools": tools}) == [("<user>q</><assistant>", "a")]


# system turns

NO_SYSTEM = ChatTemplate(
    "{% for m in messages %}{% if m.role != 'system' %}<{{ m.role }}>{{ m.content }}</>{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}<assistant>{% endif %}",
    {},
)


@pytest.mark.parametrize(
    "row",
    [
        {"messages": [{"role": "system", "content": "s"}, user("q"), assistant("a")]},
        {"messages": [user("q"), assistant("a")], "system": "s"},
        {"prompt": [user("q")], "chosen": [assistant("a")], "rejected": [assistant("b")], "system": "s"},
    ],
)
def test_a_template_without_a_system_turn_gets_its_text_in_the_first_user_turn(row: dict[str, Any]) -> None:
    assert read(row, template=NO_SYSTEM) == [("<user>s\n\nq</><assistant>", "a")]
    (note,) = notes(row, template=NO_SYSTEM)
    assert note.startswith("the chat template has no system turn: in 1 of 1 rows of x")


def test_a_later_system_turn_that_the_template_drops_is_reported() -> None:
    first = ChatTemplate(NO_SYSTEM.text.replace("'system'", "'system' or loop.first"), {})
    turns = [{"role": "system", "content": "s"}, user("q"), {"role": "system", "content": "late"}, assistant("a")]
    assert notes({"messages": turns}, template=first) == [
        "text of 1 system or user turn of x not rendered by the template"
    ]
    assert notes({"messages": turns}) == []


# history, query and response

EARLIER = "<user>1+1?</><assistant>two</><user>2+2?</><assistant>"


@pytest.mark.parametrize(
    "row",
    [
        {"instruction": "2+2?", "input": "", "output": "four", "history": [["1+1?", "two"]]},
        {"instruction": "2+2?", "output": "four", "history": '[["1+1?", "two"]]'},
        {"query": "2+2?", "response": "four", "history": [("1+1?", "two")]},
        {"prompt": "2+2?", "completion": "four", "history": [user("1+1?"), assistant("two")]},
    ],
)
def test_history_is_turns_before_the_prompt(row: dict[str, Any]) -> None:
    assert read(row) == [(EARLIER, "four")]
    assert read(row, template=None) == [("User: 1+1?\nAssistant: two\nUser: 2+2?\nAssistant:", " four")]
    assert read(row, every_turn=True) == [("<user>1+1?</><assistant>", "two"), (EARLIER, "four")]
    assert notes(row) == []


def test_a_prompt_that_has_begun_the_answer_is_refused() -> None:
    for answer in ("yes", [assistant("yes")]):
        with pytest.raises(UserError, match=r"row 0: `prompt` ends with an assistant turn"):
            read({"prompt": [user("Is it?"), assistant("Sure,")], "completion": answer})


def test_history_of_one_row_makes_conversations_of_all_rows() -> None:
    bare = {"instruction": "Hi", "output": "yes"}
    assert read(bare, {**bare, "history": []}) == [("Hi", "\n\nyes")] * 2
    assert read(bare, {**bare, "history": [["a", "b"]]})[0] == ("<user>Hi</><assistant>", "yes")


def test_history_is_before_the_prompt_of_a_preference() -> None:
    row = {"query": "2+2?", "response": "four", "rejected_response": "five", "history": [["1+1?", "two"]]}
    for stage in ("sft", "dpo"):
        assert read_rows("x", [row], template=CHATML, stage=stage).examples == [
            Example(EARLIER, "four", rejected="five", turn_end="")
        ]


@pytest.mark.parametrize("history", [[["only one"]], ["text"], "not JSON", 3])
def test_history_in_another_form_is_refused(history: Any) -> None:
    with pytest.raises(UserError, match=r"row 0 has .*`history`"):
        read({"instruction": "q", "output": "a", "history": history})


def test_rows_of_ms_swift() -> None:
    assert read({"query": "q", "response": "a", "system": "S"}) == [("S\n\nq", " a")]
    assert read({"query": "q", "response": "a", "rejected_response": None}) == [("q", " a")]
    pair = {"messages": [user("q"), assistant("a")], "rejected_response": "b"}
    (example,) = read_rows("x", [pair], template=CHATML, stage="dpo").examples
    assert example == Example("<user>q</><assistant>", "a", rejected="b", turn_end="")
    with pytest.raises(UserError, match="one assistant turn in `messages` and one in `rejected_response`"):
        read({"messages": [user("q")], "rejected_response": "b"})
    with pytest.raises(UserError, match="row 0 has an empty list in `messages`"):
        read({"messages": [], "rejected_response": "b"}, {"messages": [], "rejected_response": "b"})


# turns that are not learned

CONTEXT = [("weight", 0), ("weight", 0.0), ("train", False), ("training", False), ("loss", False), ("weight", "0")]


@pytest.mark.parametrize(("key", "value"), CONTEXT)
def test_a_turn_with_weight_0_is_only_context(key: str, value: Any) -> None:
    wrong, right = assistant("WRONG", **{key: value}), assistant("two", **{key: 1})
    first = {"messages": [user("one?"), wrong, user("again?"), right]}
    last = {"messages": [user("q"), assistant("good"), user("and?"), wrong]}
    for every_turn in (False, True):
        assert read(first, last, every_turn=every_turn) == [
            ("<user>one?</><assistant>WRONG</><user>again?</><assistant>", "two"),
            ("<user>q</><assistant>", "good"),
        ]
    assert notes(first, last) == [
        "2 assistant turns of x with the weight 0 not learned, only read",
        "1 of 2 rows of x end with turns after the last learned answer; not used",
    ]


def test_a_row_without_a_learned_turn_is_left_out_and_counted() -> None:
    nothing = {"messages": [user("q"), assistant("bad", weight=0)]}
    assert read(nothing, {"messages": [user("q"), assistant("a")]}) == [("<user>q</><assistant>", "a")]
    assert "1 of 2 rows of x left out: all their assistant turns have the weight 0" in notes(
        nothing, {"messages": [user("q"), assistant("a")]}
    )
    with pytest.raises(UserError, match="has nothing to learn in any of its 2 rows"):
        read(nothing, nothing)
    pair = {"prompt": "q", "chosen": [assistant("a", weight=0)], "rejected": [assistant("b")]}
    with pytest.raises(UserError, match="has nothing to learn in any of its 1 rows"):
        read(pair)


def test_only_weights_that_ask_to_learn_other_turns_are_reported() -> None:
    turns = [user("q", weight=0, loss=False), user("q", train=True), assistant("a")]
    assert notes({"messages": turns}) == ["keys of turns in x not used: `train` (1 turn)"]


def test_a_weight_is_0_or_1() -> None:
    whole = {"messages": [user("q"), assistant("a", weight=True, loss=None, train=float("nan"))]}
    assert read(whole) == [("<user>q</><assistant>", "a")] and notes(whole) == []
    with pytest.raises(UserError, match=r"row 0 has the value 0.5 as `weight` of turn 1 \(assistant\)"):
        read({"messages": [user("q"), assistant("a", weight=0.5)]})


# reasoning


@pytest.mark.parametrize("key", ["reasoning_content", "thinking", "reasoning"])
def test_reasoning_is_learned_as_the_template_renders_it(key: str) -> None:
    row = {"messages": [user("1+1?"), assistant("two", **{key: "one plus one"})]}
    assert read(row, template=FULL) == [("<user>1+1?</><assistant>", "<think>one plus one</think>two")]
    assert notes(row, template=FULL) == []


def test_messages_have_the_reasoning_keys_that_transformers_gives_them() -> None:
    theirs_of = getattr(chat_template_utils, "_alias_reasoning_fields", None)
    if theirs_of is None:
        pytest.skip("this transformers gives no reasoning keys")
    echo = ChatTemplate("{% for m in messages %}{{ m | tojson(sort_keys=true) }}{% endfor %}", {})
    for key in ("reasoning_content", "thinking", "reasoning"):
        turns = [user("q"), assistant("a", **{key: "r"}), user("q2"), assistant("a2")]
        theirs = echo.render(theirs_of(turns[:3]))
        assert read({"messages": turns}, template=echo)[0][0] == theirs


@pytest.mark.parametrize("template", [CHATML, OPENED, None])
def test_reasoning_that_the_template_does_not_render_is_reported(template: ChatTemplate | None) -> None:
    row = {"messages": [user("q"), assistant("b", thinking="mm"), user("q2"), assistant("two", thinking="hm")]}
    ((_, learned),) = read(row, template=template)
    first, second = notes(row, template=template)
    if template is OPENED:
        assert learned == "hm\n</think>two" and first.startswith("end of a thought added to 1 learned turn of x: ")
    else:
        assert learned.strip() == "two"
        assert first == "reasoning of 1 learned turn of x not rendered by the template, so not learned"
    assert second == "reasoning of 1 earlier turn of x not rendered by the template"


# tools

TOOL = {"name": "add", "parameters": {"type": "object"}}
WRAPPED = {"type": "function", "function": TOOL}
CALL = {"id": "c1", "type": "function", "function": {"name": "add", "arguments": '{"a": 1}'}}
CALLED = '<call>add {"a": 1}</call>'
ASKED = f"<tools>{json.dumps(WRAPPED)}</><user>1+1?</><assistant>"


@pytest.mark.parametrize(
    "tools", [[WRAPPED], [TOOL], json.dumps([TOOL]), [{"function": TOOL}], [{**WRAPPED, "strict": None}]]
)
@pytest.mark.parametrize("column", ["tools", "functions"])
def test_tools_of_a_row_go_to_the_template(tools: Any, column: str) -> None:
    row = {"messages": [user("1+1?"), assistant("two")], column: tools}
    assert read(row, template=FULL) == [(ASKED, "two")]
    assert read({"instruction": "1+1?", "output": "two", column: tools}, template=FULL) == [(ASKED, "two")]
    assert notes(row, template=FULL) == []


@pytest.mark.parametrize(
    "turn",
    [
        assistant(None, tool_calls=[CALL]),
        assistant("", tool_calls=[{"function": {"name": "add", "arguments": {"a": 1}}}]),
        assistant("", tool_calls=json.dumps([CALL])),
        assistant(None, function_call={"name": "add", "arguments": '{"a": 1}'}),
        {"from": "function_call", "value": '{"name": "add", "arguments": {"a": 1}}'},
        {"from": "tool_call", "value": '[{"name": "add", "arguments": "{\\"a\\": 1}"}]'},
    ],
)
def test_calls_of_tools_go_to_the_template(turn: dict[str, Any]) -> None:
    row = {"messages": [user("1+1?"), turn], "tools": [TOOL]}
    assert read(row, template=FULL) == [(ASKED, CALLED)]
    observed = {
        "messages": [*row["messages"], {"from": "observation", "value": "2"}, assistant("two")],
        "tools": [TOOL],
    }
    assert read(observed, template=FULL) == [(f"{ASKED}{CALLED}</><tool>2</><assistant>", "two")]
    assert notes(observed, template=FULL) == []
    for template in (CHATML, None):
        with pytest.raises(UserError, match=r"row 0 has a tool call in turn 1 \(assistant\), which .* does not render"):
            read({"messages": observed["messages"]}, template=template)


@pytest.mark.parametrize("content", ["", "wait", "1", "a"])
@pytest.mark.parametrize("end", ["", "</>"])
def test_a_call_beside_text_is_learned_up_to_the_end_of_its_turn(content: str, end: str) -> None:
    row = {"messages": [user("1+1?"), assistant(content, tool_calls=[CALL])], "tools": [TOOL]}
    found = read_rows("x", [row], template=ChatTemplate(FULL.text, {}, end)).examples
    assert found == [Example(ASKED, content + CALLED, turn_end=end)]


def test_the_reference_of_a_reward_has_no_reasoning() -> None:
    row = {"messages": [user("1+1?"), assistant("two", reasoning_content="one plus one")]}
    assert read(row, template=FULL, stage="grpo") == [("<user>1+1?</><assistant>", "two")]
    assert notes(row, template=FULL, stage="grpo") == []


def test_a_template_that_joins_arguments_to_text_receives_them_as_json() -> None:
    joins = ChatTemplate(FULL.text.replace("c.function.arguments | tojson", "'#' + c.function.arguments"), {})
    row = {"messages": [user("1+1?"), assistant(None, tool_calls=[CALL])], "tools": [TOOL]}
    assert read(row, template=joins) == [(ASKED, '<call>add #{"a": 1}</call>')]


def test_a_row_that_the_template_refuses_is_named() -> None:
    strict = ChatTemplate("{{ raise_exception('roles must alternate') if messages[0].role == 'tool' }}" + FULL.text, {})
    good = {"messages": [user("q"), assistant("a", tool_calls=[CALL])]}
    bad = {"messages": [{"role": "tool", "content": "x"}, *good["messages"]]}
    with pytest.raises(UserError, match=r"`x`: row 1: the model's chat template refuses .*: roles must alternate"):
        read(good, bad, template=strict)


def test_a_call_that_the_template_does_not_write_after_the_prompt_is_refused() -> None:
    opened = ChatTemplate(FULL.text.replace("<assistant>{% endif %}", "<assistant><think>\n{% endif %}"), {})
    with pytest.raises(UserError, match=r"row 0 has a tool call in turn 1 .* the prompt ends with '.*<think>\\n'"):
        read({"messages": [user("q"), assistant("", tool_calls=[CALL])]}, template=opened)


def test_tools_that_the_template_does_not_render_are_refused() -> None:
    row = {"messages": [user("q"), assistant("a")], "tools": [TOOL]}
    for template in (CHATML, None):
        with pytest.raises(UserError, match=r"row 0 has tools, which .* does not render"):
            read(row, template=template)
    for nothing in ([], "", "[]", None):
        assert read({**row, "tools": nothing}) == [("<user>q</><assistant>", "a")]


def test_a_call_that_only_its_place_shows_is_refused() -> None:
    vague = ChatTemplate(CHATML.text.replace("</>", "{% if m.tool_calls %}[a call]{% endif %}</>"), {})
    with pytest.raises(UserError, match="has a tool call in turn 1"):
        read({"messages": [user("q"), assistant("", tool_calls=[CALL])]}, template=vague)


def test_text_beside_tools_that_the_template_drops_is_reported() -> None:
    drops = ChatTemplate(
        "{% for m in messages %}<{{ m.role }}>{% if m.tool_calls %}{{ m.tool_calls | tojson }}"
        "{% elif m.role != 'tool' %}{{ m.content }}{% endif %}</>{% endfor %}"
        "{% if add_generation_prompt %}<assistant>{% endif %}",
        {},
    )
    turns = [user("q"), assistant("wait", tool_calls=[CALL]), {"role": "tool", "content": "2"}, assistant("two")]
    assert notes({"messages": turns}, template=drops) == [
        "text of 2 turns of tools or with tool calls in x not rendered by the template"
    ]
    assert notes({"messages": turns}, template=FULL) == []


@pytest.mark.parametrize(
    ("turn", "expected"),
    [
        ({"role": "function_call", "content": "add(1)"}, r"a text in `turn 1 \(function_call\)` that is not JSON"),
        ({"role": "function_call", "content": ""}, r"no call in turn 1 \(function_call\)"),
        (assistant("", tool_calls=[{"arguments": {}}]), "without the name of a function"),
        (assistant("", tool_calls=[{"name": "f", "arguments": "{"}]), "that is not JSON"),
        (assistant("", tool_calls=["f"]), "without the name of a function"),
    ],
)
def test_malformed_calls_are_refused(turn: dict[str, Any], expected: str) -> None:
    with pytest.raises(UserError, match=f"row 0 has .*{expected}"):
        read({"messages": [user("q"), turn]}, template=FULL)


def test_the_id_and_name_of_a_tools_turn_go_to_the_template() -> None:
    echo = ChatTemplate("{% for m in messages %}{{ m | tojson }}{% endfor %}", {})
    tool = {"role": "tool", "content": "2", "tool_call_id": "c1", "name": "add"}
    ((prompt, _),) = read({"messages": [user("q"), tool, assistant("two")]}, template=echo)
    assert json.dumps(tool) in prompt


def test_null_fields_of_arrow_are_no_fields_of_a_tool() -> None:
    import pyarrow

    tools = [[{"name": "a", "parameters": {"x": 1}}], [{"name": "b", "parameters": {"y": 2}}]]
    table = pyarrow.Table.from_pylist([{"messages": [user("q"), assistant("a")], "tools": each} for each in tools])
    found = read_rows("x", ArrowTable(table), template=FULL).examples
    assert '"name": "a", "parameters": {"x": 1}}' in found[0].prompt and '{"y": 2}' in found[1].prompt


# roles


@pytest.mark.parametrize(
    ("given", "role"),
    [
        *(
            ("User", "user"),
            ("HUMAN", "user"),
            ("Assistant", "assistant"),
            ("GPT", "assistant"),
            (" gpt ", "assistant"),
        ),
        *(
            ("developer", "system"),
            ("System", "system"),
            ("observation", "tool"),
            ("Function", "tool"),
            ("tool", "tool"),
        ),
        ("tool-response", "tool"),
    ],
)
def test_roles_are_read_in_any_case(given: str, role: str) -> None:
    turns = [{"from": given, "value": "1+1?"}, user("q"), assistant("two")]
    assert read({"conversations": turns}) == [(f"<{role}>1+1?</><user>q</><assistant>", "two")]


@pytest.mark.parametrize(
    ("turn", "expected"),
    [
        ({"role": "narrator", "content": "x"}, "a turn with the unknown role `narrator`"),
        ({"role": None, "content": "x"}, "no `role` in turn 1"),
        ({"content": "x"}, "no `role` in turn 1"),
    ],
)
def test_unknown_roles_are_refused_beside_an_assistants_too(turn: dict[str, Any], expected: str) -> None:
    with pytest.raises(UserError, match=f"row 0 has {expected}"):
        read({"messages": [user("q"), turn, assistant("a")]})


# columns and keys that are not used, and cells without a value


def test_columns_and_keys_that_are_not_used_are_counted_once() -> None:
    rows = [
        {
            "messages": [user("q", name="Bob"), assistant("a", refusal=None, weight=1)],
            "id": n,
            "prompt": "q",
            "tags": [],
        }
        for n in range(3)
    ]
    assert notes(*rows) == [
        "columns of x not used: `id` (3 rows), `prompt` (3 rows)",
        "keys of turns in x not used: `name` (3 turns)",
    ]


def test_mapped_columns_are_used_and_the_others_reported() -> None:
    row = {"question": "q", "answer": "a", "label": True, "system": "S"}
    options: dict[str, Any] = {"columns": {"prompt": "question", "completion": "answer"}}
    assert read(row, {**row, "system": None}, **options) == [("S\n\nq", " a"), ("q", " a")]
    assert notes(row, **options) == ["columns of x not used: `label` (1 row)"]
    with pytest.raises(UserError, match="row 0 has null in `answer`, not text"):
        read({"question": "q", "answer": None}, **options)


def test_a_column_of_only_some_rows_is_kept_beside_mapped_ones() -> None:
    options: dict[str, Any] = {"columns": {"prompt": "question"}}
    rows = [{"question": "q", "completion": "a"}, {"question": "q", "completion": "a", "system": "S"}]
    assert read(*rows, **options) == [("q", " a"), ("S\n\nq", " a")]
    assert read(*reversed(rows), **options) == [("S\n\nq", " a"), ("q", " a")]


def test_a_system_column_beside_a_system_turn_is_reported() -> None:
    row = {"messages": [{"role": "system", "content": "T"}, user("q"), assistant("a")], "system": "S"}
    assert read(row) == [("<system>T</><user>q</><assistant>", "a")]
    assert notes(row) == ["the column `system` of 1 of 1 rows of x not used: the conversation has a system turn"]


def test_rows_with_an_empty_text_are_counted() -> None:
    assert notes({"text": ""}, {"text": "a"}) == ["1 of 2 rows of x left out: their text is empty"]


NAN = float("nan")


@pytest.mark.parametrize(
    ("row", "expected"),
    [
        ({"prompt": NAN, "completion": "a"}, "NaN in `prompt`"),
        ({"prompt": "q", "completion": NAN}, "NaN in `completion`"),
        ({"instruction": None, "output": "a"}, "null in `instruction`"),
        ({"instruction": "q", "output": None}, "null in `output`"),
        ({"instruction": "q", "response": None}, "null in `response`"),
        ({"query": None, "response": "a"}, "null in `query`"),
        ({"text": NAN}, "NaN in `text`"),
        ({"messages": [user("q"), assistant(NAN)]}, "no `content` in turn 1"),  # type: ignore[arg-type]
        ({"prompt": None, "chosen": "a", "rejected": "b"}, "null in `prompt`"),
        ({"prompt": "q", "chosen": NAN, "rejected": "b"}, "NaN in `chosen`"),
        ({"instruction": "q", "output": "a", "history": [["q", None]]}, "no `content` in turn 1"),
    ],
)
def test_cells_without_a_value_are_refused_with_row_and_column(row: dict[str, Any], expected: str) -> None:
    with pytest.raises(UserError, match=f"`x`: row 0 has {expected}"):
        read(row)


def test_optional_cells_without_a_value_are_absent() -> None:
    row = {"instruction": "q", "input": NAN, "output": "a", "system": NAN, "history": None}
    assert read(row) == [("q", "\n\na")] and notes(row) == []


@pytest.mark.parametrize("label", [True, False, 1, 0, "true", "False", 1.0])
@pytest.mark.parametrize(
    "row",
    [{"prompt": "q", "completion": "a"}, {"messages": [user("q"), assistant("a")]}, {"query": "q", "response": "a"}],
)
def test_one_answer_marked_good_or_bad_is_refused(row: dict[str, Any], label: Any) -> None:
    with pytest.raises(UserError, match="row 0 marks its answer as good or bad in `label`") as error:
        read({**row, "label": label})
    assert str(error.value.hint).startswith("`stage=kto` learns from such marks; ")


def test_other_labels_are_only_reported() -> None:
    for row, options in (
        ({"prompt": "q", "completion": "a", "label": "sports"}, {}),
        ({"text": "q", "label": 1}, {}),
        ({"prompt": "q", "label": 1}, {"stage": "grpo"}),
        ({"prompt": "q", "chosen": "a", "rejected": "b", "label": True}, {"stage": "dpo"}),
    ):
        assert notes(row, **options) == ["columns of x not used: `label` (1 row)"]


def test_the_hint_for_rows_with_images_is_a_flag_that_reads_them_without() -> None:
    row = {"query": "q", "response": "a", "images": ["x.png"]}
    with pytest.raises(UserError, match="row 0 has content in `images`") as error:
        read(row)
    assert str(error.value.hint).endswith("`--train-columns prompt=query,completion=response`")
    assert read(row, columns={"prompt": "query", "completion": "response"}) == [("q", " a")]
