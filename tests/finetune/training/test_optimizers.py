"""Parameter groups, optimizers by name, and learning-rate schedules."""

import math
from typing import Any

import pytest
import torch
from architectures import random_model
from peft import LoraConfig, get_peft_model

from harness.errors import UserError
from harness.finetune.training.optimizers import make_optimizer, parameter_groups, schedule
from harness.settings import OPTIMIZERS, TrainingSettings, optimizer_name

SETTINGS = TrainingSettings(
    lr=1e-2, steps=20, epochs=None, batch_size=8, micro_batch_size=8, max_length=64, seed=0, weight_decay=0.1
)


def by_name(model: Any, settings: TrainingSettings) -> dict[str, tuple[float, float]]:
    """Returns learning rate and weight decay of every trained parameter."""
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    groups = parameter_groups(model, settings)
    return {names[id(p)]: (group["lr"], group["weight_decay"]) for group in groups for p in group["params"]}


def test_matrices_decay_and_biases_and_gains_do_not() -> None:
    model = random_model("gpt2").requires_grad_(True)
    found = by_name(model, SETTINGS)
    assert found.keys() == {name for name, _ in model.named_parameters()}
    for name, parameter in model.named_parameters():
        assert found[name] == (1e-2, 0.1 if parameter.dim() > 1 else 0.0), name


def test_learning_rates_fall_layer_by_layer_down_to_the_embeddings() -> None:
    model = random_model("llama").requires_grad_(True)
    found = by_name(model, SETTINGS.model_copy(update={"layer_decay": 0.5}))
    assert found["model.layers.1.mlp.up_proj.weight"][0] == pytest.approx(1e-2)
    assert found["model.layers.0.mlp.up_proj.weight"][0] == pytest.approx(5e-3)
    assert found["model.embed_tokens.weight"][0] == pytest.approx(2.5e-3)
    assert found["lm_head.weight"][0] == found["model.norm.weight"][0] == pytest.approx(1e-2)


def test_adapters_follow_the_layers_that_hold_them() -> None:
    model = get_peft_model(random_model("qwen3"), LoraConfig(r=2, target_modules="all-linear"))
    found = by_name(model, SETTINGS.model_copy(update={"layer_decay": 0.1}))
    assert {("layers.0." in name, round(rate, 6)) for name, (rate, _) in found.items()} == {(True, 1e-3), (False, 1e-2)}


def test_a_method_can_scale_the_learning_rate_of_a_parameter() -> None:
    model = random_model("llama").requires_grad_(False)
    weight = model.model.layers[0].mlp.up_proj.weight.requires_grad_()
    weight.lr_scale = 16.0
    (group,) = parameter_groups(model, SETTINGS.model_copy(update={"layer_decay": 0.5}))
    assert group["lr"] == pytest.approx(1e-2 * 16 * 0.5)
    assert group["params"][0] is weight


def test_names_are_those_that_transformers_knows() -> None:
    from transformers.training_args import OptimizerNames

    assert set(OPTIMIZERS.values()) <= {name.value for name in OptimizerNames}
    assert all(optimizer_name(name) for name in OPTIMIZERS)
    with pytest.raises(UserError, match="unknown optimizer `adamw8bit`") as caught:
        optimizer_name("adamw8bit")
    assert "adamw_8bit" in str(caught.value.hint)


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_every_optimizer_lowers_a_loss(name: str) -> None:
    from transformers import TrainingArguments

    torch.manual_seed(0)
    layer = torch.nn.Linear(64, 80)  # large enough for 8-bit optimizer states
    given = TrainingArguments(output_dir="unused", optim=optimizer_name(name), learning_rate=1e-2, use_cpu=True)
    optimizer = make_optimizer(layer, SETTINGS.model_copy(update={"weight_decay": 0.0}), given)
    inputs, wanted = torch.randn(32, 64), torch.randn(32, 80)
    losses = []
    for _ in range(12):
        optimizer.zero_grad()
        loss = (layer(inputs) - wanted).square().mean()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0]


def rates(steps: int = 20, **settings: Any) -> list[float]:
    factor = schedule(SETTINGS.model_copy(update=settings), steps)
    return [factor(step) for step in range(steps + 1)]


def test_the_learning_rate_rises_from_zero_over_the_warm_up() -> None:
    assert rates(schedule="constant", warmup=4)[:6] == [0, 0.25, 0.5, 0.75, 1, 1]
    assert rates(schedule="constant", warmup=0.2) == rates(schedule="constant", warmup=4)
    assert rates(schedule="constant", warmup=0)[0] == 1


def test_cosine_and_linear_fall_to_zero() -> None:
    cosine, linear = rates(schedule="cosine", warmup=0), rates(schedule="linear", warmup=0)
    assert cosine == pytest.approx([0.5 * (1 + math.cos(math.pi * n / 20)) for n in range(21)])
    assert linear == pytest.approx([1 - n / 20 for n in range(21)])


def test_wsd_is_constant_and_falls_over_the_last_fifth() -> None:
    assert rates(schedule="wsd", warmup=0) == pytest.approx([1.0] * 17 + [0.75, 0.5, 0.25, 0])


def test_staged_rates_take_equal_parts_of_the_training() -> None:
    found = rates(schedule="staged", rates=(1.0, 0.5, 0.1, 0.2), warmup=2)
    assert found[:3] == pytest.approx([0, 0.5, 1])
    assert found[5:10] == pytest.approx([0.5] * 5)
    assert found[10:15] == pytest.approx([0.1] * 5)
    assert found[15:] == pytest.approx([0.2] * 6)


@pytest.mark.parametrize("steps", [1, 2, 3])
@pytest.mark.parametrize("name", ["cosine", "linear", "constant", "wsd"])
def test_the_shortest_trainings_have_learning_rates_too(name: str, steps: int) -> None:
    assert all(0 <= rate <= 1 for rate in rates(steps, schedule=name, warmup=10))
    assert rates(steps, schedule=name, warmup=0.05)[0] == 1


def test_staged_and_rates_go_together() -> None:
    for settings in ({"schedule": "staged"}, {"rates": (1.0, 0.1)}):
        with pytest.raises(UserError, match="go together"):
            rates(**settings)
