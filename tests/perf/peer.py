"""Runs the side of lm-evaluation-harness under its own interpreter: `python peer.py SPEC.json RESULT.json`.

Its hf backend is used unchanged, with one exception: a random model never stops, so a stopping criterion for each row ends
texts at the length of the true answer. A batch then runs until its longest row ends, as with any stop rule.
"""

import json
import sys
from pathlib import Path
from typing import Any

import torch
from lm_eval.api.instance import Instance  # type: ignore[import-not-found,unused-ignore]
from lm_eval.models.huggingface import HFLM  # type: ignore[import-not-found,unused-ignore]
from meter import Meter
from transformers import StoppingCriteria, StoppingCriteriaList

_LONGEST = 256


class _TrueLengths(StoppingCriteria):  # type: ignore[misc]
    """Ends a row when it has as many new tokens as its true answer."""

    def __init__(self, limits: list[int], prompt: int) -> None:
        self.limits, self.prompt = torch.tensor(limits), prompt

    def __call__(self, input_ids: torch.Tensor, scores: Any, **options: Any) -> torch.Tensor:
        return input_ids.shape[1] - self.prompt >= self.limits.to(input_ids.device)


class Peer(HFLM):  # type: ignore[misc]
    """The hf backend, with the length of each answer."""

    def __init__(self, lengths: dict[str, int], **options: Any) -> None:
        super().__init__(**options)
        self.lengths = lengths

    def tok_batch_encode(self, strings: list[str], *args: Any, **options: Any) -> Any:
        self._limits = [self.lengths[text] for text in strings]
        return super().tok_batch_encode(strings, *args, **options)

    def _model_generate(self, context: torch.Tensor, **options: Any) -> Any:
        """Adds the criterion to those that lm_eval passes to `generate`."""
        limits, usual = self._limits, self.model.generate

        def generate(**given: Any) -> Any:
            criteria = StoppingCriteriaList([*given.pop("stopping_criteria"), _TrueLengths(limits, context.shape[1])])
            return usual(stopping_criteria=criteria, **given)

        self.model.generate = generate
        try:
            return super()._model_generate(context, **options)
        finally:
            del self.model.generate


def score(peer: Peer, rows: list[dict[str, Any]]) -> list[Any]:
    """Scores rows; returns `[loglikelihoods, is_greedy, texts]` of each."""
    mode = rows[0]["mode"]
    if mode == "generate":
        options = [{"until": list(row["stop"]), "max_gen_toks": _LONGEST, "do_sample": False} for row in rows]
        asked = [
            Instance("generate_until", {}, (row["contexts"][0], option), n)
            for n, (row, option) in enumerate(zip(rows, options, strict=True))
        ]
        return [[[], [], [text]] for text in peer.generate_until(asked, disable_tqdm=True)]
    if mode == "text":
        asked = [Instance("loglikelihood_rolling", {}, (row["continuations"][0],), n) for n, row in enumerate(rows)]
        return [[[value], [], []] for value in peer.loglikelihood_rolling(asked, disable_tqdm=True)]
    pairs = [(row["contexts"][0], continuation) for row in rows for continuation in row["continuations"]]
    asked = [Instance("loglikelihood", {}, pair, n) for n, pair in enumerate(pairs)]
    found = iter(peer.loglikelihood(asked, disable_tqdm=True))
    each = [[next(found) for _ in row["continuations"]] for row in rows]
    return [[[ll for ll, _ in row], [greedy for _, greedy in row], []] for row in each]


def main(spec: dict[str, Any]) -> dict[str, Any]:
    """Times the scoring call on all rows, or on a share of them to try a batch size."""
    rows = json.loads(Path(spec["requests"]).read_text(encoding="utf-8"))
    if spec["share"] > 1:  # at least two batches, if there are as many rows
        rows = rows[:: max(1, len(rows) // max(2 * spec["batch"], len(rows) // spec["share"]))]
    lengths = {row["contexts"][0]: row["max_tokens"] for row in rows}
    peer = Peer(
        lengths,
        pretrained=spec["model"],
        device="cpu",
        dtype=spec["dtype"],
        batch_size=spec["batch"],
        max_length=spec["max_length"],
    )
    with Meter(peer.model) as meter:
        scores = score(peer, rows)
    return {**meter.figures(), "batch": spec["batch"], "rows": len(rows), "scores": scores}


if __name__ == "__main__":
    wanted = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
    Path(sys.argv[2]).write_text(json.dumps(main(wanted)), encoding="utf-8")
