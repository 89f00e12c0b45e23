"""Reward: the score of a reward model for generated answers.

>>> reward_by("runs/mine/adapters/rm").name
'reward'
"""

from __future__ import annotations

import functools
from typing import Any

from harness.api import Generate, Metric, Output, Prompt
from harness.errors import UserError
from harness.metrics.kinds import expect
from harness.metrics.model_process import Helper, HelperFailed
from harness.prompts.chat import PLAIN


def reward_by(folder: str, *, base: str | None = None, code: str | None = None) -> Metric:
    """Makes a metric: the reward of each answer, on the reward model's scale, where only differences have a meaning.

    In comparisons, its `win_rate` is how often the answer of one variant has a higher reward than that of the other.
    The model runs on the CPU in its own process, and is loaded when the first answer is scored.

    Args:
        folder: Artifact of a variant of `stage=reward`: an adapter or a checkpoint with its reward head.
        base: The model that an adapter runs on: a folder or a Hub id; not needed for checkpoints, and for adapters of `tiny`.
        code: The Python file of the method, if the adapter was trained with one of your own.
    """
    asked = (folder, base or "", code or "")

    def score(output: Output, sample: Any) -> float:
        request = expect(Generate, sample, "reward")
        prompt, text = _as_text(request.prompt), output.texts[0]
        if prompt and not prompt[-1].isspace() and not text[:1].isspace():
            text = " " + text
        try:
            (reward,) = _judge(*asked).ask([[prompt], [text], [output.tokens < request.max_tokens]])
        except HelperFailed as error:
            raise UserError(
                f"could not judge answers with `{folder}`: {error}",
                hint="`reward` must be the folder of a reward model",
            ) from error
        return reward

    return Metric("reward", score=score)


def _as_text(prompt: Prompt) -> str:
    return prompt if isinstance(prompt, str) else PLAIN.render(prompt)


@functools.cache
def _judge(folder: str, base: str, code: str) -> Helper:
    """Starts one process per model, for all answers."""
    return Helper("harness.finetune.stages.reward_sources", folder, base, code)
