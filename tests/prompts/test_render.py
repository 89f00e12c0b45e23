"""Rows are rendered as exactly these prompts, and rows that cannot be rendered are one clear error."""

from collections.abc import Callable, Mapping
from typing import Any

import pytest

from harness import Choose, Generate, Metric, Task, Text, UserError
from harness.prompts.chat import ChatTemplate
from harness.prompts.render import Prompting, render, render_examples

ONE = Metric("one", score=lambda output, sample: 1.0)
CHAT = Prompting(
    template=ChatTemplate("{% for m in messages %}<{{ m.role }}>{{ m.content }}{% endfor %}<assistant>", {})
)
ROWS = [
    {"q": "1+1", "a": "2", "s": "sums"},
    {"q": "2+2", "a": "4", "s": "sums"},
    {"q": "red", "a": "rot", "s": "words"},
    {"q": "blue", "a": "blau", "s": "words"},
]
SHOTS = [
    {"q": "3+3", "a": "6", "s": "sums"},
    {"q": "green", "a": "grün", "s": "words"},
    {"q": "4+4", "a": "8", "s": "sums"},
    {"q": "5+5", "a": "10", "s": "sums"},
    {"q": "grey", "a": "grau", "s": "words"},
]


def generate(row: Mapping[str, Any]) -> Generate:
    return Generate(f"{row['q']} =", row["a"], stop=("\n",), max_tokens=8)


def a_task(data: Any = ROWS, sample: Callable[..., Any] = generate, **fields: Any) -> Task:
    return Task(data, sample, [ONE], **fields)


def contexts(task: Task, prompting: Prompting | None = None, **options: Any) -> list[str]:
    return [item.request.contexts[0] for item in render("t", task, prompting or Prompting(), **options)]


def test_a_prompt_is_description_shots_and_question() -> None:
    task = a_task(shots=2, shots_from=SHOTS, description="Translate.\n\n", delimiter=" ", shot_separator="\n\n")
    assert contexts(task)[3] == "Translate.\n\n3+3 = 6\n\ngreen = grün\n\nblue ="
    assert contexts(task, Prompting(shots=0))[3] == "Translate.\n\nblue ="


def test_shots_are_the_first_rows_of_the_same_group() -> None:
    task = a_task(shots_from=SHOTS, group="s", shots=2, shot_separator="; ")
    assert contexts(task) == [
        "3+3 = 6; 4+4 = 8; 1+1 =",
        "3+3 = 6; 4+4 = 8; 2+2 =",
        "green = grün; grey = grau; red =",
        "green = grün; grey = grau; blue =",
    ]


def test_a_sample_is_never_its_own_solved_example() -> None:
    task = a_task(shots_from=ROWS, shots=2, shot_separator="; ")
    assert contexts(task)[:3] == ["2+2 = 4; red = rot; 1+1 =", "1+1 = 2; red = rot; 2+2 =", "1+1 = 2; 2+2 = 4; red ="]


def test_too_few_shots_say_how_many_there_are() -> None:
    with pytest.raises(UserError, match="has 2 solved examples in group `words`, but 3 shots were requested") as error:
        contexts(a_task(shots_from=SHOTS, group="s"), Prompting(shots=3))
    assert error.value.hint == "request at most 2 shots"
    with pytest.raises(UserError, match="has no solved examples"):
        contexts(a_task(), Prompting(shots=1))


def test_texts_never_have_shots() -> None:
    task = a_task([{"text": "Once."}], lambda row: Text(row["text"]))
    (item,) = render("t", task, Prompting(shots=5, system="Be brief."))
    assert (item.request.mode, item.request.contexts, item.request.continuations) == ("text", ("",), ("Once.",))


def test_a_description_may_depend_on_the_row() -> None:
    task = a_task(group="s", description=lambda row: f"About {row['s']}: ", shots_from=SHOTS, shots=1)
    assert contexts(task)[2] == "About words: green = grün\n\nred ="


def test_a_system_prompt_comes_first() -> None:
    assert contexts(a_task(description="D. "), Prompting(system="S."))[0] == "S.\n\nD. 1+1 ="


def test_with_a_chat_template_shots_become_turns_without_delimiter() -> None:
    task = a_task(
        SHOTS[:1],
        lambda row: Choose(row["q"], ["6", "7"], 0),
        description="Add.\n\n",
        shots_from=SHOTS[2:],
        shots=1,
    )
    (item,) = render("t", task, Prompting(system="Be brief.", template=CHAT.template))
    assert item.request.contexts == ("<system>Be brief.\n\nAdd.\n\n<user>4+4<assistant>6<user>3+3<assistant>",)
    assert item.request.continuations == ("6", "7")


def test_without_a_template_choices_begin_with_the_delimiter() -> None:
    (item,) = render("t", a_task(SHOTS[:1], lambda row: Choose(row["q"], ["6", "7"], 0), delimiter=" = "))
    assert item.request.continuations == (" = 6", " = 7")


