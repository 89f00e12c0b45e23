"""Evaluations on held-out rows, and batches split into micro-batches of similar length."""

import math
from typing import Any

import pytest
import tiny_models as tiny
import torch
from architectures import random_model
from hypothesis import given
from hypothesis import strategies as st
from peft import LoraConfig, get_peft_model

from harness import Generate
from harness.api import Metric
from harness.finetune.training.micro_batches import length, split
from harness.finetune.training.validation import distance, evaluation_mode, headline
from harness.jobs import Item, Raw

ITEMS = [Item(tiny.generate(str(n), id=str(n)), Generate(str(n), str(n)), None, None) for n in range(3)]
RAWS = [Raw(index, 1, False, 1, texts=(text,)) for index, text in ((2, "2"), (0, "x"), (1, "1"))]


@pytest.mark.parametrize(
    ("metric", "value"),
    [
        (Metric("m", score=lambda output, sample: float(output.texts[0] == sample.target)), 2 / 3),
        (Metric("m", stats=lambda output, sample: (1.0, 2.0), value=lambda sums: sums[0] / sums[1]), 0.5),
        (
            Metric("m", gather=lambda output, sample: output.texts[0], whole=lambda all: float(all == ["x", "1", "2"])),
            1,
        ),
    ],
)
def test_a_headline_of_any_form_is_measured_on_the_items_in_order(metric: Metric, value: float) -> None:
    assert headline(metric, ITEMS, RAWS) == pytest.approx(value)


def test_a_headline_sees_the_answer_after_a_thought() -> None:
    metric = Metric("m", score=lambda output, sample: float(output.texts[0] == sample.target))
    thoughts = [Raw(0, 1, False, 1, texts=("<think>1?</think> 0",)), Raw(1, 1, False, 1, texts=("<think>1",))]
    assert headline(metric, ITEMS, thoughts) == 0.5


def test_an_undefined_headline_is_nan() -> None:
    metric = Metric("m", stats=lambda output, sample: (0.0,), value=lambda sums: 1 / sums[0])
    assert math.isnan(headline(metric, ITEMS, RAWS))


def test_there_are_ten_evaluations_by_default() -> None:
    assert [distance(250, None), distance(3, None), distance(250, 7)] == [25, 1, 7]


def test_an_evaluation_leaves_dropout_and_gradients_unchanged() -> None:
    model: Any = get_peft_model(random_model("llama"), LoraConfig(r=2, lora_dropout=0.5, target_modules="all-linear"))
    model.train()
    with evaluation_mode(model):
        assert not model.training
        assert not torch.is_grad_enabled()
    assert model.training
    assert torch.is_grad_enabled()


ROWS = st.lists(st.integers(1, 300).map(lambda n: {"length": n}), min_size=1, max_size=150)


@given(ROWS, st.integers(1, 40), st.sampled_from([0, 5, 100, 10_000]))
def test_micro_batches_hold_every_row_once_and_no_more_than_fit(
    rows: list[dict[str, int]], most: int, overhead: int
) -> None:
    groups = split(rows, most, overhead, 1000)
    assert sorted(id(row) for group in groups for row in group) == sorted(map(id, rows))
    assert all(0 < len(group) <= most for group in groups)
    assert all(len(group) == 1 or len(group) * max(map(length, group)) <= 1000 for group in groups)
    lengths = [length(row) for group in groups for row in group]
    assert lengths == sorted(lengths, reverse=True)


@given(ROWS, st.sampled_from([0, 20, 100]))
def test_micro_batches_cost_no_more_than_the_whole_batch_or_single_rows(
    rows: list[dict[str, int]], overhead: int
) -> None:
    def cost(groups: list[list[dict[str, int]]]) -> int:
        return sum(len(group) * max(map(length, group)) + overhead for group in groups)

    found = cost(split(rows, len(rows), overhead, 10**9))
    assert found <= cost([rows])
    if len(rows) <= 32:
        assert found <= cost([[row] for row in rows])


def test_the_length_of_rows_is_counted_if_it_is_not_given() -> None:
    assert length({"input_ids": [1, 2, 3]}) == 3
    assert split([{"input_ids": [1] * n} for n in (1, 9)], 8, 0, 4)[0] == [{"input_ids": [1] * 9}]
