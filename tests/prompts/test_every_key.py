"""One line for each column and key that other tools document for training rows: read, refused, or reported as not used."""

from typing import Any

import pytest

from harness.errors import UserError
from harness.prompts.chat import ChatTemplate
from harness.prompts.training_rows import read_rows

CALLS = ChatTemplate(
    "{% if tools %}TOOLS{{ tools | tojson }}\n{% endif %}"
    "{% for m in messages %}<{{ m.role }}>{% if m.reasoning_content %}<think>{{ m.reasoning_content }}</think>{% endif %}"
    "{{ m.content }}{% for c in m.tool_calls or [] %}CALL{{ c.function | tojson }}{% endfor %}</s>{% endfor %}"
    "{% if add_generation_prompt %}<assistant>{% endif %}",
    {},
    "</s>",
)
"""A template that renders tools, calls and reasoning."""
Q, A = {"role": "user", "content": "ask"}, {"role": "assistant", "content": "said"}
TOOL = {"type": "function", "function": {"name": "add", "parameters": {}}}
CALL = {"type": "function", "function": {"name": "add", "arguments": "{}"}}
TALK = {"messages": [Q, A]}
PAIR = {"prompt": "ask", "chosen": "good", "rejected": "bad"}
ONE = {"prompt": "ask", "completion": "said"}


def answer(**keys: Any) -> dict[str, Any]:
    return {"messages": [Q, {**A, **keys}]}


def asked(*parts: Any) -> dict[str, Any]:
    return {"messages": [{"role": "user", "content": [*parts]}, A]}


def told(name: str) -> str:
    return f"not used: `{name}` (1 "


