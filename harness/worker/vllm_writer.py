"""Has vLLM generate the texts of the variants that it takes; what it cannot take, or does not finish, is left to our engine.

vLLM receives token ids and returns token ids, and the rules for the end of a text are then applied to these ids by the engine's
own code: end tokens, stop strings, thoughts and limits hold to the token. Its log-probabilities are not used for scores: it
computes those of a prompt without its prefix cache, five times as slowly as our trees do.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from typing import Any

from harness.engine.generation_rules import GenerationRules
from harness.engine.padded_generation import Completion, eos_ids, finished_raw
from harness.engine.self_check import writer_fault
from harness.engine.slot_generation import SLOTS
from harness.jobs import Advanced, Noted, Packed, Resumed, ScoreJob, ScoreVariant, TaskRequests
from harness.models.load import count_parameters, model_bytes
from harness.models.measure import free_bytes
from harness.serving.client import Client
from harness.serving.completions import read
from harness.serving.faults import ServerFault
from harness.serving.parallel import in_parallel
from harness.serving.vllm_limits import Lora, NotTaken, lora_of, refuse_base, refuse_rules
from harness.serving.vllm_plan import (
    OVERHEAD_BYTES,
    START_SECONDS,
    GenerationWork,
    cache_bytes,
    seconds_saved,
    token_bytes,
    work_of,
)
from harness.serving.vllm_server import VllmFault, VllmServer, VllmSettings
from harness.tokens.encode import Encoded
from harness.worker.child import Send, memory_bytes, threads
from harness.worker.vllm_texts import Pulse, VllmTexts, draws_of

_PROBED = 8
"""Tokens that are compared with the model's own log-probabilities before a variant is left to vLLM."""
_LONGER = 2
"""Times as long as those of the first job may texts of further jobs be."""


