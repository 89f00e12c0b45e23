"""Signatures: how metrics tokenise texts, for the protocol of a score.

>>> from harness.metrics import rouge1
>>> signatures([rouge1], [Generate("…", "a cat")]), signatures([rouge1], [Generate("…", "кот")])
({}, {'rouge1': 'tok:uax29|stem:porter, latin words'})
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence

from harness import metrics as built_in
from harness.api import Generate, Metric, Sample
from harness.metrics.kinds import targets_of
from harness.metrics.ngram import SACREBLEU, signature
from harness.metrics.unicode_words import has_other_letters, has_other_words

_ROUGE = "tok:uax29|stem:porter, latin words"
_METEOR = "tok:nltk, punctuation of all scripts, unspaced scripts by character"
_SQUAD = "norm:squad, punctuation of all scripts|tok:white space, unspaced scripts by character"
_OTHER_SCRIPTS: dict[str, tuple[str, Callable[[str], bool]]] = {
    **dict.fromkeys(("rouge1", "rouge2", "rougeL", "rougeLsum"), (_ROUGE, has_other_words)),
    **dict.fromkeys(("meteor", "meteor_no_synonyms"), (_METEOR, has_other_letters)),
    **dict.fromkeys(("em", "f1"), (_SQUAD, has_other_letters)),
}
"""By metric: how it differs from the library that it equals on English, and whether a target shows the difference."""


def signatures(metrics: Sequence[Metric], samples: Sequence[Sample]) -> dict[str, str]:
    """Returns the signatures of metrics by name.

    They are sacrebleu's for its metrics (`nrefs:var` if samples differ in the number of targets). ROUGE, METEOR, `em`
    and `f1` have one if a target is in a script for which their usual tokenizer is not suitable.
    """
    targets = [targets_of(sample) for sample in samples if isinstance(sample, Generate)]
    counts = set(map(len, targets))
    found = {}
    for metric in metrics if counts else ():
        if metric is not getattr(built_in, metric.name, None):
            continue
        if metric.name in SACREBLEU:
            text = signature(metric.name, references=min(counts))
            found[metric.name] = text if len(counts) == 1 else re.sub(r"nrefs:\d+", "nrefs:var", text)
        elif metric.name in _OTHER_SCRIPTS:
            text, differs = _OTHER_SCRIPTS[metric.name]
            if any(differs(target) for each in targets for target in each):
                found[metric.name] = text
    return found
