"""A judge of entailment in a process of its own: does a premise say what a hypothesis says?

The parent imports no torch, and a model of any size must not come near what is being measured: a child (`python -m harness.nli
MODEL`) loads a sequence classifier on the CPU when the first pair is asked, and answers one line of JSON with another. It ends with
its parent.

Example:
    >>> judge("cross-encoder/nli-deberta-v3-base").entailment([("A dog sleeps.", "An animal sleeps.")])  # doctest: +SKIP
    [0.99]
"""

from __future__ import annotations

import contextlib
import functools
import json
import subprocess
import sys
import tempfile
import threading
from collections.abc import Sequence

from harness.errors import UserError

Pair = tuple[str, str]
"""Premise and hypothesis."""

_BATCH = 16


class Judge:
    """The parent's end of the child.

    Args:
        model: A sequence classifier: a folder, or its name on the Hub.
    """

    def __init__(self, model: str) -> None:
        self.model = model
        self._lock = threading.Lock()
        self._child: subprocess.Popen[str] | None = None
        self._said = tempfile.TemporaryFile("w+", encoding="utf-8")  # noqa: SIM115 - read when the child has failed

    def entailment(self, pairs: Sequence[Pair]) -> list[float]:
        """The probability that each premise entails its hypothesis.

        Raises:
            UserError: The model cannot be loaded, has no class for entailment, or its process ended.
        """
        with self._lock:
            if self._child is None:
                self._child = subprocess.Popen(
                    [sys.executable, "-m", "harness.nli", self.model],
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    stderr=self._said,
                    text=True,
                    encoding="utf-8",
                )
            answer = self._ask(self._child, json.dumps(list(pairs)))
        if isinstance(answer, str):
            raise UserError(
                f"could not judge entailment with `{self.model}`: {answer}", hint="`nli` names a classifier"
            )
        return answer

    def _ask(self, child: subprocess.Popen[str], line: str) -> list[float] | str:
        assert child.stdin is not None and child.stdout is not None
        try:
            child.stdin.write(line + "\n")
            child.stdin.flush()
            answer: list[float] | str = json.loads(child.stdout.readline())
        except (OSError, ValueError):
            child.kill()
            child.wait()
            self._child = None
            self._said.seek(0)
            last = [text for text in self._said.read().splitlines() if text.strip()][-1:]
            return f"its process ended ({''.join(last)[:300] or child.returncode})"
        return answer


@functools.cache
def judge(model: str) -> Judge:
    """The judge of that name: one process a model, however many metrics ask it."""
    return Judge(model)


def main(model: str) -> None:
    """The child: a line of pairs in, a line of probabilities (or what is wrong) out, until there is no more."""
    answers = sys.stdout
    scorer: _Scorer | None = None
    with contextlib.redirect_stdout(sys.stderr):  # what libraries print is no answer
        for line in sys.stdin:
            answer: list[float] | str
            try:
                scorer = scorer or _Scorer(model)
                answer = scorer.probabilities([(premise, hypothesis) for premise, hypothesis in json.loads(line)])
            except Exception as error:  # any failure of the library's is the parent's to tell
                answer = " ".join(str(error).split())[:300] or type(error).__name__
            print(json.dumps(answer), file=answers, flush=True)


class _Scorer:
    """The model, in the child."""

    def __init__(self, model: str) -> None:
        import transformers

        self.tokenizer = transformers.AutoTokenizer.from_pretrained(model)
        self.model = transformers.AutoModelForSequenceClassification.from_pretrained(model).eval()
        names = {int(index): str(name).lower() for index, name in self.model.config.id2label.items()}
        classes = [index for index, name in names.items() if name.startswith("entail")]
        if not classes and len(names) > 1:
            raise ValueError(f"none of its classes is entailment: {', '.join(names.values())}")
        self.entailment = classes[0] if classes else None
        positions = getattr(self.model.config, "max_position_embeddings", None) or 512
        self.length = min(self.tokenizer.model_max_length, positions, 512)

    def probabilities(self, pairs: Sequence[Pair]) -> list[float]:
        import torch

        found: list[float] = []
        for start in range(0, len(pairs), _BATCH):
            premises, hypotheses = zip(*pairs[start : start + _BATCH], strict=True)
            inputs = self.tokenizer(
                list(premises),
                list(hypotheses),
                truncation="longest_first",
                max_length=self.length,
                padding=True,
                return_tensors="pt",
            )
            with torch.inference_mode():
                logits = self.model(**inputs).logits.float()
            scores = logits.sigmoid()[:, 0] if self.entailment is None else logits.softmax(-1)[:, self.entailment]
            found += scores.tolist()
        return found


if __name__ == "__main__":
    main(sys.argv[1])
