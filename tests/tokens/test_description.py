"""The description of a tokenizer is what transformers' own tokenizer does."""

import json
from pathlib import Path
from typing import Any

import pytest
from small_tokenizers import BOS, EOS, IM_END, PROCESSORS, TOKENS, small_tokenizer

from harness import UserError
from harness.tokens import description
from harness.tokens.description import Description, describe, description_of, load_template, surroundings

CHATML = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
INST = (
    "{{ bos_token }}{% for m in messages %}{% if m.role == 'user' %}[INST] {{ m.content }} [/INST]"
    "{% else %} {{ m.content }}{{ eos_token }}{% endif %}{% endfor %}"
)
TURNS = [
    {"role": "user", "content": "hi"},
    {"role": "assistant", "content": "yes"},
    {"role": "user", "content": "sure?"},
]


@pytest.mark.parametrize("processor", PROCESSORS)
def test_what_a_tokenizer_adds_in_front_and_behind(processor: str) -> None:
    front, behind = surroundings(small_tokenizer(processor))
    assert front == ((BOS,) if "bos" in processor else ())
    assert behind == ((EOS,) if "eos" in processor else ())


def test_what_a_tokenizer_adds_to_a_text_of_unknown_letters() -> None:
    from tokenizers import Tokenizer, models, processors
    from transformers import PreTrainedTokenizerFast

    inner = Tokenizer(models.BPE({"<s>": 0, "</s>": 1, "G": 2, "T": 3}, []))
    inner.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", special_tokens=[("<s>", BOS), ("</s>", EOS)]
    )
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=inner, **TOKENS["own"])
    assert surroundings(tokenizer) == ((BOS,), (EOS,))


@pytest.mark.parametrize(
    ("template", "tokens", "eos", "end", "written"),
    [
        (CHATML, "own", (), "<|im_end|>", True),
        (CHATML, "instruct", (), "<|im_end|>", True),
        (CHATML.replace("<|im_end|>\n", "<|im_end|>\n</s>"), "own", (), "</s>", True),
        (CHATML.replace("<|im_end|>\n", "<|im_end|>\n</s>"), "own", (IM_END,), "<|im_end|>", True),
        (INST, "own", (), "</s>", True),
        (CHATML.replace("<|im_end|>\n", ""), "own", (), "<|im_start|>", False),
        ("{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}", "own", (), "", True),
        ("{% for m in messages %}{{ m.role }}{% endfor %}", "own", (), "", True),
        ("{{ messages[9].content }}", "own", (), "", True),
    ],
)
def test_the_end_of_a_turn_is_what_the_template_writes_after_an_answer(
    template: str, tokens: str, eos: tuple[int, ...], end: str, written: bool
) -> None:
    tokenizer = small_tokenizer("bos", tokens, template)
    found = describe(tokenizer, eos)
    assert (found.turn_end, found.writes_end) == (end, written)
    ends = {tokenizer.convert_tokens_to_ids(end)} if end else set()
    assert set(found.stops) == {tokenizer.eos_token_id, *eos} | ends


@pytest.mark.parametrize("known", ["unknown", "generation config", "eos"])
def test_an_end_of_turn_that_is_not_marked_as_special(known: str) -> None:
    from tokenizers import AddedToken

    tokenizer = small_tokenizer("bos", template=CHATML.replace("<|im_end|>", "<|endt|>"))
    assert describe(tokenizer).turn_end == ""  # plain text
    tokenizer.add_tokens([AddedToken("<|endt|>", special=False, normalized=False)])
    end = tokenizer.convert_tokens_to_ids("<|endt|>")
    if known == "eos":
        tokenizer.eos_token = "<|endt|>"
    found = describe(tokenizer, [end] if known == "generation config" else ())
    assert (found.turn_end, found.writes_end) == ("<|endt|>", True)
    assert set(found.stops) == {tokenizer.eos_token_id, end}


@pytest.mark.parametrize(
    ("template", "system"),
    [
        (CHATML, "taken"),
        (CHATML.replace("{% for m in messages %}", "{% for m in messages if m.role != 'system' %}"), "dropped"),
        ("{% if messages[0].role == 'system' %}{{ raise_exception('no') }}{% endif %}" + CHATML, "refused"),
    ],
)
def test_how_a_template_treats_a_system_turn(template: str, system: str) -> None:
    assert describe(small_tokenizer(template=template)).system == system


