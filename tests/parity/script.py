"""Scripted answers: right, nearly right and wrong ones, so that metrics have differences to measure.

Both sides get the same answers: texts are chosen by prompt, likelihoods are computed from a hash.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any

from ours import Prepared

from harness.api import Generate
from harness.jobs import Item, Raw


def script(case: Prepared) -> list[Raw]:
    """Makes an answer for each prompt."""
    raws = []
    for index, item in enumerate(case.items):
        request = item.request
        if request.mode == "generate":
            raws.append(Raw(index, 0, False, 1, texts=(_text(index, item),)))
            continue
        contexts = request.contexts * len(request.continuations) if len(request.contexts) == 1 else request.contexts
        pairs = list(zip(contexts, request.continuations, strict=True))
        chances = tuple(loglikelihood(*pair) for pair in pairs)
        raws.append(
            Raw(index, 0, False, 1, loglikelihoods=chances, is_greedy=tuple(chance > -5.0 for chance in chances))
        )
    return raws


def loglikelihood(context: str, continuation: str) -> float:
    """A number that depends on every character: between -20 and 0, lower for long texts."""
    digest = hashlib.sha256(f"{context}\x00{continuation}".encode()).digest()
    return -20.0 * int.from_bytes(digest[:6]) / 2**48 * max(1.0, len(continuation) / 20)


def _text(index: int, item: Item) -> str:
    assert isinstance(item.sample, Generate)
    target = item.sample.target if isinstance(item.sample.target, str) else item.sample.target[0]
    versions = (
        target,
        target[:-1],
        target.upper(),
        f" {target} ",
        f"Sure!\n{target}\nThe answer is {target[-1:]}.",
        "",
        f"**{target.splitlines()[0] if target else '(B)'}** (C) the answer is (A), #### 1,000",
        "    pass\n",
    )
    return versions[index % len(versions)]


def scripted_peer(case: Prepared, raws: Sequence[Raw]) -> Any:
    """A model of lm-evaluation-harness that recites the script."""
    from lm_eval.api.model import LM

    texts: Mapping[str, str] = {
        item.request.contexts[0]: raw.texts[0] for item, raw in zip(case.items, raws, strict=True) if raw.texts
    }

    class Scripted(LM):
        def loglikelihood(self, requests: Any) -> list[tuple[float, bool]]:
            chances = [loglikelihood(*each.args) for each in requests]
            return [(chance, chance > -5.0) for chance in chances]

        def loglikelihood_rolling(self, requests: Any) -> list[float]:
            return [loglikelihood("", *each.args) for each in requests]

        def generate_until(self, requests: Any) -> list[str]:
            return [texts.get(each.args[0], "(a prompt that ours does not have)") for each in requests]

    return Scripted()
