"""METEOR: words shared by text and target, by stem and by synonym too, with a penalty for scattered matches.

The score is nltk's. Synonyms are WordNet's, from nltk data (`python -m nltk.downloader wordnet`) or from WordNet's own
files (Debian: `apt install wordnet-base`; elsewhere `WNSEARCHDIR` names the folder). If neither is found, `meteor` is
replaced by `meteor_no_synonyms`, under that name: its values are a little lower and not comparable with METEOR's.

    >>> from harness.api import Generate, Output
    >>> round(meteor_no_synonyms.measure(Output(texts=("The cats sat.",)), Generate("…", "A cat sat.")), 3)
    0.736
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from functools import cache
from typing import NamedTuple

from harness.api import Metric
from harness.metrics.cjk import space_out
from harness.metrics.sentences import words
from harness.metrics.unicode_words import separate_punctuation
from harness.metrics.wordnet import WordNet, find_wordnet


def _meteor(synonyms: bool) -> Callable[[str, str], float]:
    def score(prediction: str, target: str) -> float:
        from nltk.translate.meteor_score import single_meteor_score

        wordnet = _synonyms() if synonyms else _Synonyms(None)
        return float(single_meteor_score(_tokens(target), _tokens(prediction), wordnet=wordnet))

    return score


def _tokens(text: str) -> list[str]:
    return words(separate_punctuation(space_out(text)))


class _Lemma(NamedTuple):
    word: str

    def name(self) -> str:
        return self.word


class _Synset(NamedTuple):
    words: Collection[str]

    def lemmas(self) -> list[_Lemma]:
        return [_Lemma(word) for word in self.words]


class _Synonyms(NamedTuple):
    """The interface of a WordNet that nltk's METEOR uses; without a WordNet, no word has a synonym."""

    wordnet: WordNet | None

    def synsets(self, word: str) -> list[_Synset]:
        return [_Synset(self.wordnet.synonyms(word))] if self.wordnet else []


@cache
def _synonyms() -> _Synonyms:
    place = find_wordnet()
    return _Synonyms(WordNet(place) if place else None)


meteor = Metric("meteor", score=_meteor(synonyms=True), bounds=(0, 1))
"""0–1. METEOR (Banerjee & Lavie, ACL 2005; weights of Lavie & Agarwal, 2007) as nltk computes it, with WordNet's
synonyms; with several targets, the best counts. In scripts without spaces, a character is a word. Without WordNet,
`meteor_no_synonyms` replaces it."""

meteor_no_synonyms = Metric("meteor_no_synonyms", score=_meteor(synonyms=False), bounds=(0, 1))
"""0–1. As `meteor`, with equal words and stems only: the same on every machine."""

if find_wordnet() is None:
    meteor = meteor_no_synonyms