def test_a_context_for_each_choice() -> None:
    task = a_task(
        [{"a": "Ann", "b": "Bob"}],
        lambda row: Choose([f"{row[c]} sang because" for c in "ab"], ["she liked it"] * 2, 0),
        shots_from=[{"a": "Eve", "b": "Tom"}],
        shots=1,
    )
    (item,) = render("t", task)
    shot = "Eve sang because she liked it\n\n"
    assert item.request.contexts == (shot + "Ann sang because", shot + "Bob sang because")
    assert item.request.continuations == (" she liked it",) * 2


def test_a_prompt_of_messages_is_kept_under_a_template_and_flattened_without() -> None:
    turns = [
        {"role": "user", "content": "hi"},
        {"role": "assistant", "content": "yo"},
        {"role": "user", "content": "?"},
    ]
    task = a_task([{}], lambda row: Generate(turns, "x"), shots_from=[{}], shots=0)
    assert contexts(task) == ["hi\n\nyo\n\n?"]
    assert contexts(task, CHAT) == ["<user>hi<assistant>yo<user>?<assistant>"]


def test_a_begun_answer_is_left_open() -> None:
    def begun(row: Mapping[str, Any]) -> Generate:
        asked = {"role": "user", "content": f"{row['q']}?"}
        return Generate([asked, {"role": "assistant", "content": "It is"}], row["a"])

    assert contexts(a_task(sample=begun))[0] == "1+1? It is"
    assert contexts(a_task(sample=begun), CHAT)[0] == "<user>1+1?<assistant>It is"
    (example, *_) = render_examples("t", a_task(sample=begun, train=ROWS), CHAT)
    assert (example.prompt, example.completion) == ("<user>1+1?<assistant>It is", " 2")


def test_solved_conversations_precede_the_question() -> None:
    task = a_task(
        [{"q": "now"}],
        lambda row: Generate(
            [{"role": "user", "content": "hi"}, {"role": "user", "content": row["q"]}], row["q"] + "!"
        ),
        shots_from=[{"q": "then"}],
        shots=1,
    )
    assert contexts(task, CHAT) == ["<user>hi<user>then<assistant>then!<user>hi<user>now<assistant>"]


def test_a_limit_is_spread_over_groups_and_keeps_the_first_rows() -> None:
    rows = [{"q": str(n), "a": "", "s": s} for n, s in enumerate("aaaaabbc")]
    task = a_task(rows, group="s")
    assert contexts(task, limit=5) == ["0 =", "1 =", "5 =", "6 =", "7 ="]
    assert contexts(task, limit=2) == ["0 =", "5 ="]
    assert len(contexts(task, limit=100)) == 8
    assert contexts(a_task(rows), limit=3) == ["0 =", "1 =", "2 ="]


def test_ids_are_indices_in_the_data_for_any_limit() -> None:
    items = render("t", a_task(group="s"), limit=2)
    assert [(item.request.id, item.group) for item in items] == [("0", "sums"), ("2", "words")]


def test_only_requested_groups_are_rendered() -> None:
    assert contexts(a_task(group="s"), groups=("words",)) == ["red =", "blue ="]
    with pytest.raises(UserError, match="no group `wrods`") as error:
        contexts(a_task(group="s"), groups=("wrods",))
    assert error.value.hint == "did you mean `words`?"
    with pytest.raises(UserError, match="task `t` has no groups"):
        contexts(a_task(), groups=("words",))


def test_groups_and_clusters_are_texts() -> None:
    rows = [{"q": "", "a": "", "s": 7, "p": 0.5}]
    (item,) = render("t", a_task(rows, group="s", cluster="p"))
    assert (item.group, item.cluster) == ("7", "0.5")


def test_an_empty_group_or_cluster_is_refused() -> None:
    rows = [*ROWS, {"q": "", "a": "", "s": None}]
    for options in ({"group": "s"}, {"cluster": "s"}):
        with pytest.raises(UserError, match="by the column `s`, which is empty in row 4"):
            render("t", a_task(rows, **options))


def test_a_missing_column_is_named_with_the_existing_ones() -> None:
    for task in (
        a_task(sample=lambda row: Generate(row["qq"], row["a"])),
        a_task(description=lambda row: row["qq"]),
        a_task(group="qq"),
    ):
        with pytest.raises(UserError, match="`qq`") as error:
            render("t", task)
        assert error.value.hint == "did you mean `q`? (columns: q, a, s)"


def test_a_missing_key_of_another_dict_is_not_reported_as_a_column() -> None:
    with pytest.raises(UserError, match=r"test_render\.py:\d+ in <lambda>") as error:
        render("capitals", a_task(sample=lambda row: Choose(row["q"], ["a", "b"], {"A": 0}[row["a"]])))
    assert "KeyError: '2'" in error.value.message and error.value.hint == "task `capitals` failed on row 0"


