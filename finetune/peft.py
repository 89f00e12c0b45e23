"""Any method of the peft library, by its type name: `peft:type=VERA,r=256`.

The other keys are those of the type's configuration class in the library, with the library's defaults. They are listed
at https://huggingface.co/docs/peft/package_reference/peft_types. Good learning rates differ by a factor of 100 between
types: give `lr`.

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

_UNSUPPORTED = {
    "XLORA": "mixes adapters that are already trained, and there are none",
    "POLY": "needs the task of every row",
    "MULTITASK_PROMPT_TUNING": "needs the task of every row",
    "LILY": "lets the texts of a batch change one another's output (`lily` does not)",
    "CPT": "needs the role of every token",
}
"""Types that do not work here, with the reason."""


@method(lr=1e-3, parameters="that of the type")
def peft(model: Module, *, type: str = "LORA", **options: Any) -> Module:
    """Any type of the peft library; further keys are those of its configuration class."""
    from peft import PEFT_TYPE_TO_CONFIG_MAPPING, PeftConfig, get_peft_model

    known = {str(kind.value): config for kind, config in PEFT_TYPE_TO_CONFIG_MAPPING.items()}
    usable = sorted(known.keys() - _UNSUPPORTED.keys())
    if type in _UNSUPPORTED:
        raise UserError(f"peft's {type} {_UNSUPPORTED[type]}", hint="use one of " + ", ".join(usable))
    if type not in known:
        near = difflib.get_close_matches(type.upper(), usable, n=1)
        hint = f"did you mean `{near[0]}`?" if near else "use one of " + ", ".join(usable)
        raise UserError(f"peft has no type `{type}`", hint=hint)
    shared = {field.name for field in dataclasses.fields(PeftConfig)}
    keys = [field.name for field in dataclasses.fields(known[type]) if field.init and field.name not in shared]
    for key in options.keys() - set(keys):
        raise UserError(f"peft:type={type} has no key `{key}`", hint="its keys: " + ", ".join(keys))
    try:
        config = known[type](task_type="CAUSAL_LM", **{**_needed(model, type), **options})
        adapted: Module = get_peft_model(model, config)
    except ImportError as error:
        raise UserError(f"peft:type={type}: {error}", hint="install the package that it needs") from error
    except (TypeError, ValueError, AttributeError) as error:
        if "target_modules" in options and "not found in the base model" in str(error):
            linear_layers(model, options["target_modules"])  # raises an error that lists the names
        raise UserError(f"peft:type={type}: {error}", hint="its keys: " + ", ".join(keys)) from error
    return adapted


def _needed(model: Module, type: str) -> dict[str, Any]:
    """Returns values for required keys that have no usable default in the library."""
    if type == "ADAPTION_PROMPT":
        return {"adapter_len": 10, "adapter_layers": len(decoder_layers(model)[1])}
    if type == "ADALORA":
        return {"total_step": 1000}  # the trainer scales the schedule to the number of steps
    if type in ("PROMPT_TUNING", "P_TUNING", "PREFIX_TUNING", "CARTRIDGE"):
        return {"num_virtual_tokens": 20}
    return {}