LINES: list[tuple[str, str, dict[str, Any], str, str, str]] = [
    # who writes it, key, row, stage, fate, text in the prompt or answer, in the error, or in the notes
    ("OpenAI", "messages", TALK, "sft", "read", "said"),
    ("OpenAI", "tools", {**TALK, "tools": [TOOL]}, "sft", "read", "TOOLS"),
    ("OpenAI", "functions", {**TALK, "functions": [{"name": "add"}]}, "sft", "read", "TOOLS"),
    (
        "OpenAI",
        "parallel_tool_calls",
        {**TALK, "parallel_tool_calls": False},
        "sft",
        "told",
        told("parallel_tool_calls"),
    ),
    ("OpenAI", "response_format", {**TALK, "response_format": {"type": "x"}}, "sft", "told", told("response_format")),
    ("OpenAI", "function_call", {**TALK, "function_call": "auto"}, "sft", "told", told("function_call")),
    ("OpenAI", "tool_choice", {**TALK, "tool_choice": "auto"}, "sft", "told", told("tool_choice")),
    ("OpenAI", "metadata", {**TALK, "metadata": {"id": 1}}, "sft", "told", told("metadata")),
    (
        "OpenAI",
        "input preferred_output non_preferred_output",
        {
            "input": {"messages": [Q], "tools": [TOOL]},
            "preferred_output": [A],
            "non_preferred_output": [{**A, "content": "bad"}],
        },
        "dpo",
        "read",
        "TOOLS",
    ),
    (
        "OpenAI",
        "reference_answer",
        {"messages": [Q], "reference_answer": "x"},
        "grpo",
        "told",
        told("reference_answer"),
    ),
    (
        "OpenAI",
        "turn: role",
        {"messages": [{"role": "developer", "content": "Rule"}, Q, A]},
        "sft",
        "read",
        "<system>Rule",
    ),
    ("OpenAI", "turn: content null", answer(content=None), "sft", "refused", "no `content` in turn 1"),
    (
        "OpenAI",
        "turn: content parts",
        asked({"type": "text", "text": "as"}, {"type": "text", "text": "k2"}),
        "sft",
        "read",
        "ask2",
    ),
    (
        "OpenAI",
        "turn: part image_url",
        asked({"type": "image_url", "image_url": {"url": "u"}}),
        "sft",
        "refused",
        "image_url",
    ),
    (
        "OpenAI",
        "turn: part input_image",
        asked({"type": "input_image", "image_url": "u"}),
        "sft",
        "refused",
        "input_image",
    ),
    (
        "OpenAI",
        "turn: part input_audio",
        asked({"type": "input_audio", "input_audio": {}}),
        "sft",
        "refused",
        "input_audio",
    ),
    ("OpenAI", "turn: part file", asked({"type": "file", "file": {"file_id": "f"}}), "sft", "refused", "type `file`"),
    ("OpenAI", "turn: part input_text", asked({"type": "input_text", "text": "ask3"}), "sft", "read", "ask3"),
    (
        "OpenAI",
        "turn: part refusal",
        answer(content=[{"type": "refusal", "refusal": "no"}]),
        "sft",
        "refused",
        "type `refusal`",
    ),
    ("OpenAI", "turn: name", {"messages": [{**Q, "name": "Bo"}, A]}, "sft", "told", told("name")),
    ("OpenAI", "turn: weight", {"messages": [Q, {**A, "content": "one"}, Q, {**A, "weight": 0}]}, "sft", "read", "one"),
    ("OpenAI", "turn: refusal", answer(refusal="no"), "sft", "told", told("refusal")),
    ("OpenAI", "turn: audio", answer(audio={"id": "a"}), "sft", "refused", "content in `audio` of turn 1"),
    ("OpenAI", "turn: annotations", answer(annotations=[1]), "sft", "told", told("annotations")),
    ("OpenAI", "turn: tool_calls", answer(content=None, tool_calls=[CALL]), "sft", "read", "CALL"),
    ("OpenAI", "turn: function_call", answer(content=None, function_call={"name": "add"}), "sft", "read", "CALL"),
    (
        "OpenAI",
        "turn: tool_call_id",
        {"messages": [Q, {**A, "tool_calls": [CALL]}, {"role": "tool", "tool_call_id": "1", "content": "4"}, A]},
        "sft",
        "read",
        "<tool>4",
    ),
    ("ShareGPT", "conversations", {"conversations": [Q, A]}, "sft", "read", "said"),
    ("ShareGPT", "id", {**TALK, "id": "x1"}, "sft", "told", told("id")),
    ("ShareGPT", "source", {**TALK, "source": "web"}, "sft", "told", told("source")),
    ("ShareGPT", "turn: from", {"conversations": [{"from": "Human", "value": "hm"}, A]}, "sft", "read", "<user>hm"),
    (
        "ShareGPT",
        "turn: content beside value",
        {"conversations": [{**Q, "value": "x"}, A]},
        "sft",
        "told",
        told("value"),
    ),
    ("ShareGPT", "turn: value", {"conversations": [Q, {"from": "gpt", "value": "spoke"}]}, "sft", "read", "spoke"),
    (
        "ShareGPT",
        "turn: weight",
        {"conversations": [Q, {"from": "gpt", "value": "x", "weight": 2}]},
        "sft",
        "refused",
        "2 as `weight`",
    ),
    (
        "ShareGPT",
        "turn: from unknown",
        {"conversations": [{"from": "narrator", "value": "x"}, A]},
        "sft",
        "refused",
        "narrator",
    ),
    (
        "ShareGPT",
        "turn: from function_call",
        {"conversations": [Q, {"from": "function_call", "value": '{"name": "add", "arguments": {}}'}]},
        "sft",
        "read",
        "CALL",
    ),
    (
        "ShareGPT",
        "turn: from observation",
        {"conversations": [Q, A, {"from": "observation", "value": "4"}, A]},
        "sft",
        "read",
        "<tool>4",
    ),
    ("alpaca", "instruction output", {"instruction": "do", "output": "done"}, "sft", "read", "done"),
    ("alpaca", "input", {"instruction": "do", "input": "with", "output": "done"}, "sft", "read", "do\n\nwith"),
    ("alpaca", "text", {"instruction": "do", "output": "done", "text": "do done"}, "sft", "told", told("text")),
    (
        "alpaca",
        "history",
        {"instruction": "do", "output": "x", "history": [["q0", "a0"]]},
        "sft",
        "read",
        "<assistant>a0",
    ),
    (
        "alpaca",
        "history odd",
        {"instruction": "do", "output": "x", "history": [["q0"]]},
        "sft",
        "refused",
        "`history` in an unknown",
    ),
    ("Dolly", "context response", {"instruction": "do", "context": "c", "response": "r"}, "sft", "read", "do\n\nc"),
    ("Dolly", "category", {"instruction": "do", "response": "r", "category": "qa"}, "sft", "told", told("category")),
    ("KTO", "prompt completion label", {**ONE, "label": True}, "kto", "read", "said"),
    ("KTO", "label for sft", {**ONE, "label": False}, "sft", "refused", "as good or bad in `label`"),
    ("KTO", "label missing", ONE, "kto", "refused", "has no `label`"),
    ("KTO", "label null", {**ONE, "label": None}, "kto", "refused", "None in `label`"),
    ("preferences", "chosen rejected", PAIR, "dpo", "read", "good"),
    ("preferences", "chosen for sft", PAIR, "sft", "read", "good"),
    (
        "preferences",
        "messages chosen",
        {"chosen": [Q, A], "rejected": [Q, {**A, "content": "bad"}]},
        "dpo",
        "read",
        "said",
    ),
    ("preferences", "prompt of a wrong type", {**PAIR, "prompt": 2.5}, "dpo", "refused", "float in `prompt`"),
    (
        "preferences",
        "prompt of a wrong type before turns",
        {"prompt": 2.5, "chosen": [A], "rejected": [A]},
        "dpo",
        "refused",
        "float",
    ),
    (
        "preferences",
        "messages of a wrong type",
        {"messages": "x", "chosen": "a", "rejected": "b"},
        "dpo",
        "refused",
        "str, not a list",
    ),
    (
        "preferences",
        "prompt that no turn repeats",
        {"prompt": "other", "chosen": [Q, A], "rejected": [Q, {**A, "content": "bad"}]},
        "dpo",
        "told",
        told("prompt"),
    ),
    (
        "preferences",
        "prompt that a turn repeats",
        {"prompt": "ask", "chosen": [Q, A], "rejected": [Q, {**A, "content": "bad"}]},
        "dpo",
        "read",
        "said",
    ),
    ("preferences", "score_chosen", {**PAIR, "score_chosen": 5}, "dpo", "told", told("score_chosen")),
    ("preferences", "score_rejected", {**PAIR, "score_rejected": 1}, "dpo", "told", told("score_rejected")),
    ("preferences", "chosen_rating", {**PAIR, "chosen_rating": 5}, "dpo", "told", told("chosen_rating")),
    ("preferences", "rejected_rating", {**PAIR, "rejected_rating": 1}, "dpo", "told", told("rejected_rating")),
    ("preferences", "margin", {**PAIR, "margin": 0.5}, "dpo", "told", told("margin")),
    ("preferences", "images", {**PAIR, "images": ["u"]}, "dpo", "refused", "content in `images`"),
    ("preferences", "rejected null", {**PAIR, "rejected": None}, "dpo", "refused", "null in `rejected`"),
    ("TRL", "text", {"text": "all of it"}, "sft", "read", "all of it"),
    (
        "TRL",
        "completions labels",
        {"prompt": "a", "completions": ["b"], "labels": [True]},
        "sft",
        "refused",
        "has the columns",
    ),
    (
        "TRL",
        "chat_template_kwargs",
        {**TALK, "chat_template_kwargs": {"x": 1}},
        "sft",
        "told",
        told("chat_template_kwargs"),
    ),
    ("ms-swift", "query response", {"query": "ask", "response": "said"}, "sft", "read", "said"),
    ("ms-swift", "system", {"query": "ask", "response": "said", "system": "Rule"}, "sft", "read", "Rule\n\nask"),
    (
        "ms-swift",
        "history",
        {"query": "ask", "response": "x", "history": [["q0", "a0"]]},
        "sft",
        "read",
        "<assistant>a0",
    ),
    ("ms-swift", "rejected_response", {**TALK, "rejected_response": "bad"}, "dpo", "read", "said"),
    (
        "ms-swift",
        "rejected_response list",
        {**TALK, "rejected_response": ["bad", "worse"]},
        "dpo",
        "refused",
        "str as a turn",
    ),
    (
        "ms-swift",
        "rejected_messages",
        {**TALK, "rejected_messages": [Q, {**A, "content": "bad"}]},
        "dpo",
        "read",
        "said",
    ),
    ("ms-swift", "label", {**TALK, "label": False}, "kto", "read", "said"),
    ("ms-swift", "images", {**TALK, "images": ["u"]}, "sft", "refused", "content in `images`"),
    ("ms-swift", "videos", {**TALK, "videos": ["u"]}, "sft", "refused", "content in `videos`"),
    ("ms-swift", "audios", {**TALK, "audios": ["u"]}, "sft", "refused", "content in `audios`"),
    ("ms-swift", "objects", {**TALK, "objects": {"bbox": [[1]]}}, "sft", "told", told("objects")),
    ("ms-swift", "solution", {"messages": [Q], "solution": "4"}, "grpo", "told", told("solution")),
    ("ms-swift", "channel", {**TALK, "channel": "chat"}, "sft", "told", told("channel")),
    ("ms-swift", "positive_messages", {**TALK, "positive_messages": [[Q]]}, "sft", "told", told("positive_messages")),
    (
        "ms-swift",
        "turn: loss",
        {"messages": [Q, {**A, "content": "one"}, Q, {**A, "loss": False}]},
        "sft",
        "read",
        "one",
    ),
    ("ms-swift", "turn: loss_scale", answer(loss_scale=0.3), "sft", "refused", "0.3 as `loss_scale`"),
    ("ms-swift", "turn: part image", asked({"type": "image", "image": "u"}), "sft", "refused", "type `image`"),
    (
        "ms-swift",
        "turn: role tool_response",
        {"messages": [Q, A, {"role": "tool_response", "content": "4"}, A]},
        "sft",
        "read",
        "<tool>4",
    ),
    ("LLaMA-Factory", "instruction kto_tag", {"instruction": "do", "output": "x", "kto_tag": True}, "kto", "read", "x"),
    (
        "LLaMA-Factory",
        "kto_tag for sft",
        {"instruction": "do", "output": "x", "kto_tag": True},
        "sft",
        "refused",
        "in `kto_tag`",
    ),
    ("LLaMA-Factory", "system", {"instruction": "do", "output": "x", "system": "Rule"}, "sft", "read", "Rule"),
    (
        "LLaMA-Factory",
        "system beside a system turn",
        {"messages": [{**Q, "role": "system"}, Q, A], "system": "S"},
        "sft",
        "told",
        "`system`",
    ),
    ("LLaMA-Factory", "tools as text", {"conversations": [Q, A], "tools": '[{"name": "add"}]'}, "sft", "read", "TOOLS"),
    (
        "LLaMA-Factory",
        "tools not JSON",
        {"conversations": [Q, A], "tools": "add"},
        "sft",
        "refused",
        "`tools` that is not JSON",
    ),
    (
        "LLaMA-Factory",
        "conversations chosen rejected",
        {"conversations": [Q], "chosen": A, "rejected": A},
        "dpo",
        "read",
        "said",
    ),
    (
        "LLaMA-Factory",
        "ranking in output",
        {"instruction": "do", "output": ["good", "bad"]},
        "sft",
        "refused",
        "two answers in `output`",
    ),
    (
        "LLaMA-Factory",
        "ranking for dpo",
        {"instruction": "do", "output": ["good", "bad"]},
        "dpo",
        "refused",
        "has the columns",
    ),
    (
        "LLaMA-Factory",
        "images",
        {"instruction": "do", "output": "x", "images": ["u"]},
        "sft",
        "refused",
        "content in `images`",
    ),
    (
        "axolotl",
        "turn: train",
        {"messages": [Q, {**A, "content": "one"}, Q, {**A, "train": False}]},
        "sft",
        "read",
        "one",
    ),
    (
        "axolotl",
        "turn: training",
        {"messages": [Q, {**A, "content": "one"}, Q, {**A, "training": 0}]},
        "sft",
        "read",
        "one",
    ),
    ("axolotl", "segments", {"segments": [{"label": True, "text": "x"}]}, "sft", "refused", "has the columns segments"),
    ("reasoning", "turn: reasoning_content", answer(reasoning_content="hm"), "sft", "read", "<think>hm</think>said"),
    ("reasoning", "turn: thinking", answer(thinking="hm"), "sft", "read", "<think>hm</think>said"),
    ("reasoning", "turn: reasoning", answer(reasoning="hm"), "sft", "read", "<think>hm</think>said"),
    ("reasoning", "turn: thinking parts", answer(thinking=[{"text": "hm"}]), "sft", "read", "<think>hm</think>said"),
    ("reasoning", "turn: reasoning_details", answer(reasoning_details=[1]), "sft", "told", told("reasoning_details")),
    (
        "reasoning",
        "turn: reasoning_content of a user",
        {"messages": [{**Q, "thinking": "hm"}, A]},
        "sft",
        "told",
        told("thinking"),
    ),
    (
        "Anthropic",
        "turn: part thinking",
        answer(content=[{"type": "thinking", "thinking": "hm"}]),
        "sft",
        "refused",
        "`thinking`",
    ),
    (
        "Anthropic",
        "turn: part tool_use",
        answer(content=[{"type": "tool_use", "name": "add"}]),
        "sft",
        "refused",
        "`tool_use`",
    ),
    (
        "Anthropic",
        "turn: part cache_control",
        asked({"type": "text", "text": "x", "cache_control": {"a": 1}}),
        "sft",
        "told",
        "content.cache",
    ),
    (
        "Gemini",
        "turn: parts",
        {"messages": [{"role": "user", "parts": [{"text": "x"}]}, A]},
        "sft",
        "refused",
        "no `content` in turn 0",
    ),
]


