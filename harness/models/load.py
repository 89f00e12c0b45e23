"""Loads a base once, attaches variants to it one after the other, and counts parameters and bytes.

A `Resident` holds one base in memory. Attaching an adapter or a delta and detaching it leaves the base bit-equal, which is
checked. Where the weights themselves were changed (by merging, or by a method that does so), the base is loaded again for
the next variant.
"""

from __future__ import annotations

import gc
import inspect
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from torch import Tensor, nn
from torch.utils._python_dispatch import is_traceable_wrapper_subclass
from transformers import AutoConfig, AutoModelForCausalLM, BitsAndBytesConfig, CompressedTensorsConfig
from transformers.quantizers.auto import AutoHfQuantizer
from transformers.quantizers.base import get_keys_to_not_convert

from harness.data.architecture import refuse_other_architectures
from harness.data.gguf import is_gguf, pretrained
from harness.data.model_files import require_safetensors
from harness.deploy.kept import is_deployed
from harness.errors import UserError
from harness.jobs import HEAD_FILE, QUANT_OF_BITS, Base, Method, Quant, Recipe
from harness.models.artifacts import load_adapter, load_delta
from harness.models.gguf import unpacked
from harness.models.layers import bypassed_layers
from harness.models.llama_cpp_model import LlamaCppModel
from harness.models.merge import dequantize, merge_adapter, refuse_added_weights, restore_conv1d, untie_if_apart
from harness.models.reach import unquantized_notes
from harness.models.report import UNREADABLE, cannot_be_loaded, read_report, refuse_packed, untied_note
from harness.models.restore import OriginalState
from harness.models.reward_head import load_head, put_head
from harness.models.soft_prompts import learned_tokens
from harness.registry.find import find
from harness.registry.load import load_method
from harness.tokens.tokenizer import input_limit
from harness.user_code import limit, user_code

_ATTACHING = 10
"""Time limits of a call of user code in which an adapter must be attached: the weights of a large one take a minute to read."""

LoadMethod = Callable[[Method], Callable[..., nn.Module]]
"""Finds a method's function: `method_function`, or a cached version of it."""


def method_function(method: Method) -> Callable[..., Any]:
    """Imports a method's file and returns its function."""
    return load_method(find("method", method.source))


def load_config(base: Base) -> Any:
    """Loads the configuration of a base.

    Raises:
        UserError: It cannot be read, or is of another kind of model than a causal language model.
    """
    try:
        config = AutoConfig.from_pretrained(**pretrained(base.folder), trust_remote_code=base.trust_remote_code)
        fields = config.to_dict()
        config.get_text_config().to_dict()
    except (*UNREADABLE, AttributeError, TypeError) as error:  # of fields with impossible values
        raise cannot_be_loaded(base.folder, error) from error
    refuse_other_architectures(str(base.folder), fields)
    kernels = {str(part._attn_implementation) for part in (config, config.get_text_config())}
    if not base.trust_remote_code and (code := next((kernel for kernel in kernels if "/" in kernel), None)):
        raise UserError(
            f"the model in `{base.folder}` computes its attention with `{code}`, code from the Hub",
            hint="remove `attn_implementation` from its config.json; if you trust that code, add `--trust-remote-code`",
        )
    return config


def load_base(base: Base) -> Any:
    """Loads the weights of a base on its device, in evaluation mode, quantized where that is asked.

    Args:
        base: The base.

    Returns:
        The model; its `loading_notes` are notes for the user.

    Raises:
        UserError: The model cannot be loaded, is no causal language model, lacks weights, or has no linear layers to
            quantize.
    """
    config = load_config(base)
    torch.backends.cuda.enable_cudnn_sdp(False)  # it compiles a kernel for every new length: 35 ms a step of generation
    if base.device.startswith("cuda:"):
        torch.cuda.set_device(base.device)  # for kernels that run on the current device
    packed = getattr(config, "quantization_config", None) is not None
    if base.reader == "llamacpp":
        return LlamaCppModel(base, config, torch.get_num_threads()).eval()
    if is_gguf(base.folder):
        return _load_gguf(base)
    require_safetensors(str(base.folder), base.folder)
    _refuse_unknown_format(base.folder, config)
    options: dict[str, Any] = {
        "dtype": getattr(torch, base.dtype),
        "trust_remote_code": base.trust_remote_code,
        "use_safetensors": True,
    }
    if base.quant is not None:
        options["quantization_config"] = quantization(base.quant, base.dtype)
        options["quantization_config"].llm_int8_skip_modules = _left_whole(config)
    if is_deployed(base.folder) and _format(config) == "compressed-tensors":  # packed ones are unpacked at every pass
        options["quantization_config"] = CompressedTensorsConfig(run_compressed=False)
    if base.quant is not None or packed:
        options["device_map"] = {"": base.device}
    try:
        model, report = AutoModelForCausalLM.from_pretrained(
            base.folder, output_loading_info=True, ignore_mismatched_sizes=True, **options
        )
    except (*UNREADABLE, AttributeError, TypeError) as error:  # of fields with impossible values
        raise cannot_be_loaded(base.folder, error) from error
    if not packed:
        refuse_packed(base.folder, report)
    report["mismatched_keys"] |= _quantized_mismatches(model)
    model.loading_notes = read_report(base.folder, type(model).__name__, report)
    model.loading_notes += untied_note(model)
    if base.quant is None:
        model = model if packed else model.to(base.device)
    elif not any(_is_quantized(module) for module in model.modules()):
        raise UserError(
            f"the model in `{base.folder}` has no linear layers to quantize to {base.quant}",
            hint="compare it without `qlora`, `@4bit` and `@8bit`",
        )
    quantized = [module for module in model.modules() if packed and _is_quantized(module)]
    if quantized and not (all(map(_holds_packed_weight, quantized)) and _stores_bytes(base.folder)):
        raise UserError(
            f"config.json in `{base.folder}` says that the weights are quantized, but the weights in the file are not",
            hint="remove `quantization_config` from config.json; programs that merge an adapter often leave it there",
        )
    if base.quant is not None:
        model.loading_notes += unquantized_notes(model)
    _steady_kernels(model)
    model.requires_grad_(False)
    model.config.use_cache = False
    return model.eval()


