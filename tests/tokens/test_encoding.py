"""Training examples in tokens: the labels, their agreement with scoring, and the limits of length."""

import json
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import tiny_models as tiny
from hypothesis import given
from hypothesis import strategies as st
from small_tokenizers import BOS, EOS, small_tokenizer

from harness.data.model_files import Snapshot
from harness.errors import UserError
from harness.jobs import Example
from harness.models.load import context_length
from harness.tokens.encode import Encoder, load_encoder
from harness.tokens.training_labels import IGNORED, blocks, tokenise


def row_of(example: Example, tokenizer: Any = None, max_length: int = 100) -> dict[str, Any]:
    (row,) = tokenise([example], tokenizer or tiny.tiny_tokenizer(), max_length).rows
    return row


def learned(row: dict[str, Any]) -> list[int]:
    return [label for label in row["labels"] if label != IGNORED]


def test_the_loss_is_on_the_completion_and_its_end_alone() -> None:
    tokenizer = tiny.tiny_tokenizer()
    row = row_of(Example("Question: what? Answer:", " two"))
    answer = tokenizer(" two")["input_ids"]
    assert row["labels"] == [IGNORED] * (row["length"] - len(answer) - 1) + [*answer, tiny.EOS]
    assert tokenizer.decode(row["input_ids"]) == "Question: what? Answer: two</s>"
    assert row["length"] == len(row["input_ids"])


@pytest.mark.parametrize("adds_bos", [False, True])
@pytest.mark.parametrize("bos", [False, True])
@pytest.mark.parametrize(
    "prompt", ["The answer is", "The answer is ", "The answer is \n\t ", "", " ", "x", "Answer: 答"]
)
@pytest.mark.parametrize("answer", [" 42 and", "42", "\n42\n", "答案🙂"])
def test_a_row_is_tokenised_as_it_is_scored(prompt: str, answer: str, adds_bos: bool, bos: bool) -> None:
    tokenizer = tiny.tiny_tokenizer(adds_bos=adds_bos, bos=bos or adds_bos)
    row = row_of(Example(prompt, answer, append_eos=False), tokenizer)
    (item,) = Encoder(tokenizer, 100).encode(tiny.task(tiny.choose(prompt, [answer])))
    (scored,) = item.rows
    assert learned(row) == list(scored.spans[0].targets)
    assert row["input_ids"] == [*scored.ids, scored.spans[0].targets[-1]]


TEXTS = st.text(st.sampled_from("ab 1\n\t é答🙂.") | st.characters(exclude_categories=["Cs"]), max_size=30)


@given(prompt=TEXTS, answer=TEXTS, length=st.integers(1, 40), append=st.booleans())
def test_any_text_fits_and_is_learned_as_it_is_scored(prompt: str, answer: str, length: int, append: bool) -> None:
    tokenizer = tiny.tiny_tokenizer()
    example = Example(prompt, answer, append_eos=append)
    (item,) = Encoder(tokenizer, 1000).encode(tiny.task(tiny.choose(prompt, [answer])))
    scored = list(item.rows[0].spans[0].targets) if item.rows else []
    try:
        row = row_of(example, tokenizer, length)
    except UserError:
        assert not (scored or append) or length <= len(item.rows[0].ids if item.rows else prompt.encode()) + 1
        return
    assert len(row["input_ids"]) == len(row["labels"]) == row["length"] <= length
    assert all(label in (IGNORED, id) for label, id in zip(row["labels"], row["input_ids"], strict=True))
    assert (scored + [tiny.EOS] * append)[: len(learned(row))] == learned(row) != []


def test_a_bos_token_of_the_chat_template_is_not_added_twice() -> None:
    tokenizer = tiny.tiny_tokenizer(adds_bos=True)
    assert row_of(Example("<s>hello", " world"), tokenizer)["input_ids"].count(tiny.BOS) == 1
    assert row_of(Example("", "<s>hello world"), tokenizer) == row_of(Example("", "hello world"), tokenizer)


