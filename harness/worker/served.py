"""Scores variants on a server, sample by sample and several at once, and probes servers at the start."""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from harness.data.gguf import is_gguf
from harness.engine.padded_generation import Completion
from harness.engine.padded_scoring import summed
from harness.errors import UserError
from harness.jobs import (
    Advanced,
    Base,
    Noted,
    Packed,
    ProbeJob,
    Raw,
    Request,
    Resumed,
    ScoreJob,
    ScoreVariant,
    TaskRequests,
    VariantFailed,
    VariantLoading,
)
from harness.prompts.thoughts import split_thought, thought_state
from harness.serving.asked import WRITTEN, Asked, TrialPrompt
from harness.serving.capabilities import Capabilities, ServerAnswer
from harness.serving.client import Client
from harness.serving.completions import check_prompt, complete
from harness.serving.faults import ServerFault
from harness.serving.likelihoods import Value, of_next, of_prompt
from harness.serving.parallel import AT_ONCE, in_parallel
from harness.serving.probe import probe
from harness.storage import read_json
from harness.tokens.description import description_of
from harness.tokens.encode import Encoded, Encoder
from harness.tokens.tokenizer import context_tokens, load_header, load_tokenizer
from harness.worker.child import Send
from harness.worker.fit import refuse_cut

_NO_LIMIT = 1 << 30
_ROOM = 2
"""Tokens that a scored text leaves free: the last one is in the prompt here, and servers write at least one more."""
_PLAIN = ("The capital of France is Paris, and the capital of Japan is", "one two three four five six")
"""Prompts of the probe, besides one of the tasks."""
_SHORT = 2000
"""Characters of the longest prompt of a task with which the probe tries everything."""


def probe_server(job: ProbeJob, send: Send) -> Capabilities:
    """Finds out what a served model can do for the tasks of a run.

    Args:
        job: The job.
        send: Receives events while a slow server is waited for, so that this child does not seem to hang.

    Raises:
        ServerFault: The server does not answer, or in a way that no task can use.
        UserError: The tokenizer cannot be read, or does not fit.
    """
    assert job.base.served is not None
    client = Client.from_environment(job.base.served)
    asked = _asked(job)
    ((_, found),) = in_parallel(lambda each: probe(client, each), [asked], at_once=1, beat=lambda: send(Advanced(0, 1)))
    return found


def _asked(job: ProbeJob) -> Asked:
    """Summarises the requests of a run: a short prompt, the longest one that fits into the context, and the kinds.

    Raises:
        UserError: None fits, or messages and plain prompts would be sent to a server without a tokenizer.
    """
    served = job.base.served
    assert served is not None
    coder = _Coder(job.base, job.context, job.numerics)
    requests = [request for task in job.tasks for request in task.requests]
    generated = [request for request in requests if request.mode == "generate"]
    templated = any(request.templated for request in requests)
    chat = coder.tokenizer is None and templated
    if chat and not all(request.templated for request in requests):
        raise UserError(
            f"`{served.url}#{served.name}`: some prompts use the chat template and others do not, and without a tokenizer a server"
            " is asked in one way",
            hint="name the model's tokenizer with `--tokenizer`, or compare them in two runs",
        )
    by_length = sorted(requests, key=lambda request: len(_text_of(request)))
    shortest = next(each for each in by_length if each.templated == templated)
    prompts = (coder.prompt(_text_of(each), templated=each.templated) for each in (shortest, *reversed(by_length)))
    fitting = list(itertools.islice((prompt for prompt in prompts if prompt is not None), 2))
    fitting = fitting or [
        prompt for text in _PLAIN if (prompt := coder.prompt(text))
    ]  # those of the tasks are cut, or refused
    if not fitting:
        raise UserError(
            f"no prompt fits into the context of `{served.url}#{served.name}`",
            hint="give fewer solved examples (`--num-fewshot`), or start the server with a longer context",
        )
    short, longest = fitting[0], fitting[-1]
    roomy = short.ids is None or len(short.ids) + WRITTEN < coder.window  # what is written is scored, too
    own = [short] if short.text and len(short.text) <= _SHORT and roomy else []
    others = [] if templated else [prompt for text in _PLAIN if (prompt := coder.prompt(text))]
    return Asked(
        prompts=tuple([*own, *others]) or (longest,),
        longest=longest,
        chat=chat,
        templated=templated,
        likelihoods=any(request.mode != "generate" for request in requests),
        sampled=any(request.temperature > 0 for request in generated),
        stops=max((len(request.stop) for request in generated), default=0),
        end_ids=coder.end_ids,
        context=job.context,
        decode=coder.decode if coder.tokenizer is not None else None,
    )


