"""A method of a third-party package."""

from peft import LoraConfig, get_peft_model
from torch.nn import Module

from harness import method


@method(lr=1e-3)
def lora_of_rivers(model: Module, *, rank: int = 2) -> Module:
    """LoRA on the queries alone."""
    return get_peft_model(model, LoraConfig(r=rank, target_modules=["q_proj"]))