@pytest.mark.parametrize(
    ("prompt", "states"),
    [
        ("", ("none", "none", "none")),
        ("<think>\n", ("open", "open", "open")),
        ("<think>\n\n</think>\n\n", ("closed", "closed", "closed")),
        ("</think>", ("closed", "closed", "closed")),
        (
            "{% if not enable_thinking | default(true) %}<think>\n\n</think>\n\n{% endif %}",
            ("none", "none", "closed"),
        ),
    ],
)
def test_a_thought_and_what_the_prompt_opens_of_it(prompt: str, states: tuple[str, ...]) -> None:
    template = CHATML.replace("assistant\n{% endif %}", "assistant\n" + prompt + "{% endif %}")
    template = template.replace(
        "{{ m.content }}",
        "{% if m.reasoning_content %}<think>{{ m.reasoning_content }}</think>{% endif %}{{ m.content }}",
    )
    found = describe(small_tokenizer(template=template))
    assert found.thought == ("<think>", "</think>") and found.chat is not None
    options: list[dict[str, bool]] = [{}, {"enable_thinking": True}, {"enable_thinking": False}]
    assert tuple(found.chat.with_options(**option).thought_state for option in options) == states
    assert found.chat.has_switch == ("enable_thinking" in prompt)
    assert Description.from_json(found.to_json()) == found


@pytest.mark.parametrize(
    ("start", "thought", "answer", "marks"),
    [
        ("", "[THINK]{}[/THINK]", "", ("[THINK]", "[/THINK]")),
        ("", "<|channel>thought\n{}\n<channel|>", "", ("<|channel>thought", "<channel|>")),
        ("", "<my:thought>\n{}\n</my:thought>\n", "", ("<my:thought>", "</my:thought>")),
        ("<my:thought>", "{}</my:thought>", "</my:thought>", None),
        ("<my:thought>\n", "<my:thought>\n{}\n</my:thought>\n", "", ("<my:thought>", "</my:thought>")),
        (
            "",
            "<|channel|>analysis<|message|>{}<|end|><|start|>assistant",
            "<|channel|>final<|message|>",
            ("<|channel|>", "<|channel|>final<|message|>"),
        ),
        ("", "<why>{}</why>", "<answer>", ("<why>", "</why><answer>")),
        ("", " to=self<|message|>{}<|end|><|start|>assistant", " to=user<|message|>", ("to=", "to=user<|message|>")),
    ],
)
def test_the_marks_of_a_thought_are_what_the_template_writes_around_it(
    start: str, thought: str, answer: str, marks: tuple[str, str] | None
) -> None:
    said = thought.replace("{}", "{{ m.reasoning_content }}")
    shown = "{% if m.reasoning_content %}" + said + "{% endif %}{% if m.role == 'assistant' %}" + answer + "{% endif %}"
    template = CHATML.replace("{{ m.content }}", shown + "{{ m.content }}")
    template = template.replace("assistant\n{% endif %}", f"assistant\n{start}{{% endif %}}")
    assert describe(small_tokenizer(template=template)).thought == marks


def test_a_template_without_thoughts_has_no_marks() -> None:
    found = describe(small_tokenizer(template=CHATML))
    assert found.thought is None and found.chat is not None and found.chat.thought_state == "none"
    assert Description.from_json(found.to_json()) == found


# Folders


def moved(folder: Path, *names: str) -> None:
    """Moves special tokens from the tokenizer's configuration to `special_tokens_map.json`, as older versions saved them."""
    config = json.loads((folder / "tokenizer_config.json").read_text())
    special = {name: config.pop(name) for name in names}
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    (folder / "special_tokens_map.json").write_text(json.dumps(special))


@pytest.mark.parametrize("elsewhere", [False, True])
def test_special_tokens_of_a_template_are_found_wherever_the_tokenizer_keeps_them(
    tmp_path: Path, elsewhere: bool
) -> None:
    small_tokenizer("bos", template=INST).save_pretrained(tmp_path)
    if elsewhere:
        moved(tmp_path, "bos_token", "eos_token")
    template = load_template(tmp_path)
    assert template is not None
    assert template.render(TURNS) == "<s>[INST] hi [/INST] yes</s>[INST] sure? [/INST]"


