"""Texts of a real vLLM, against the plain engine in float32: `make vllm HARNESS_VLLM=/opt/vllm/bin/python`."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import tiny_models as tiny
import torch
import transformers

from harness.jobs import Noted, Packed, Recipe, ScoreJob, ScoreVariant, TaskRequests
from harness.serving.vllm_installation import find_vllm
from harness.worker.scoring import score

pytestmark = pytest.mark.vllm
_SIZES: Mapping[str, Any] = {
    "vocab_size": len(tiny.tiny_tokenizer()),
    "hidden_size": 128,
    "intermediate_size": 192,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 512,
    "initializer_range": 0.08,
    "pad_token_id": tiny.PAD,
    "bos_token_id": tiny.BOS,
    "eos_token_id": tiny.EOS,
}
_SHAPES: Mapping[str, tuple[type[Any], dict[str, Any]]] = {
    "llama": (transformers.LlamaConfig, {}),
    "qwen2": (transformers.Qwen2Config, {}),
    "qwen3": (transformers.Qwen3Config, {"head_dim": 32}),
    "mistral": (transformers.MistralConfig, {"sliding_window": None}),
    "phi3": (transformers.Phi3Config, {}),
    "gemma2": (transformers.Gemma2Config, {"head_dim": 32, "sliding_window": 64}),
}


def _requests(own: bool) -> list[Any]:
    """Prompts that share 60 words, or nothing; stop strings, an empty text, samples, thoughts and short limits among them."""
    stops = (("an", " t", "1"), ("\n\n",), (), (" the",), ("e",), ("answer is", "zz", "q1", "q2", "q3", "q4"))
    before = [tiny.words(20 + 7 * n, seed=n) if own else tiny.words(60, seed=99) for n in range(6)]
    asked = [
        tiny.generate(f"{text} {tiny.words(4 + n, seed=50 + n)} Answer:", f"{n}", max_tokens=24 - n, stop=stops[n])
        for n, text in enumerate(before)
    ]
    return [
        *asked,
        replace(asked[2], id="samples", samples=2),
        replace(asked[4], id="thought", thought_tokens=6, in_thought=True),
        tiny.generate("hello", "short", max_tokens=1),
    ]


@pytest.mark.parametrize("shape", _SHAPES)
def test_texts_equal_the_plain_engines(shape: str, tmp_path: Path) -> None:
    kind, fields = _SHAPES[shape]
    torch.manual_seed(0)
    transformers.AutoModelForCausalLM.from_config(kind(**{**_SIZES, **fields})).save_pretrained(tmp_path / "base")
    tiny.tiny_tokenizer().save_pretrained(tmp_path / "base")
    base = tiny.tiny_base(tmp_path / "base")
    loras = [tiny.save_random_lora(tmp_path / f"lora{n}", base, seed=n, r=4 * n) for n in (1, 3)]
    recipes = {"base": Recipe(base)} | {path.name: Recipe(base, path) for path in loras}
    tasks = [TaskRequests("own", _requests(True)), TaskRequests("shared", _requests(False))]
    job = ScoreJob([ScoreVariant(n, recipe, tasks) for n, recipe in recipes.items()], "plain", "fp32", 512, None, 0)

    def texts(job: ScoreJob) -> tuple[dict[Any, Any], set[str], list[Any]]:
        found, writers, notes = {}, set(), []

        def send(event: Any) -> None:
            if isinstance(event, Packed):
                found.update({(event.variant, event.task, raw.index): replace(raw) for raw in event.raws})
                writers.add(event.writer)
            elif isinstance(event, Noted):
                notes.append(event.note)

        score(job, send)
        return found, writers, notes

    plain, _, _ = texts(job)
    made, writers, notes = texts(replace(job, engine="auto", vllm=find_vllm(), vllm_always=True))
    assert (writers, notes) == ({"vllm"}, [])
    assert made == plain