class VllmWriter:
    """The vLLM server of one base, started when the first text is asked of it.

    Args:
        job: The first job of the base.
        tokenizer: Of the base.
    """

    def __init__(self, job: ScoreJob, tokenizer: Any) -> None:
        assert job.vllm is not None
        self._vllm, self._tokenizer = job.vllm, tokenizer
        self._base = job.variants[0].recipe.base
        self._seed = job.seed
        self._rows = job.max_rows or SLOTS.get(self._base.device.split(":")[0], SLOTS["cpu"])
        self._always = job.vllm_always
        self._server: VllmServer | None = None
        self._settings: VllmSettings | None = None
        self._names: dict[Lora | None, str | None] = {None: None}
        """The names of adapters at the server; None is the base."""
        self._off: str | None = None
        """Why vLLM generates nothing more."""
        self._said: set[tuple[str, str]] = set()
        self._faults: dict[str | None, str | None] = {}
        """Findings of the comparison with the model's own log-probabilities, by name."""

    def plan(self, job: ScoreJob, model: Any, room: int, encode: Callable[[TaskRequests], Sequence[Encoded]]) -> None:
        """Decides for a job whether vLLM is worth its start, and with which lengths and adapters it starts.

        Args:
            job: The job. If more follow, their texts may be twice as long.
            model: The base.
            room: Tokens of its context.
            encode: Encodes the requests of a task.
        """
        if self._server is not None or self._off is not None:
            return
        taken: dict[str, Lora | None] = {}
        for variant in job.variants:
            try:
                taken[variant.name] = self._lora(variant, model)
            except NotTaken:
                continue
        tasks = [
            task for variant in job.variants if variant.name in taken for task in variant.tasks if _generates(task)
        ]
        work = work_of([_missing(task, encode(task)) for task in tasks])
        if not work.texts:
            return
        if job.more:
            work = work._replace(longest=max(work.longest, min(room, _LONGER * work.longest)))
        if not self._always and (reason := self._not_worth_it(work, model)):
            self._off = f"{self._vllm} was not used: {reason} (`--writer vllm` uses it nevertheless)"
            return
        self._settings = self._fitting(work, model, [lora for lora in taken.values() if lora])

    def _not_worth_it(self, work: GenerationWork, model: Any) -> str | None:
        """Why `auto` does not start vLLM; None if it does."""
        if not self._base.device.startswith("cpu"):
            return "what it saves on a GPU has not been measured"
        if self._base.dtype != "float32":
            return f"in {self._base.dtype} its texts have not been shown to be as near to float32's as those of our own engine"
        saved = seconds_saved(work, *_sizes(model))
        if saved > START_SECONDS:
            return None
        return (
            f"it would save about {saved:.0f} s of processor time on what is left to generate, and its start takes"
            f" {START_SECONDS:.0f} s"
        )

    def _fitting(self, work: GenerationWork, model: Any, loras: Sequence[Lora]) -> VllmSettings | None:
        """Settings with a cache that fits into the memory beside the scorer; without such, vLLM is off."""
        free, weights = free_bytes(model.device), model_bytes(model)
        each = token_bytes(model.config.get_text_config(), model.dtype.itemsize)
        cache = cache_bytes(work, self._rows, each, free, weights)
        if cache is None:
            self._off = (
                f"{self._vllm} was not used: there is too little memory for it beside the scorer ({free / 1e9:.1f} GB are free, its weights and"
                " processes take"
                f" {(weights + OVERHEAD_BYTES) / 1e9:.1f} GB, and its cache needs room for a text of {work.longest} tokens)"
            )
            return None
        names = {f"lora{number}": lora for number, lora in enumerate(dict.fromkeys(loras))}
        self._names |= {lora: name for name, lora in names.items()}
        on_gpu = not self._base.device.startswith("cpu")
        return VllmSettings(
            model=self._base.folder.absolute(),
            loras=names,
            dtype=self._base.dtype,
            length=work.longest,
            rows=max(1, min(self._rows, work.texts)),
            cache_bytes=cache,
            device=self._base.device,
            memory_share=min(0.98, (weights + OVERHEAD_BYTES + cache) / memory_bytes(self._base.device))
            if on_gpu
            else None,
            threads=threads(),
            seed=self._seed,
        )

    def write(
        self,
        variant: ScoreVariant,
        task: TaskRequests,
        encoded: Sequence[Encoded],
        model: Any,
        send: Send,
    ) -> set[int] | None:
        """Generates the texts of a task that are not on disk yet, as far as vLLM takes the variant and lives.

        Args:
            variant: The variant.
            task: The task.
            encoded: All of its requests.
            model: The variant's model.
            send: Receives the events.

        Returns:
            The indices of all samples that are on disk then, in no order of packs; None if it has not begun.
        """
        if not _generates(task):
            return None
        todo = _missing(task, encoded)
        if not todo:
            return None
        try:
            lora = self._lora(variant, model)
        except NotTaken as reason:
            self._note(send, variant.name, f"generated by our own engine: {reason}", own=True)
            return None
        client = self._client(variant, lora, todo, model, send)
        if client is None:
            return None
        return set(task.done) | self._run(client, variant.name, task, todo, model, send)

    @property
    def process(self) -> int | None:
        """The server's process, if it runs."""
        return None if self._server is None else self._server.process

    def close(self) -> None:
        """Ends the server."""
        if self._server is not None:
            self._server.close()

    def _lora(self, variant: ScoreVariant, model: Any) -> Lora | None:
        """The adapter of a variant; raises `NotTaken`."""
        refuse_base(variant.recipe, self._vllm)
        refuse_rules(GenerationRules(model).applied)
        return lora_of(variant.recipe)

    def _client(
        self, variant: ScoreVariant, lora: Lora | None, todo: Sequence[Encoded], model: Any, send: Send
    ) -> Client | None:
        """A client of the variant at the server, which is started if need be; None, with a note, if there is none."""
        self.start()
        if self._off is not None:
            self._note(send, variant.name, self._off)
        if self._off is not None or self._server is None or self._settings is None:
            return None
        longest = max(len(item.prompt) + item.request.limit for item in todo)
        if lora not in self._names or longest > self._settings.length:
            why = "vLLM was started for other adapters, or for shorter texts"
            self._note(send, variant.name, f"generated by our own engine: {why}", own=True)
            return None
        name = self._names[lora]
        client = self._server.client(name)
        if name not in self._faults:
            try:
                self._faults[name] = self._fault(client, min(todo, key=lambda item: len(item.prompt)), model)
            except ServerFault as fault:
                self._lost(fault, variant.name, send)
                return None
        if (found := self._faults[name]) is not None:
            why = f"vLLM does not give the model's own outputs: {found}"
            self._note(send, variant.name, f"generated by our own engine: {why}", own=True)
            return None
        return client

    def start(self) -> None:
        """Starts the server, unless it has been started, is not worth it, or has failed."""
        if self._server is not None or self._off is not None or self._settings is None:
            return
        try:
            self._server = server = VllmServer(self._vllm, self._settings)
            server.wait(Pulse(server))
        except VllmFault as fault:
            self._server, self._off = None, f"{self._vllm} was not used: {fault}"

    def _fault(self, client: Client, item: Encoded, model: Any) -> str | None:
        """Compares a few tokens with the model's own log-probabilities."""
        body = {"max_tokens": min(_PROBED, item.request.limit), "temperature": 0, "logprobs": 0}
        answer = client.complete(prompt=list(item.prompt), ignore_eos=True, return_token_ids=True, **body)
        got = read(client, answer, chat=False)
        if not got.ids or len(got.logprobs) != len(got.ids):
            return "it returns no token ids, or no log-probabilities of them"
        return writer_fault(model, item.prompt, got.ids, got.logprobs)

    def _run(
        self, client: Client, variant: str, task: TaskRequests, todo: Sequence[Encoded], model: Any, send: Send
    ) -> set[int]:
        """Asks for all texts, sends each sample when all of its texts are there, and returns the indices of those sent."""
        sent: set[int] = set()
        done = task.first + len(task.done)
        total = task.first + len(task.requests)
        send(Resumed(variant, task.task, done, task.first))
        send(Advanced(done, total))
        rules = GenerationRules(model)
        for note in rules.notes([item.request for item in todo]):
            self._note(send, variant, note)
        asker = VllmTexts(client, self._tokenizer, eos_ids(model, self._tokenizer), rules.applied, self._seed)
        ordered = sorted(
            todo, key=lambda item: (item.prompt, item.index)
        )  # neighbours share what vLLM has in its cache
        jobs = [(item, draw) for item in ordered for draw in range(draws_of(item))]
        ready: dict[int, list[Completion]] = defaultdict(list)
        assert self._server is not None
        pulse = Pulse(self._server)
        at_once = max(1, min(self._rows, len(jobs)))
        try:
            for (item, _), completion in in_parallel(asker.ask, jobs, at_once=at_once, beat=pulse):
                pulse.heard()
                got = ready[item.index]
                got.append(completion)
                if len(got) == draws_of(item):
                    got.sort(key=lambda each: each.sample)
                    raw = finished_raw(got * (item.request.samples // len(got)))
                    send(Packed(variant, task.task, (raw,), "vllm"))
                    sent.add(item.index)
                    send(Advanced(done + len(sent), total))
        except ServerFault as fault:
            self._lost(fault, variant, send)
        return sent

    def _lost(self, fault: ServerFault, variant: str, send: Send) -> None:
        """Gives the server up: our engine generates everything from here on."""
        assert self._server is not None
        dead = not self._server.alive
        said = self._server.last_error() if dead else fault.message
        self._server.close()
        self._off = f"the rest was generated by our own engine: vLLM {'has ended' if dead else 'failed'} ({said})"
        self._note(send, variant, self._off)

    def _note(self, send: Send, variant: str, note: str, *, own: bool = False) -> None:
        """Sends a note once: for each variant if it is about the variant's own weights, else for all together."""
        place = (variant if own else "", note)
        if place not in self._said:
            self._said.add(place)
            send(Noted(variant, note))


def _sizes(model: Any) -> tuple[int, int]:
    """Parameters of the layers, and of the head, which only generated tokens pass."""
    head = model.get_output_embeddings()
    table = 0 if head is None else int(head.weight.numel())
    tied = head is not None and head.weight is model.get_input_embeddings().weight
    return count_parameters(model)[0] - table * (1 if tied else 2), table


def _missing(task: TaskRequests, encoded: Sequence[Encoded]) -> list[Encoded]:
    """The requests of a task whose results are not on disk."""
    done = set(task.done)
    return [item for item in encoded if item.index not in done]


def _generates(task: TaskRequests) -> bool:
    return any(request.mode == "generate" for request in task.requests)
