"""What a training leaves, and how it comes back: an adapter of PEFT, a delta, or a whole checkpoint.

A delta holds the weights that a method of no library trained, and `method.json` beside it says which method; what does not
fit the base that it is put on is refused, never loaded in part.
"""

from __future__ import annotations

import json
import warnings
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from torch import Tensor, nn

from harness.errors import UserError
from harness.jobs import Method

DELTA_FILE = "delta.safetensors"


def save_artifact(model: Any, tokenizer: Any, folder: Path, *, saves: str, method: Method) -> None:
    """Leaves what training made in `folder`: a PEFT adapter, a delta, or a whole checkpoint."""
    if hasattr(model, "peft_config"):
        _save_adapter(model, folder)
        (folder / "README.md").unlink(missing_ok=True)  # a form that peft leaves for others to fill in
    elif saves == "checkpoint":
        save_checkpoint(model, tokenizer, folder)
    else:
        from safetensors.torch import save_file

        save_file(trained_tensors(model), folder / DELTA_FILE)
        record = {"method": method.source, "hyperparameters": dict(method.hyperparameters)}
        (folder / "method.json").write_text(json.dumps(record, indent=1), encoding="utf-8")


def save_checkpoint(model: Any, tokenizer: Any, folder: Path) -> None:
    """Leaves a whole model as transformers loads it; neither quantization nor how we ran it stays in its configuration."""
    if hasattr(model.config, "quantization_config"):
        del model.config.quantization_config
    model.config.use_cache = True
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def trained_tensors(model: nn.Module) -> dict[str, Tensor]:
    """The weights that are trained, by name, on the host; those that are shared come once.

    Example:
        >>> list(trained_tensors(nn.Linear(3, 2)))
        ['weight', 'bias']
    """
    return {name: p.detach().cpu().contiguous() for name, p in model.named_parameters() if p.requires_grad}


def _save_adapter(model: Any, folder: Path) -> None:
    """A PEFT model's adapter; several LoRAs that act together are saved as the one LoRA that does what they do."""
    parts = list(model.peft_config)
    if len(parts) == 1:
        model.save_pretrained(folder)
        return
    model.add_weighted_adapter(parts, [1.0] * len(parts), "together", combination_type="cat")
    model.save_pretrained(folder, selected_adapters=["together"])
    model.delete_adapter("together")
    for path in (folder / "together").iterdir():
        path.rename(folder / path.name)
    (folder / "together").rmdir()


def load_trained(model: Any, folder: Path, method: str) -> None:
    """Gives a model that a method has just made the tensors it trained before; they go on being trained.

    Args:
        model: As the method makes it.
        folder: What it left: an adapter or a delta.
        method: Its name, for messages.

    Raises:
        UserError: They were trained by another method, with other hyperparameters, or on another base.
    """
    if (folder / DELTA_FILE).is_file() and not hasattr(model, "peft_config"):
        load_delta(model, folder, method)
        return
    if not (folder / "adapter_config.json").is_file() or not hasattr(model, "peft_config"):
        raise UserError(
            f"`{method}` cannot go on from `{folder}`, which another method made", hint="start from one of its own"
        )
    from peft.utils import get_peft_model_state_dict, load_peft_weights, set_peft_model_state_dict

    if model.active_peft_config.is_prompt_learning:
        encoder = model.prompt_encoder[model.active_adapter]
        if {name for name, _ in encoder.named_parameters()} != {"embedding.weight"}:
            raise UserError(
                f"`{method}` cannot go on from `{folder}`: the network that wrote its prompt was not kept",
                hint="start from a variant without one, such as `prompt`, `ptuning_v2` or `prefix:projection=false`",
            )
    saved = load_peft_weights(str(folder), device="cpu")
    made = get_peft_model_state_dict(model)
    if len(model.peft_config) > 1:  # saved together: the part that is trained comes first
        saved = {name: tensor[tuple(map(slice, made[name].shape))] for name, tensor in saved.items() if name in made}
    made_by = json.loads((folder / "adapter_config.json").read_text(encoding="utf-8"))
    if made_by.get("rank_pattern") and made_by["peft_type"] == "ADALORA":
        raise UserError(
            f"`{method}` cannot go on from `{folder}`: ranks were cut there, and a new training begins with all of them",
            hint="start from a method that cuts none, such as `lora`",
        )
    differing = sorted(saved.keys() ^ made.keys()) or [n for n in made if saved[n].shape != made[n].shape]
    if differing:
        raise UserError(
            f"`{method}` cannot go on from `{folder}`: {differing[0]} is not of the same shape in both",
            hint="the hyperparameters and the base must be those that it was trained with",
        )
    set_peft_model_state_dict(model, saved)


def load_delta(model: nn.Module, folder: Path, method: str) -> None:
    """Gives the weights that a method trains the values in a folder; what they held before stays as it is."""
    from safetensors.torch import load_file

    try:
        delta = load_file(folder / DELTA_FILE)
    except (OSError, SafetensorError) as error:
        raise UserError(
            f"`{folder / DELTA_FILE}` cannot be read: {error}", hint="train again with `--fresh`"
        ) from error
    trained = {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}
    if delta.keys() != trained.keys():
        unknown, lacking = delta.keys() - trained.keys(), trained.keys() - delta.keys()
        what = f"holds tensors that method `{method}` does not make: " if unknown else "lacks tensors that it trains: "
        raise UserError(
            f"`{folder}` does not fit method `{method}` on this base: it {what}{min(unknown or lacking)}",
            hint="the method's code has changed since, or it was trained on another base: train again with `--fresh`",
        )
    for name, parameter in trained.items():
        if delta[name].shape != parameter.shape:
            shapes = " and ".join(str(list(tensor.shape)) for tensor in (delta[name], parameter))
            raise UserError(
                f"`{folder}` does not fit this base: {name} has the shapes {shapes}",
                hint="a delta runs on the base it was trained on",
            )
        parameter.data = delta[name].to(parameter.device, parameter.dtype)


def load_adapter(base: Any, folder: Path) -> Any:
    """A PEFT model around a base; an adapter that fits in part only is refused, where peft would warn or say nothing."""
    from peft import PeftModel

    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("error", message="Found missing adapter keys")
            model = PeftModel.from_pretrained(base, folder, is_trainable=False)
        if not model.active_peft_config.is_prompt_learning:
            if model.active_peft_config.peft_type == "ADALORA":
                model.active_peft_config.rank_pattern = None  # its layers have the ranks that are left by now
            unknown = model.load_adapter(folder, "default").unexpected_keys  # only this call tells
            if unknown:
                raise ValueError(f"the base has no place for {unknown[0]}")
    except torch.OutOfMemoryError:
        raise
    except (ValueError, RuntimeError, KeyError, UserWarning, SafetensorError) as error:
        raise UserError(
            f"the adapter `{folder}` does not fit this base: {str(error).splitlines()[0][:300]}",
            hint="an adapter runs on the base it was trained on",
        ) from error
    return model
