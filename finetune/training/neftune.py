"""NEFTune (arXiv 2310.05914): adds uniform noise to the embeddings of a model in training."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from harness.models.reward_head import inner_model


class Noise:
    """A forward hook that adds noise of at most alpha / sqrt(length * width) to the output of a layer.

    The length is the mean over the batch's rows without padding, so that it does not depend on the split into micro-batches.
    """

    def __init__(self, alpha: float) -> None:
        self._alpha = alpha
        self.length = 1.0

    def __call__(self, module: Any, arguments: Any, output: Tensor) -> Tensor:
        if not module.training:
            return output
        bound = self._alpha / math.sqrt(self.length * output.shape[-1])
        return output + torch.empty_like(output).uniform_(-bound, bound)


def add_noise(model: Any, alpha: float) -> Noise:
    """Adds the hook to a model's input embeddings."""
    noise = Noise(alpha)
    inner_model(model).get_input_embeddings().register_forward_hook(noise)
    return noise
