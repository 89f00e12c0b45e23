"""Whether what is scored was trained on: runs of words that samples share with training examples.

The length of a run follows the GPT-3 paper (Brown et al. 2020, appendix C): as many words as the 5th percentile of the
questions has, at least 8 and at most 13, case and punctuation left out. As there, runs that more than ten training examples
hold are set phrases, or the task's own template, and tell nothing. A question shorter than a run is looked for together
with its answer, at the end of training examples. Each Chinese, Japanese or Korean character counts as a word.

Example:
    >>> question = "Which of the four towns on the river Lume did the old miller reach first?"
    >>> found = shared_runs([("0", question, "Anset"), ("1", "Why?", "So")], ["Q: " + question.upper() + " A: Bree"])
    >>> found.words, [(each.sample, each.row, each.part) for each in found.samples]
    (8, [('0', 0, 1.0)])
"""

from __future__ import annotations

import itertools
import re
import unicodedata
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from harness.api import Choose, Sample, Text
from harness.metrics.cjk import CJK, space_out
from harness.prepare.prepare import Prepared
from harness.prompts.samples import answer_text
from harness.results import Overlap, SharedSample

SHORTEST, LONGEST = 8, 13
"""Words of a run."""
SHORTEST_WHOLE = 4
"""Words of a sample that is compared as a whole: `yes, it is` proves nothing."""
SET_PHRASE = 10
"""A run that more training examples, or more samples, than this hold tells nothing."""
WHOLE = 0.95
"""Part of a question that a training example must have for the sample to count as one that was trained on."""
_WORD = re.compile(r"[^\W_]+")
_FACTOR = np.uint64(0x9E3779B97F4A7C15)

Numbers = NDArray[Any]


@dataclass(frozen=True)
class Shared:
    """A sample that shares words with a training example."""

    sample: str
    """Its id."""
    row: int
    """Place of the training example that has most of it, from 0."""
    part: float
    """How much of the sample's question stands in that example: 0 to 1."""
    text: str
    """The longest run shared, as compared: words in lower case."""


@dataclass(frozen=True)
class Found:
    """What a set of samples shares with training examples."""

    words: int
    """Length of a run."""
    samples: tuple[Shared, ...]
    """Those that share one, the most of a sample first."""

    @property
    def contained(self) -> tuple[Shared, ...]:
        """Those whose question stands in a training example."""
        return tuple(each for each in self.samples if each.part >= WHOLE)


def words_of(text: str) -> list[str]:
    """Its words, compatible forms and case made one, punctuation and white space left out.

    Example:
        >>> words_of("Ｈello, WORLD! 数学")
        ['hello', 'world', '数', '学']
    """
    if text.isascii():
        return _WORD.findall(text.lower())
    return _WORD.findall(space_out(unicodedata.normalize("NFKC", text).casefold()))


def own_texts(sample: Sample) -> tuple[str, str]:
    """A sample's own question and right answer, without description and solved examples."""
    if isinstance(sample, Text):
        return sample.text, ""
    prompt: Any = sample.prompt
    if isinstance(sample, Choose) and sample.per_choice_contexts:
        prompt = prompt[sample.answer if isinstance(sample.answer, int) else sample.answer[0]]
    question = prompt if isinstance(prompt, str) else "\n".join(message["content"] for message in prompt)
    return question, answer_text(sample)


