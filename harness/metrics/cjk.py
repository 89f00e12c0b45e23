"""Chinese, Japanese and Korean characters, which are treated as one word each.

>>> space_out("我爱 Python 语言")
' 我  爱  Python  语  言 '
"""

from __future__ import annotations

import re

CJK = re.compile(r"[\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uac00-\ud7af\uf900-\ufaff\U00020000-\U0003ffff]")
"""Matches a kana, a Han character or a Hangul syllable."""


def has_cjk(text: str) -> bool:
    """Whether the text has a character of these scripts."""
    return CJK.search(text) is not None


def space_out(text: str) -> str:
    """Puts spaces around each character of these scripts, so that `split()` makes it a word."""
    return CJK.sub(r" \g<0> ", text)
