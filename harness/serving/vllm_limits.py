"""The variants that vLLM takes: it refuses some, and some it would load and answer for with other numbers than PEFT's."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness.data.gguf import is_gguf
from harness.jobs import HEAD_FILE, Recipe, Vllm
from harness.storage import read_json

RANKS = (1, 8, 16, 32, 64, 128, 256, 320, 512)
"""Values of `--max-lora-rank`."""
_PLAIN_STARTS = ("gaussian", "orthogonal", "eva")
"""Ways to initialize an adapter that leave the base as it is; others, such as PiSSA, change the base's weights."""
_FREE_FIELDS = frozenset(
    {
        *("peft_type", "task_type", "base_model_name_or_path", "revision", "inference_mode", "peft_version"),
        *("auto_mapping", "r", "lora_alpha", "lora_dropout", "target_modules", "exclude_modules", "use_rslora"),
        *(
            "init_lora_weights",
            "layers_to_transform",
            "layers_pattern",
            "eva_config",
            "megatron_core",
            "runtime_config",
        ),
        *("ensure_weight_tying", "qalora_group_size"),
    }
)
"""Fields of `adapter_config.json` that may have any value; every other one must be empty, as it changes what LoRA computes."""
_UNSTEADY_ROPES = ("longrope", "dynamic", "su")
"""Rotary embeddings that depend on the length of the text in transformers, and on `--max-model-len` in vLLM."""
_LARGEST_HEADER = 100 << 20


@dataclass(frozen=True)
class Lora:
    """An adapter that vLLM takes."""

    folder: Path
    rank: int
    targets: frozenset[str]
    """Last names of the layers that it adapts, such as `q_proj`."""


class NotTaken(Exception):
    """vLLM does not take a variant; the message is the reason."""


def refuse_base(recipe: Recipe, vllm: Vllm) -> None:
    """Checks the base of a variant.

    Args:
        recipe: How the variant is loaded.
        vllm: The installation.

    Raises:
        NotTaken: vLLM does not take it.
    """
    base = recipe.base
    device = base.device.split(":")[0]
    if device != vllm.device:
        raise NotTaken(f"vLLM {vllm.version} was built for {vllm.device}, and the run is on {device}")
    if base.quant is not None:
        raise NotTaken(f"vLLM does not take a base in {base.quant}")
    if base.reader != "transformers":
        raise NotTaken(f"{base.reader} reads these weights")
    if base.trust_remote_code:
        raise NotTaken("the model may need code of its own, which runs in our process alone")
    if is_gguf(base.folder):
        raise NotTaken("vLLM does not take GGUF files")
    try:
        config = read_json(base.folder / "config.json")
    except (OSError, ValueError) as error:
        raise NotTaken("the model has no `config.json` that vLLM could read") from error
    if not isinstance(config, dict) or config.get("quantization_config"):
        raise NotTaken("vLLM does not take a quantized checkpoint")
    if (base.folder / HEAD_FILE).is_file():
        raise NotTaken("a reward model generates no text")
    names = config.get("architectures") or []
    if vllm.architectures and not any(name in vllm.architectures for name in names):
        raise NotTaken(
            f"vLLM {vllm.version} does not know the architecture {', '.join(map(str, names)) or 'of the model'}"
        )
    for ropes in (config.get("rope_scaling"), config.get("rope_parameters")):
        if isinstance(ropes, dict) and (kind := _rope(ropes)) in _UNSTEADY_ROPES:
            raise NotTaken(f"vLLM computes positions of the kind `{kind}` in another way")


def refuse_rules(rules: Iterable[str]) -> None:
    """Checks the fields of the model's `generation_config.json` that change which token comes next.

    Raises:
        NotTaken: vLLM does not apply one of them as we do.
    """
    if other := sorted(set(rules) - {"repetition_penalty"}):
        raise NotTaken(f"vLLM does not apply {', '.join(other)} of the model's generation_config.json as we do")


def lora_of(recipe: Recipe) -> Lora | None:
    """The adapter of a variant as vLLM takes it; None for the base itself.

    Raises:
        NotTaken: vLLM does not take it.
    """
    folder = recipe.adapter
    if folder is None:
        return None
    if recipe.merged:
        raise NotTaken("the merged weights are in no file that vLLM could load")
    if recipe.method is not None or not (folder / "adapter_config.json").is_file():
        raise NotTaken("vLLM takes LoRA adapters, and no other trained weights")
    try:
        made = read_json(folder / "adapter_config.json")
        layers = _layers(folder / "adapter_model.safetensors")
    except (OSError, ValueError) as error:
        raise NotTaken("its files cannot be read") from error
    if not isinstance(made, dict) or made.get("peft_type") != "LORA":
        kind = made.get("peft_type") if isinstance(made, dict) else None
        raise NotTaken(f"vLLM takes LoRA adapters, and not {kind or 'others'}")
    if (folder / HEAD_FILE).is_file():
        raise NotTaken("a reward model generates no text")
    _refuse_fields(made)
    rank = made.get("r")
    if not isinstance(rank, int) or rank < 1:
        raise NotTaken("its rank cannot be read")
    if rank > RANKS[-1]:
        raise NotTaken(f"its rank {rank} is above vLLM's limit of {RANKS[-1]}")
    targets = frozenset(layer.rpartition(".")[2] for layer in layers)
    if odd := sorted(layer for layer in layers if ".layers." not in layer and ".h." not in layer):
        raise NotTaken(f"it adapts `{odd[0].rpartition('.')[2]}`, the head or the embedding, which vLLM does not")
    if not targets:
        raise NotTaken("it has no weights")
    return Lora(folder, rank, targets)


def rank_limit(loras: Iterable[Lora]) -> int:
    """The smallest value of `--max-lora-rank` for some adapters.

    Example:
        >>> rank_limit([Lora(Path("a"), 12, frozenset({"q_proj"}))])
        16
    """
    return next(rank for rank in RANKS if rank >= max(lora.rank for lora in loras))


def _refuse_fields(made: Mapping[str, Any]) -> None:
    if made.get("use_dora"):
        raise NotTaken("vLLM does not take DoRA")
    if made.get("modules_to_save"):
        raise NotTaken("vLLM does not take whole modules beside LoRA (`modules_to_save`)")
    start = made.get("init_lora_weights")
    if isinstance(start, str) and start.lower() not in _PLAIN_STARTS:
        raise NotTaken(f"vLLM does not take an adapter that began as `{start}`, which changes the base")
    for name, value in made.items():
        empty = not value or value == "none" or (isinstance(value, dict) and not any(value.values()))
        if name not in _FREE_FIELDS and not empty:
            raise NotTaken(f"vLLM does not apply `{name}` of adapter_config.json")


def _layers(file: Path) -> set[str]:
    """Names of the layers that the tensors of an adapter belong to, from the header of its file."""
    with file.open("rb") as opened:
        size = int.from_bytes(opened.read(8), "little")
        if not 0 < size <= _LARGEST_HEADER:
            raise ValueError("no header")
        header = json.loads(opened.read(size))
    names = [name for name in header if name != "__metadata__"]
    return {name.partition(".lora_")[0] for name in names}


def _rope(ropes: Mapping[str, Any]) -> str:
    return str(ropes.get("rope_type") or ropes.get("type") or "")
