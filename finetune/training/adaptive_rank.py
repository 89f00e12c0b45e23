"""AdaLoRA's ranks during a training run: schedule, orthogonality penalty, pruning, and state in checkpoints.

peft leaves four things to the training loop. The schedule is in steps, whose number a method does not know. The penalty that
keeps singular vectors orthogonal is added when the model's own forward computes the loss, which our loop does not use. Ranks must
be pruned after each optimizer step, before gradients are cleared. And the importance scores that decide about pruning are
not saved with the adapter, so a resumed run would end with other ranks.

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
    """Returns the rank schedule of an AdaLoRA model for a run of `steps` optimizer steps; None for any other model."""
    if not hasattr(getattr(model, "base_model", None), "rankallocator"):
        return None
    return AdaptiveRank(model, steps)


class AdaptiveRank:
    """Prunes ranks from `init_r` to `target_r` on average, by AdaLoRA's cubic schedule.

    The schedule in the model's configuration is scaled to the run: with `tinit=10, tfinal=30, total_step=100`, pruning starts
    after a tenth of the steps and ends three tenths before the last one. A run too short for any pruning keeps every rank.

    Args:
        model: A PeftModel with AdaLoRA layers.
        steps: Optimizer steps of the run.
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
        fewer = self._config.target_r < self._config.init_r
        self._prunes = fewer and self._config.tinit + 2 <= steps - self._config.tfinal

    def penalty(self) -> Tensor:
        """Returns the weighted distance of the singular vectors from orthonormal ones, to be added once to a step's loss."""
        distances = []
        for name, matrix in self._model.named_parameters():
            if f"lora_A.{self._name}" in name or f"lora_B.{self._name}" in name:
                gram = matrix @ matrix.T if "lora_A" in name else matrix.T @ matrix
                distances.append(torch.linalg.matrix_norm(gram - torch.eye(len(gram), device=gram.device)))
        weight: float = self._config.orth_reg_weight
        return weight * torch.stack(distances).mean()

    def after_step(self, step: int) -> None:
        """Updates the importance of each rank, and prunes the least important ones beyond the budget.

        Args:
            step: Optimizer steps made, including the last one, whose gradients must not be cleared yet.
        """
        if not self._prunes:
            return
        self._config.rank_pattern = self._pattern
        self._tuner.update_and_allocate(step)
        self._pattern = self._config.rank_pattern
        self._config.rank_pattern = None  # checkpoints hold whole matrices, with zeros for pruned ranks

    def finish(self) -> None:
        """Removes pruned ranks from the matrices, so that the artifact holds only the remaining ones."""
        if self._pattern is not None:
            self._tuner.resize_modules_by_rank_pattern(self._pattern, self._name)
            self._config.rank_pattern = self._pattern

    def save(self, folder: Path) -> None:
        """Saves in a checkpoint what `load` needs to continue with the same pruning."""
        averages = self._allocator.exp_avg_ipt, self._allocator.exp_avg_unc
        torch.save({"averages": averages, "pattern": self._pattern}, folder / STATE_FILE)

    def load(self, folder: Path) -> None:
        """Restores the state of a checkpoint."""
        state = torch.load(folder / STATE_FILE, map_location=self._model.device, weights_only=True)
        self._allocator.exp_avg_ipt, self._allocator.exp_avg_unc = state["averages"]
        self._allocator.ipt = {name: torch.zeros_like(mean) for name, mean in state["averages"][0].items()}
        self._pattern = state["pattern"]
