"""Measures time, memory and tokens fed, in the same way on both sides. Needs only torch."""

import time
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import torch


@dataclass
class Meter:
    """Context manager that measures the work inside it, on a loaded model that has run once.

    Args:
        model: A causal language model on CPU.
    """

    model: Any
    wall: float = 0.0
    cpu: float = 0.0
    peak_bytes: int = 0
    """Highest resident memory above the memory on entry."""
    fed: int = 0
    """Tokens fed to the model, padding included."""
    seen: int = 0
    """Sum over these tokens of the tokens that each attends to; counted where positions are given."""
    projected: int = 0
    """Positions for which the output head ran."""
    _hooks: list[Any] = field(default_factory=list)

    def __enter__(self) -> Self:
        with torch.inference_mode():  # brings every page of the weights into memory
            self.model(input_ids=torch.tensor([[3, 4, 5]]))
        inner = self.model.get_base_model() if hasattr(self.model, "get_base_model") else self.model
        self._hooks = [
            inner.register_forward_pre_hook(self._count, with_kwargs=True),
            inner.get_output_embeddings().register_forward_pre_hook(self._count_head),
        ]
        Path("/proc/self/clear_refs").write_text("5")
        self._before = status("VmRSS")
        self._cpu, self._wall = time.process_time(), time.perf_counter()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.wall += time.perf_counter() - self._wall
        self.cpu += time.process_time() - self._cpu
        self.peak_bytes = max(self.peak_bytes, status("VmHWM") - self._before)
        for hook in self._hooks:
            hook.remove()

    def figures(self) -> dict[str, Any]:
        """The measured numbers, and the arithmetic they took."""
        return {
            "wall": self.wall,
            "cpu": self.cpu,
            "peak_bytes": self.peak_bytes,
            "fed": self.fed,
            "flop": self.flop(),
        }

    def flop(self) -> float:
        """FLOP of layers, attention (over visible tokens only) and head."""
        config = self.model.config.get_text_config()
        head: torch.Tensor = self.model.get_output_embeddings().weight
        outside = {id(head), id(self.model.get_input_embeddings().weight)}
        matrices = [p for p in self.model.parameters() if p.dim() == 2 and id(p) not in outside]
        tables = sum(p.numel() for n, p in self.model.named_parameters() if n.endswith("wpe.weight"))
        body = sum(p.numel() for p in matrices) - tables
        width = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
        attention = 2 * config.num_hidden_layers * config.num_attention_heads * width
        total: float = 2.0 * (body * self.fed + attention * self.seen + head.numel() * self.projected)
        return total

    def _count(self, module: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        ids = kwargs["input_ids"] if "input_ids" in kwargs else args[0]
        self.fed += ids.numel()
        positions = kwargs.get("position_ids")
        if positions is not None:
            self.seen += int((positions + 1).sum()) * (ids.numel() // positions.numel())

    def _count_head(self, module: Any, args: tuple[Any, ...]) -> None:
        self.projected += args[0].numel() // args[0].shape[-1]


def gemm_peak(seconds: float = 0.5) -> float:
    """Speed of the fastest float32 matrix product on this machine, with the threads in use, in FLOP per second."""
    best = 0.0
    for rows, inner, columns in ((384, 512, 1408), (512, 576, 1536), (1024, 1024, 1024)):
        a, b = torch.randn(rows, inner), torch.randn(columns, inner)
        end = time.perf_counter() + seconds
        while time.perf_counter() < end:
            began = time.perf_counter()
            torch.nn.functional.linear(a, b)
            best = max(best, 2 * rows * inner * columns / (time.perf_counter() - began))
    return best


def status(key: str) -> int:
    """Bytes of a line of this process's status, such as VmRSS or VmHWM."""
    for line in Path("/proc/self/status").read_text(encoding="ascii").splitlines():
        if line.startswith(key + ":"):
            return int(line.split()[1]) * 1024
    raise KeyError(key)
