"""Scores variants that share a base in the child process, job after job as long as others follow. Imports torch."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import torch

from harness.engine.finite import NotFinite
from harness.engine.merging import merge_for_scoring
from harness.engine.padded_scoring import needed_logits
from harness.engine.prefix_cache import learns_a_prompt
from harness.engine.reward_choices import RewardRunner
from harness.engine.runner import Runner
from harness.errors import UserError
from harness.jobs import (
    Advanced,
    Noted,
    Packed,
    Recipe,
    Resumed,
    ScoreJob,
    ScoreVariant,
    TaskRequests,
    VariantFailed,
    VariantLoading,
    VariantStarted,
)
from harness.models.causality import refuse_if_not_causal
from harness.models.load import Resident, context_length, count_parameters, load_config, method_function, model_bytes
from harness.models.reward_head import has_reward_head
from harness.tokens.encode import Encoded, Encoder
from harness.tokens.packs import Pack, packs_done
from harness.tokens.tokenizer import load_tokenizer
from harness.worker.child import Send, memory_bytes, threads
from harness.worker.fit import Encode, check_requests
from harness.worker.vllm_writer import VllmWriter

FurtherJob = Callable[[], ScoreJob | None]
"""Reports that a job has ended, and returns the next one of the same base; None if there is none."""
_TRIED, _PROBED = 8, 64
"""Numbers of requests to search and of tokens to take for the probe that shows whether an adapter changes anything."""


def score(job: ScoreJob, send: Send, further: FurtherJob = lambda: None) -> None:
    """Scores variants that share a base, one after the other, and sends each pack when it is finished.

    Args:
        job: The job.
        send: Receives the events.
        further: Called after a job with `more`; the base remains in memory for the next one.
    """
    torch.set_num_threads(threads())
    scorer = _Scorer(job)
    following: ScoreJob | None = job
    try:
        while following is not None:
            scorer.score(following, send)
            following = further() if following.more else None
    finally:
        scorer.close()


class _Scorer:
    """A base in memory that scores its variants.

    Args:
        job: The first job.
    """

    def __init__(self, job: ScoreJob) -> None:
        self._base = base = job.variants[0].recipe.base
        self._tokenizer = load_tokenizer(base.folder, trust_remote_code=base.trust_remote_code)
        self._config = load_config(base)
        self._resident = Resident(base, method_function)
        self._loaded = False
        self._probe = torch.empty(0)
        self._untouched: torch.Tensor | None = None
        """Logits of the bare base after the probe."""
        self._faults: dict[Recipe, dict[str, str | None]] = {}
        """Findings of the engine's self-checks, so that each variant is checked once."""
        self._writer = VllmWriter(job, self._tokenizer) if job.vllm is not None else None

    def close(self) -> None:
        """Ends vLLM's server, if there is one."""
        if self._writer is not None:
            self._writer.close()

    def score(self, job: ScoreJob, send: Send) -> None:
        """Scores the variants of one job."""
        encode = _cache_encodings(lambda task, room: Encoder(self._tokenizer, room, numerics=job.numerics).encode(task))
        notes = check_requests(job, self._config, self._tokenizer, encode)  # before weights are loaded
        if not self._loaded:
            refuse_if_not_causal(self._resident.bare)
            notes += self._resident.bare.loading_notes
            self._loaded = True
        untouched = self._untouched
        if untouched is None and any(variant.recipe.adapter for variant in job.variants):
            encoder = Encoder(self._tokenizer, context_length(self._resident.bare, self._tokenizer))
            self._probe = _probe_ids(encoder, job.variants[0].tasks[:1])
            self._untouched = untouched = _logits(self._resident.bare, self._probe, job.numerics)
        plans: dict[Any, list[Pack]] = {}
        if self._writer is not None:
            room = context_length(self._resident.bare, self._tokenizer)
            self._writer.plan(job, self._resident.bare, room, lambda task: encode(task, room))
        for variant in job.variants:
            send(VariantLoading(variant.name))
            try:
                model = self._resident.attach(variant.recipe)
            except UserError as error:  # such as an adapter of another base: the others can be scored
                send(VariantFailed(variant.name, error.sentence))
                continue
            if (
                untouched is not None
                and variant.recipe.adapter
                and _logits(model, self._probe, job.numerics).equal(untouched)
            ):
                send(VariantFailed(variant.name, "the adapter changes nothing: its outputs equal the base's"))
                self._resident.detach()
                continue
            send(VariantStarted(variant.name, model_bytes(model), count_parameters(model)[0]))
            while notes:  # of the base and the samples, so once
                send(Noted(variant.name, notes.pop(0)))
            self._score_variant(job, variant, model, encode, plans, send)
            del model
            self._resident.detach()
        if job.more and self._base.device.startswith("cuda"):
            torch.cuda.empty_cache()  # for other bases

    def _score_variant(
        self,
        job: ScoreJob,
        variant: ScoreVariant,
        model: Any,
        encode: Encode,
        plans: dict[Any, list[Pack]],
        send: Send,
    ) -> None:
        # all memory, not the free part: whether a model is merged must not depend on what else runs
        roomy = 4 * model_bytes(model) < memory_bytes(self._base.device)
        unmerge = merge_for_scoring(model) if roomy and job.engine == "auto" and job.numerics == "fp32" else None
        runner = (RewardRunner if has_reward_head(model) else Runner)(
            model,
            self._tokenizer,
            engine="plain" if variant.recipe.base.reader == "llamacpp" else job.engine,
            numerics=job.numerics,
            token_budget=job.token_budget,
            max_rows=job.max_rows,
            seed=job.seed,
            faults=self._faults.setdefault(variant.recipe, {}),
        )
        room = context_length(model, self._tokenizer)
        try:
            for task in variant.tasks:
                encoded = encode(task, room)
                written = self._writer.write(variant, task, encoded, model, send) if self._writer else None
                if written is not None or task.by_vllm:
                    _score_rest(runner, variant.name, task, encoded, written, send)
                    continue
                plan = (id(task.requests), runner.way(encoded), room)
                plans[plan] = plans.get(plan) or runner.plan(encoded)
                _score_task(runner, variant.name, task, plans[plan], send)
        except NotFinite as error:
            send(VariantFailed(variant.name, f"the outputs of `{variant.name}` are not numbers: {error}"))
        if unmerge is not None:
            unmerge()