def test_special_tokens_that_are_the_defaults_of_a_class(tmp_path: Path) -> None:
    from transformers import AutoTokenizer, LlamaTokenizer

    vocabulary = {
        token: number for number, token in enumerate(["<unk>", "<s>", "</s>", "▁", *"hiyesur?[]INST/qZ6789 a"])
    }
    tokenizer = LlamaTokenizer(vocab=vocabulary, merges=[])
    tokenizer.chat_template = INST
    tokenizer.save_pretrained(tmp_path)
    config = json.loads((tmp_path / "tokenizer_config.json").read_text())
    (tmp_path / "tokenizer_config.json").write_text(
        json.dumps({key: value for key, value in config.items() if key not in ("bos_token", "eos_token", "unk_token")})
    )
    template = load_template(tmp_path)
    assert template is not None
    theirs = AutoTokenizer.from_pretrained(tmp_path).apply_chat_template(TURNS, tokenize=False)
    assert template.render(TURNS) == theirs == "<s>[INST] hi [/INST] yes</s>[INST] sure? [/INST]"


def test_a_template_file_wins_over_the_tokenizers_config(tmp_path: Path) -> None:
    small_tokenizer().save_pretrained(tmp_path)
    config = json.loads((tmp_path / "tokenizer_config.json").read_text())
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(config | {"chat_template": "old"}))
    assert (template := load_template(tmp_path)) is not None and template.text == "old"
    (tmp_path / "chat_template.jinja").write_text("new {{ bos_token }}")
    assert (template := load_template(tmp_path)) is not None and template.render([]) == "new <s>"


def test_of_several_named_templates_the_default_is_taken(tmp_path: Path) -> None:
    tokenizer = small_tokenizer()
    tokenizer.chat_template = {"tool_use": "t", "default": "d"}
    tokenizer.save_pretrained(tmp_path)
    assert (template := load_template(tmp_path)) is not None and template.text == "d"
    assert describe(small_tokenizer(template=CHATML)).chat is not None
    tokenizer.chat_template = {"tool_use": "t"}
    assert describe(tokenizer).chat is None


def test_a_tokenizer_without_a_template_is_not_loaded_for_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    small_tokenizer().save_pretrained(tmp_path)
    monkeypatch.setattr(description, "load_tokenizer", None)
    assert load_template(tmp_path) is None


@pytest.mark.parametrize("content", [b'{"chat_template": ', b'["chat_template"]', b'{"chat_template": [1]}'])
def test_a_broken_tokenizer_config_is_a_user_error(tmp_path: Path, content: bytes) -> None:
    small_tokenizer().save_pretrained(tmp_path)
    (tmp_path / "tokenizer_config.json").write_bytes(content)
    with pytest.raises(UserError, match=r"the tokenizer in .* cannot be read"):
        load_template(tmp_path)


def test_a_description_is_made_once_and_again_when_a_file_changes(tmp_path: Path) -> None:
    small_tokenizer(template=CHATML).save_pretrained(tmp_path)
    (tmp_path / "generation_config.json").write_text('{"eos_token_id": [1, 5]}')
    asked: list[Path] = []

    def ask(folder: Path) -> Description:
        asked.append(folder)
        return description.describe_folder(folder)

    first = description_of(tmp_path, ask=ask)
    assert first.stops == (EOS, IM_END, 5)
    assert description_of(tmp_path, ask=ask) == first and asked == [tmp_path]
    (tmp_path / "generation_config.json").unlink()
    (tmp_path / "config.json").write_text('{"eos_token_id": 5}')
    assert description_of(tmp_path, ask=ask).stops == (EOS, IM_END, 5)
    (tmp_path / "config.json").write_text("{}")
    assert description_of(tmp_path, ask=ask).stops == (EOS, IM_END)
    assert len(asked) == 3


def test_text_that_is_no_description_is_an_error() -> None:
    for text in ("{", "[]", "{}", '{"front": 1}'):
        with pytest.raises(ValueError):
            Description.from_json(text)


def test_an_unreadable_cache_is_no_obstacle(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    small_tokenizer(template=CHATML).save_pretrained(tmp_path)
    (tmp_path / "home").write_text("a file, where a folder should be")
    monkeypatch.setenv("HARNESS_HOME", str(tmp_path / "home"))
    found: Any = description_of(tmp_path)
    assert found.turn_end == "<|im_end|>"
