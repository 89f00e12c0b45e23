"""Reads a saved artifact back before anybody receives it, and compares its logits with those of the model that was saved.

The artifact is loaded as others will load it: a checkpoint by transformers alone, an adapter by peft around its base.
"""

from __future__ import annotations

from contextlib import nullcontext
from typing import Any

import torch
from torch import Tensor, nn

from harness.errors import UserError
from harness.jobs import Recipe
from harness.models.load import LoadMethod, Resident

_TOKENS = 16
_TOLERANCE = {torch.float32: 1e-4, torch.float64: 1e-4}
"""Largest distance of the logits relative to their spread; a weight that is lost or transposed gives 0.1 or more."""
_TOLERANCE_16_BITS = 0.06
"""As above; weights that were trained in 32 bits are saved in 16."""


class NotReadBack(RuntimeError):
    """A saved artifact cannot be loaded, or is not the model that was saved."""


@torch.inference_mode()
def probe_logits(model: Any) -> Tensor:
    """Computes logits for a few random tokens.

    Args:
        model: The model, which is left in evaluation mode.

    Returns:
        `[tokens, vocabulary]` float32 on the host; `[tokens, 1]` of a reward model.
    """
    model.eval()
    vocabulary = model.config.get_text_config().vocab_size
    ids = torch.randint(0, vocabulary, (1, _TOKENS), generator=torch.Generator().manual_seed(0))
    halves = {p.dtype for p in model.parameters()} & {torch.float16, torch.bfloat16}
    mixed = torch.autocast(model.device.type, dtype=halves.pop()) if halves else nullcontext()  # trained in 32 bits
    with mixed:  # a learned prefix is passed as a cache, which needs `use_cache`
        logits: Tensor = model(input_ids=ids.to(model.device), use_cache=True).logits[0, -_TOKENS:]
    return logits.float().cpu()


@torch.no_grad()
def release(model: nn.Module) -> None:
    """Frees the weights of a model that is not used again, whoever still holds it."""
    for parameter in model.parameters():
        parameter.data = torch.empty(0, dtype=parameter.dtype)
        parameter.grad = None
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def refuse_if_changed(recipe: Recipe, load_method: LoadMethod, saved: Tensor) -> None:
    """Loads an artifact and refuses it if it is not the model that was saved.

    Args:
        recipe: How the artifact is loaded.
        load_method: Finds the function of a method, to attach its delta.
        saved: `probe_logits` of the model that was saved.

    Raises:
        NotReadBack: The artifact cannot be loaded, or gives other logits.
    """
    folder = recipe.adapter or recipe.base.folder
    try:
        model = Resident(recipe.base, load_method).attach(recipe)
    except UserError as error:
        raise NotReadBack(f"the artifact that was saved cannot be loaded: {error.message}") from error
    found = probe_logits(model)
    if not saved.isfinite().all():
        return  # reported when it is scored
    spread = (saved - saved.mean(-1, keepdim=True)).norm(dim=-1).max().clamp(min=1e-12)
    distance = float((found - saved).norm(dim=-1).max() / spread) if found.shape == saved.shape else float("inf")
    if not distance <= _TOLERANCE.get(model.dtype, _TOLERANCE_16_BITS):
        raise NotReadBack(
            f"the artifact that was saved in {folder.name} is not the model that was trained: its logits differ by"
            f" {distance:.0%} of their spread; a method must make the same model whenever it is called on the same base"
        )
