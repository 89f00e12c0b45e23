"""Asks vLLM's server for single texts, and ends each of them by the engine's own rules."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Mapping, Sequence
from typing import Any

from harness.engine.padded_generation import Completion
from harness.serving.client import Client
from harness.serving.completions import read
from harness.serving.faults import ServerFault
from harness.serving.vllm_server import VllmServer
from harness.tokens.encode import Encoded
from harness.worker.watchdog import Watchdog

_IDLE_SECONDS = 300.0
"""Seconds without an answer and without processor time after which the server is ended."""


class VllmTexts:
    """Asks for single texts, and ends each of them by the engine's rules."""

    def __init__(
        self, client: Client, tokenizer: Any, eos: frozenset[int], rules: Mapping[str, Any], seed: int
    ) -> None:
        self._client, self._tokenizer, self._eos, self._seed = client, tokenizer, eos, seed
        self._common = {
            "return_token_ids": True,
            "ignore_eos": True,  # ours are more than the tokenizer's own
            "stop_token_ids": sorted(eos),
            "skip_special_tokens": False,  # a stop string may be one
            **rules,
        }

    def ask(self, job: tuple[Encoded, int]) -> Completion:
        """One text.

        Raises:
            ServerFault: The server does not answer, or ends a text before its limit without a reason.
        """
        item, draw = job
        request = item.request
        open_end = request.in_thought or request.thought_tokens > 0  # stop strings do not end a thought
        completion = self._once(item, draw, () if open_end else request.stop)
        if not completion.finished and request.stop:  # a stop string that ends no answer, such as one in a thought
            completion = self._once(item, draw, ())
        if not completion.finished:
            raise ServerFault(
                "answer", f"vLLM ended sample `{request.id}` after {len(completion.ids)} of {request.limit} tokens"
            )
        return completion

    def _once(self, item: Encoded, draw: int, stops: Sequence[str]) -> Completion:
        request = item.request
        body: dict[str, Any] = {"max_tokens": request.limit, "temperature": request.temperature, **self._common}
        if stops:
            body["stop"] = list(stops)
        if request.temperature > 0:
            drawn = hashlib.sha256(f"{self._seed}:{request.sha256}:{draw}".encode()).digest()
            body |= {"seed": int.from_bytes(drawn[:8], "big") >> 1, "top_p": request.top_p}
        answer = read(self._client, self._client.complete(prompt=list(item.prompt), **body), chat=False)
        if answer.ids is None or answer.prompt_tokens not in (None, len(item.prompt)):
            raise ServerFault("answer", "vLLM returns no token ids, or has read another prompt")
        completion = Completion(item, draw, self._tokenizer, self._eos, None)
        for token in answer.ids:
            if not completion.finished:
                completion.add(token)
        return completion


def draws_of(item: Encoded) -> int:
    """Texts to ask for: greedy ones are all the same."""
    return item.request.samples if item.request.temperature > 0 else 1


class Pulse:
    """Called while a server is waited for; kills one that does nothing for minutes, so that requests to it fail."""

    def __init__(self, server: VllmServer) -> None:
        self._server, self._watchdog = server, Watchdog(server.process, _IDLE_SECONDS)
        self._last = time.monotonic()

    def __call__(self) -> None:
        if time.monotonic() - self._last >= self._watchdog.step:
            self._last = time.monotonic()
            if self._watchdog.hangs():
                self._server.kill()

    def heard(self) -> None:
        """The server has answered."""
        self._watchdog.heard()