def _score_rest(
    runner: Runner,
    variant: str,
    task: TaskRequests,
    encoded: Sequence[Encoded],
    written: set[int] | None,
    send: Send,
) -> None:
    """Runs the requests of a task that vLLM has left, in packs of their own.

    Args:
        runner: Runs packs.
        variant: Name of the variant.
        task: The task.
        encoded: All of its requests.
        written: Indices of the samples on disk, if vLLM has just generated some; None: it has not, but an earlier job did.
        send: Receives the events.
    """
    finished = set(task.done) if written is None else written
    done, total = task.first + len(finished), task.first + len(task.requests)
    if written is None:
        send(Resumed(variant, task.task, done, task.first))
    send(Advanced(done, total))
    rest = [item for item in encoded if item.index not in finished]
    for pack in runner.plan(rest) if rest else ():
        send(Packed(variant, task.task, tuple(runner.run(pack))))
        done += len(pack.items)
        send(Advanced(done, total))
    _send_notes(runner, variant, send)


def _send_notes(runner: Runner, variant: str, send: Send) -> None:
    while runner.notes:
        send(Noted(variant, runner.notes.pop(0)))


def _score_task(runner: Runner, variant: str, task: TaskRequests, packs: Sequence[Pack], send: Send) -> None:
    """Runs the packs of a task that are not on disk yet, and sends each when it is finished."""
    kept = packs_done(packs, task.done)
    done = task.first + sum(len(pack.items) for pack in packs[:kept])
    total = task.first + len(task.requests)
    send(Resumed(variant, task.task, done, task.first))
    work = [max(pack.tokens, len(pack.items)) for pack in packs]
    share = sum(work[:kept]) / max(1, sum(work))
    send(Advanced(done, total, share=share))
    for number, pack in enumerate(packs[kept:], kept):
        raws = runner.run(pack)
        send(Packed(variant, task.task, tuple(raws)))
        done += len(pack.items)
        share += work[number] / sum(work)
        send(Advanced(done, total, share=share))
    _send_notes(runner, variant, send)


def _cache_encodings(encode: Encode) -> Encode:
    """Caches encodings by list of requests and context length: variants with the same prompts share them."""
    known: dict[tuple[int, int], Sequence[Encoded]] = {}

    def remembered(task: TaskRequests, room: int) -> Sequence[Encoded]:
        if (id(task.requests), room) not in known:
            known[id(task.requests), room] = encode(task, room)
        return known[id(task.requests), room]

    return remembered


def _probe_ids(encoder: Encoder, tasks: Sequence[TaskRequests]) -> torch.Tensor:
    """`[1, ids]`: the end of the first request that has tokens, short enough to leave room for a learned prompt."""
    for task in tasks:
        for item in encoder.encode(replace(task, requests=task.requests[:_TRIED])):
            if item.prompt or item.rows:
                return torch.tensor([(item.prompt or item.rows[0].ids)[-_PROBED:]])
    return torch.tensor([[encoder.prefix_id]])


def _logits(model: Any, ids: torch.Tensor, numerics: str) -> torch.Tensor:
    """`[1, vocabulary]` logits after the last token."""
    ids = ids.to(model.device)
    with torch.inference_mode():
        if learns_a_prompt(model):  # the logits of the learned tokens come first
            logits: torch.Tensor = model(input_ids=ids, use_cache=True).logits[0, -1:].float()
            return logits
        last = torch.zeros_like(ids, dtype=torch.bool)
        last[:, -1] = True
        return needed_logits(model, ids, last, numerics)
