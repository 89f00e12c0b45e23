"""Reward modelling: learns a number for each answer that is higher for the one that people prefer.

Pairwise loss -log sigmoid(reward of the better - reward of the worse), as in Ouyang et al., "Training language models to follow
instructions with human feedback", 2022 (arXiv 2203.02155). The number is read at the last token, the end of the answer.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from torch import Tensor
from torch.nn import Module, functional

from harness.finetune.stages.pairs import PairStage
from harness.jobs import HEAD_FILE, TrainJob
from harness.models.reward_head import ScalarHead, head_for, last_token_values, load_head, put_head, save_head


class Reward(PairStage):
    """Trains the model with a reward head in place of its output head.

    Figures: how often the better answer has the higher reward, and the difference between both.
    """

    def __init__(self, job: TrainJob, model: Any, tokenizer: Any, max_length: int) -> None:
        super().__init__(job, tokenizer, max_length)
        self._base = job.base
        start = job.start or job.base.folder  # a reward model continues with its own head
        self._head: ScalarHead = load_head(start, model) if (start / HEAD_FILE).is_file() else head_for(model)
        self._output_head: Module = put_head(model, self._head)

    def loss(self, model: Any, batch: dict[str, Any], items: int) -> Tensor:
        better, worse = last_token_values(model, batch["input_ids"], batch["attention_mask"]).chunk(2)
        self.figures.add(accuracy=(better > worse).float(), margin=better - worse)
        return -functional.logsigmoid(better - worse).sum() / items

    def finish(self, model: Any, folder: Path) -> None:
        put_head(model, self._output_head)
        save_head(self._head, folder, self._base)


def make_stage(job: TrainJob, model: Any, tokenizer: Any, max_length: int) -> Reward:
    """See `harness.finetune.training.stage`."""
    return Reward(job, model, tokenizer, max_length)
