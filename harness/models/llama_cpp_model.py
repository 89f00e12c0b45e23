"""A GGUF file that llama.cpp runs, behind the interface of a model of transformers: ids in, logits out.

llama.cpp also rounds the inputs of its layers, so its logits differ from those of the same weights unpacked: on a model of 135M
parameters in Q8_0, a mean KL of .0053 against .0020.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from transformers import GenerationConfig
from transformers.modeling_outputs import CausalLMOutput

from harness.errors import UserError
from harness.jobs import Base

_STEP = 1024
"""The context of llama.cpp is made as long as the longest row so far, in steps of so many tokens."""


class LlamaCppModel(nn.Module):
    """A model in llama.cpp, on the CPU; keys and values are float32, so that the weights alone differ.

    Args:
        base: A GGUF file.
        config: Its configuration, as transformers reads it from the file.
        threads: Of llama.cpp.
    """

    def __init__(self, base: Base, config: Any, threads: int) -> None:
        super().__init__()
        from gguf import GGUFReader

        numbers = sum(int(tensor.n_elements) for tensor in GGUFReader(base.folder).tensors)
        self.weights = nn.Parameter(torch.empty(numbers, device="meta"), requires_grad=False)
        """Counted and never read: llama.cpp holds the weights."""
        self.config, self.device = config, torch.device("cpu")
        self.generation_config = GenerationConfig(eos_token_id=config.get_text_config().eos_token_id)
        self.loading_notes: list[str] = []
        self._base, self._threads = base, threads
        self._llama: Any = None
        self._ids: list[int] = []

    def get_output_embeddings(self) -> None:
        """None: the output head is in llama.cpp."""

    def forward(self, input_ids: Tensor, **_: Any) -> CausalLMOutput:
        """Runs rows without padding, each after the other; tokens that a row shares with the one before are not run again.

        Args:
            input_ids: `[rows, ids]`.

        Returns:
            Logits `[rows, ids, vocabulary]`, float32.
        """
        return CausalLMOutput(logits=torch.stack([self._row(row) for row in input_ids.tolist()]))

    def _row(self, ids: list[int]) -> Tensor:
        llama = self._with_room(len(ids))
        pairs = zip(ids[:-1], self._ids, strict=False)
        shared = next((number for number, (a, b) in enumerate(pairs) if a != b), min(len(ids) - 1, len(self._ids)))
        if shared < len(self._ids) and not llama._ctx.kv_cache_seq_rm(-1, shared, -1):
            llama._ctx.kv_cache_clear()  # a recurrent state cannot go back
            shared = 0
        self._ids = []  # so that nothing is taken from a row that failed
        llama.n_tokens = shared
        llama.eval(ids[shared:])
        self._ids = ids
        return torch.from_numpy(llama.scores[: len(ids)].copy())

    def _with_room(self, tokens: int) -> Any:
        if self._llama is None or self._llama.n_ctx() < tokens:
            self._llama, self._ids = None, []
            self._llama = self._load(-(-tokens // _STEP) * _STEP)
        return self._llama

    def _load(self, context: int) -> Any:
        from llama_cpp import GGML_TYPE_F32, Llama

        try:
            return Llama(
                str(self._base.folder),
                n_ctx=context,
                n_gpu_layers=0,
                n_threads=self._threads,
                n_threads_batch=self._threads,
                logits_all=True,
                type_k=GGML_TYPE_F32,
                type_v=GGML_TYPE_F32,
                flash_attn=False,
                verbose=False,
            )
        except (ValueError, RuntimeError) as error:
            raise UserError(
                f"llama.cpp cannot load `{self._base.folder.name}`: {error}",
                hint="is the installed llama-cpp-python older than the llama.cpp that made the file?",
            ) from error
