"""Preference: choose the answer that people prefer, or generate answers for a reward model to score.

Dataset: https://huggingface.co/datasets/llamafactory/dpo_en_demo (300 pairs) unless `data` names another, Apache-2.0
licence.
Paper: Ouyang et al., "Training language models to follow instructions with human feedback", 2022 (arXiv 2203.02155).
Protocol: our own. A model chooses between the two answers by log-likelihood, a reward model (a variant of
`stage=reward`) by its reward, so that `acc` is its accuracy; a tie counts as wrong. With `-T reward=FOLDER` the model
generates answers of at most `max_tokens` tokens, and the reward model in that folder scores them; `win_rate` in the
results is how often the answer of one variant has a higher reward than that of another; `reward_base` is the model that
a reward adapter runs on, `reward_code` the file of its method if that is your own. `data` is a file or
`hub:OWNER/NAME:CONFIG:SPLIT` with the columns `chosen` and `rejected` (texts, turns, or whole conversations) and, if
these contain no prompt, `prompt`, `instruction` or `conversations`.
Chance: 0.5.

Example:
    How can I sleep better?
    Go to bed at the same time every day.
"""

from collections.abc import Mapping
from typing import Any

from harness import Choose, Generate, Row, Task, UserError, acc, acc_norm, hub, reward_by, task

DEMO = "hub:llamafactory/dpo_en_demo:train"
_ROLES = {"human": "user", "gpt": "assistant", "bot": "assistant", "model": "assistant"}
_PROMPTS = ("prompt", "messages", "conversations", "instruction", "question")


@task
def preference(
    *,
    data: str = DEMO,
    reward: str | None = None,
    reward_base: str | None = None,
    reward_code: str | None = None,
    max_tokens: int = 128,
) -> Task:
    """Choosing the answer that people prefer; with `reward=FOLDER`, the reward of generated answers."""

    def choose(row: Row) -> Choose:
        prompt, chosen, rejected = _pair(row)
        return Choose(prompt, [rejected, chosen], 1)

    def generate(row: Row) -> Generate:
        prompt, chosen, _ = _pair(row)
        return Generate(prompt, chosen, max_tokens=max_tokens)

    if reward is None:
        return Task(_source(data), choose, [acc, acc_norm])
    return Task(_source(data), generate, [reward_by(reward, base=reward_base, code=reward_code)])


def _source(data: str) -> Any:
    return hub("llamafactory/dpo_en_demo", split="train") if data == DEMO else data


def _pair(row: Row) -> tuple[Any, str, str]:
    """Returns the prompt, the chosen answer and the rejected answer."""
    missing = [column for column in ("chosen", "rejected") if not row.get(column)]
    if missing:
        raise UserError(f"a row has no `{missing[0]}`", hint="its columns: " + ", ".join(row))
    chosen, rejected = _turns(row["chosen"]), _turns(row["rejected"])
    before = next((_turns(row[column]) for column in _PROMPTS if row.get(column)), chosen[:-1])
    if not before:
        raise UserError("a row has no prompt", hint="its columns: " + ", ".join(row))
    if row.get("input"):
        before = [*before, *_turns(row["input"])]
    alone = all(turn["role"] == "user" for turn in before)
    prompt = "\n\n".join(turn["content"] for turn in before) if alone else before
    return prompt, chosen[-1]["content"], rejected[-1]["content"]


def _turns(value: Any) -> list[dict[str, str]]:
    """Converts a text, a turn, or several turns to a list of turns."""
    if isinstance(value, str):
        return [{"role": "user", "content": value}]
    turns = [value] if isinstance(value, Mapping) else value
    roles = [str(turn.get("role") or turn.get("from")) for turn in turns]
    return [
        {"role": _ROLES.get(role, role), "content": str(turn.get("content") or turn.get("value") or "")}
        for role, turn in zip(roles, turns, strict=True)
    ]
