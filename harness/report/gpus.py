"""GPUs by name, for plans of machines that are not here: memory and published speed.

Speeds are the vendors' for dense matrices, without sparsity: in bfloat16 on tensor cores with sums in float32, and in float32
without tensor cores. Those of A100, A10, A40, H100, L4 and L40S were compared with published tables; the others are still to be.

Memory is in powers of 1000, 3 to 7 % below what torch sees of most of them: a margin for the context.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from harness.errors import UserError, did_you_mean

UTILISATION = 0.4
"""Share of the published speed that training is planned with. torchtune's published rates for an 8B model on an RTX 4090, compiled
and with packed rows, are 47 % (QLoRA), 48 % (full) and 60 % (LoRA) of it; without compilation, less."""


@dataclass(frozen=True)
class Gpu:
    """A GPU: memory in bytes, and floating-point operations per second."""

    name: str
    memory_bytes: int
    bf16_flops: float
    fp32_flops: float

    def flops(self, precision: str) -> float:
        """Returns the published speed in a precision of training (`fp32`, `bf16`, `fp16`)."""
        return self.fp32_flops if precision == "fp32" else self.bf16_flops


_TABLE = """
    B200          180  2250   75
    H200          141   989   67
    H100           80   989   67
    H100-PCIe      80   756   51
    H100-NVL       94   835   60
    A100-80GB      80   312   19.5
    A100-40GB      40   312   19.5
    A40            48   149.7 37.4
    A30            24   165   10.3
    A10            24   125   31.2
    A10G           24    70   31.5
    L40S           48   362   91.6
    L4             24   121   30.3
    MI300X        192  1307  163.4
    RTX-5090       32   209.5 104.8
    RTX-4090       24   165.2 82.6
    RTX-3090       24    71   35.6
    RTX-A6000      48   154.8 38.7
    RTX-6000-Ada   48   364.2 91.1
"""  # gigabytes, TFLOP/s in bfloat16, TFLOP/s in float32
GPUS = {
    name: Gpu(name, int(memory) * 10**9, float(bf16) * 1e12, float(fp32) * 1e12)
    for name, memory, bf16, fp32 in (line.split() for line in _TABLE.strip().splitlines())
}
_SHORT = {"a100": "A100-80GB", "h100sxm": "H100", "h100sxm5": "H100", "a6000": "RTX-A6000"}


def find_gpu(name: str) -> Gpu:
    """Finds a GPU by its name, in any spelling.

    Raises:
        UserError: It is not in the table.

    Example:
        >>> find_gpu("NVIDIA GeForce RTX 4090").name, find_gpu("h100").memory_bytes
        ('RTX-4090', 80000000000)
    """
    plain = _plain(name)
    known = {_plain(each): gpu for each, gpu in GPUS.items()} | {short: GPUS[each] for short, each in _SHORT.items()}
    known |= {_plain(each.removeprefix("RTX-")): gpu for each, gpu in GPUS.items()}
    if plain not in known:
        hint = did_you_mean(name, GPUS)
        raise UserError(
            f"`--gpu {name}` is not a GPU that is known here",
            hint=f"{hint}; another one: `--device cuda --memory 24GB`, without a prediction of time",
        )
    return known[plain]


def _plain(name: str) -> str:
    return re.sub(r"nvidia|geforce|amd|instinct|tesla|[\W_]", "", name.lower())
