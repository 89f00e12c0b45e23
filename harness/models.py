"""Bases, and the variants made of them: load once, attach in turn, count the bytes.

A `Resident` holds one base in memory. Attaching an adapter and taking it off again leaves the weights bit-equal; whatever
touches them (merging, a method that rewires modules) marks the base as spent, and the next variant gets a fresh load.
"""

from __future__ import annotations

import gc
import json
import tempfile
import warnings
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from torch import Tensor, nn
from transformers import AutoModelForCausalLM, BitsAndBytesConfig

from harness.errors import UserError
from harness.jobs import Base, Bits, Method, Recipe

LoadMethod = Callable[[Method], Callable[..., nn.Module]]
"""Finds a method's function; handed in by the worker, so that this room imports no method."""


def load_base(base: Base) -> Any:
    """The weights of a base, in evaluation mode, on its device, quantized where asked.

    Raises:
        UserError: The architecture is no causal language model, or 4-bit is asked of a model without linear layers.
    """
    options: dict[str, Any] = {"dtype": getattr(torch, base.dtype), "trust_remote_code": base.trust_remote_code}
    if base.bits is not None:
        options["quantization_config"] = quantization(base.bits, base.dtype)
        options["device_map"] = {"": base.device}
    try:
        model = AutoModelForCausalLM.from_pretrained(base.folder, **options)
    except (ValueError, OSError, KeyError, SafetensorError) as error:
        raise UserError(
            f"the model in `{base.folder}` cannot be loaded: {str(error).splitlines()[0][:300]}",
            hint="a causal language model is needed; its own code needs `--trust-remote-code`",
        ) from error
    if base.bits is None:
        model = model.to(base.device)
    elif not any(_is_quantized(module) for module in model.modules()):
        raise UserError(
            f"the model in `{base.folder}` has no linear layers to quantize to {base.bits} bits",
            hint="compare it without `qlora`, `@4bit` and `@8bit`",
        )
    _steady_cpu_kernels(model)
    model.requires_grad_(False)
    model.config.use_cache = False
    return model.eval()


def quantization(bits: Bits, dtype: str) -> BitsAndBytesConfig:
    """NF4 with double quantization, or LLM.int8 with threshold 0 (whose outputs do not depend on the batch)."""
    if bits == 8:
        return BitsAndBytesConfig(load_in_8bit=True, llm_int8_threshold=0.0)
    return BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=getattr(torch, dtype),
    )


class Resident:
    """One base in memory, and the variant that is attached to it just now.

    Args:
        base: What to load.
        load_method: Finds the function of a method whose delta is to be attached.
    """

    def __init__(self, base: Base, load_method: LoadMethod) -> None:
        self.base = base
        self._load_method = load_method
        self._model: Any = None
        self._peft: Any = None

    @property
    def bare(self) -> Any:
        """The base itself, nothing attached."""
        assert self._peft is None, "detach first"
        if self._model is None:
            gc.collect()
            self._model = load_base(self.base)
        return self._model

    def attach(self, recipe: Recipe) -> Any:
        """The variant's model, ready to run.

        Raises:
            UserError: The adapter does not fit this base.
        """
        self.detach()
        base = self.bare
        if recipe.adapter is None:
            return base
        if not (recipe.adapter / "adapter_config.json").is_file():
            self._model = None  # the method rewires the base: it is spent
            return self._attach_delta(base, recipe)
        self._model = None  # spent, unless all goes well and the adapter can come off again
        if recipe.merged and recipe.base.bits is not None:
            base = base.dequantize()  # merging into 4-bit weights rounds the adapter away
        model = _with_adapter(base, recipe.adapter)
        if not recipe.merged:
            self._peft = model
            return model.eval()
        merged = model.merge_and_unload().to(getattr(torch, recipe.base.dtype)).eval()
        return merged if recipe.bits_after_merge is None else _requantize(merged, recipe)

    def detach(self) -> None:
        """Takes the adapter off; the base is as it was loaded."""
        if self._peft is not None:
            learns_a_prompt = self._peft.active_peft_config.is_prompt_learning  # then no module was changed
            self._model = self._peft.get_base_model() if learns_a_prompt else self._peft.unload()
            self._peft = None

    def _attach_delta(self, base: Any, recipe: Recipe) -> Any:
        from safetensors.torch import load_file

        assert recipe.adapter is not None and recipe.method is not None
        model = self._load_method(recipe.method)(base, **recipe.method.hyperparameters)
        delta = load_file(recipe.adapter / "delta.safetensors", device=self.base.device)
        missing = delta.keys() - dict(model.named_parameters()).keys()
        if missing:
            raise UserError(
                f"`{recipe.adapter}` holds tensors that method `{recipe.method.name}` does not make: {min(missing)}",
                hint="the method's code has changed since; train again with `--fresh`",
            )
        model.load_state_dict(delta, strict=False)
        return model.requires_grad_(False).eval()


