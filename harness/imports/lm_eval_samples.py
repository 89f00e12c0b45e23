"""The lines of lm-evaluation-harness's samples files: the request as our engine would ask it, and the texts."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from harness.imports.record import SampleText
from harness.jobs import Request


def _arguments(row: Mapping[str, Any]) -> list[list[Any]]:
    """The arguments of the requests of a sample, in order."""
    found = row.get("arguments")
    if not isinstance(found, dict) or not all(isinstance(each, dict) for each in found.values()):
        return []
    return [
        [given[key] for key in sorted(given)] for _, given in sorted(found.items(), key=lambda each: _place(each[0]))
    ]


def _place(key: str) -> int:
    last = key.rsplit("_", 1)[-1]
    return int(last) if last.isdecimal() and len(last) < 8 else 0


def request_of(row: Mapping[str, Any], templated: bool) -> Request | None:
    """The sample as our own engine would ask it, for pairing with our own runs; None if it has no such form."""
    found = _arguments(row)
    if not found or any(len(each) != 2 or not isinstance(each[0], str) for each in found):
        return None
    if all(isinstance(each[1], str) for each in found):
        contexts = tuple(each[0] for each in found)
        one = contexts[:1] if len(set(contexts)) == 1 else contexts
        return Request("", "choose", one, tuple(each[1] for each in found), templated=templated)
    options = found[0][1]
    if len(found) != 1 or not isinstance(options, dict) or options.get("do_sample"):
        return None
    until, most = options.get("until", []), options.get("max_gen_toks", 256)
    stop = [until] if isinstance(until, str) else until
    if not isinstance(stop, list) or not all(isinstance(each, str) for each in stop) or not isinstance(most, int):
        return None
    return Request("", "generate", (found[0][0],), stop=tuple(stop), max_tokens=most, templated=templated)


def text_of(row: Mapping[str, Any]) -> SampleText:
    """The prompt, target and answer of a sample; of choices, the texts of the right and of the likeliest one."""
    found, answers = _arguments(row), row.get("filtered_resps")
    prompt = next((each[0] for each in found if each and isinstance(each[0], str)), None)
    target = row.get("target")
    choices = [each[1] for each in found if len(each) > 1 and isinstance(each[1], str)]
    answer = ""
    if isinstance(answers, list) and answers:
        answer = str(answers[0])
        likelihoods = [_likelihood(each) for each in answers]
        if len(choices) == len(answers) > 1 and None not in likelihoods:
            likely = [each for each in likelihoods if each is not None]
            answer = choices[likely.index(max(likely))]
            if isinstance(target, str) and target.isdecimal() and len(target) < 8 and int(target) < len(choices):
                target = choices[int(target)]
    return SampleText(str(row.get("doc_id"))[:80], prompt, None if target is None else str(target), answer)


def _likelihood(answer: Any) -> float | None:
    try:
        return float(answer[0]) if isinstance(answer, list) else None
    except (ValueError, TypeError, IndexError):
        return None
