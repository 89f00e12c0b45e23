"""Checks before weights are loaded that the texts of a job fit its model.

Tokens that were added to a tokenizer have no row in the embedding of a model that was not resized.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

from harness.jobs import ScoreJob, TaskRequests, TrainJob
from harness.tokens.encode import Encoded
from harness.tokens.tokenizer import input_limit
from harness.tokens.vocabulary import surplus

Encode = Callable[[TaskRequests, int], Sequence[Encoded]]
"""Encodes the requests of a task for a context length."""


def check_requests(job: ScoreJob, config: Any, tokenizer: Any, encode: Encode) -> list[str]:
    """Checks the requests of a scoring job.

    Args:
        job: The job.
        config: Configuration of its base.
        tokenizer: Of its base.
        encode: Encodes requests; the encodings are used again for scoring.

    Returns:
        Notes for every variant.

    Raises:
        UserError: A prompt or a choice holds a token without a row in the embedding.
    """
    missing = surplus(tokenizer, config, job.variants[0].recipe.base.folder)
    if missing is None:
        return []
    room = input_limit(config.get_text_config(), tokenizer)
    for variant in job.variants:
        for task in variant.tasks:
            for item in encode(task, room):
                targets = (span.targets for row in item.rows for span in row.spans)
                for ids in (item.prompt, *(row.ids for row in item.rows), *targets):
                    missing.refuse(ids, f"sample `{item.request.id}` of `{task.task}`")
    return [f"{missing}; no sample holds one"]


def check_examples(job: TrainJob, config: Any, tokenizer: Any) -> list[str]:
    """Checks the rows of a training job; returns notes.

    Raises:
        UserError: A row holds a token without a row in the embedding.
    """
    missing = surplus(tokenizer, config, job.base.folder)
    if missing is None:
        return []
    missing.refuse([tokenizer.eos_token_id], "the end of every training row")
    for where, text in _texts(job):
        missing.refuse(tokenizer(text, verbose=False)["input_ids"], where)
    return [f"{missing}; no training row holds one"]


def _texts(job: TrainJob) -> Iterator[tuple[str, str]]:
    """Every text that a training job reads, after a name for it."""
    for kind, examples in (("training", job.examples), ("held-out", job.validation)):
        for number, example in enumerate(examples, 1):
            for text in (example.prompt, example.completion, example.rejected or ""):
                yield f"{kind} row {number}", text
    for item in job.monitor.items if job.monitor else ():
        for text in (*item.request.contexts, *item.request.continuations):
            yield f"sample `{item.request.id}` of the monitored task", text
