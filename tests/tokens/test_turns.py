"""A model learns the tokens after the ids of the prompt alone, which are those that generation sees."""

from typing import Any

import pytest
import tiny_models as tiny
from small_tokenizers import BOS, IM_END, small_tokenizer

from harness import UserError
from harness.jobs import Example
from harness.tokens.encode import Encoder
from harness.tokens.training_labels import answer_ids
from harness.tokens.turns import turn_ids


def ids(tokenizer: Any, text: str) -> tuple[int, ...]:
    return tuple(tokenizer(text, add_special_tokens=False)["input_ids"])


@pytest.mark.parametrize("processor", ["none", "bos+eos"])
def test_white_space_that_is_one_token_is_split_where_the_answer_begins(processor: str) -> None:
    tokenizer = small_tokenizer(processor)
    prompt, text = "<|im_start|>assistant\n", "\n</think>\n\nan answer<|im_end|>"
    assert len(ids(tokenizer, "\n\n")) < len(ids(tokenizer, "\n")) * 2
    assert ids(tokenizer, prompt + text)[: len(ids(tokenizer, prompt))] != ids(tokenizer, prompt)
    ((head, tail),) = turn_ids([(prompt, text)], tokenizer)
    assert head == ids(tokenizer, prompt)
    assert tokenizer.decode(tail).endswith("\n</think>\n\nan answer<|im_end|>")
    assert tokenizer.decode([*head, *tail]) == tokenizer.decode(ids(tokenizer, prompt + text))
    assert tail[-len(ids(tokenizer, "an answer<|im_end|>")) + 1 :] == ids(tokenizer, "an answer<|im_end|>")[1:]


def test_prompts_and_answers_are_tokenised_without_what_the_tokenizer_adds() -> None:
    tokenizer = small_tokenizer("bos+eos")
    pairs = [("<|im_start|>a\n", "b<|im_end|>"), ("<|im_start|>a\n", ""), ("<s>a", " b</s>")]
    for (prompt, text), (head, tail) in zip(pairs, turn_ids(pairs, tokenizer), strict=True):
        assert (head, tail) == (ids(tokenizer, prompt), ids(tokenizer, text))
    assert turn_ids([], tokenizer) == []


def test_a_tokenizer_that_makes_one_token_of_prompt_and_answer_is_an_error() -> None:
    from tokenizers import Tokenizer, models
    from transformers import PreTrainedTokenizerFast

    inner = Tokenizer(models.WordLevel({"ab": 0, "a": 1, "</s>": 2, "<unk>": 3}, unk_token="<unk>"))
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=inner, eos_token="</s>", unk_token="<unk>")
    with pytest.raises(UserError, match="one token of the end of a prompt 'a' and the start of its answer 'b'"):
        turn_ids([("a", "b")], tokenizer)


def test_turns_and_plain_texts_keep_their_places() -> None:
    tokenizer = small_tokenizer("bos")
    turn = Example("<|im_start|>a\n", "b", turn_end="<|im_end|>")
    plain = Example("a", " b")
    unended = Example("user: a\n", "b", turn_end="")
    found = answer_ids([turn, plain, unended, turn], tokenizer)
    assert found == [answer_ids([each], tokenizer)[0] for each in (turn, plain, unended, turn)]
    assert found[0][1] == [*ids(tokenizer, "b"), IM_END]
    assert found[1] == ([BOS, *ids(tokenizer, "a")], [*ids(tokenizer, " b"), tokenizer.eos_token_id])
    assert found[2] == (list(ids(tokenizer, "user: a\n")), [*ids(tokenizer, "b"), tokenizer.eos_token_id])


def test_the_prompts_of_a_template_get_a_second_beginning_under_lm_evals_numerics_alone() -> None:
    tokenizer = small_tokenizer("bos")
    request = tiny.generate("<|im_start|>a\n", templated=True)
    (ours,) = Encoder(tokenizer, 100).encode(tiny.task(request))
    (theirs,) = Encoder(tokenizer, 100, numerics="lm-eval").encode(tiny.task(request))
    assert ours.prompt == ids(tokenizer, "<|im_start|>a\n") and theirs.prompt == (BOS, *ours.prompt)
    (written,) = Encoder(tokenizer, 100, numerics="lm-eval").encode(tiny.task(tiny.generate("<s>a", templated=True)))
    assert written.prompt == (BOS, *ids(tokenizer, "a"))
    plain = tiny.generate("<|im_start|>a\n")
    assert Encoder(tokenizer, 100).encode(tiny.task(plain))[0].prompt == theirs.prompt
    assert plain.sha256 != request.sha256