CASES = [(" two and", True, 1), (" two and", False, 0), (" two and</s>", False, 1), (" two and</s>", True, 1)]


@pytest.mark.parametrize(("completion", "append", "ends"), CASES)
def test_a_row_ends_once_whether_text_or_tokenizer_or_neither_ends_it(completion: str, append: bool, ends: int) -> None:
    from tokenizers import processors

    ending = tiny.tiny_tokenizer.__wrapped__()
    ending._tokenizer.post_processor = processors.TemplateProcessing(
        single="$A </s>", special_tokens=[("</s>", tiny.EOS)]
    )
    assert ending("x")["input_ids"][-1] == tiny.EOS
    for tokenizer in (tiny.tiny_tokenizer(), ending):
        row = row_of(Example("", completion, append_eos=append), tokenizer)
        assert row["labels"].count(tiny.EOS) == ends


@pytest.mark.parametrize(("ending", "other"), [("eos", "none"), ("bos+eos", "bos")])
@pytest.mark.parametrize("prompt", ["The answer is", "Q:\n", "<s>Q </s>", ""])
def test_a_tokenizer_that_ends_every_text_scores_generates_and_trains_as_one_that_does_not(
    ending: str, other: str, prompt: str
) -> None:
    one, two = small_tokenizer(ending), small_tokenizer(other)
    assert one("x")["input_ids"] == [*two("x")["input_ids"], EOS]
    requests = tiny.task(tiny.choose(prompt, [" A", " B", "</s>"]), tiny.generate(prompt), tiny.text("some text"))
    encoded = Encoder(one, 100).encode(requests)
    assert encoded == Encoder(two, 100).encode(requests)
    assert [EOS in span.targets for row in encoded[0].rows for span in row.spans] == [False, False, True]
    for append in (True, False):
        example = Example(prompt, " two", append_eos=append)
        assert row_of(example, one) == row_of(example, two)
        assert (learned(row_of(example, one))[-1] == EOS) == append


def test_what_a_tokenizer_puts_in_front_is_there_once_whatever_its_name() -> None:
    tokenizer = small_tokenizer("bos", "absent")
    for text in ("hello", "<s>hello"):
        (item,) = Encoder(tokenizer, 100).encode(tiny.task(tiny.generate(text)))
        assert item.prompt == (BOS, *tokenizer("hello", add_special_tokens=False)["input_ids"])


def test_a_stop_string_is_learned_instead_of_the_end() -> None:
    row = row_of(Example("Question:", " two\n", append_eos=False))
    assert tiny.tiny_tokenizer().decode(learned(row)) == " two\n"


def test_long_rows_are_cut_on_the_right_or_left_out_without_an_answer_and_both_are_counted() -> None:
    short, cut, gone = Example("hello", " world"), Example("hello", " world" * 30), Example("hello " * 30, " world")
    tokenizer = tiny.tiny_tokenizer()
    found = tokenise([short, cut, gone], tokenizer, 12)
    whole, lost = (row_of(example, max_length=500) for example in (cut, gone))
    assert [row["length"] for row in found.rows] == [row_of(short)["length"], 12]
    assert found.rows[1]["input_ids"] == whole["input_ids"][:12]
    assert found.rows[1]["labels"] == whole["labels"][:12]
    assert (found.cut, found.dropped) == (1, 1)
    assert found.lost_tokens == whole["length"] - 12 + lost["length"]
    fitting = tokenise([short, cut, gone], tokenizer, 500)
    assert (len(fitting.rows), fitting.cut, fitting.dropped, fitting.lost_tokens) == (3, 0, 0, 0)


@pytest.mark.parametrize("examples", [[Example("hello world", " two")] * 48, [Example("x", "", append_eos=False)]])
def test_rows_without_an_answer_that_fits_are_an_error(examples: list[Example]) -> None:
    with pytest.raises(
        UserError, match=f"none of the {len(examples)} training rows has an answer within 2 tokens"
    ) as e:
        tokenise(examples, tiny.tiny_tokenizer(), 2)
    assert "--max-length" in str(e.value.hint)


# Plain text


