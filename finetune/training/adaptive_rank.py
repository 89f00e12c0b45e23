"""AdaLoRA's budget during a training: the schedule fitted to its steps, its penalty, its cuts, its state.

peft leaves four things to whoever writes the loop. The schedule is given in steps, which a method does not know; the
penalty that keeps the singular vectors orthogonal is added in a forward that computes the loss, which ours does not; ranks
are to be cut after each optimizer step while gradients are still there; and none of what the cuts go by is saved with the
adapter, so an interrupted training would go on to other ranks.

Example:
    >>> ranks = adaptive_rank(model, steps=100)  # doctest: +SKIP
    >>> for step in range(1, 101):  # doctest: +SKIP
    ...     loss = … + ranks.penalty()
    ...     loss.backward(); optimizer.step(); ranks.after_step(step); optimizer.zero_grad()
    >>> ranks.finish()  # doctest: +SKIP
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

STATE_FILE = "adaptive_rank.pt"


def adaptive_rank(model: Any, steps: int) -> AdaptiveRank | None:
    """The budget of an AdaLoRA model that is about to be trained for so many steps; None for any other model."""
    if not hasattr(getattr(model, "base_model", None), "rankallocator"):
        return None
    return AdaptiveRank(model, steps)


class AdaptiveRank:
    """Cuts ranks from `init_r` to `target_r` on average, by AdaLoRA's cubic schedule.

    The schedule of the model's configuration is read as proportions: `tinit=10, tfinal=30, total_step=100` leaves a tenth of
    the training before the first cut and three tenths after the last one, however many steps it has. A training too short
    for a cut keeps every rank.

    Args:
        model: A PeftModel around AdaLoRA layers.
        steps: Optimizer steps of the training.
    """

    def __init__(self, model: Any, steps: int) -> None:
        self._model = model
        self._tuner = model.base_model
        self._name = self._tuner.trainable_adapter_name
        self._config = self._tuner.peft_config[self._name]
        self._allocator = self._tuner.rankallocator
        share = steps / self._config.total_step
        self._config.tinit = round(self._config.tinit * share)
        self._config.tfinal = round(self._config.tfinal * share)
        self._config.total_step = steps
        self._pattern: dict[str, list[bool]] | None = None
        cuts = self._config.target_r < self._config.init_r
        self._cuts = cuts and self._config.tinit + 2 <= steps - self._config.tfinal

    def penalty(self) -> Tensor:
        """How far the singular vectors are from orthonormal, weighted: to be added once to the loss of a step."""
        distances = []
        for name, matrix in self._model.named_parameters():
            if f"lora_A.{self._name}" in name or f"lora_B.{self._name}" in name:
                gram = matrix @ matrix.T if "lora_A" in name else matrix.T @ matrix
                distances.append(torch.linalg.matrix_norm(gram - torch.eye(len(gram), device=gram.device)))
        weight: float = self._config.orth_reg_weight
        return weight * torch.stack(distances).mean()

    def after_step(self, step: int) -> None:
        """Weighs what each rank does, and cuts those over the budget.

        Args:
            step: Optimizer steps done, the one just made included; its gradients must still be there.
        """
        if not self._cuts:
            return
        self._config.rank_pattern = self._pattern
        self._tuner.update_and_allocate(step)
        self._pattern = self._config.rank_pattern
        self._config.rank_pattern = None  # a checkpoint holds whole matrices, cut ranks as zeros

    def finish(self) -> None:
        """Drops the ranks that were cut from the matrices, so that the artifact holds only what is left."""
        if self._pattern is not None:
            self._tuner.resize_modules_by_rank_pattern(self._pattern, self._name)
            self._config.rank_pattern = self._pattern

    def save(self, folder: Path) -> None:
        """Adds to a checkpoint what `load` needs to go on with the same cuts."""
        averages = self._allocator.exp_avg_ipt, self._allocator.exp_avg_unc
        torch.save({"averages": averages, "pattern": self._pattern}, folder / STATE_FILE)

    def load(self, folder: Path) -> None:
        """Goes on as a checkpoint left off."""
        state = torch.load(folder / STATE_FILE, map_location=self._model.device, weights_only=True)
        self._allocator.exp_avg_ipt, self._allocator.exp_avg_unc = state["averages"]
        self._allocator.ipt = {name: torch.zeros_like(mean) for name, mean in state["averages"][0].items()}
        self._pattern = state["pattern"]
