"""A GGUF file in llama.cpp takes the tokens that two rows share from its memory, and only where its memory can go back."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn

from harness.models.llama_cpp_model import LlamaCppModel


class _Memory:
    """Stands in for llama.cpp: the logits of a token are the sum of all tokens that its memory has seen."""

    def __init__(self, recurrent: bool) -> None:
        self.recurrent, self.seen, self.n_tokens, self.fails = recurrent, [], 0, False
        self.scores = np.zeros((64, 1), dtype=np.float32)
        self._ctx = SimpleNamespace(kv_cache_seq_rm=self.remove, kv_cache_clear=self.seen.clear)

    def n_ctx(self) -> int:
        return 64

    def remove(self, _: int, start: int, end: int) -> bool:
        if self.recurrent and 0 < start < len(self.seen):
            return False
        del self.seen[start:]
        return True

    def eval(self, ids) -> None:
        self._ctx.kv_cache_seq_rm(-1, self.n_tokens, -1)
        for id in ids:
            self.seen.append(id)
            self.scores[self.n_tokens] = sum(self.seen)
            self.n_tokens += 1
        if self.fails:
            raise RuntimeError


def _model(recurrent: bool) -> LlamaCppModel:
    model = LlamaCppModel.__new__(LlamaCppModel)
    nn.Module.__init__(model)
    model._llama, model._ids = _Memory(recurrent), []
    return model


@pytest.mark.parametrize("recurrent", [False, True])
def test_every_row_is_scored_as_if_it_were_the_first(recurrent):
    model = _model(recurrent)
    for row in ([1, 2, 3], [1, 2, 3, 4], [1, 2, 5], [1, 2, 5], [7], [7, 8]):
        found = model(torch.tensor([row])).logits[0, :, 0]
        assert found.tolist() == np.cumsum(row).tolist()


def test_nothing_is_taken_from_a_row_that_failed():
    model = _model(False)
    model(torch.tensor([[1, 2, 3]]))
    model._llama.fails = True
    with pytest.raises(RuntimeError):
        model(torch.tensor([[4, 5, 6]]))
    model._llama.fails = False
    assert model(torch.tensor([[1, 2, 9]])).logits[0, :, 0].tolist() == [1, 3, 12]
