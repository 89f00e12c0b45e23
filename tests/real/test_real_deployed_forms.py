"""Deployed forms of a real model, made by the real programs: llama.cpp's where HARNESS_LLAMA_CPP names it, llmcompressor likewise."""

import os
from pathlib import Path

import pytest
import torch

from harness.deploy.llama_cpp import CONVERTED, VARIABLE, find_llama_cpp
from harness.deploy.llmcompressor import VARIABLE as LLMCOMPRESSOR
from harness.deploy.tools import refuse_missing
from harness.errors import UserError
from harness.jobs import Base, Deployed, DeployedForm, DeployJob, Example, Recipe
from harness.models.distance import last_logits, logit_distance
from harness.models.load import load_base
from harness.tokens.tokenizer import load_tokenizer
from harness.worker.deployment import deploy

pytestmark = pytest.mark.real

TEXT = "The capital of France is Paris. Water boils at 100 degrees, and 12 times 12 is 144."
FORMS = (
    (DeployedForm("gguf", "F32"), 1e-6),
    (DeployedForm("gguf", "Q8_0"), 0.01),
    (DeployedForm("gguf", "Q4_K_M"), 0.3),
    (DeployedForm("gguf", "Q8_0", "llamacpp"), 0.03),
    (DeployedForm("torchao", "int8wo"), 0.05),
    (DeployedForm("torchao", "int4wo"), 2.0),
    (DeployedForm("gptq", "W8A16"), 0.05),
)
"""Forms and the largest mean KL, some three times what was measured."""


@pytest.mark.parametrize(("form", "most"), FORMS, ids=lambda each: getattr(each, "text", ""))
def test_a_form_is_near_the_model(
    form: DeployedForm, most: float, smollm2: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HARNESS_HOME", str(tmp_path / "home"))
    try:
        refuse_missing("variant", form, "cpu")
    except UserError as error:
        pytest.skip(error.message)
    base = Base(smollm2, "cpu", "float32")
    rows = [Example("The capital of Spain is", " Madrid"), Example("2 + 2 =", " 4")] * 4
    made: Deployed = deploy(
        DeployJob(Recipe(base), form, tmp_path / "home" / "deployed" / "x", rows), lambda event: None
    )
    ids = load_tokenizer(smollm2)(TEXT)["input_ids"]
    plain, formed = (
        last_logits(load_base(each), [ids]) for each in (base, Base(made.weights, "cpu", "float32", reader=form.reader))
    )
    distance = logit_distance(plain, formed)
    assert distance.mean_kl <= most, distance
    if form.type not in ("F32", "W8A16"):
        assert distance.mean_kl > 0 and made.bytes < 0.75 * sum(p.numel() for p in load_base(base).parameters()) * 4
    assert not any(torch.isnan(each).any() for each in formed)
    if form.type == "Q4_K_M":
        assert any("multiples of 256" in note for note in made.notes)


def test_the_programs_that_are_named_are_whole() -> None:
    if not os.environ.get(VARIABLE) and not os.environ.get(LLMCOMPRESSOR):
        pytest.skip(f"neither {VARIABLE} nor {LLMCOMPRESSOR} is set")
    if os.environ.get(VARIABLE):
        assert all(find_llama_cpp(kind).version for kind in CONVERTED)
