"""The training loop: which rows a step learns from, its random numbers, and that accelerate can wrap the loss."""

import random
from itertools import chain
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import numpy as np
import pytest
import torch
from accelerate.data_loader import SeedableRandomSampler
from architectures import random_model
from two_processes import train, train_two

from harness.finetune.training.checkpoints import Checkpoints, Position
from harness.finetune.training.loop import Loop, batches_per_epoch, seed_generators


def rows_of(steps: int, *, rows: int, batch_size: int, updates: int, seed: int = 3) -> list[list[int]]:
    """The rows of each step, by their places."""
    stage = SimpleNamespace(rows=range(rows), updates=updates)
    settings = SimpleNamespace(batch_size=batch_size, seed=seed)
    loop = cast(Loop, SimpleNamespace(_stage=stage, _settings=settings))
    return [cast(list[int], Loop._rows(loop, step)) for step in range(steps)]


def test_the_rows_of_a_step_come_in_the_order_of_accelerates_sampler() -> None:
    found = rows_of(6, rows=10, batch_size=4, updates=1)
    assert list(map(len, found)) == [4, 4, 2, 4, 4, 2]
    sampler = SeedableRandomSampler(range(10), data_seed=3)
    assert [list(chain(*found[:3])), list(chain(*found[3:]))] == [list(sampler), list(sampler)]


def test_the_steps_of_a_round_learn_from_the_same_whole_batch() -> None:
    found = rows_of(12, rows=5, batch_size=2, updates=3)
    rounds = [found[start : start + 3] for start in range(0, 12, 3)]
    assert all(each[0] == each[1] == each[2] for each in rounds)
    assert [len(set(rounds[0][0] + rounds[1][0])), len(set(rounds[2][0] + rounds[3][0]))] == [4, 4]
    assert rounds[:2] != rounds[2:]
    assert batches_per_epoch(5, 2, updates=3) == 2


def test_rows_fewer_than_a_batch_are_one_batch() -> None:
    assert [sorted(batch) for batch in rows_of(3, rows=3, batch_size=8, updates=2)] == [[0, 1, 2]] * 3


def test_random_numbers_depend_on_the_seed_numbers_only() -> None:
    def drawn(*numbers: int) -> tuple[float, ...]:
        seed_generators(*numbers)
        return random.random(), float(np.random.rand()), float(torch.rand(()))

    first = drawn(0, 7)
    assert len({first, drawn(0, 8), drawn(1, 7), drawn(0, 7, 1)}) == 4
    torch.rand(5)
    assert drawn(0, 7) == first


@pytest.mark.parametrize("higher", [True, False])
def test_the_best_evaluation_is_the_first_of_its_value_and_always_finite(higher: bool) -> None:
    progress = Position(most_rows=1)
    values = [float("nan"), 2.0, 3.0 if higher else 1.0, 3.0 if higher else 1.0, float("inf"), 2.0]
    best = []
    for step, value in enumerate(values):
        progress.step = step
        best.append(progress.evaluated(value, higher))
    assert best == [False, True, True, False, False, False]
    assert (progress.best_step, progress.evaluations_without_gain) == (2, 3)


def test_the_newest_and_the_best_checkpoint_are_kept_and_others_are_recognised(tmp_path: Path) -> None:
    layer = torch.nn.Linear(2, 2)
    optimizer = torch.optim.SGD(layer.parameters(), momentum=0.9)
    ours, theirs = (Checkpoints(tmp_path, key, layer, optimizer, None, None) for key in ("ours", "theirs"))
    for step, best in ((2, 2), (9, 2), (10, 2)):
        layer.weight.data.fill_(step)
        ours.save(Position(most_rows=4, step=step, best_step=best, best_value=0.5))
    assert {path.name for path in tmp_path.iterdir()} == {"checkpoint-2", "checkpoint-10"}
    assert ours.newest() == (Position(most_rows=4, step=10, best_step=2, best_value=0.5), False)
    assert theirs.newest() == (None, True)
    ours.load_weights(2)
    assert layer.weight.tolist() == [[2.0, 2.0]] * 2
    (tmp_path / "checkpoint-10" / "checkpoint.json").write_text("[]")
    found, foreign = ours.newest()
    assert (found and found.step, foreign) == (2, False)


def test_gradients_of_two_processes_are_averaged(tmp_path: Path) -> None:
    norms, weights = train_two(tmp_path)
    expected_norms, expected = train(tmp_path, world=1)
    assert norms == pytest.approx(expected_norms, rel=1e-4)
    assert all(torch.allclose(weights[name], expected[name], atol=2e-4) for name in expected)
    untrained = dict(random_model("llama").named_parameters())
    assert max(float((untrained[name].detach() - expected[name]).abs().max()) for name in expected) > 2e-3