def score_served(job: ScoreJob, send: Send, further: Callable[[], ScoreJob | None] = lambda: None) -> None:
    """Scores variants on a server, and sends each sample when it is there.

    Args:
        job: The job.
        send: Receives the events.
        further: Called after a job with `more`.
    """
    following: ScoreJob | None = job
    coder: _Coder | None = None
    while following is not None:
        for variant in following.variants:
            base, capabilities = variant.recipe.base, variant.capabilities
            assert base.served is not None and capabilities is not None
            coder = coder or _Coder(base, capabilities.context, following.numerics)
            send(VariantLoading(variant.name))
            _ServedScorer(following, variant, coder, capabilities, Client.from_environment(base.served)).score(send)
        following = further() if following.more else None


class _Coder:
    """Makes token ids of requests, if the tokenizer of the served model is known."""

    def __init__(self, base: Base, context: int | None, numerics: str) -> None:
        self.tokenizer: Any = None
        self.end_ids: tuple[int, ...] = ()
        if base.folder.exists() and (base.folder.is_dir() or is_gguf(base.folder)):
            self.tokenizer = load_tokenizer(base.folder, trust_remote_code=base.trust_remote_code)
            self.end_ids = description_of(base.folder, trust_remote_code=base.trust_remote_code).stops
        self.room = min(context or _NO_LIMIT, _own_context(base.folder) or _NO_LIMIT)
        self.window = max(1, self.room - _ROOM)
        self._writes = Encoder(self.tokenizer, self.room, numerics=numerics) if self.tokenizer else None
        self._scores = Encoder(self.tokenizer, self.window, numerics=numerics) if self.tokenizer else None

    def encode(self, task: TaskRequests) -> Sequence[Encoded]:
        """The requests of a task, in order; without a tokenizer, without ids."""
        writes = any(request.mode == "generate" for request in task.requests)
        encoder = self._writes if writes else self._scores
        if encoder is not None:
            return encoder.encode(task)
        return [Encoded(index, each, (), (), 0, False) for index, each in enumerate(task.requests, task.first)]

    def decode(self, ids: Sequence[int]) -> tuple[str, ...]:
        """The texts of ids, without and with special tokens; none if the tokenizer does not have the ids."""
        try:
            return tuple(self.tokenizer.decode(list(ids), skip_special_tokens=skip) for skip in (True, False))
        except (OverflowError, IndexError, KeyError, TypeError):
            return ()

    def prompt(self, text: str, *, templated: bool = False) -> TrialPrompt | None:
        """A text as a prompt; None if it does not fit into the context."""
        if self._writes is None:
            return TrialPrompt(text)
        request = Request("", "generate", (text,), max_tokens=1, templated=templated)
        item = self._writes.encode(TaskRequests("", [request]))[0]
        return None if item.truncated else TrialPrompt(text, item.prompt)


