"""Runs the side of lm-evaluation-harness of a case: its requests, the model's answers, and its metrics.

Its code checker and its sentence splitter are downloaded; here, replacements of a few lines take their place.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from cases import Case

BATCH = 8


@dataclass(frozen=True)
class Asked:
    """One sample: the request and the answers, in the same form on both sides."""

    contexts: tuple[str, ...]
    continuations: tuple[str, ...] = ()
    stop: tuple[str, ...] = ()
    max_tokens: int = 0
    loglikelihoods: tuple[float, ...] = ()
    is_greedy: tuple[bool, ...] = ()
    texts: tuple[str, ...] = ()


@dataclass(frozen=True)
class Side:
    """One side of a case."""

    samples: Mapping[tuple[str, int], Asked]
    """Samples by group and place within the group."""
    metrics: Mapping[str, float]
    """Values by our name of the metric."""


def load_peer(folder: Path) -> Any:
    """Loads a model with lm-evaluation-harness, on CPU, in float32."""
    from lm_eval.models.huggingface import HFLM

    return HFLM(pretrained=str(folder), device="cpu", dtype="float32", batch_size=BATCH)


def their_side(case: Case, model: Any) -> Side:
    """Runs `simple_evaluate` on the first samples of each group."""
    from lm_eval import simple_evaluate

    found = simple_evaluate(
        model=model,
        tasks=list(case.theirs.values()),
        num_fewshot=case.shots,
        limit=-(-case.limit // len(case.theirs)),
        gen_kwargs={"max_gen_toks": case.max_tokens} if case.max_tokens else None,
        bootstrap_iters=0,
        apply_chat_template=case.chat,
        confirm_run_unsafe_code=True,
        task_manager=_task_manager(),
    )
    samples = {}
    for group, task in case.theirs.items():
        by_document = {
            row["doc_id"]: row for row in found["samples"][task]
        }  # one row per filter, with the same answers
        for place, document in enumerate(sorted(by_document)):
            samples[group, place] = _asked(by_document[document])
    counts = {task: len({row["doc_id"] for row in found["samples"][task]}) for task in case.theirs.values()}
    metrics = {
        ours: sum(found["results"][task][theirs] * n for task, n in counts.items()) / sum(counts.values())
        for ours, theirs in case.metrics.items()
    }
    return Side(samples, metrics)


def _asked(row: Mapping[str, Any]) -> Asked:
    arguments, answers = row["arguments"], [each[0] for each in row["resps"]]
    if len(arguments[0]) == 1:  # a text, scored whole
        return Asked(("",), (arguments[0][0],), loglikelihoods=tuple(answers))
    if isinstance(arguments[0][1], str):
        contexts = tuple(dict.fromkeys(context for context, _ in arguments))
        return Asked(
            contexts,
            tuple(continuation for _, continuation in arguments),
            loglikelihoods=tuple(loglikelihood for loglikelihood, _ in answers),
            is_greedy=tuple(greedy for _, greedy in answers),
        )
    context, options = arguments[0]
    return Asked((context,), stop=_stops(options), max_tokens=options.get("max_gen_toks", 256), texts=tuple(answers))


def _stops(options: Mapping[str, Any]) -> tuple[str, ...]:
    until = options.get("until", [])
    return (until,) if isinstance(until, str) else tuple(until)


@cache
def _task_manager() -> Any:
    import evaluate
    import langdetect
    import nltk

    evaluate.load = lambda name, *_, **__: _CodeEval()
    langdetect.DetectorFactory.seed = 0  # otherwise it uses another seed for every text
    try:
        nltk.data.find("tokenizers/punkt_tab")
    except LookupError:
        splitter = nltk.tokenize.PunktSentenceTokenizer()  # knows no abbreviations
        nltk.download = lambda *_, **__: True
        nltk.data.load = lambda *_, **__: splitter
        nltk.sent_tokenize = nltk.tokenize.sent_tokenize = lambda text, *_: splitter.tokenize(text)
        word_tokenizer = nltk.tokenize.NLTKWordTokenizer()
        nltk.word_tokenize = lambda text, *_: [
            word for sentence in splitter.tokenize(text) for word in word_tokenizer.tokenize(sentence)
        ]
    from lm_eval.tasks import TaskManager

    return TaskManager()


class _CodeEval:
    """Replaces `evaluate.load("code_eval")`: runs each program in its own Python process, in an empty folder."""

    def compute(
        self, references: Sequence[str], predictions: Sequence[Sequence[str]], k: Sequence[int]
    ) -> tuple[dict[str, float], dict[int, Any]]:
        passed = [
            [_passes(f"{candidate}\n{reference}") for candidate in candidates]
            for candidates, reference in zip(predictions, references, strict=True)
        ]
        assert list(k) == [1]
        return {"pass@1": sum(sum(each) / len(each) for each in passed) / len(passed)}, {}


def _passes(program: str) -> bool:
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-I", "-S", "-c", program]
        try:
            done = subprocess.run(
                command, cwd=folder, stdin=subprocess.DEVNULL, capture_output=True, timeout=10, check=False
            )
        except (subprocess.TimeoutExpired, ValueError):  # a NUL, or half a surrogate pair
            return False
    return done.returncode == 0
