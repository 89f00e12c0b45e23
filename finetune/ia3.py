"""IA3: trains a factor for each key, value and inner activation of the MLP.

Paper: Liu et al., "Few-Shot Parameter-Efficient Fine-Tuning is Better and Cheaper than In-Context Learning", 2022
(arXiv 2205.05638). Fewer parameters than almost any other method; for little data. Needs a high learning rate. A merged
IA3 costs no time.

Example:
    harness compare lora ia3 ia3:target_modules=all-linear
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING

from harness import linear_layers, method
from harness.finetune._peft import add_adapter

if TYPE_CHECKING:
    from torch.nn import Module

_KEYS_AND_VALUES = re.compile(r"k_proj|v_proj|key|value|qkv|c_attn", re.IGNORECASE)
_AFTER_ACTIVATION = re.compile(r"down_proj|4h_to_h|fc2|fc_out|c_proj|\bw2|dense_out")
"""Names that architectures give to the layers of the paper."""


@method(lr=5e-3, parameters="out for the keys and values, in for the layers after the MLP's activation")
def ia3(
    model: Module,
    *,
    target_modules: str | Sequence[str] | None = None,
    layers: Sequence[int] | None = None,
) -> Module:
    """Trained factors on keys, values and inner activations, or on the outputs of `target_modules`."""
    from peft import IA3Config

    if target_modules is None:
        chosen = [name for name in linear_layers(model, "attention", layers=layers) if _is(_KEYS_AND_VALUES, name)]
        chosen += [name for name in linear_layers(model, "mlp", layers=layers) if _is(_AFTER_ACTIVATION, name)]
    else:
        chosen = linear_layers(model, target_modules, layers=layers)
    if not chosen:
        raise ValueError(
            "the keys, values and inner activations of this architecture are not known: give `target_modules`"
        )
    inner = [name for name in chosen if _is(_AFTER_ACTIVATION, name)]
    return add_adapter(model, IA3Config, target_modules=chosen, feedforward_modules=inner)


def _is(kind: re.Pattern[str], name: str) -> bool:
    return kind.search(name.rpartition(".")[2]) is not None
