"""Checks before weights are loaded that the texts of a job fit its model.

Tokens that were added to a tokenizer have no row in the embedding of a model that was not resized, and a prompt that is
longer than the context loses its beginning.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from harness.errors import UserError
from harness.jobs import ScoreJob, TaskRequests, TrainJob
from harness.storage import read_json
from harness.tokens.encode import Encoded
from harness.tokens.tokenizer import input_limit
from harness.tokens.vocabulary import Surplus, surplus

CUT_SHARE = 0.05
"""Share of a task's prompts that may be cut without `--allow-cut`: a few outliers are counted and change little."""
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
        Notes for the user.

    Raises:
        UserError: A prompt or a choice holds a token without a row in the embedding, or more than `CUT_SHARE` of a task's
            prompts do not fit into the context and `job.allow_cut` does not allow it.
    """
    missing = surplus(tokenizer, config, job.variants[0].recipe.base.folder)
    context = input_limit(config.get_text_config(), tokenizer)
    for variant in job.variants:
        learned = _learned_tokens(variant.recipe.adapter)
        room = context - learned if learned < context else context  # without room, loading fails the row alone
        for task in variant.tasks:
            encoded = encode(task, room)
            if missing is not None:
                _refuse_missing(missing, task, encoded)
            if not job.allow_cut:
                refuse_cut(variant.name, task, encoded, room)
    return _noted(missing, "no sample holds one")


def _refuse_missing(missing: Surplus, task: TaskRequests, encoded: Sequence[Encoded]) -> None:
    for item in encoded:
        targets = (span.targets for row in item.rows for span in row.spans)
        for ids in (item.prompt, *(row.ids for row in item.rows), *targets):
            missing.refuse(ids, f"sample `{item.request.id}` of `{task.task}`")


def refuse_cut(variant: str, task: TaskRequests, encoded: Sequence[Encoded], room: int) -> None:
    """Refuses a task of which more than a few prompts do not fit into the context.

    Args:
        variant: Name of the variant, for the message.
        task: The task.
        encoded: Its requests.
        room: Tokens of the context.

    Raises:
        UserError: More than `CUT_SHARE` of the prompts were cut.
    """
    cut = [item for item in encoded if item.truncated]
    if len(cut) > CUT_SHARE * len(encoded):
        longest = max(cut, key=lambda item: item.prompt_tokens)
        raise UserError(
            f"`{variant}` on `{task.task}`: {len(cut)} of {len(encoded)} prompts do not fit into the context of {room} tokens"
            f" and would lose their beginning; the longest, sample `{longest.request.id}`, has {longest.prompt_tokens} tokens",
            hint="give fewer solved examples (`--num-fewshot`, `shots=`) or a model with a longer context; to cut them,"
            " add `--allow-cut`",
        )


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
    return _noted(missing, "no training row holds one")


def _noted(missing: Surplus | None, found: str) -> list[str]:
    if missing is None or missing.ids == {missing.tokenizer.unk_token_id}:
        return []  # transformers adds an unknown token to byte-level tokenizers of GGUF files, which never produce it
    return [f"{missing}; {found}"]


def _learned_tokens(adapter: Path | None) -> int:
    """Number of virtual tokens of an adapter, which take up a part of the context; 0 without one.

    A file that cannot be read counts as 0: loading the adapter says what is wrong with it, and fails its row alone.
    """
    file = adapter / "adapter_config.json" if adapter else None
    if file is None or not file.is_file():
        return 0
    try:
        config = read_json(file)
    except ValueError:
        return 0
    tokens = config.get("num_virtual_tokens") if isinstance(config, dict) else None
    return tokens if isinstance(tokens, int) else 0


def _texts(job: TrainJob) -> Iterator[tuple[str, str]]:
    """Every text that a training job reads, after a name for it."""
    for kind, examples in (("training", job.examples), ("held-out", job.validation)):
        for number, example in enumerate(examples, 1):
            for text in (example.prompt, example.completion, example.rejected or ""):
                yield f"{kind} row {number}", text
    for item in job.monitor.items if job.monitor else ():
        for text in (*item.request.contexts, *item.request.continuations):
            yield f"sample `{item.request.id}` of the monitored task", text
