"""A stop string ends a text at the same token, whether every token is searched or those alone that may complete one."""

import random
from typing import Any

import pytest
import tiny_models as tiny
from small_tokenizers import small_tokenizer
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from harness.engine import padded_generation
from harness.engine.padded_generation import Completion
from harness.engine.stop_tokens import StopTokens, stop_tokens
from harness.tokens.encode import Encoded

STOPS = [("\n\n",), ("。",), ("Paris",), (".", "!"), (" the",), ("ends in ",), ("</s>",), ("问题：", "Q:"), ("a b",)]


def words() -> Any:
    """Words that decoding joins with spaces."""
    known = {
        word: number for number, word in enumerate(["a", "b", "Q:", ".", "Paris", "the", "ends", "in", "</s>", "?"])
    }
    inner = Tokenizer(models.WordLevel(known, unk_token="?"))
    inner.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return PreTrainedTokenizerFast(tokenizer_object=inner, eos_token="</s>", unk_token="?")


def pieces() -> Any:
    """SentencePiece's way: spaces are marks, and bytes stand for unknown characters."""
    known = [
        "<unk>",
        *[f"<0x{byte:02X}>" for byte in range(256)],
        "▁",
        "▁the",
        "▁ends",
        "▁in",
        "Paris",
        ".",
        "a",
        "▁b",
        "\n",
        "Q",
        ":",
    ]
    inner = Tokenizer(
        models.BPE({piece: n for n, piece in enumerate(known)}, [], unk_token="<unk>", byte_fallback=True)
    )
    inner.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    return PreTrainedTokenizerFast(tokenizer_object=inner, unk_token="<unk>")


@pytest.mark.parametrize("tokenizer", [tiny.tiny_tokenizer(), small_tokenizer("bos"), words(), pieces()])
def test_every_text_ends_at_the_same_token(tokenizer: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    draw = random.Random(0)
    ended = 0
    for number in range(120):
        stops = STOPS[number % len(STOPS)]
        request = tiny.generate("x", max_tokens=60, stop=stops)
        target = tokenizer.encode(draw.choice(stops), add_special_tokens=False)
        ids = [draw.randrange(len(tokenizer)) for _ in range(30)]
        ids[draw.randrange(20) :] = [*target, *ids[20:]]
        found = []
        for always in (False, True):
            with monkeypatch.context() as patch:
                if always:
                    patch.setattr(StopTokens, "may_end", lambda self, token: True)
                one = Completion(Encoded(0, request, (), (1,), 1, False), 0, tokenizer, frozenset(), None)
                for token in ids:
                    if not one.finished:
                        one.add(token)
                found.append((one.ids, one.finished, one.text()))
        assert found[0] == found[1], (stops, ids)
        ended += found[0][1]
    assert ended > 20


def test_most_tokens_are_not_searched() -> None:
    tokenizer = tiny.tiny_tokenizer()
    tokens = stop_tokens(tokenizer, ("\n\n", "Paris"))
    assert tokens is stop_tokens(tokenizer, ("\n\n", "Paris"))
    searched = sum(tokens.may_end(token) for token in range(3, len(tokenizer)))
    own = [tokenizer.decode([token]) for token in range(3, len(tokenizer))]
    assert searched == sum("\n" in text or "s" in text or "\ufffd" in text for text in own) < 0.5 * len(own)
    assert padded_generation.stop_tokens is stop_tokens
