"""The auxiliary loss of a mixture's router is trained where the configuration asks for it, and the run says so."""

from pathlib import Path
from typing import Any

import pytest
import stages
import tiny_models as tiny
import torch
import transformers

from harness.finetune.training import loss
from harness.tokens.training_labels import IGNORED

SIZES = {
    **{"vocab_size": 344, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4},
    **{"num_key_value_heads": 2, "max_position_embeddings": 256, "pad_token_id": 0, "num_experts_per_tok": 2},
}
MIXTURES: dict[str, dict[str, Any]] = {
    "mixtral": {"num_local_experts": 4},
    "qwen3_moe": {"num_experts": 4, "moe_intermediate_size": 32, "head_dim": 8},
    "olmoe": {"num_experts": 4},
    "gpt_oss": {"num_local_experts": 4, "head_dim": 8},
}
ASKED = {"output_router_logits": True, "router_aux_loss_coef": 0.5}


def mixture(kind: str, **fields: Any) -> Any:
    torch.manual_seed(0)
    config = transformers.CONFIG_MAPPING[kind](**SIZES, **MIXTURES[kind], **fields)
    return transformers.AutoModelForCausalLM.from_config(config, dtype=torch.float32).train()


def batch() -> dict[str, torch.Tensor]:
    """Two rows, one of them padded, without labels on their prompts."""
    ids = torch.randint(3, 340, (2, 12), generator=torch.Generator().manual_seed(0))
    mask = torch.ones_like(ids)
    mask[1, 8:] = 0
    labels = ids.masked_fill(mask == 0, IGNORED)
    labels[:, :3] = IGNORED
    return {"input_ids": ids, "attention_mask": mask, "labels": labels}


def mean_loss(model: Any) -> torch.Tensor:
    return loss.label_loss(model, batch()) / int((batch()["labels"][:, 1:] != IGNORED).sum())


@pytest.mark.parametrize("whole", [False, True])
@pytest.mark.parametrize("kind", sorted(MIXTURES))
def test_the_loss_and_its_gradients_are_those_of_transformers(
    kind: str, whole: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = mixture(kind, **ASKED)
    theirs = model(**batch()).loss
    theirs.backward()
    wanted = {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}
    model.zero_grad()
    if whole:
        monkeypatch.setattr(loss, "_tail", lambda model: "its logits are computed whole")
    ours = mean_loss(model)
    ours.backward()  # type: ignore[no-untyped-call]
    assert float(ours) == pytest.approx(float(theirs), rel=1e-6)
    assert float(ours) > float(mixture(kind)(**batch()).loss) + 0.1, "the auxiliary loss is part of it"
    assert any("router" in name or "mlp.gate" in name for name in wanted)
    assert all(torch.allclose(model.get_parameter(name).grad, wanted[name], atol=1e-5) for name in wanted)


@pytest.mark.parametrize("fields", [{}, {"router_aux_loss_coef": 0.5}, {**ASKED, "router_aux_loss_coef": 0.0}])
def test_without_being_asked_for_it_is_left_out(fields: dict[str, Any]) -> None:
    plain = mixture("mixtral")(**batch()).loss
    assert float(mean_loss(mixture("mixtral", **fields))) == pytest.approx(float(plain), rel=1e-6)


def test_held_out_losses_are_the_cross_entropy_alone() -> None:
    with torch.no_grad():
        plain = mixture("mixtral")(**batch()).loss
        assert float(mean_loss(mixture("mixtral", **ASKED))) == pytest.approx(float(plain), rel=1e-6)


@pytest.mark.parametrize(
    ("stage", "said"), [("sft", "is part of the loss, times 0.5"), ("dpo", "is no part of `stage=dpo`")]
)
@pytest.mark.parametrize("asked", [True, False])
def test_the_training_run_says_whether_it_is_trained(tmp_path: Path, stage: Any, said: str, asked: bool) -> None:
    mixture("mixtral", **(ASKED if asked else {})).save_pretrained(tmp_path / "base")
    tiny.tiny_tokenizer().save_pretrained(tmp_path / "base")
    base = tiny.tiny_base(tmp_path / "base")
    notes = stages.train(stages.job_for(tmp_path, tmp_path / "out", base=base, stage=stage, steps=1)).notes
    assert [said in note for note in notes if "auxiliary loss" in note] == ([True] if asked else [])
