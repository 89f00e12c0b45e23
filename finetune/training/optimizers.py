"""Optimizers, their parameter groups, and learning-rate schedules."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from harness.models.layers import decoder_layers
from harness.settings import TrainingSettings, check_rates

if TYPE_CHECKING:
    from torch import nn, optim
    from transformers import TrainingArguments


DECAYED_SHARE = 0.2
"""Share of a `wsd` run, at its end, over which the learning rate falls."""


def parameter_groups(model: nn.Module, settings: TrainingSettings) -> list[dict[str, Any]]:
    """Groups trained parameters by learning rate and weight decay.

    Weight decay applies to matrices, not to biases and norm weights. With `layer_decay` below 1, the learning rate falls by that
    factor from each decoder layer to the one below it, and once more to the embeddings; other parameters have the full learning
    rate. A method can scale the learning rate of a parameter with an attribute `lr_scale` (LoRA+, arXiv 2402.12354).
    """
    scales = _depth_scales(model, settings.layer_decay)
    groups: dict[tuple[float, float], list[Any]] = {}
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            scale = scales(name) * getattr(parameter, "lr_scale", 1.0)
            decay = settings.weight_decay if parameter.dim() > 1 else 0.0
            groups.setdefault((scale, decay), []).append(parameter)
    return [
        {"params": parameters, "lr": settings.lr * scale, "weight_decay": decay}
        for (scale, decay), parameters in groups.items()
    ]


def make_optimizer(model: nn.Module, settings: TrainingSettings, arguments: TrainingArguments) -> optim.Optimizer:
    """Makes the optimizer of a training run: the class and options of transformers, over our parameter groups.

    Args:
        model: Whose parameters are trained.
        settings: Learning rate, weight decay and `layer_decay`.
        arguments: Name the optimizer: `optim=optimizer_name(…)`.
    """
    from torch import nn
    from transformers import Trainer

    kind, options = Trainer.get_optimizer_cls_and_kwargs(arguments, model)
    optimizer: optim.Optimizer = kind(parameter_groups(model, settings), **options)
    if options.get("optim_bits") == 8:  # 8-bit states make the training of embeddings unstable (arXiv 2110.02861)
        from bitsandbytes.optim import GlobalOptimManager

        for module in model.modules():
            if isinstance(module, nn.Embedding):
                GlobalOptimManager.get_instance().register_module_override(module, "weight", {"optim_bits": 32})
    return optimizer


def _depth_scales(model: Any, factor: float) -> Callable[[str], float]:
    """Returns a function from a parameter's name to the factor of its learning rate."""
    if factor == 1.0:
        return lambda name: 1.0
    from harness.models.reward_head import inner_model  # imports torch, which checks of names do not need

    prefix, layers = decoder_layers(model)
    embeddings = {id(parameter) for parameter in inner_model(model).get_input_embeddings().parameters()}
    named = {name for name, parameter in model.named_parameters() if id(parameter) in embeddings}

    def scale(name: str) -> float:
        if name in named:
            return float(factor ** len(layers))
        if not name.startswith(prefix + "."):
            return 1.0
        depth = int(name[len(prefix) + 1 :].partition(".")[0])
        return float(factor ** (len(layers) - 1 - depth))

    return scale


def schedule(settings: TrainingSettings, steps: int) -> Callable[[int], float]:
    """Returns a function from a step, counted from 0, to the factor of the learning rate.

    Args:
        settings: `schedule`, `warmup` and `rates`.
        steps: Steps of the whole run.

    Raises:
        UserError: `staged` without `rates`, or `rates` without `staged`.

    Example:
        >>> settings = TrainingSettings(lr=1e-3, steps=10, micro_batch_size=8, schedule="linear", warmup=2)
        >>> [round(schedule(settings, 10)(step), 2) for step in (0, 1, 2, 6)]
        [0.0, 0.5, 1.0, 0.5]
    """
    check_rates(settings.schedule, settings.rates)
    warm = int(settings.warmup * steps if settings.warmup < 1 else settings.warmup)

    def after_warmup(step: int) -> float:
        if settings.schedule == "staged":
            return settings.rates[min(len(settings.rates) - 1, step * len(settings.rates) // max(1, steps))]
        share = (step - warm) / max(1, steps - warm)
        if settings.schedule == "cosine":
            return 0.5 * (1 + math.cos(math.pi * min(1.0, share)))
        left = max(0.0, 1 - share)
        return {"constant": 1.0, "linear": left, "wsd": min(1.0, left / DECAYED_SHARE)}[settings.schedule]

    return lambda step: step / warm * after_warmup(warm) if step < warm else after_warmup(step)
