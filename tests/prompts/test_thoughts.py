"""Metrics see what follows a thought; a thought without an end is no answer."""

import pytest

from harness.jobs import Request
from harness.prompts.thoughts import answers, split_thought, unfinished

PLAIN = Request("0", "generate", ("6*7 =",))
OPENED = Request("0", "generate", ("6*7 =",), in_thought=True)
GEMMA = Request("0", "generate", ("6*7 =",), thought=("<|channel>thought", "<channel|>"))


@pytest.mark.parametrize(
    ("request_", "text", "thought", "answer"),
    [
        (PLAIN, "42", "", "42"),
        (PLAIN, " 42 ", "", " 42 "),
        (PLAIN, "<think>41?</think>\n\n42 ", "<think>41?</think>\n\n", "42 "),
        (PLAIN, "\n<think></think>42", "\n<think></think>", "42"),
        (PLAIN, "<think>a</think>b</think>c", "<think>a</think>b</think>", "c"),
        (PLAIN, "<think>a</think>", "<think>a</think>", ""),
        (PLAIN, "<think>maybe 42", "<think>maybe 42", None),
        (PLAIN, "maybe</think>42", "", "maybe</think>42"),
        (PLAIN, "a <think>b</think> 42", "", "a <think>b</think> 42"),
        (OPENED, "maybe</think> 42", "maybe</think> ", "42"),
        (OPENED, "maybe 42", "maybe 42", None),
        (OPENED, "", "", None),
        (GEMMA, "<|channel>thought\na<channel|>42", "<|channel>thought\na<channel|>", "42"),
        (GEMMA, "<think>a</think>42", "", "<think>a</think>42"),
    ],
)
def test_a_text_is_a_thought_and_an_answer(request_: Request, text: str, thought: str, answer: str | None) -> None:
    assert split_thought(text, request_) == (thought, answer)
    assert answers([text, "<think>"], request_) == (answer or "", answers(["<think>"], request_)[0])
    assert unfinished([text], request_) == (answer is None)


def test_the_digest_of_a_request_covers_thoughts_only_where_they_are_not_the_default() -> None:
    assert (
        len({PLAIN.sha256, OPENED.sha256, GEMMA.sha256, Request("0", "generate", ("6*7 =",), thought_tokens=9).sha256})
        == 4
    )
    assert PLAIN.sha256 == "6fd8cf9c4bc3750f6172254c2c646c46a68086af6ec3a66285fd83ab4113e439"  # as before thoughts
