"""The description of a tokenizer: the tokens that it adds to a text, the end of a turn, and the marks of a thought.

Every field comes from encoding or rendering a probe with transformers' own tokenizer, so class defaults and all files of a
tokenizer count as they do in transformers. Scoring, generation, training and previews share this description. It is plain
data: a child process makes it, and the parent renders prompts with it without torch.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from importlib.metadata import version
from itertools import takewhile
from pathlib import Path
from typing import Any, Literal

from harness.data.digests import file_sha256, files_sha256
from harness.data.gguf import is_gguf
from harness.errors import UserError
from harness.prompts.chat import ChatTemplate, aliased
from harness.prompts.template_process import limited
from harness.storage import home, key, read_json, write_whole
from harness.tokens.tokenizer import load_tokenizer

_ASKED, _ANSWER, _NEXT, _REASON = "qZ6 asked", "qZ7 answer", "qZ8 next", "qZ9 reason"
"""Probes: texts that occur in no template."""
_USER = {"role": "user", "content": _ASKED}
_TURN = {"role": "assistant", "content": _ANSWER}
_THOUGHTS = (
    ("<think>", "</think>"),
    ("<|channel>thought", "<channel|>"),
    ("[THINK]", "[/THINK]"),
    ("<thought>", "</thought>"),
)
"""Marks around a thought that some templates know and do not write: of most models, of Gemma 4, Magistral, and EXAONE Deep."""
_READ = (".json", ".model", ".txt", ".jinja", ".py", ".tiktoken")
"""Suffixes of the files that decide a tokenizer."""
_BY_JINJA = "transformers.tokenization_utils_base"
"""Module of the `apply_chat_template` that renders with jinja; some tokenizers have one of their own (Mistral's)."""
_MAY_HAVE_TEMPLATE = ("*.jinja", "chat_template.json", "additional_chat_templates", "*.py", "tekken.json")


@dataclass(frozen=True)
class Description:
    """The description of one tokenizer."""

    front: tuple[int, ...]
    """Ids that the tokenizer puts before a text."""
    behind: tuple[int, ...]
    """Ids that it puts after a text; a prompt or an answer never has them."""
    stops: tuple[int, ...]
    """Ids that end a generated text."""
    special_tokens: dict[str, str] = field(default_factory=dict)
    """`bos_token`, `eos_token` and the others that a template can use."""
    template: str | None = None
    """The chat template."""
    turn_end: str = ""
    """The special token that ends a turn of the assistant; empty if none does."""
    writes_end: bool = True
    """Whether the template writes it after the last turn (GLM-4 writes it only before the next turn)."""
    system: Literal["taken", "dropped", "refused"] = "taken"
    """How the template treats a system turn."""
    thought: tuple[str, str] | None = None
    """Marks around a thought; None if the template knows no thoughts."""

    @property
    def chat(self) -> ChatTemplate | None:
        """The chat template, ready to render; None if the tokenizer has none."""
        if self.template is None:
            return None
        return ChatTemplate(self.template, self.special_tokens, self.turn_end, self.writes_end, self.thought)

    def to_json(self) -> str:
        """The description as one line of JSON."""
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> Description:
        """The description that `to_json` wrote.

        Raises:
            ValueError: The text is something else.
        """
        try:
            found = json.loads(text)
            lists = {name: tuple(found[name]) for name in ("front", "behind", "stops")}
            return cls(**found | lists | {"thought": tuple(found["thought"]) if found["thought"] else None})
        except (KeyError, TypeError) as error:
            raise ValueError("not a description of a tokenizer") from error


def describe(tokenizer: Any, eos: Iterable[int] = ()) -> Description:
    """Describes a tokenizer by asking it.

    Args:
        tokenizer: A tokenizer of transformers.
        eos: Ids that end a text by the model's generation configuration.
    """
    front, behind = surroundings(tokenizer)
    known = {tokenizer.eos_token_id, *eos}
    template = _template_of(tokenizer)
    special = tokenizer.special_tokens_map
    if template is None:
        return Description(front, behind, tuple(sorted(known)), special)
    end, writes_end = turn_end(tokenizer, known) or ("", True)
    if end:
        known.add(tokenizer.convert_tokens_to_ids(end))
    told = _rendered(tokenizer, [{"role": "system", "content": _REASON}, _USER], add_generation_prompt=True)
    return Description(
        front,
        behind,
        tuple(sorted(known)),
        special,
        template,
        end,
        writes_end,
        "refused" if told is None else "taken" if _REASON in told else "dropped",
        thought_marks(tokenizer),
    )


def surroundings(tokenizer: Any) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """The ids that a tokenizer puts before and after every text."""
    bare, full = _ids(tokenizer, _ANSWER), tokenizer(_ANSWER)["input_ids"]
    if not bare:  # no letter of the probe is in the vocabulary
        start = int(full[:1] == [tokenizer.bos_token_id])
        return tuple(full[:start]), tuple(full[start:])
    start = next((i for i in range(len(full)) if full[i : i + len(bare)] == bare), 0)
    return tuple(full[:start]), tuple(full[start + len(bare) :])


def turn_end(tokenizer: Any, stops: Iterable[int]) -> tuple[str, bool] | None:
    """The special token that ends a turn of the assistant, and whether the template writes it after the last turn.

    It is the first special token after the last answer that already ends a text, else the first special token there, else
    the first token there that was added to the vocabulary; if the template writes nothing, the first special token after an
    answer that another turn follows. A token that ends a text counts as special, whatever the tokenizer's files say.

    Args:
        tokenizer: A tokenizer of transformers.
        stops: Ids that already end a text.

    Returns:
        None if there is no template, or no such token: the end of a turn can also be plain text.
    """
    if _template_of(tokenizer) is None:
        return None
    stops = set(stops)
    added = {id: token for id, token in tokenizer.added_tokens_decoder.items() if str(token).strip()}
    special = {id for id, token in added.items() if token.special} | (added.keys() & stops)
    for turns in ([_USER, _TURN], [_USER, _TURN, {"role": "user", "content": _NEXT}]):
        text = _rendered(tokenizer, turns) or ""
        if _ANSWER in text:
            tail = text.rpartition(_ANSWER)[2].partition(_NEXT)[0]
            written = [id for id in _ids(tokenizer, tail) if id in added]
            found = [id for id in written if id in special] or written * (len(turns) == 2)
            if found:
                stop = next((id for id in found if id in stops), found[0])
                return str(added[stop]), len(turns) == 2
            if tail.strip():
                return None
    return None


def thought_marks(tokenizer: Any) -> tuple[str, str] | None:
    """The marks around a thought before an answer.

    Some templates write a header before an answer, with or without a thought: `<|channel|>final<|message|>` of gpt-oss. The
    text before this header is then the thought, and the header is its closing mark.

    Args:
        tokenizer: A tokenizer of transformers.

    Returns:
        None if there is no chat template, or the template knows no thoughts.
    """
    template = _template_of(tokenizer)
    if template is None:
        return None
    prompt = _rendered(tokenizer, [_USER], add_generation_prompt=True) or ""
    plain, whole = (
        (_rendered(tokenizer, [_USER, {**_TURN, **thought}]) or "").partition(_ANSWER)[0]
        for thought in ({}, {"reasoning_content": _REASON})
    )
    written = whole.removeprefix(prompt)
    begun = _REASON in written and whole.startswith(prompt)
    if begun and plain.startswith(prompt):
        header = plain.removeprefix(prompt)
        shared = takewhile(lambda pair: pair[0] == pair[1], zip(header, written, strict=False))
        opening = "".join(character for character, _ in shared).strip()
        if any(map(str.isalnum, opening)) and written.endswith(header):
            return opening, header.strip()
    for pair in _THOUGHTS:
        if any(mark in text for mark in pair for text in (whole, prompt, template)):
            return pair
    opening, _, closing = (part.strip() for part in written.partition(_REASON))
    if not opening:  # the prompt ends with it
        last = re.split(r"\s|(?<=>)(?=<)", prompt.rstrip())[-1]
        opening = prompt.removeprefix(plain).strip() if prompt.startswith(plain) else last
    return (opening, closing) if begun and opening and closing else None


def description_of(
    folder: Path, *, trust_remote_code: bool = False, ask: Callable[[Path], Description] | None = None
) -> Description:
    """The description of the tokenizer in a folder, cached by the content of its files.

    Args:
        folder: A model's folder, or a GGUF file.
        trust_remote_code: Whether the tokenizer's own code may run.
        ask: Makes the description in another process; None: it is made here, which imports torch.

    Raises:
        UserError: The tokenizer cannot be read.
    """
    files = [folder]
    if not is_gguf(folder):
        files = [path for path in sorted(folder.iterdir()) if path.is_file() and path.suffix in _READ]
    digest = key(
        files=files_sha256(files),
        versions=[version(name) for name in ("transformers", "tokenizers")],
        source=file_sha256(Path(__file__)),
        trust_remote_code=trust_remote_code,
    )
    cached = home() / "tokenizers" / f"{digest}.json"
    with suppress(OSError, ValueError):
        return Description.from_json(cached.read_text(encoding="utf-8"))
    found = ask(folder) if ask else describe_folder(folder, trust_remote_code=trust_remote_code)
    with suppress(UserError):  # the cache only saves time
        write_whole(cached, found.to_json())
    return found


def describe_folder(folder: Path, *, trust_remote_code: bool = False) -> Description:
    """Loads the tokenizer in a folder and describes it.

    Raises:
        UserError: The tokenizer cannot be read.
    """
    return describe(load_tokenizer(folder, trust_remote_code=trust_remote_code), _configured_eos(folder))


def load_template(
    folder: Path, *, trust_remote_code: bool = False, ask: Callable[[Path], Description] | None = None
) -> ChatTemplate | None:
    """The chat template of the tokenizer in a folder, ready to render; None if it has none.

    Args:
        folder: A model's folder, or a GGUF file; if no file in it can hold a template, the tokenizer is not loaded.
        trust_remote_code: Whether the tokenizer's own code may run.
        ask: As for `description_of`.

    Raises:
        UserError: The tokenizer cannot be read.
    """
    config = folder / "tokenizer_config.json"
    possible = is_gguf(folder) or any(next(folder.glob(name), None) for name in _MAY_HAVE_TEMPLATE)
    if not possible and not (config.is_file() and b"chat_template" in config.read_bytes()):
        return None
    return description_of(folder, trust_remote_code=trust_remote_code, ask=ask).chat


def _ids(tokenizer: Any, text: str) -> list[int]:
    ids: list[int] = tokenizer(text, add_special_tokens=False)["input_ids"]
    return ids


def _template_of(tokenizer: Any) -> str | None:
    """The chat template; of several named ones, the one named `default`."""
    template = tokenizer.chat_template
    if isinstance(template, dict):
        template = template.get("default")
    return template or None


def _rendered(tokenizer: Any, messages: list[dict[str, str]], **options: Any) -> str | None:
    """Messages as text; None if the template refuses them."""
    try:
        return _render(tokenizer, messages, options)
    except Exception:  # a template is a program: it can raise any exception
        return None


def _render(tokenizer: Any, messages: list[dict[str, str]], options: dict[str, Any]) -> str:
    """Messages as text, as transformers renders them, but within limits."""
    template = _template_of(tokenizer)
    if template is None or type(tokenizer).apply_chat_template.__module__ != _BY_JINJA:
        return str(tokenizer.apply_chat_template(messages, tokenize=False, **options))
    variables = {"add_generation_prompt": False, **tokenizer.special_tokens_map, **options}
    return limited(template).render(messages=list(map(aliased, messages)), tools=None, documents=None, **variables)


def _configured_eos(folder: Path) -> list[int]:
    """Ids that end a text by the model's generation configuration, else by its configuration."""
    for name in ("generation_config.json", "config.json"):
        with suppress(OSError, ValueError, AttributeError):
            found = read_json(folder / name).get("eos_token_id")
            several = found if isinstance(found, list) else [found]
            return [id for id in several if isinstance(id, int)]
    return []
