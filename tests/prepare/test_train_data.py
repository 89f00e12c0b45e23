"""Duplicates among training rows, and held-out rows."""

import pytest

from harness.errors import UserError
from harness.jobs import Example
from harness.prepare.copies import identity, without_copies
from harness.prepare.held_out import fold, held_out, separate
from harness.prepare.train_data import TrainData


def data(*texts: str) -> TrainData:
    return TrainData("x", (), tuple(Example(text, " y") for text in texts))


ROWS = data(*(f"row {n}" for n in range(50)))


def test_rows_are_equal_however_white_space_and_accents_are_written() -> None:
    alike = [Example("café  au\nlait", " x"), Example("cafe\u0301 au lait ", "x\n")]
    assert identity(alike[0]) == identity(alike[1])
    others = [Example("Café au lait", "x"), Example("café au lait", "y"), Example("café au lait", "x", rejected="z")]
    assert len({identity(example) for example in [*alike, *others]}) == 4


def test_each_text_is_kept_once() -> None:
    seen: set[tuple[str, ...]] = set()
    assert without_copies(data("a", "b", "a ").examples, seen) == [0, 1]
    assert without_copies(data("b", "c").examples, seen) == [1]


@pytest.mark.parametrize("share", [0.02, 0.1, 0.5, 0.98])
def test_a_share_is_held_out_and_every_row_is_on_one_side(share: float) -> None:
    train, held = held_out(ROWS, share)
    assert len(held.examples) == round(50 * share)
    assert {*train.examples, *held.examples} == {*ROWS.examples}
    assert len(train.examples) + len(held.examples) == 50
    assert held_out(ROWS, share) == (train, held)
    places = [ROWS.examples.index(example) for example in train.examples]
    assert places == sorted(places)


@pytest.mark.parametrize("share", [0.0, 0.001, 1.0, 2.0, -1.0, float("nan")])
def test_a_share_that_leaves_one_side_empty_is_refused(share: float) -> None:
    with pytest.raises(UserError, match="of 50 rows leaves no rows to train on, or none to hold out"):
        held_out(ROWS, share)
    with pytest.raises(UserError, match="of 1 rows leaves no rows to train on, or none to hold out"):
        held_out(data("a"), 0.5)


def test_duplicates_stay_on_one_side() -> None:
    copied = data(*(f"row {n % 10}" + " " * (n // 10) for n in range(40)))
    train, held = held_out(copied, 0.25)
    assert len(held.examples) in (8, 10)
    assert not {identity(e) for e in train.examples} & {identity(e) for e in held.examples}
    for number in range(5):
        train, held = fold(copied, number, 5)
        assert len(held.examples) == 8
        assert not {identity(e) for e in train.examples} & {identity(e) for e in held.examples}


@pytest.mark.parametrize("of", [2, 3, 7, 25])
def test_each_row_is_in_one_fold_and_folds_are_of_equal_size(of: int) -> None:
    parts = [fold(ROWS, number, of) for number in range(of)]
    held = [example for _, part in parts for example in part.examples]
    assert sorted(held, key=str) == sorted(ROWS.examples, key=str)
    assert {len(part.examples) for _, part in parts} <= {50 // of, 50 // of + 1}
    for train, part in parts:
        assert set(train.examples) == set(ROWS.examples) - set(part.examples)


def test_too_few_rows_for_the_folds_are_an_error() -> None:
    with pytest.raises(UserError, match="3 different training rows are too few for `--folds 2`"):
        fold(data("a", "b", "c", "c "), 0, 2)


def test_training_rows_that_are_held_out_by_name_are_noted_or_left_out() -> None:
    train, validation = data("a", "b", "c"), data("b ", "d")
    assert separate(train, data("d"), dedupe=True) == train
    noted = separate(train, validation, dedupe=False)
    assert noted.examples == train.examples
    assert noted.notes == ("1 training rows of x are in the validation data x too",)
    left = separate(train, validation, dedupe=True)
    assert left.examples == data("a", "c").examples and "left out" in left.notes[0]
    with pytest.raises(UserError, match="every training row of x is in the validation data"):
        separate(data("a"), data("a"), dedupe=True)


def test_the_digest_is_of_the_examples() -> None:
    assert data("a").digest == data("a").digest != data("b").digest
    assert TrainData("other name", ("t",), data("a").examples, 3, ("note",)).digest == data("a").digest