class _ServedScorer:
    """Scores one variant."""

    def __init__(
        self, job: ScoreJob, variant: ScoreVariant, coder: _Coder, capabilities: Capabilities, client: Client
    ) -> None:
        self._job, self._variant, self._coder = job, variant, coder
        self._can, self._client = capabilities, client

    def score(self, send: Send) -> None:
        """Scores all tasks; a fault of the server fails the variant, and finished samples are kept."""
        name = self._variant.name
        work = [(task, self._coder.encode(task)) for task in self._variant.tasks]
        for task, encoded in work:
            if not self._job.allow_cut:
                refuse_cut(name, task, encoded, self._coder.room)
            if any(
                len(row.ids) >= self._coder.window
                for item in encoded
                for row in item.rows
                if item.request.mode == "text"
            ):
                note = f"{task.task}: windows of {self._coder.window} tokens, {_ROOM} less than the context, which a server needs"
                send(Noted(name, note))
        for task, encoded in work:
            try:
                self._score_task(task, encoded, send)
            except ServerFault as fault:
                self._client.close()
                send(VariantFailed(name, fault.sentence))
                return

    def _score_task(self, task: TaskRequests, encoded: Sequence[Encoded], send: Send) -> None:
        name, finished = self._variant.name, set(task.done)
        todo = [item for item in encoded if item.index not in finished]
        done, total = [task.first + len(finished)], task.first + len(encoded)
        send(Resumed(name, task.task, done[0], task.first))

        def beat() -> None:  # also tells the watchdog that this child waits, and does not hang
            send(Advanced(done[0], total))

        beat()
        for _, raw in in_parallel(self._run, todo, at_once=self._job.max_rows or AT_ONCE, beat=beat):
            done[0] += 1
            send(Packed(name, task.task, (raw,)))
        beat()

    def _run(self, item: Encoded) -> Raw:
        return self._texts(item) if item.request.mode == "generate" else self._likelihoods(item)

    def _likelihoods(self, item: Encoded) -> Raw:
        field = self._can.likelihoods
        assert field is not None, "refused before"
        spans = [(row, span) for row in item.rows for span in row.spans]
        found: dict[int, list[Value]] = {}
        letters: dict[tuple[int, ...], list[int]] = {}
        for number, (row, span) in enumerate(spans):
            before = row.ids[: span.start + 1]
            if len(span.targets) == 1 and self._can.letters:
                letters.setdefault(before, []).append(number)
            else:
                found[number] = of_prompt(self._client, field, [*before, *span.targets], len(before))
        for before, numbers in letters.items():
            values = of_next(self._client, before, [spans[number][1].targets[0] for number in numbers])
            found |= {number: [value] for number, value in zip(numbers, values, strict=True)}
        totals = [sum(value for value, _ in found[number]) for number in range(len(spans))]
        greedy = [all(is_greedy for _, is_greedy in found[number]) for number in range(len(spans))]
        return summed(item, [span for _, span in spans], totals, greedy)

    def _texts(self, item: Encoded) -> Raw:
        request = item.request
        if self._can.way == "text" and item.truncated:
            raise ServerFault(
                "length",
                f"`{self._client.served.url}`: sample `{request.id}` has {item.prompt_tokens} tokens, and the server takes"
                f" {self._coder.room}; a prompt that is sent as text cannot be cut",
                "give fewer solved examples (`--num-fewshot`)",
            )
        draws = request.samples if request.temperature > 0 else 1
        raws = [self._text(item, number) for number in range(draws)] * (request.samples // draws)
        return replace(
            raws[0],
            texts=tuple(text for raw in raws for text in raw.texts),
            tokens=sum(raw.tokens for raw in raws),
            thought_tokens=sum(raw.thought_tokens for raw in raws),
            shortened=any(raw.shortened for raw in raws),
        )

    def _text(self, item: Encoded, number: int) -> Raw:
        request = item.request
        # stop strings do not end a thought, whose marks may be special tokens, which are in no text
        may_think = request.in_thought or request.thought_tokens > 0 or (request.templated and self._can.returns_ids)
        stops = [] if may_think else list(request.stop if self._can.stops is None else request.stop[: self._can.stops])
        answer = self._ask(item, number, stops)
        if stops and not answer.at_limit and thought_state(answer.text, request.thought) == "open":
            answer = self._ask(item, number, [])
        if answer.ids is not None and self._coder.tokenizer is not None:
            return self._by_ids(item, number, answer)
        thought, rest = split_thought(answer.text, request)
        for stop in request.stop if rest is not None else ():
            rest = (rest or "").split(stop)[0]
        short = answer.at_limit and answer.tokens is not None and answer.tokens < request.limit
        return Raw(
            item.index,
            item.prompt_tokens or answer.prompt_tokens or 0,
            item.truncated,
            answer.tokens or 0,
            texts=(thought + (rest or ""),),
            shortened=short or (item.limited and answer.at_limit),
        )

    def _ask(self, item: Encoded, number: int, stops: Sequence[str]) -> ServerAnswer:
        request, can = item.request, self._can
        more: dict[str, Any] = {"stop": stops} if stops else {}
        if "return_token_ids" in can.fields:
            more["return_token_ids"] = True
        if "stop_token_ids" in can.fields:
            more["stop_token_ids"] = list(self._coder.end_ids)
        if request.temperature > 0:
            drawn = hashlib.sha256(f"{self._job.seed}:{request.sha256}:{number}".encode()).digest()
            more |= {
                "temperature": request.temperature,
                "top_p": request.top_p,
                "seed": int.from_bytes(drawn[:4], "big") >> 1,
            }
            more |= {name: 0 for name in ("top_k", "min_p") if name in can.fields}
        prompt = item.prompt if can.way == "ids" else request.contexts[0]
        answer = complete(self._client, can.way, prompt, request.limit, can.limit_field, marks=request.thought, **more)
        if can.way != "chat":
            check_prompt(self._client, can, answer, len(item.prompt))
        return answer

    def _by_ids(self, item: Encoded, number: int, answer: ServerAnswer) -> Raw:
        """The text as the engine here makes it of the same ids: thoughts, stop strings and limits by the same rules."""
        if not all(0 <= token < len(self._coder.tokenizer) for token in answer.ids or ()):
            raise ServerFault(
                "answer",
                f"`{self._client.served.url}` writes token ids that the tokenizer does not have: it is another model's",
                "give the served model's own tokenizer",
            )
        completion = Completion(item, number, self._coder.tokenizer, frozenset(self._coder.end_ids), None)
        for token in answer.ids or ():
            if not completion.finished:
                completion.add(token)
        cut = not completion.finished and answer.at_limit
        return Raw(
            item.index,
            item.prompt_tokens,
            item.truncated,
            len(completion.ids),
            texts=(completion.text(),),
            shortened=cut or (item.limited and completion.at_limit),
            thought_tokens=completion.answer_from,
        )


def _own_context(folder: Path) -> int | None:
    """Tokens of the context that a configuration beside the tokenizer declares, if there is one."""
    if is_gguf(folder):
        return context_tokens(load_header(folder))
    try:
        config = read_json(folder / "config.json")
    except (OSError, ValueError):
        return None
    if not isinstance(config, dict):
        return None
    inner = config.get("text_config")
    return context_tokens(config | (inner if isinstance(inner, dict) else {}))


def _text_of(request: Request) -> str:
    """The prompt of a request, or the text that it scores."""
    return request.contexts[0] or (request.continuations or ("",))[0]
