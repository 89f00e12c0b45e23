"""llama.cpp behind the interface of a model: the same logits as transformers, and shared beginnings are run once."""

import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import tiny_models as tiny
import torch
from gguf_files import write_gguf
from transformers import AutoModelForCausalLM

from harness.engine.oracle import forward
from harness.engine.runner import Runner
from harness.jobs import Base
from harness.models.causality import refuse_if_not_causal
from harness.models.load import count_parameters, load_base, model_bytes

pytest.importorskip("gguf", reason="the package gguf is not installed: pip install 'finetune-harness[gguf]'")


@pytest.fixture
def base(tmp_path: Path) -> Base:
    model = AutoModelForCausalLM.from_pretrained(tiny.save_tiny(tmp_path / "plain"))
    file = write_gguf(tmp_path / "m.gguf", model, tiny.tiny_tokenizer())
    return Base(file, "cpu", "float32", reader="llamacpp")


class Counting:
    """In place of llama.cpp: the logits of a token are its id and its position."""

    evaluated: list[int] = []  # noqa: RUF012

    def __init__(self, path: str, *, n_ctx: int, **_: Any) -> None:
        self.n_tokens, self.scores, self._context = 0, np.zeros((n_ctx, 512), dtype=np.float32), n_ctx
        self._ctx = SimpleNamespace(kv_cache_seq_rm=lambda *_: True)

    def n_ctx(self) -> int:
        return self._context

    def eval(self, ids: list[int]) -> None:
        self.evaluated.append(len(ids))
        for number in ids:
            self.scores[self.n_tokens] = 0
            self.scores[self.n_tokens, number] = 1 + self.n_tokens
            self.n_tokens += 1


def test_shared_beginnings_are_run_once(base: Base, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "llama_cpp", SimpleNamespace(Llama=Counting, GGML_TYPE_F32=0))
    monkeypatch.setattr(Counting, "evaluated", [])
    model = load_base(base)
    rows = [[5, 6, 7, 8], [5, 6, 9], [5, 6, 9], [4], [4, 5], [5, *range(3, 400), *range(3, 500), *range(3, 300)]]
    for row in rows:
        logits = forward(model, row)
        assert logits.argmax(-1).tolist() == row and logits.max(-1).values.tolist() == list(range(1, len(row) + 1))
    assert Counting.evaluated == [4, 1, 1, 1, 1, len(rows[-1])]
    plain = AutoModelForCausalLM.from_pretrained(base.folder.parent / "plain")
    assert count_parameters(model) == (count_parameters(plain)[0], 0)
    assert model_bytes(model) == 4 * count_parameters(model)[0]


def test_the_logits_are_those_of_the_weights(base: Base) -> None:
    pytest.importorskip("llama_cpp", reason="the package llama-cpp-python is not installed")
    plain, model = load_base(tiny.tiny_base(base.folder.parent / "plain")), load_base(base)
    refuse_if_not_causal(model)
    ids = torch.randint(3, len(tiny.tiny_tokenizer()), (100,), generator=torch.Generator().manual_seed(1)).tolist()
    with torch.inference_mode():
        assert torch.allclose(forward(model, ids), forward(plain, ids), atol=1e-4)
    runners = [
        Runner(each, tiny.tiny_tokenizer(), engine="plain", numerics="fp32", token_budget=512, max_rows=None, seed=0)
        for each in (plain, model)
    ]
    assert [runner.scoring for runner in runners] == ["plain", "plain"]
