"""Overlap between samples and training data: n-grams that samples share with training examples.

The length of an n-gram follows the GPT-3 paper (Brown et al. 2020, appendix C): the 5th percentile of the questions' lengths in
words, at least 8 and at most 13, without case and punctuation. As in the paper, n-grams in more than ten training examples are
ignored: they are common phrases, or the task's own template. A question that is shorter than an n-gram is searched together with
its answer at the end of training examples. Each Chinese, Japanese or Korean character counts as a word.

Example:
    >>> question = "Which of the four towns on the river Lume did the old miller reach first?"
    >>> found = find_overlap([("0", question, "Anset"), ("1", "Why?", "So")], ["Q: " + question.upper() + " A: Bree"])
    >>> found.words, [(match.sample, match.row, match.part) for match in found.matches]
    (8, [('0', 0, 1.0)])
"""

from __future__ import annotations

import itertools
import re
import unicodedata
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from harness.api import Choose, Sample, Text
from harness.metrics.cjk import CJK, space_out
from harness.prepare.ngrams import NgramIndex
from harness.prompts.samples import answer_text
from harness.results import Overlap, SharedSample

if TYPE_CHECKING:
    from harness.prepare.prepare import Prepared

SHORTEST, LONGEST = 8, 13
"""Limits of the words of an n-gram."""
SHORTEST_WHOLE = 4
"""Fewest words of a sample that is compared as a whole: shorter ones, such as `yes, it is`, match by chance."""
COMMON = 10
"""An n-gram in more training examples, or in more samples, than this is ignored as a common phrase."""
CONTAINED = 0.95
"""Share of a question's words in a training example from which the sample counts as contained in the training data."""
OVERLAP_EXAMPLES = 5
"""Number of samples that `run.json` shows for each overlap."""
_WORD = re.compile(r"[^\W_]+")


@dataclass(frozen=True)
class SampleMatch:
    """A sample that shares an n-gram with a training example."""

    sample: str
    """Its id."""
    row: int
    """Index, from 0, of the training example that shares most of it."""
    part: float
    """Share of the question's words that are in that example: 0 to 1."""
    text: str
    """The longest shared text, as compared: words in lower case."""


@dataclass(frozen=True)
class OverlapMatches:
    """The samples that share n-grams with training examples."""

    words: int
    """Words of an n-gram."""
    matches: tuple[SampleMatch, ...]
    """Sorted by the share of the question, largest first."""

    @property
    def contained(self) -> tuple[SampleMatch, ...]:
        """The samples whose question is in a training example."""
        return tuple(match for match in self.matches if match.part >= CONTAINED)


def overlap_records(prepared: Prepared) -> tuple[Overlap, ...]:
    """Compares the samples of every task with every set of training data."""
    data = {training.data.digest: training.data for training in prepared.trainings}
    records = []
    for trained in data.values():
        texts = [f"{example.prompt}{example.completion}" for example in trained.examples]
        for task in prepared.tasks:
            items = prepared.variants[0].items[task.name]
            found = find_overlap([(item.request.id, *own_texts(item.sample)) for item in items], texts)
            records.append(_record(task.name, trained.name, len(items), found))
    return tuple(records)


def overlap_summary(overlaps: Sequence[Overlap]) -> str:
    """Summarises all overlaps in one line.

    Example:
        >>> overlap_summary([])
        'no variant is trained'
    """
    if not overlaps:
        return "no variant is trained"
    total, sharing = sum(each.n for each in overlaps), sum(each.sharing for each in overlaps)
    contained = [f"{each.contained:,} of {each.n:,} samples of {each.task}" for each in overlaps if each.contained]
    summary = f"in the training data: {', '.join(contained)}" if contained else "no sample is in the training data"
    return f"{summary}; {sharing:,} of {total:,} share an n-gram with it" if sharing else summary


