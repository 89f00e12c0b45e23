"""Saves and loads the artifact of a training run: a PEFT adapter, a delta, or a whole checkpoint.

A delta holds the weights that a method without PEFT trained; `method.json` beside it names the method. An artifact that
does not fit the base is refused, never loaded in part.
"""

from __future__ import annotations

import json
import re
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from torch import Tensor, nn

from harness.data.model_files import require_safetensors
from harness.errors import UserError, brief, is_out_of_memory
from harness.jobs import Method
from harness.models.merge import untie_if_apart
from harness.storage import read_json
from harness.user_code import user_code

DELTA_FILE = "delta.safetensors"
_WEIGHTS = "adapter_model.safetensors"


def save_artifact(model: Any, tokenizer: Any, folder: Path, *, saves: str, method: Method) -> None:
    """Saves a trained model in `folder`: as a PEFT adapter, a delta, or a whole checkpoint."""
    if hasattr(model, "peft_config"):
        _save_adapter(model, folder)
        (folder / "README.md").unlink(missing_ok=True)  # peft's model card is an empty template
    elif saves == "checkpoint":
        save_checkpoint(model, tokenizer, folder)
    else:
        from safetensors.torch import save_file

        save_file(trained_tensors(model), folder / DELTA_FILE)
        record = {"method": method.source, "hyperparameters": dict(method.hyperparameters)}
        (folder / "method.json").write_text(json.dumps(record, indent=1), encoding="utf-8")


def save_checkpoint(model: Any, tokenizer: Any, folder: Path) -> None:
    """Saves a whole model for transformers; its configuration keeps neither quantization nor our runtime settings."""
    if hasattr(model.config, "quantization_config"):
        del model.config.quantization_config
    model.config.use_cache = True
    untie_if_apart(model)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def trained_tensors(model: nn.Module) -> dict[str, Tensor]:
    """Trainable weights by name, copied to the host; a shared weight occurs once.

    Example:
        >>> list(trained_tensors(nn.Linear(3, 2)))
        ['weight', 'bias']
    """
    return {name: p.detach().cpu().contiguous() for name, p in model.named_parameters() if p.requires_grad}


def trained_shapes(model: Any) -> dict[str, tuple[int, ...]]:
    """Shapes of the tensors that an artifact of the model would hold, by name."""
    if hasattr(model, "peft_config"):
        from peft.utils import get_peft_model_state_dict

        return {name: tuple(tensor.shape) for name, tensor in get_peft_model_state_dict(model).items()}
    return {name: tuple(p.shape) for name, p in model.named_parameters() if p.requires_grad}


def _save_adapter(model: Any, folder: Path) -> None:
    """Saves a PEFT model's adapter; several LoRAs that are active together are saved as one LoRA with the same effect."""
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
    """Loads the tensors of an earlier training run into a model, to continue training them.

    Args:
        model: As the method has just made it.
        folder: The earlier artifact: an adapter or a delta.
        method: The method's name, for messages.

    Raises:
        UserError: The artifact was trained by another method, with other hyperparameters, or on another base.
    """
    if (folder / DELTA_FILE).is_file() and not hasattr(model, "peft_config"):
        load_delta(model, folder, method)
        return
    if not (folder / "adapter_config.json").is_file() or not hasattr(model, "peft_config"):
        raise UserError(
            f"`{method}` cannot go on from `{folder}`, which another method made",
            hint=f"give `start` an artifact that `{method}` made",
        )
    from peft.utils import get_peft_model_state_dict, load_peft_weights, set_peft_model_state_dict

    if model.active_peft_config.is_prompt_learning:
        encoder = model.prompt_encoder[model.active_adapter]
        if {name for name, _ in encoder.named_parameters()} != {"embedding.weight"}:
            raise UserError(
                f"`{method}` cannot go on from `{folder}`: the network that computed its prompt was not saved",
                hint="use a method without such a network: `prompt`, `ptuning_v2` or `prefix:projection=false`",
            )
    made_by = _adapter_config(folder)
    saved = load_peft_weights(str(folder), device="cpu")
    made = get_peft_model_state_dict(model)
    if len(model.peft_config) > 1:  # saved as one LoRA: the part that is trained comes first
        saved = {name: tensor[tuple(map(slice, made[name].shape))] for name, tensor in saved.items() if name in made}
    if made_by.get("rank_pattern") and made_by["peft_type"] == "ADALORA":
        raise UserError(
            f"`{method}` cannot go on from `{folder}`: its ranks were pruned, and a new training run starts with all ranks",
            hint="use a method that prunes no ranks, such as `lora`",
        )
    differing = sorted(saved.keys() ^ made.keys()) or [n for n in made if saved[n].shape != made[n].shape]
    if differing:
        raise UserError(
            f"`{method}` cannot go on from `{folder}`: {differing[0]} does not have the same shape in both",
            hint="use the hyperparameters and the base that it was trained with",
        )
    set_peft_model_state_dict(model, saved)