def _with_adapter(base: Any, folder: Path) -> Any:
    """A PEFT model around a base; an adapter that fits in part only is refused, where peft would warn or say nothing."""
    from peft import PeftModel

    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("error", message="Found missing adapter keys")
            model = PeftModel.from_pretrained(base, folder, is_trainable=False)
        if not model.active_peft_config.is_prompt_learning:
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


def save_artifact(model: Any, tokenizer: Any, folder: Path, *, saves: str, method: Method) -> None:
    """Leaves what training made in `folder`: a PEFT adapter, a delta, or a whole checkpoint."""
    if hasattr(model, "peft_config"):
        model.save_pretrained(folder)
    elif saves == "checkpoint":
        model.save_pretrained(folder)
        tokenizer.save_pretrained(folder)
    else:
        from safetensors.torch import save_file

        trained = {name: p.detach().cpu().contiguous() for name, p in model.named_parameters() if p.requires_grad}
        save_file(trained, folder / "delta.safetensors")
        record = {"method": method.name, "hyperparameters": dict(method.hyperparameters)}
        (folder / "method.json").write_text(json.dumps(record, indent=1), encoding="utf-8")


def count_parameters(model: nn.Module) -> tuple[int, int]:
    """Total and trainable parameters; packed 4-bit weights count as what they stand for.

    Example:
        >>> count_parameters(nn.Linear(3, 2))
        (8, 8)
    """
    total = trainable = 0
    for parameter in model.parameters():
        state = getattr(parameter, "quant_state", None)
        size = state.shape.numel() if state is not None else parameter.numel()
        total += size
        trainable += size if parameter.requires_grad else 0
    return total, trainable


def model_bytes(model: nn.Module) -> int:
    """Bytes of a model's weights and buffers in memory, with the scales and code books of quantized ones.

    Example:
        >>> model_bytes(nn.Linear(3, 2))
        32
    """
    seen: set[int] = set()
    total = 0
    for tensor in _tensors(model):
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in seen:
            seen.add(storage.data_ptr())
            total += tensor.numel() * tensor.element_size()
    return total


def context_length(model: Any, tokenizer: Any) -> int:
    """Longest input the model takes, found as lm-evaluation-harness finds it."""
    config = model.config.get_text_config()
    for key in ("n_positions", "max_position_embeddings", "n_ctx"):
        value = getattr(config, key, None)
        if value:
            return int(value)
    return int(tokenizer.model_max_length) if tokenizer.model_max_length < 1e29 else 2048


def _tensors(model: nn.Module) -> Iterator[Tensor]:
    for parameter in model.parameters():
        yield parameter
        for state in (getattr(parameter, "quant_state", None), getattr(parameter, "SCB", None)):
            if isinstance(state, Tensor):
                yield state
            elif state is not None:
                nested = getattr(state, "state2", None)
                yield from (t for t in (state.absmax, state.code, state.offset) if isinstance(t, Tensor))
                if nested is not None:
                    yield from (t for t in (nested.absmax, nested.code) if isinstance(t, Tensor))
    yield from model.buffers()


def _requantize(merged: Any, recipe: Recipe) -> Any:
    with tempfile.TemporaryDirectory(prefix="harness-merged-") as folder:
        if hasattr(merged.config, "quantization_config"):
            del merged.config.quantization_config
        merged.save_pretrained(folder)
        return load_base(replace(recipe.base, folder=Path(folder), bits=recipe.bits_after_merge))


def _is_quantized(module: nn.Module) -> bool:
    return type(module).__name__ in ("Linear4bit", "Linear8bitLt")


def _steady_cpu_kernels(model: nn.Module) -> None:
    """Keeps bitsandbytes from repacking 4-bit weights in place at the first forward on AVX512-BF16 processors.

    Repacked weights give garbage when they are dequantized, merged or moved (bitsandbytes issue 2078), and other logits
    with gradients than without.
    """
    for module in model.modules():
        if type(module).__name__ == "Linear4bit":
            setattr(module, "support_avx512bf16_for_cpu", False)  # noqa: B010 - not declared by nn.Module