@pytest.mark.parametrize(
    ("row", "stage", "fate", "text"), [pytest.param(*line[2:], id=f"{line[0]}: {line[1]}") for line in LINES]
)
def test_a_key_is_read_refused_or_told(row: dict[str, Any], stage: Any, fate: str, text: str) -> None:
    if fate == "refused":
        with pytest.raises(UserError) as error:
            read_rows("x", [row], template=CALLS, stage=stage)
        assert text in error.value.message and error.value.message.startswith("training data `x`: row 0")
        assert error.value.hint
        return
    found = read_rows("x", [row], template=CALLS, stage=stage)
    if fate == "told":
        assert text in "\n".join(found.notes)
    else:
        assert text in "".join(f"{each.prompt}{each.completion}" for each in found.examples)
        assert [note for note in found.notes if "not used: " in note] == []


def test_parts_that_are_no_parts() -> None:
    for part, message in ((3, "has a int as a part"), ({"type": "text", "text": None}, "has null in `text` of a part")):
        with pytest.raises(UserError, match=message):
            read_rows("x", [asked(part)], template=CALLS)
    filled = {"type": "text", "text": "one", "image_url": None}
    assert "<user>onetwo<" in read_rows("x", [asked(filled, "two")], template=CALLS).examples[0].prompt


def test_turns_may_be_json_text_as_in_csv_files() -> None:
    row = {"messages": '[{"role": "user", "content": "ask"}, {"role": "assistant", "content": "said"}]'}
    assert read_rows("x", [row], template=CALLS).examples == read_rows("x", [TALK], template=CALLS).examples
    with pytest.raises(UserError, match="row 0 has str, not a list of turns, in `messages`"):
        read_rows("x", [{"messages": "[ask"}], template=CALLS)
