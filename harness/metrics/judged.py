"""What a reward model says of what was written.

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


def reward_by(folder: str) -> Metric:
    """A metric: the reward of each answer, on the reward model's own scale, which only differences mean something on.

    Its `win_rate` in comparisons is how often the answer of one variant was judged better than that of the other. The model runs on
    the CPU, in a process of its own, and is loaded when the first answer is scored.

    Args:
        folder: What a variant of `stage=reward` left: an adapter or a checkpoint with its reward head.
    """

    def score(output: Output, sample: Any) -> float:
        asked = expect(Generate, sample, "reward")
        prompt, text = _written(asked.prompt), output.texts[0]
        if prompt and not prompt[-1].isspace() and not text[:1].isspace():
            text = " " + text
        try:
            (reward,) = _judge(folder).ask([[prompt], [text], [output.tokens < asked.max_tokens]])
        except HelperFailed as error:
            raise UserError(
                f"could not judge answers with `{folder}`: {error}", hint="`reward` names the folder of a reward model"
            ) from error
        return reward

    return Metric("reward", score=score)


def _written(prompt: Prompt) -> str:
    return prompt if isinstance(prompt, str) else PLAIN.render(prompt)


@functools.cache
def _judge(folder: str) -> Helper:
    """One process a model, however many answers it is asked about."""
    return Helper("harness.finetune.stages.judges", folder)
