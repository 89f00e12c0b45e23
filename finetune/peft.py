"""Any method of the peft library, by the name of its type: `peft:type=VERA,r=256`.

What follows the type are the keys of the library's own configuration of it, with the library's defaults, which are listed
at https://huggingface.co/docs/peft/package_reference/peft_types. Rates differ by a hundred times between types: give `lr`.

Example:
    harness compare base peft:type=HRA peft:type=LORA,r=8,use_dora=true peft:type=BOFT,lr=1e-3
"""

from __future__ import annotations

import dataclasses
import difflib
from typing import TYPE_CHECKING, Any

from harness import UserError, decoder_layers, linear_layers, method

if TYPE_CHECKING:
    from torch.nn import Module

_WANTING = {
    "XLORA": "mixes adapters that were trained before, and has none",
    "POLY": "must be told of every row which task it is from",
    "MULTITASK_PROMPT_TUNING": "must be told of every row which task it is from",
    "LILY": "lets the texts of a batch change one another (`lily` does not)",
    "CPT": "must be told of every token what it is there for",
}
"""Types that do not work here, and why."""


@method(lr=1e-3, parameters="that of the type")
def peft(model: Module, *, type: str = "LORA", **options: Any) -> Module:
    """Any type of the peft library; further keys are those of its configuration class."""
    from peft import PEFT_TYPE_TO_CONFIG_MAPPING, PeftConfig, get_peft_model

    known = {str(kind.value): config for kind, config in PEFT_TYPE_TO_CONFIG_MAPPING.items()}
    usable = sorted(known.keys() - _WANTING.keys())
    if type in _WANTING:
        raise UserError(f"peft's {type} {_WANTING[type]}", hint="one of " + ", ".join(usable))
    if type not in known:
        near = difflib.get_close_matches(type.upper(), usable, n=1)
        hint = f"did you mean `{near[0]}`?" if near else "one of " + ", ".join(usable)
        raise UserError(f"peft has no type `{type}`", hint=hint)
    shared = {field.name for field in dataclasses.fields(PeftConfig)}
    keys = [field.name for field in dataclasses.fields(known[type]) if field.init and field.name not in shared]
    for key in options.keys() - set(keys):
        raise UserError(f"peft:type={type} has no key `{key}`", hint="its keys: " + ", ".join(keys))
    try:
        config = known[type](task_type="CAUSAL_LM", **{**_needed(model, type), **options})
        adapted: Module = get_peft_model(model, config)
    except ImportError as error:
        raise UserError(f"peft:type={type}: {error}", hint="it needs a package that harness does not") from error
    except (TypeError, ValueError, AttributeError) as error:
        if "target_modules" in options and "not found in the base model" in str(error):
            linear_layers(model, options["target_modules"])  # says which there are
        raise UserError(f"peft:type={type}: {error}", hint="its keys: " + ", ".join(keys)) from error
    return adapted


def _needed(model: Module, type: str) -> dict[str, Any]:
    """Values of keys that the library has no default for."""
    if type == "ADAPTION_PROMPT":
        return {"adapter_len": 10, "adapter_layers": len(decoder_layers(model)[1])}
    if type == "ADALORA":
        return {"total_step": 1000}  # the trainer scales the schedule to the steps that there are
    if type in ("PROMPT_TUNING", "P_TUNING", "PREFIX_TUNING", "CARTRIDGE"):
        return {"num_virtual_tokens": 20}
    return {}
