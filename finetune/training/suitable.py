"""Finds out whether a method can train a model, from the model's configuration alone: no weights are loaded.

A rank above a layer's size, a model without the biases that a method trains, or a start of another shape would fail after the
other variants have trained for hours. Building the model without weights takes seconds and shows it before.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from transformers import AutoModelForCausalLM

from harness.errors import UserError
from harness.finetune.training.trainer import refuse_untrainable
from harness.finetune.training.weightless import quantize
from harness.jobs import TrainJob
from harness.models.artifacts import load_trained, trained_shapes
from harness.models.load import load_config, method_function


def why_unsuitable(job: TrainJob, start: TrainJob | None = None) -> UserError | None:
    """The reason why a training run will fail, as far as it is known without weights; None: none is known.

    Args:
        job: The training run; its examples are not used.
        start: The training run whose artifact this one starts from, if the artifact does not exist yet.

    Raises:
        UserError: The user's own method leaves nothing to train.
    """
    try:
        model = _built(job)
        if job.start is not None and job.start.is_dir():
            load_trained(model, job.start, job.method.name)
        elif start is not None:
            _refuse_other_shapes(job, trained_shapes(model), trained_shapes(_built(start)))
    except UserError as error:
        return error
    except ValueError as error:  # of peft, for a built-in method; a user's method may need the weights
        return UserError(f"method `{job.method.name}`: {error}") if job.method.module else None
    except Exception:  # methods that read the weights fail here in many ways, but not in the training run
        return None
    try:
        refuse_untrainable(job, model)
    except UserError as error:
        if job.method.module is None:
            raise
        return error
    return None


def _built(job: TrainJob) -> Any:
    """The model of a training run, without weights."""
    dtype = getattr(torch, job.base.dtype)
    config = load_config(job.base)
    with torch.device("meta"):
        base = AutoModelForCausalLM.from_config(config, dtype=dtype, trust_remote_code=job.base.trust_remote_code)
        base.requires_grad_(False)
        if job.base.quant is not None:
            quantize(base, job.base.quant, dtype)
        return method_function(job.method)(base, **job.method.hyperparameters)


def _refuse_other_shapes(job: TrainJob, ours: Mapping[str, Any], theirs: Mapping[str, Any]) -> None:
    differing = sorted(ours.keys() ^ theirs.keys()) or [name for name, shape in ours.items() if theirs[name] != shape]
    if differing:
        raise UserError(
            f"`{job.method.name}` cannot go on from its start: {differing[0]} does not have the same shape in both",
            hint="give both variants the same hyperparameters",
        )
