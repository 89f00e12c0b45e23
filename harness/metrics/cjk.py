"""Scripts without spaces between words: each of their characters is treated as one word.

>>> space_out("我爱 Python 语言")
' 我  爱  Python  语  言 '
"""

from __future__ import annotations

import re

import regex

CJK = re.compile(r"[\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uac00-\ud7af\uf900-\ufaff\U00020000-\U0003ffff]")
"""Matches a kana, a Han character or a Hangul syllable."""
_UNSPACED = regex.compile(rf"{CJK.pattern}|[[\p{{Thai}}\p{{Lao}}\p{{Khmer}}\p{{Myanmar}}]&&\p{{L}}]\p{{M}}*", regex.V1)
"""Matches a CJK character, or a letter of a South-East Asian script with its vowel signs and tone marks."""


def has_cjk(text: str) -> bool:
    """Whether the text has a Chinese, Japanese or Korean character."""
    return CJK.search(text) is not None


def space_out(text: str) -> str:
    """Puts spaces around each CJK, Thai, Lao, Khmer or Burmese character, so that `split()` makes it a word."""
    return text if text.isascii() else _UNSPACED.sub(r" \g<0> ", text)
