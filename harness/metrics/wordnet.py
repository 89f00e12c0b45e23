"""WordNet's synonyms, read from a folder (nltk data, Debian's `wordnet-base`) or the zip file of nltk data.

The synonyms of a word are those that METEOR gets from nltk's `synsets`: the single-word members of every synset of the
word and of its base forms. nltk's own reader refuses folders outside its data path and takes seconds to load.

    >>> find_wordnet() is None or "automobile" in WordNet(find_wordnet()).synonyms("cars")
    True
"""

from __future__ import annotations

import os
import sys
import zipfile
from functools import cached_property, lru_cache
from pathlib import Path

_SYSTEM = ("/usr/share/wordnet", "/usr/local/share/wordnet", "/opt/homebrew/share/wordnet")
_PARTS = ("noun", "verb", "adj", "adv")
_ENDINGS = {
    "noun": "s: ses:s ves:f xes:x zes:z ches:ch shes:sh men:man ies:y",
    "verb": "s: ies:y es:e es: ed:e ed: ing:e ing:",
    "adj": "er: est: er:e est:e",
    "adv": "",
}
"""Detachment rules of morphy(7WN): an ending and its replacement in the base form."""


def find_wordnet() -> Path | None:
    """Finds WordNet's folder or zip file: in nltk's data folders, `$WNSEARCHDIR` or the system's folders."""
    data = [Path(folder) for folder in os.environ.get("NLTK_DATA", "").split(os.pathsep) if folder]
    data += [Path.home() / "nltk_data", *(Path(sys.prefix, *part) for part in (["nltk_data"], ["share", "nltk_data"]))]
    data += [Path(root, "nltk_data") for root in ("/usr/share", "/usr/local/share", "/usr/lib", "/usr/local/lib")]
    folders = [folder / "corpora" / "wordnet" for folder in data]
    folders += [Path(folder) for folder in (os.environ.get("WNSEARCHDIR"), *_SYSTEM) if folder]
    for folder in folders:
        if (folder / "data.noun").is_file():
            return folder
        if folder.with_suffix(".zip").is_file():
            return folder.with_suffix(".zip")
    return None


class WordNet:
    """The synonyms in the files of a folder or zip file, which are read at the first lookup.

    Args:
        place: Path from `find_wordnet`.
    """

    def __init__(self, place: Path) -> None:
        self.place = place
        self.synonyms = lru_cache(maxsize=100_000)(self._synonyms)

    def _synonyms(self, word: str) -> frozenset[str]:
        """Returns the single words that share a synset with a word or a base form of it, in WordNet's spelling."""
        word = word.lower()
        found: set[str] = set()
        for part in _PARTS:
            for form in self._forms(word, part):
                for offset in self._index[part].get(form, ()):
                    found |= self._members(part, offset)
        return frozenset(found)

    def _forms(self, word: str, part: str) -> list[str]:
        endings = [rule.split(":") for rule in _ENDINGS[part].split()]
        regular = [word.removesuffix(old) + new for old, new in endings if word.endswith(old)]
        return list(dict.fromkeys([word, *self._exceptions[part].get(word, regular)]))

    def _members(self, part: str, offset: int) -> set[str]:
        data = self._data[part]
        fields = data[offset : data.index(b"\n", offset)].decode("utf-8").split(" ")
        words = fields[4 : 4 + 2 * int(fields[3], 16) : 2]
        return {word.partition("(")[0] for word in words if "_" not in word}

    @cached_property
    def _index(self) -> dict[str, dict[str, list[int]]]:
        index: dict[str, dict[str, list[int]]] = {}
        for part in _PARTS:
            index[part] = {}
            for line in self._read(f"index.{part}").decode("utf-8").split("\n"):
                if line and not line.startswith(" "):  # the licence at the top is indented
                    fields = line.split()
                    index[part][fields[0]] = [int(offset) for offset in fields[-int(fields[2]) :]]
        return index

    @cached_property
    def _exceptions(self) -> dict[str, dict[str, list[str]]]:
        found: dict[str, dict[str, list[str]]] = {part: {} for part in _PARTS}
        for part in _PARTS:
            for line in self._read(f"{part}.exc").decode("utf-8").splitlines():
                word, *bases = line.split()
                found[part][word] = bases  # like nltk, keeps the last of two lines for a word
        return found

    @cached_property
    def _data(self) -> dict[str, bytes]:
        return {part: self._read(f"data.{part}") for part in _PARTS}

    def _read(self, name: str) -> bytes:
        if self.place.suffix == ".zip":
            with zipfile.ZipFile(self.place) as archive:
                return archive.read(f"{self.place.stem}/{name}")
        return (self.place / name).read_bytes()