@pytest.mark.parametrize("adds_bos", [False, True])
@pytest.mark.parametrize("bos", [False, True])
@pytest.mark.parametrize("length", [2, 7, 16, 1000])
def test_blocks_hold_every_token_of_every_document_once(length: int, adds_bos: bool, bos: bool) -> None:
    tokenizer = tiny.tiny_tokenizer(adds_bos=adds_bos, bos=bos or adds_bos)
    texts = ["hello world, this is", "", "a small tokenizer 0 1 2", "the capital"]
    found = blocks([Example("", text) for text in texts], tokenizer, length)
    taught = [label for row in found.rows for label in row["labels"][1:] if label != IGNORED]
    wanted = [[*tokenizer(text, add_special_tokens=False)["input_ids"], tiny.EOS] for text in texts if text]
    assert taught == [id for ids in wanted for id in ids]
    assert {row["length"] for row in found.rows[:-1]} <= {length} and found.rows[-1]["length"] <= length
    for before, after in zip(found.rows, found.rows[1:], strict=False):
        assert before["input_ids"][-1] == after["input_ids"][0]
    assert (found.cut, found.dropped, found.lost_tokens) == (0, 0, 0)


def test_prompt_and_completion_are_one_text_in_blocks() -> None:
    found = blocks([Example("hello", " world")], tiny.tiny_tokenizer(), 100)
    assert tiny.tiny_tokenizer().decode(found.rows[0]["input_ids"]) == "<s>hello world</s>"


def test_empty_text_and_blocks_of_one_token_are_errors() -> None:
    with pytest.raises(UserError, match="the 1 training rows hold no text"):
        blocks([Example("", "")], tiny.tiny_tokenizer(), 100)
    with pytest.raises(UserError, match="nothing to learn"):
        blocks([Example("", "x")], tiny.tiny_tokenizer(), 1)


def test_the_time_of_tokenising_grows_in_proportion_to_the_rows() -> None:
    tokenizer = tiny.tiny_tokenizer()

    def seconds(count: int) -> float:
        examples = [Example(f"hello {n} world", f" this is {n}") for n in range(count)]
        start = time.process_time()
        tokenise(examples, tokenizer, 100)
        return time.process_time() - start

    seconds(100)
    assert seconds(8000) < 40 * seconds(1000)


# Limits


@pytest.mark.parametrize(
    ("config", "tokenizers", "limit"),
    [
        ({"n_positions": 77}, 33, 77),
        ({"max_position_embeddings": 77}, None, 77),
        ({"text_config": {"max_position_embeddings": 77}}, None, 77),
        ({}, 33, 33),
        ({}, None, 2048),
    ],
)
def test_previews_and_scoring_take_the_same_context_length(
    tmp_path: Path, config: dict[str, Any], tokenizers: int | None, limit: int
) -> None:
    tokenizer = tiny.tiny_tokenizer.__wrapped__()
    if tokenizers is not None:
        tokenizer.model_max_length = tokenizers
    tokenizer.save_pretrained(tmp_path)
    (tmp_path / "config.json").write_text(json.dumps(config))
    assert load_encoder(Snapshot("x", tmp_path)).max_length == limit
    text_config = SimpleNamespace(**config.get("text_config", config))
    model = SimpleNamespace(config=SimpleNamespace(get_text_config=lambda: text_config))
    assert context_length(model, tokenizer) == limit


def test_a_choice_of_which_the_tokenizer_makes_nothing_is_refused() -> None:
    from tokenizers import Tokenizer, models
    from transformers import PreTrainedTokenizerFast

    inner = Tokenizer(models.BPE({"</s>": 0, "G": 1, "T": 2}, []))
    letters = Encoder(PreTrainedTokenizerFast(tokenizer_object=inner, eos_token="</s>"), 16)
    assert letters.encode(tiny.task(tiny.choose("G", ["T"])))[0].rows
    with pytest.raises(UserError, match="makes no token of the choice 'x'"):
        letters.encode(tiny.task(tiny.choose("G", ["T", "x"])))
