"""Every kind of tokenizer with every kind of chat template, held against transformers: nothing is added, lost or doubled.

Post-processors × special tokens × templates; in each cell the ids to generate from, to score, to learn and to continue are
those of `apply_chat_template` and of the tokenizer itself, and generated texts end where `generate` ends them.
"""

from typing import Any

import pytest
import torch
from small_tokenizers import ENDS, PROCESSORS, TEMPLATES, TOKENS, small_tokenizer
from transformers import LlamaConfig, LlamaForCausalLM

from harness.engine.padded_generation import eos_ids, generate_pack
from harness.jobs import Example, Request, TaskRequests
from harness.prompts.learned import learned as learned_turn
from harness.tokens.description import describe
from harness.tokens.encode import Encoder
from harness.tokens.training_labels import answer_ids

USER = {"role": "user", "content": "1 + 1?"}
ANSWER = {"role": "assistant", "content": "an answer"}
BEGUN = {"role": "assistant", "content": "It is"}
NOT_AS_RENDERED = ("opens and drops", "no end", "words")
"""Templates whose learned text is not in what they render: a thought that they only open, an end that they do not write."""


@pytest.fixture(scope="module")
def model() -> Any:
    torch.manual_seed(0)
    sizes = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    made = LlamaForCausalLM(LlamaConfig(vocab_size=300, initializer_range=0.5, **sizes)).eval()
    made.generation_config.eos_token_id = None
    return made


def encoded(tokenizer: Any, *requests: Request) -> Any:
    return Encoder(tokenizer, 500).encode(TaskRequests("x", requests))


def asked(tokenizer: Any, messages: list[dict[str, str]], **options: Any) -> list[int]:
    ids: list[int] = tokenizer.apply_chat_template(messages, tokenize=True, return_dict=False, **options)
    return ids


def scored(item: Any) -> list[list[int]]:
    """The ids of each choice with its context."""
    return [[*row.ids[: span.start + 1], *span.targets] for row in item.rows for span in row.spans]


@pytest.mark.parametrize("tokens", TOKENS)
@pytest.mark.parametrize("processor", PROCESSORS)
def test_plain_texts(processor: str, tokens: str, model: Any) -> None:
    tokenizer = small_tokenizer(processor, tokens)
    described = describe(tokenizer)

    def whole(text: str) -> list[int]:
        ids: list[int] = tokenizer(text)["input_ids"]
        return ids[: len(ids) - len(described.behind)]

    prompt, choices = "1 + 1 =", (" two", " three", "")
    request = Request("0", "generate", (prompt,), max_tokens=6)
    generate, choose, text = encoded(
        tokenizer,
        request,
        Request("1", "choose", (prompt,), choices[:2]),
        Request("2", "text", ("",), (prompt,)),
    )
    assert list(generate.prompt) == whole(prompt)
    assert scored(choose) == [whole(prompt + choice) for choice in choices[:2]]
    prefix = tokenizer.bos_token_id if tokenizer.bos_token_id is not None else tokenizer.eos_token_id
    assert scored(text) == [[prefix, *whole(prompt)]]
    ((head, learned),) = answer_ids([Example(prompt, " two")], tokenizer)
    assert [*head, *learned] == [*whole(prompt + " two"), tokenizer.eos_token_id]
    assert head == whole(prompt)
    check_generation(tokenizer, generate, model)


@pytest.mark.parametrize("tokens", TOKENS)
@pytest.mark.parametrize("processor", PROCESSORS)
@pytest.mark.parametrize("name", TEMPLATES)
def test_turns_of_a_template(name: str, processor: str, tokens: str, model: Any) -> None:
    tokenizer = small_tokenizer(processor, tokens, TEMPLATES[name])
    described = describe(tokenizer)
    template = described.chat
    assert template is not None
    end = {"eos": tokenizer.eos_token}.get(ENDS.get(name, ""), ENDS.get(name, "<|im_end|>"))
    assert template.turn_end == end
    # generate and choose
    prompt = template.render([USER])
    assert prompt == tokenizer.apply_chat_template([USER], tokenize=False, add_generation_prompt=True)
    generate, choose = encoded(
        tokenizer,
        Request("0", "generate", (prompt,), max_tokens=6, templated=True),
        Request("1", "choose", (prompt,), ("two", "three"), templated=True),
    )
    assert list(generate.prompt) == asked(tokenizer, [USER], add_generation_prompt=True)
    assert scored(choose) == [
        tokenizer(prompt + text, add_special_tokens=False)["input_ids"] for text in ("two", "three")
    ]
    check_generation(tokenizer, generate, model)
    # an answer that the prompt has begun
    begun = template.render([USER, BEGUN])
    (continued,) = encoded(tokenizer, Request("0", "generate", (begun,), max_tokens=6, templated=True))
    assert list(continued.prompt) == asked(tokenizer, [USER, BEGUN], continue_final_message=True)
    # train on the answer, and on the answer to a second question
    for messages in ([USER, ANSWER], [USER, ANSWER, USER, ANSWER]):
        turn = learned_turn(template, messages)
        example = Example(turn.prompt, turn.text, turn_end=template.turn_end)
        ((head, learned),) = answer_ids([example], tokenizer)
        assert head == asked(tokenizer, messages[:-1], add_generation_prompt=True)
        assert learned[-1] in eos_ids(model, tokenizer)
        rendered = tokenizer.apply_chat_template(messages, tokenize=False)
        together = example.prompt + example.completion + (template.turn_end or tokenizer.eos_token)
        assert tokenizer.decode([*head, *learned]) == tokenizer.decode(
            tokenizer(together, add_special_tokens=False)["input_ids"]
        )
        if name not in NOT_AS_RENDERED:
            assert rendered.startswith(together)
    assert tokenizer.convert_tokens_to_ids(end or tokenizer.eos_token) in described.stops


def check_generation(tokenizer: Any, item: Any, model: Any) -> None:
    """A generated text is that of `generate`; special tokens that a tokenizer names change nothing here."""
    if tokenizer.special_tokens_map != TOKENS["own"]:
        return
    ends = eos_ids(model, tokenizer)
    (raw,) = generate_pack(model, tokenizer, [item], seed=0, numerics="fp32")
    ids = torch.tensor([item.prompt])
    with torch.inference_mode():
        new = model.generate(
            ids,
            attention_mask=torch.ones_like(ids),
            max_new_tokens=6,
            do_sample=False,
            eos_token_id=sorted(ends),
            pad_token_id=7,
        )[0, len(item.prompt) :].tolist()
    kept = new[:-1] if new[-1] in ends else new
    assert raw.tokens == len(kept)
    assert raw.texts[0] == tokenizer.decode([*item.prompt, *kept], skip_special_tokens=True).removeprefix(
        tokenizer.decode(item.prompt, skip_special_tokens=True)
    )