def find_overlap(samples: Sequence[tuple[str, str, str]], training: Iterable[str]) -> OverlapMatches:
    """Finds the samples that share an n-gram with a training example.

    Args:
        samples: Id, question and answer of each sample.
        training: Texts of the training examples, prompt and answer.

    Returns:
        The samples found, each with the training example that shares most of it.
    """
    questions = [words_of(question) for _, question, _ in samples]
    answers = [words_of(answer) for _, _, answer in samples]
    texts = [question + answer for question, answer in zip(questions, answers, strict=True)]
    before, after = _template_words(questions)
    bare = [question[before : len(question) - after] for question in questions]
    size = _ngram_length(bare)
    numbers: dict[str, int] = {}
    for word in itertools.chain.from_iterable(texts):
        numbers.setdefault(word, len(numbers) + 1)
    short = _short_samples(bare, answers, texts, size)
    lengths = sorted({len(words) for words in short})

    matches: dict[int, SampleMatch] = {}
    encoded, rows = [], []
    for row, text in _distinct(training):
        words = words_of(text)
        encoded.append([numbers.get(word, 0) for word in words])
        rows.append(row)
        for ending in (tuple(words[-length:]) for length in lengths):
            for index in short.get(ending, ()):
                matches.setdefault(index, SampleMatch(samples[index][0], row, 1.0, " ".join(ending)))

    ours = NgramIndex([[numbers[word] for word in words] for words in texts], size)
    theirs = NgramIndex(encoded, size)
    shared = np.intersect1d(ours.hashes, theirs.hashes)
    shared = shared[theirs.counts(shared) <= COMMON]
    shared = shared[ours.counts(shared) <= min(COMMON, max(1, len(samples) // 2))]
    examples_with = theirs.texts_with(shared)
    for index, ngrams in ours.positions(shared):
        question = range(before, before + len(bare[index]))
        template = (*range(before), *range(question.stop, question.stop + after))
        starts: dict[int, list[int]] = defaultdict(list)  # by training example, the starts of its n-grams in the sample
        for start, value in ngrams:
            if sum(start <= word < start + size for word in template) <= size / 2:
                for example in examples_with[value]:
                    starts[example].append(start)
        if starts and question:
            best, part, words = _best_example(starts, question, size, texts[index])
            matches.setdefault(index, SampleMatch(samples[index][0], rows[best], part, " ".join(words)))
    return OverlapMatches(size, tuple(sorted(matches.values(), key=lambda match: (-match.part, -len(match.text)))))


def words_of(text: str) -> list[str]:
    """The words of a text in lower case and compatibility form (NFKC), without punctuation and white space.

    Example:
        >>> words_of("Ｈello, WORLD! 数学")
        ['hello', 'world', '数', '学']
    """
    if text.isascii():
        return _WORD.findall(text.lower())
    return _WORD.findall(space_out(unicodedata.normalize("NFKC", text).casefold()))


def own_texts(sample: Sample) -> tuple[str, str]:
    """The question and the right answer of a sample, without the task's description and solved examples."""
    if isinstance(sample, Text):
        return sample.text, ""
    prompt: Any = sample.prompt
    if isinstance(sample, Choose) and sample.per_choice_contexts:
        prompt = prompt[sample.answer if isinstance(sample.answer, int) else sample.answer[0]]
    question = prompt if isinstance(prompt, str) else "\n".join(message["content"] for message in prompt)
    return question, answer_text(sample)


def _short_samples(
    bare: Sequence[Sequence[str]], answers: Sequence[Sequence[str]], texts: Sequence[Sequence[str]], size: int
) -> dict[tuple[str, ...], list[int]]:
    """Question and answer, with and without the template, of samples shorter than an n-gram, with the samples' indices."""
    found: dict[tuple[str, ...], list[int]] = defaultdict(list)
    for index, words in enumerate(bare):
        if len(words) < size:
            for whole in {tuple(texts[index]), (*words, *answers[index])}:
                if len(whole) >= SHORTEST_WHOLE:
                    found[whole].append(index)
    return found


def _best_example(
    starts: Mapping[int, Sequence[int]], question: range, size: int, words: Sequence[str]
) -> tuple[int, float, list[str]]:
    """The training example that shares most of a question, the share, and the longest shared text.

    Args:
        starts: By training example, the starts of its n-grams in the sample.
        question: Indices of the words of the question.
        size: Words of an n-gram.
        words: The words of the sample.
    """
    covered = {example: _covered(found, size) for example, found in starts.items()}
    parts = {each: sum(word in question for word in found) / len(question) for each, found in covered.items()}
    best = max(parts, key=lambda example: (parts[example], len(covered[example]), -example))
    return best, parts[best], [words[index] for index in max(_consecutive(covered[best]), key=len)]


def _covered(starts: Sequence[int], size: int) -> list[int]:
    """The indices of the words in n-grams with these starts, in order."""
    return sorted({word for start in starts for word in range(start, start + size)})


def _consecutive(words: Sequence[int]) -> list[list[int]]:
    """Splits sorted indices into lists without gaps."""
    lists: list[list[int]] = []
    for word in words:
        if lists and word == lists[-1][-1] + 1:
            lists[-1].append(word)
        else:
            lists.append([word])
    return lists


def _ngram_length(texts: Sequence[Sequence[str]]) -> int:
    """Words of an n-gram for these texts; doubled for Chinese, whose words have about two characters."""
    if not texts:
        return LONGEST
    length = np.percentile([len(words) for words in texts], 5)
    characters = sum(bool(CJK.match(word)) for words in texts for word in words)
    scale = 2 if characters > sum(map(len, texts)) / 2 else 1
    return int(np.clip(length, SHORTEST * scale, LONGEST * scale))


def _template_words(texts: Sequence[Sequence[str]]) -> tuple[int, int]:
    """The number of equal words at the start and at the end of all texts: the task's `Question:` and `Answer:`."""
    if len(texts) < 2:
        return 0, 0
    shortest = min(map(len, texts))

    def equal(indices: Iterable[int]) -> int:
        return sum(1 for _ in itertools.takewhile(lambda at: len({text[at] for text in texts}) == 1, indices))

    before = equal(range(shortest))
    return before, equal(range(-1, before - shortest - 1, -1))


def _distinct(training: Iterable[str]) -> Iterator[tuple[int, str]]:
    """Each text once, with its index: the n-grams of a repeated row are not a common phrase."""
    seen: set[int] = set()
    for row, text in enumerate(training):
        if (fingerprint := hash(text)) not in seen:
            seen.add(fingerprint)
            yield row, text


def _record(task: str, train: str, count: int, found: OverlapMatches) -> Overlap:
    return Overlap(
        task=task,
        train=train,
        n=count,
        words=found.words,
        sharing=len(found.matches),
        contained=len(found.contained),
        examples=tuple(
            SharedSample(id=match.sample, train_row=match.row, question_part=match.part, text=match.text)
            for match in found.matches[:OVERLAP_EXAMPLES]
        ),
    )