def _refuse_unknown_format(folder: Path, config: Any) -> None:
    """Refuses weights quantized in a format that transformers does not know: it would take them for plain weights."""
    method = _format(config)
    if method and not AutoHfQuantizer.supports_quant_method(config.quantization_config):
        raise UserError(
            f"the weights in `{folder}` are quantized in the format `{method}`, which transformers does not read",
            hint="give a checkpoint in another format, such as the model that it was made from",
        )


def _format(config: Any) -> str | None:
    """The format of quantized weights that a configuration names."""
    given = getattr(config, "quantization_config", None)
    return given.get("quant_method") if isinstance(given, dict) else None


def _holds_packed_weight(module: Any) -> bool:
    packed = getattr(module.weight, "quant_state", None) is not None
    return packed or not module.weight.is_floating_point()


def _stores_bytes(folder: Path) -> bool:
    """Whether the weight files have tensors of bytes, as bitsandbytes writes; transformers before 5.23 packs plain weights."""
    for path in folder.glob("*.safetensors"):
        with safe_open(path, "pt") as file:
            if any(file.get_slice(name).get_dtype() in ("U8", "I8") for name in file.keys()):  # noqa: SIM118
                return True
    return False


def _left_whole(config: Any) -> list[str] | None:
    """Names of the linear layers of a state-space model that are not quantized; None: those that transformers leaves out."""
    kind = AutoModelForCausalLM._model_mapping.get(type(config), None)
    if kind is None or "A_log" not in Path(inspect.getfile(kind)).read_text(encoding="utf-8"):
        return None
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config)
    return [*bypassed_layers(model), *get_keys_to_not_convert(model)]


def _load_gguf(base: Base) -> Any:
    """Loads the plain copy of a GGUF file."""
    folder = unpacked(base)
    model = load_base(replace(base, folder=folder))
    if not is_deployed(base.folder):
        model.loading_notes.append(_unpacked_note(base, folder))
    return model


def _unpacked_note(base: Base, folder: Path) -> str:
    return (
        f"the weights of `{base.folder.name}` are unpacked to {base.dtype}, in `{folder}`; training changes the unpacked"
        " weights"
    )


def quantization(quant: Quant, dtype: str) -> BitsAndBytesConfig:
    """Settings for bitsandbytes; LLM.int8 gets threshold 0, so that its outputs do not depend on the batch."""
    if quant == "int8":
        return BitsAndBytesConfig(load_in_8bit=True, llm_int8_threshold=0.0)
    return BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type=quant.removesuffix("_single"),
        bnb_4bit_use_double_quant=not quant.endswith("_single"),
        bnb_4bit_compute_dtype=getattr(torch, dtype),
    )