def load_delta(model: nn.Module, folder: Path, method: str) -> None:
    """Loads the delta in a folder into the weights that a method trains; the old tensors are not overwritten."""
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
            hint="the method's code has changed, or it was trained on another base: train again with `--fresh`",
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
    """Loads an adapter around a base; refuses one that fits only in part, where peft would warn or say nothing.

    Raises:
        UserError: The adapter does not fit this base, or its file is damaged.
    """
    from peft import PeftModel

    _try_patterns(folder, _adapter_config(folder), [name for name, _ in base.named_modules()])
    rows = base.get_input_embeddings().weight.shape[0]
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("error", message="Found missing adapter keys")
            model = PeftModel.from_pretrained(base, folder, is_trainable=False)
        if not model.active_peft_config.is_prompt_learning:
            if model.active_peft_config.peft_type == "ADALORA":
                model.active_peft_config.rank_pattern = None  # its layers have their pruned ranks already
            unknown = model.load_adapter(folder, "default").unexpected_keys  # only this call reports them
            if unknown:
                raise ValueError(f"the base has no place for {unknown[0]}")
    except Exception as error:  # peft raises whatever the settings of others lead to: TypeError, AttributeError …
        if is_out_of_memory(error):
            raise
        resized = _resized_vocabulary(error, rows)
        plain = isinstance(error, ValueError | RuntimeError | UserWarning | SafetensorError)
        what = resized or ("" if plain else f"{type(error).__name__}: ") + brief(error)
        hint = "add the same tokens to the base, resize it (`model.resize_token_embeddings`), and save both"
        raise UserError(
            f"the adapter `{folder}` does not fit this base: {what}",
            hint=hint if resized else "an adapter runs on the base it was trained on",
        ) from error
    return model


def _adapter_config(folder: Path) -> dict[str, Any]:
    """An adapter's `adapter_config.json`, refused if peft would import a module or read another folder for it.

    Raises:
        UserError: It cannot be read, or asks for one of the two; or the weights are not in a safetensors file.
    """
    file = folder / "adapter_config.json"
    try:
        config = read_json(file)
        if not isinstance(config, dict):
            raise ValueError("not a JSON object")
    except (OSError, ValueError) as error:
        raise UserError(f"could not read `{file}`: {error}", hint="save the adapter again") from error
    if config.get("megatron_config") is not None:  # peft imports the module that `megatron_core` names
        raise UserError(
            f"`{file}` has `megatron_config`, with which peft imports a module that the file names",
            hint="remove `megatron_config` and `megatron_core` from the file: they are for training on Megatron",
        )
    if str(config.get("peft_type", "")).upper() == "XLORA":
        raise UserError(
            f"`{file}` is of the type XLORA, which reads its adapters from other folders",
            hint="give each of its adapters as a variant of its own",
        )
    require_safetensors(str(folder), folder)
    if not (folder / _WEIGHTS).is_file():  # peft would read adapter_model.bin, a pickled file
        raise UserError(f"`{folder}` has no {_WEIGHTS}", hint="was the download interrupted? download or save it again")
    return config


def _try_patterns(folder: Path, config: Mapping[str, Any], modules: Sequence[str]) -> None:
    """Matches the regular expressions of an adapter as peft will: one that takes exponential time ends this process.

    Raises:
        UserError: One is malformed.
    """
    patterns = [config.get(key) for key in ("target_modules", "exclude_modules")]
    for key in ("rank_pattern", "alpha_pattern"):
        given = config.get(key) or {}
        if not isinstance(given, Mapping):
            raise UserError(
                f"`{folder / 'adapter_config.json'}`: `{key}` is not an object", hint="save the adapter again"
            )
        patterns += given
    with user_code(folder / "adapter_config.json", "its regular expressions"):
        for pattern in patterns:
            if not isinstance(pattern, str):
                continue
            try:
                expression = re.compile(pattern)
            except (re.error, RecursionError, OverflowError) as error:
                raise UserError(
                    f"`{folder / 'adapter_config.json'}` has a malformed regular expression: {error}",
                    hint="save the adapter again",
                ) from error
            for name in modules:
                expression.fullmatch(name)


_MISMATCH = re.compile(r"size mismatch for (\S+): .*?Size\(\[(\d+)((?:, \d+)*)\]\).*?Size\(\[(\d+)((?:, \d+)*)\]\)")
_WRAPPERS = ("weight", "original_module", "base_layer", "modules_to_save", "default")
"""Last parts of the name of a weight that peft wraps."""


def _resized_vocabulary(error: BaseException, rows: int) -> str | None:
    """Describes an adapter with embeddings of a larger vocabulary; None if its error has another reason.

    Args:
        error: The error of peft.
        rows: Rows of the base's embedding.
    """
    for name, theirs, theirs_rest, ours, ours_rest in _MISMATCH.findall(str(error)):
        if int(theirs) > int(ours) == rows and theirs_rest == ours_rest:
            module = [part for part in name.split(".") if part not in _WRAPPERS][-1]
            return f"{module} has {theirs} rows, the base {ours}: its tokenizer has added tokens"
    return None
