"""The learned text of a turn, beside the assistant marks of TRL's training templates: the chat templates of 41 models."""

import re
from collections import Counter
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
from small_tokenizers import small_tokenizer

from harness import UserError
from harness.prompts.chat import ChatTemplate
from harness.prompts.learned import LearnedTurn, learned
from harness.tokens.description import describe

pytestmark = pytest.mark.parity

TRL = find_spec("trl")
FOLDER = Path(TRL.submodule_search_locations[0] if TRL and TRL.submodule_search_locations else ".") / "chat_templates"
FILES = [file for file in sorted(FOLDER.glob("*.jinja")) if not file.stem.endswith("_training")]
IMAGES = ("idefics3", "llava_next", "smolvlm")
"""Templates of models that see images: they refuse or drop content that is a text."""
STOPS = {"cohere2": "<|END_OF_TURN_TOKEN|>", "phi3": "<|end|>", "phi3_5": "<|end|>"}
"""A token that ends texts by the model's generation configuration, where the template writes several after an answer."""
SPECIAL = re.compile(
    r"<\|[^|<>'\"{}\s]{1,40}\|>|<(?:start_of_turn|end_of_turn)>|<｜[^｜]{1,40}｜>|<\|turn>|<turn\|>|<\|?channel\|?>|\[gMASK\]|<sop>"
)
RULES = {"as rendered": 388, "not rendered": 27, "added": 54, "left out": 21, "refused": 21}
"""Rows by what happens to their thought, over the 41 templates of TRL 1.16 and the values of `enable_thinking`."""
USER = {"role": "user", "content": "Hi?"}
ANSWERS: list[dict[str, str]] = [
    *(
        {"content": text}
        for text in ("It is 4.", "<think>\nTwo.\n</think>\n\nIt is 4.", "\nIt is 4.", " lead", "trail \n")
    ),
    {"content": "It is 4.", "reasoning_content": "Two."},
]


def rows() -> Iterator[list[dict[str, str]]]:
    """Conversations that end with an answer."""
    for answer in ANSWERS:
        yield [USER, {"role": "assistant", **answer}]
    yield [USER, {"role": "assistant", "content": "A."}, USER, {"role": "assistant", "content": "It is 4."}]


def tokenizer_for(file: Path) -> Any:
    """A small tokenizer with the template and the special tokens that it writes."""
    from tokenizers import AddedToken

    tokenizer, text = small_tokenizer(), file.read_text()
    special = [AddedToken(token, normalized=False) for token in sorted(set(SPECIAL.findall(text)))]
    tokenizer.add_special_tokens({"additional_special_tokens": special})
    tokenizer.chat_template = text
    return tokenizer


def variants(file: Path) -> Iterator[tuple[ChatTemplate, dict[str, bool]]]:
    """The template with each value of `enable_thinking`, if it reads this option."""
    tokenizer = tokenizer_for(file)
    stop = STOPS.get(file.stem)
    chat = describe(tokenizer, [tokenizer.convert_tokens_to_ids(stop)] if stop else []).chat
    assert chat is not None
    options: list[dict[str, bool]] = [{}]
    for each in options + [{"enable_thinking": value} for value in (True, False)] * chat.has_switch:
        yield chat.with_options(**each), each


def marked(file: Path, chat: ChatTemplate, row: list[dict[str, str]], options: dict[str, bool]) -> str | None:
    """The text of the last turn that TRL's training template marks; None if it marks none."""
    from transformers.utils.chat_template_utils import render_jinja_template

    (text,), (spans,) = render_jinja_template(
        conversations=[row],
        chat_template=file.with_name(f"{file.stem}_training.jinja").read_text(),
        return_assistant_tokens_mask=True,
        **chat.special_tokens,
        **options,
    )
    marks: list[str] = []
    stop = 0
    for start, end in spans:
        marks = [*marks[:-1], marks[-1] + text[start:end]] if marks and start == stop else [*marks, text[start:end]]
        stop = end
    behind = chat.special_tokens["eos_token"] if chat.special_tokens["eos_token"] != chat.turn_end else ""
    return marks[-1].removesuffix(behind) if marks else None  # Phi-3 closes the last turn twice


def squeezed(text: str) -> str:
    """A text without white space: line breaks after the end of a turn are marked and never generated."""
    return "".join(text.split())


def agrees(found: LearnedTurn, chat: ChatTemplate, theirs: str) -> bool:
    """Whether the marked text is ours, after the end of the prompt if that is marked too."""
    ours, closing = found.text + chat.turn_end, (chat.thought or ("", "</think>"))[1]
    if found.thought in ("added", "left out"):  # their templates do not follow their own prompt: compare the answers
        answer = squeezed(ours.rpartition(closing)[2])
        return squeezed(theirs.rpartition(closing)[2]).endswith(answer)
    whole, own = squeezed(theirs), squeezed(ours)
    return whole.endswith(own) and squeezed(found.prompt).endswith(whole[: len(whole) - len(own)])


@pytest.mark.skipif(not FILES, reason="TRL is not installed")
def test_what_is_learned_of_a_turn_is_what_trl_marks() -> None:
    rules: Counter[str] = Counter()
    compared, different, refused = 0, [], set()
    for file in FILES:
        twin = file.with_name(f"{file.stem}_training.jinja").exists()
        for chat, options in variants(file):
            for row in rows():
                try:
                    found = learned(chat, row)
                except UserError:
                    rules["refused"] += 1
                    refused.add(file.stem)
                    continue
                rules[found.thought] += 1
                theirs = marked(file, chat, row, options) if twin else None
                compared += theirs is not None
                if theirs is not None and not agrees(found, chat, theirs):
                    different.append((file.stem, options, row[-1], found.text + chat.turn_end, theirs))
    print(f"\n{len(FILES)} templates, {rules.total()} rows: {dict(rules)}; {compared} compared with marks of TRL")
    assert different == []
    assert refused == set(IMAGES)
    assert compared > 300
    if len(FILES) == 41:
        assert rules == RULES


@pytest.mark.skipif(not FILES, reason="TRL is not installed")
def test_the_marks_of_thoughts() -> None:
    others = {
        "gptoss": ("<|channel|>", "<|channel|>final<|message|>"),
        "muse_glimmer": ("to=", "to=user<|message|>"),
    }
    for file in FILES:
        if file.stem in IMAGES:
            continue
        thought, text = describe(tokenizer_for(file)).thought, file.read_text()
        if file.stem.startswith(("gemma4", "diffusion_gemma")):
            assert thought == ("<|channel>thought", "<channel|>"), file.stem
        elif file.stem in others:
            assert thought == others[file.stem], file.stem
        else:
            assert thought == (("<think>", "</think>") if "think>" in text else None), file.stem


@pytest.mark.skipif(not FILES, reason="TRL is not installed")
def test_the_variables_of_templates() -> None:
    expected = {
        "qwen2_5": set(),
        "qwen3": {"enable_thinking"},
        "qwen3_6": {"add_vision_id", "enable_thinking", "preserve_thinking"},
        "gptoss": {"builtin_tools", "model_identity", "reasoning_effort"},
        "llama3_2": {"custom_tools", "date_string", "tools_in_user_message"},
        "nemotron_3_super": {"enable_thinking", "low_effort", "truncate_history_thinking"},
    }
    for name, variables in expected.items():
        chat = describe(tokenizer_for(FOLDER / f"{name}.jinja")).chat
        assert chat is not None and chat.variables == variables, name
