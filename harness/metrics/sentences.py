"""Sentences and word tokens of English text, without a network.

Sentences come from nltk's Punkt (Kiss and Strunk, Computational Linguistics 2006), words from nltk's word tokenizer. If
nltk's data folder has `punkt_tab`, its trained parameters are used, and the sentences are those of
lm-evaluation-harness. Otherwise a short list of abbreviations replaces them: the rules are the same, but a rare
abbreviation (`Messrs.`, `Okla.`) ends a sentence.

    >>> sentences("Dr. Ho paid $3.50, i.e. too much. Did he?  Yes!")
    ['Dr. Ho paid $3.50, i.e. too much.', 'Did he?', 'Yes!']
"""

from __future__ import annotations

from functools import cache
from typing import Any, Final

_ABBREVIATIONS: Final = """
    mr mrs ms dr prof rev hon gen col capt lt maj sgt cmdr adm gov sen rep st sr jr ph.d m.d b.a m.a
    inc corp co ltd llc bros dept univ vs etc e.g i.e cf al approx vol pp ave blvd rd
    jan feb mar apr jun jul aug sep sept oct nov dec a.m p.m b.c a.d u.s u.k u.n e.u u.s.a d.c
"""
_STARTERS: Final = "a an and as at but by for he however i if in it she the there they this we you"
"""Words that begin a sentence even after an abbreviation."""


def sentences(text: str) -> list[str]:
    """Splits a text into sentences, without the white space between them."""
    return list(_splitter().tokenize(text))


def words(text: str) -> list[str]:
    """Splits a text into tokens, including punctuation, like `nltk.word_tokenize`.

    Example:
        >>> words("It's STATE-OF-THE-ART (really).")
        ['It', "'s", 'STATE-OF-THE-ART', '(', 'really', ')', '.']
    """
    from nltk.tokenize.destructive import NLTKWordTokenizer

    tokenizer = NLTKWordTokenizer()
    return [token for sentence in sentences(text) for token in tokenizer.tokenize(sentence)]


@cache
def _splitter() -> Any:
    from nltk.tokenize.punkt import PunktParameters, PunktSentenceTokenizer, PunktTokenizer

    try:
        return PunktTokenizer("english")
    except LookupError:
        parameters = PunktParameters()
        parameters.abbrev_types = set(_ABBREVIATIONS.split())
        parameters.sent_starters = set(_STARTERS.split())
        return PunktSentenceTokenizer(parameters)
