"""Any method of the peft library, by the name of its type: `peft:type=VERA,r=256`.

What follows the type goes to the library's own configuration class, which checks it. See
https://huggingface.co/docs/peft/package_reference/peft_types for the types.

Example:
    harness compare base peft:type=IA3 peft:type=LORA,r=8,use_dora=true
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from harness import UserError, method

if TYPE_CHECKING:
    from torch.nn import Module


@method(lr=1e-3)
def peft(model: Module, *, type: str = "LORA", **options: Any) -> Module:
    """Any peft type; further keys are those of its configuration class."""
    from peft import PEFT_TYPE_TO_CONFIG_MAPPING, get_peft_model

    known = {str(kind.value): config for kind, config in PEFT_TYPE_TO_CONFIG_MAPPING.items()}
    if type not in known:
        raise UserError(f"peft has no type `{type}`", hint="one of " + ", ".join(sorted(known)))
    try:
        adapted: Module = get_peft_model(model, known[type](task_type="CAUSAL_LM", **options))
    except (TypeError, ValueError) as error:
        raise UserError(f"peft:type={type}: {error}", hint=f"the keys are those of {known[type].__name__}") from error
    return adapted