def shared_runs(samples: Sequence[tuple[str, str, str]], training: Iterable[str]) -> Found:
    """Finds the samples that share a run of words with a training example.

    Args:
        samples: Id, question and answer of each.
        training: Texts of the training examples, prompt and answer.

    Returns:
        The samples, each with the place of a training example and the words shared.
    """
    questions = [words_of(question) for _, question, _ in samples]
    answers = [words_of(answer) for _, _, answer in samples]
    asked = [question + answer for question, answer in zip(questions, answers, strict=True)]
    before, after = _frame(questions)
    bare = [question[before : len(question) - after] for question in questions]
    size = _run_length(bare)
    numbers: dict[str, int] = {}
    for word in itertools.chain.from_iterable(asked):
        numbers.setdefault(word, len(numbers) + 1)
    whole: dict[tuple[str, ...], list[int]] = defaultdict(list)
    for place, words in enumerate(bare):
        if len(words) < size:
            for both in {tuple(asked[place]), (*words, *answers[place])}:
                if len(both) >= SHORTEST_WHOLE:
                    whole[both].append(place)
    lengths = sorted({len(both) for both in whole})

    shared: dict[int, Shared] = {}
    taught, rows = [], []
    for row, text in _distinct(training):
        words = words_of(text)
        taught.append([numbers.get(word, 0) for word in words])
        rows.append(row)
        for tail in (tuple(words[-length:]) for length in lengths):
            for place in whole.get(tail, ()):
                shared[place] = shared.get(place) or Shared(samples[place][0], row, 1.0, " ".join(tail))

    ours = _Runs([[numbers[word] for word in words] for words in asked], size)
    theirs = _Runs(taught, size)
    common = np.intersect1d(ours.hashes, theirs.hashes)
    common = common[theirs.holders(common) <= SET_PHRASE]
    common = common[ours.holders(common) <= min(SET_PHRASE, max(1, len(samples) // 2))]
    having = theirs.texts_with(common)
    for place, runs in ours.places(common):
        question = range(before, before + len(bare[place]))
        frames = (*range(before), *range(question.stop, question.stop + after))
        starts: dict[int, list[int]] = defaultdict(list)  # where the runs begin that a training example has
        for start, value in runs:
            if sum(start <= word < start + size for word in frames) <= size / 2:
                for example in having[value]:
                    starts[example].append(start)
        if not starts or not question:
            continue
        covered = {example: _covered(found, size) for example, found in starts.items()}
        parts = {each: sum(word in question for word in words) / len(question) for each, words in covered.items()}
        best = max(parts, key=lambda example: (parts[example], len(covered[example]), -example))
        longest = " ".join(asked[place][word] for word in max(_consecutive(covered[best]), key=len))
        shared.setdefault(place, Shared(samples[place][0], rows[best], parts[best], longest))
    return Found(size, tuple(sorted(shared.values(), key=lambda each: (-each.part, -len(each.text)))))


class _Runs:
    """Every run of `size` words in a list of texts, as a 64-bit hash; words are numbers, 0 an unknown one."""

    def __init__(self, texts: Sequence[Sequence[int]], size: int) -> None:
        begins = np.cumsum([0, *(len(text) + 1 for text in texts)])  # a 0 after each: no run goes on into the next
        words = np.zeros(begins[-1] + size, np.uint64)
        words[: begins[-1]] = np.fromiter(itertools.chain.from_iterable((*text, 0) for text in texts), np.uint64)
        hashes, known = np.zeros(begins[-1], np.uint64), np.ones(begins[-1], bool)
        for offset in range(size):
            part = words[offset : offset + len(hashes)]
            hashes = (hashes + part) * _FACTOR
            hashes ^= hashes >> np.uint64(29)
            known &= part != 0
        places = np.flatnonzero(known)
        self.hashes = hashes[places]
        self.texts = np.searchsorted(begins, places, side="right") - 1
        self.starts = places - begins[self.texts]

    def holders(self, hashes: Numbers) -> Numbers:
        """How many texts have each run."""
        mine = np.isin(self.hashes, hashes)
        pairs = np.unique(np.stack([np.searchsorted(hashes, self.hashes[mine]), self.texts[mine]]), axis=1)
        return np.bincount(pairs[0].astype(np.int64), minlength=len(hashes))

    def texts_with(self, hashes: Numbers) -> dict[int, set[int]]:
        """Run to the texts that have it."""
        found: dict[int, set[int]] = defaultdict(set)
        mine = np.isin(self.hashes, hashes)
        for value, text in zip(self.hashes[mine].tolist(), self.texts[mine].tolist(), strict=True):
            found[value].add(text)
        return found

    def places(self, hashes: Numbers) -> Iterator[tuple[int, list[tuple[int, int]]]]:
        """Each text that has some of the runs, and where in it they begin."""
        mine = np.isin(self.hashes, hashes)
        found = zip(self.texts[mine].tolist(), self.starts[mine].tolist(), self.hashes[mine].tolist(), strict=True)
        for text, group in itertools.groupby(found, key=lambda entry: entry[0]):
            yield text, [(start, value) for _, start, value in group]


def _covered(starts: Sequence[int], size: int) -> list[int]:
    """The words that runs cover, in order."""
    return sorted({word for start in starts for word in range(start, start + size)})


def _consecutive(words: Sequence[int]) -> list[list[int]]:
    """Words in lists of those that follow each other."""
    lists: list[list[int]] = []
    for word in words:
        if lists and word == lists[-1][-1] + 1:
            lists[-1].append(word)
        else:
            lists.append([word])
    return lists


def _run_length(texts: Sequence[Sequence[str]]) -> int:
    """Words of a run for these texts; a Chinese word has about two characters, so theirs are twice as long."""
    if not texts:
        return LONGEST
    length = np.percentile([len(words) for words in texts], 5)
    single = sum(bool(CJK.match(word)) for words in texts for word in words)
    scale = 2 if single > sum(map(len, texts)) / 2 else 1
    return int(np.clip(length, SHORTEST * scale, LONGEST * scale))


def _frame(texts: Sequence[Sequence[str]]) -> tuple[int, int]:
    """How many words all texts begin with and how many they end with: the task's `Question:` and `Answer:`."""
    if len(texts) < 2:
        return 0, 0
    shortest = min(map(len, texts))

    def same(places: Iterable[int]) -> int:
        return sum(1 for _ in itertools.takewhile(lambda at: len({text[at] for text in texts}) == 1, places))

    before = same(range(shortest))
    return before, same(range(-1, before - shortest - 1, -1))


def _distinct(training: Iterable[str]) -> Iterator[tuple[int, str]]:
    """Each text once: a row that was given ten times over is no set phrase."""
    seen: set[int] = set()
    for row, text in enumerate(training):
        if (fingerprint := hash(text)) not in seen:
            seen.add(fingerprint)
            yield row, text


OVERLAP_EXAMPLES = 5
"""Samples that `run.json` shows for each overlap."""


def overlap_records(prepared: Prepared) -> tuple[Overlap, ...]:
    """What the samples of every task share with every set of training data."""
    data = {training.data.digest: training.data for training in prepared.trainings}
    records = []
    for taught in data.values():
        texts = [f"{example.prompt}{example.completion}" for example in taught.examples]
        for task in prepared.tasks:
            items = prepared.variants[0].items[task.name]
            found = shared_runs([(item.request.id, *own_texts(item.sample)) for item in items], texts)
            records.append(_overlap(task.name, taught.name, len(items), found))
    return tuple(records)


def _overlap(task: str, train: str, count: int, found: Found) -> Overlap:
    return Overlap(
        task=task,
        train=train,
        n=count,
        words=found.words,
        sharing=len(found.samples),
        contained=len(found.contained),
        examples=tuple(
            SharedSample(id=each.sample, train_row=each.row, question_part=each.part, text=each.text)
            for each in found.samples[:OVERLAP_EXAMPLES]
        ),
    )


def overlap_summary(overlaps: Sequence[Overlap]) -> str:
    """All of it in a line.

    Example:
        >>> overlap_summary([])
        'nothing is trained'
    """
    if not overlaps:
        return "nothing is trained"
    total, sharing = sum(each.n for each in overlaps), sum(each.sharing for each in overlaps)
    found = [f"{each.contained:,} of {each.n:,} samples of {each.task}" for each in overlaps if each.contained]
    stand = f"{', '.join(found)} stand in the training data" if found else "no sample stands in the training data"
    return f"{stand}; {sharing:,} of {total:,} share a run of words with it" if sharing else stand