class Resident:
    """One base in memory, and the variant that is attached to it at the moment.

    Args:
        base: The weights to load.
        load_method: Finds the function of a method, to attach its delta.
    """

    def __init__(self, base: Base, load_method: LoadMethod) -> None:
        self.base = base
        self._load_method = load_method
        self._model: Any = None
        self._original: OriginalState | None = None
        self._attached = False

    @property
    def bare(self) -> Any:
        """The base itself, without a variant."""
        assert not self._attached, "detach first"
        if self._model is None:
            gc.collect()
            self._model = load_base(self.base)
        return self._model

    def attach(self, recipe: Recipe) -> Any:
        """Attaches a variant and returns its model, ready to run; the variant before it is detached.

        Raises:
            UserError: The adapter or delta does not fit this base, or cannot be merged.
        """
        self.detach()
        base = self.bare
        trained = recipe.adapter or recipe.base.folder
        has_head = (trained / HEAD_FILE).is_file()
        if recipe.adapter is None and not has_head:
            return base
        if recipe.merged:
            self._model = self._original = None  # merging changes the weights of the base
            merged = self._merged(base, recipe)
            return _with_reward_head(merged, trained) if has_head else merged
        self._original = self._original or OriginalState(base)
        self._attached = True
        try:
            model = base if recipe.adapter is None else self._adapted(base, recipe)
            return _with_reward_head(model, trained) if has_head else model
        except BaseException:
            self.detach()
            raise

    def detach(self) -> None:
        """Detaches the variant; the base is again as it was loaded."""
        if not self._attached:
            return
        assert self._original is not None
        if not self._original.restore():
            self._model = self._original = None  # weights were overwritten: load again
        self._attached = False

    def _merged(self, base: Any, recipe: Recipe) -> Any:
        if recipe.method is not None and not getattr(self._load_method(recipe.method), "mergeable", True):
            raise UserError(f"method `{recipe.method.name}` cannot be merged", hint="leave out `@merged`")
        transposed: list[str] = []
        if recipe.base.quant is not None:
            base, transposed = dequantize(base)
        places = set(base.state_dict())
        merged = self._adapted(base, recipe)
        if hasattr(merged, "peft_config"):
            merged = merge_adapter(merged, recipe)
        restore_conv1d(merged, transposed)
        merged = merged.to(getattr(torch, recipe.base.dtype)).eval()
        if recipe.bits_after_merge is None:
            return merged
        refuse_added_weights(
            merged, places, hint=f"quantize the base alone: `@{recipe.bits_after_merge}bit` without `@merged`"
        )
        return _requantize(merged, recipe)

    def _adapted(self, base: Any, recipe: Recipe) -> Any:
        """Attaches an adapter or a delta; one whose settings take a time without end ends this process."""
        assert recipe.adapter is not None
        with user_code(recipe.adapter, "being attached", seconds=_ATTACHING * limit()):
            if (recipe.adapter / "adapter_config.json").is_file():
                return load_adapter(base, recipe.adapter).eval()
            assert recipe.method is not None
            model = self._load_method(recipe.method)(base, **recipe.method.hyperparameters)
            load_delta(model, recipe.adapter, recipe.method.name)
            return model.requires_grad_(False).eval()


def _with_reward_head(model: Any, folder: Path) -> Any:
    """Replaces the model's output head by the reward head that was trained with it."""
    put_head(model, load_head(folder, model).requires_grad_(False))
    return model


def count_parameters(model: nn.Module) -> tuple[int, int]:
    """Counts total and trainable parameters; a packed 4-bit weight counts with its unpacked size.

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
    """Counts the bytes of a model's weights and buffers in memory, scales and code books of quantized ones included.

    Example:
        >>> model_bytes(nn.Linear(3, 2))
        32
    """
    seen: set[int] = set()
    total = 0
    for tensor in (plain for each in _tensors(model) for plain in _plain_tensors(each)):
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in seen:
            seen.add(storage.data_ptr())
            total += tensor.numel() * tensor.element_size()
    return total


def context_length(model: Any, tokenizer: Any) -> int:
    """Longest text in tokens that the model takes: a learned prompt takes up a part of its context."""
    return input_limit(model.config.get_text_config(), tokenizer) - learned_tokens(model)


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


def _plain_tensors(tensor: Tensor) -> Iterator[Tensor]:
    """The tensors that hold the numbers of a tensor: torchao's classes wrap weights, scales and zero points."""
    if not is_traceable_wrapper_subclass(tensor):
        yield tensor
        return
    for name in tensor.__tensor_flatten__()[0]:
        yield from _plain_tensors(getattr(tensor, name))


def _requantize(merged: Any, recipe: Recipe) -> Any:
    with tempfile.TemporaryDirectory(prefix="harness-merged-") as folder:
        if hasattr(merged.config, "quantization_config"):
            del merged.config.quantization_config
        untie_if_apart(merged)
        merged.save_pretrained(folder)
        return load_base(replace(recipe.base, folder=Path(folder), quant=QUANT_OF_BITS[recipe.bits_after_merge]))


def _is_quantized(module: nn.Module) -> bool:
    return type(module).__name__ in ("Linear4bit", "Linear8bitLt")


def _quantized_mismatches(model: nn.Module) -> set[tuple[str, Any, Any]]:
    """Quantized weights whose shape in the checkpoint is not the layer's: the loading report leaves them out."""
    found = set()
    for name, module in model.named_modules():
        if _is_quantized(module):
            state = getattr(module.weight, "quant_state", None)
            in_file = tuple(state.shape if state is not None else module.weight.shape)
            wanted = (module.out_features, module.in_features)
            if in_file != wanted:
                found.add((f"{name}.weight", in_file, wanted))
    return found


def _steady_kernels(model: nn.Module) -> None:
    """Makes the outputs of quantized layers independent of the batch and of gradients.

    bitsandbytes repacks 4-bit weights in place at the first forward pass on AVX512-BF16 processors; repacked weights give
    garbage when they are dequantized, merged or moved (bitsandbytes issue 2078). With a threshold, LLM.int8 treats columns
    with a large value anywhere in the batch differently.
    """
    for module in model.modules():
        if type(module).__name__ == "Linear4bit":
            setattr(module, "support_avx512bf16_for_cpu", False)  # noqa: B010 - not declared by nn.Module
        elif type(module).__name__ == "Linear8bitLt":
            module.state.threshold = 0.0  # type: ignore[union-attr]