def test_an_exception_in_a_task_shows_the_line_of_the_task() -> None:
    with pytest.raises(UserError) as error:
        render("t", a_task(sample=lambda row: Generate(row["q"] + 1, row["a"])))
    assert 'Generate(row["q"] + 1, row["a"])' in error.value.message
    assert "TypeError: can only concatenate str" in error.value.message
    assert "render.py" not in error.value.message.replace("test_render.py", "")


@pytest.mark.parametrize(
    ("data", "sample", "expected"),
    [
        ([], generate, "has no rows"),
        (["1+1"], generate, "row 0 is a str, not a mapping"),
        (ROWS, lambda row: row["q"], "`sample` returned a str for row 0"),
        (ROWS, lambda row: Choose("q", ["x"], 1), "row 0: answer 1 with 1 choices"),
        (ROWS, lambda row: Generate("q", 42), "row 0: `target` is the int"),
        (ROWS, lambda row: Generate("q", "a", id="same"), "two samples with the id `same`"),
    ],
)
def test_bad_rows_and_samples_are_named(data: Any, sample: Any, expected: str) -> None:
    with pytest.raises(UserError, match=expected):
        render("t", a_task(data, sample))


def test_a_description_must_return_text() -> None:
    with pytest.raises(UserError, match="`description` returned a NoneType"):
        render("t", a_task(description=lambda row: None))


def test_ids_of_any_kind_become_texts() -> None:
    rows = [{"n": n} for n in (0, 10**400, "数学 / ..", "")]
    items = render("t", a_task(rows, lambda row: Generate("q", "a", id=row["n"])))
    assert [item.request.id for item in items] == ["0", str(10**400), "数学 / ..", ""]


def test_a_single_row_with_empty_strings_is_rendered() -> None:
    task = a_task([{"q": ""}], lambda row: Generate(row["q"], row["q"]), train=[{"q": ""}])
    assert contexts(task) == [""]
    assert render_examples("t", task)[0].completion == " "


def test_the_digest_of_a_request_does_not_depend_on_its_id() -> None:
    def sha256(**fields: Any) -> str:
        fields = {"prompt": "p", "target": "t", **fields}
        return render("t", a_task([{}], lambda row: Generate(**fields)))[0].request.sha256

    assert sha256() == sha256(id="other") == sha256(target="other")
    assert len({sha256(), sha256(prompt="q"), sha256(stop=("x",)), sha256(max_tokens=1), sha256(temperature=1)}) == 5


def test_a_variant_trains_on_prompt_delimiter_target_and_stop() -> None:
    task = a_task(train=SHOTS[:1], description="D. ", shots=3, shots_from=SHOTS, delimiter=" -> ")
    (example,) = render_examples("t", task)
    assert (example.prompt, example.completion, example.append_eos) == ("D. 3+3 =", " -> 6\n", False)


def test_without_a_stop_the_end_of_sequence_is_learned() -> None:
    task = a_task(train=SHOTS[:1], sample=lambda row: Generate(row["q"], [row["a"], "six"]))
    (example,) = render_examples("t", task)
    assert (example.completion, example.append_eos) == (" 6", True)


def test_with_a_template_the_answer_follows_the_prompt_directly() -> None:
    (example,) = render_examples("t", a_task(train=SHOTS[:1]), CHAT)
    assert (example.prompt, example.completion) == ("<user>3+3 =<assistant>", "6\n")


def test_a_choice_trains_on_the_right_choice_and_its_context() -> None:
    task = a_task(train=[{}], sample=lambda row: Choose("Grass is", ["red", "green"], (1, 0)))
    assert render_examples("t", task)[0].completion == " green"
    task = a_task(train=[{}], sample=lambda row: Choose(["He is", "She is"], ["a king", "a queen"], 1))
    assert (render_examples("t", task)[0].prompt, render_examples("t", task)[0].completion) == ("She is", " a queen")


def test_all_of_a_text_is_learned() -> None:
    (example,) = render_examples("t", a_task(train=[{"t": "Once."}], sample=lambda row: Text(row["t"])))
    assert (example.prompt, example.completion, example.append_eos) == ("", "Once.", True)


def test_a_task_without_train_rows_says_so() -> None:
    with pytest.raises(UserError, match="has no train split"):
        render_examples("t", a_task())
    with pytest.raises(UserError, match="the train split of task `t` has no rows"):
        render_examples("t", a_task(train=[]))


def test_an_empty_choice_is_refused_where_nothing_stands_before_it() -> None:
    task = a_task(sample=lambda row: Choose(row["q"], [row["a"], ""], 0))
    assert [item.request.continuations[1] for item in render("t", task, Prompting())] == [" "] * 4
    for options in ({"delimiter": ""}, {}):
        prompting = Prompting() if options else CHAT  # a chat template has no delimiter
        with pytest.raises(UserError, match="task `t`, row 0: choice 1 is an empty text"):
            render("t", a_task(sample=lambda row: Choose(row["q"], [row["a"], ""], 0), **options), prompting)
