"""Words of texts in any script: Unicode's word boundaries (UAX 29), and single characters where words have no spaces.

>>> unicode_words("Größe, über 3 Äpfel"), unicode_words("मैं घर गया।"), unicode_words("我爱 NLP 👍🏽")
(['größe', 'über', '3', 'äpfel'], ['मैं', 'घर', 'गया'], ['我', '爱', 'nlp', '👍🏽'])
"""

from __future__ import annotations

import unicodedata

import regex

from harness.metrics.cjk import space_out

_EMOJI = r"\p{Emoji_Presentation}[\p{Extended_Pictographic}&&[\u2600-\U0001ffff]]"
_BOUNDARY = regex.compile(r"\b", regex.V1 | regex.WORD)
_OTHER_LETTER = regex.compile(r"[\p{L}--[\p{Latin}\p{Common}\p{Inherited}]]", regex.V1)
_NOT_ASCII_WORD = regex.compile(rf"[[\p{{L}}\p{{Nd}}{_EMOJI}\p{{Mn}}\p{{Mc}}]--[\x00-\x7f\ufe0e\ufe0f]]", regex.V1)
_PICTURE = regex.compile(rf"[{_EMOJI}]", regex.V1)
_RUN = regex.compile(r"[\p{L}\p{Nd}\p{Mn}\p{Mc}]+", regex.V1)
_PUNCTUATION = regex.compile(r"[\p{P}--[\x00-\xff\u2000-\u206f]]", regex.V1)
_MARKS_OF_EMOJI = str.maketrans("", "", "\ufe0e\ufe0f")  # the same emoji with or without its colour


def has_other_letters(text: str) -> bool:
    """Whether the text has a letter of a script other than Latin."""
    return not text.isascii() and _OTHER_LETTER.search(text) is not None


def has_other_words(text: str) -> bool:
    """Whether a word of the text has a character besides ASCII letters and digits: é, Cyrillic, an emoji."""
    return not text.isascii() and _NOT_ASCII_WORD.search(text) is not None


def unicode_words(text: str) -> list[str]:
    """Returns the words of a text in lower case, and each emoji; leaves out punctuation and other symbols.

    ASCII words, and words of Latin letters with diacritics, end at any other character (`don't`: `don`, `t`), as in
    rouge_score. Words of other scripts end at Unicode's boundaries, and lose punctuation and joiners inside them.

    Example:
        >>> unicode_words("п'ять, don't; สวัสดี")
        ['пять', 'don', 't', 'ส', 'วั', 'ส', 'ดี']
    """
    text = unicodedata.normalize("NFC", text.lower()).translate(_MARKS_OF_EMOJI)
    found: list[str] = []
    for piece in _BOUNDARY.split(space_out(text)):
        if _PICTURE.search(piece):
            found.append(piece)
        elif _OTHER_LETTER.search(piece):
            found.append("".join(_RUN.findall(piece)))
        else:
            found += _RUN.findall(piece)
    return found


def is_latin(word: str) -> bool:
    """Whether a word can be stemmed by rules for English: it has only Latin letters and digits."""
    return word.isascii() or not (_OTHER_LETTER.search(word) or _PICTURE.search(word))


def separate_punctuation(text: str) -> str:
    """Puts spaces around punctuation that only other scripts have, such as `،`, `।` and `。`.

    Example:
        >>> separate_punctuation("मैं घर गया।")
        'मैं घर गया । '
    """
    return text if text.isascii() else _PUNCTUATION.sub(r" \g<0> ", text)
