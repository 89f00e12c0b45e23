"""Clocks of phases, against a clock that the test moves."""

import pytest

from harness.models.phases import Phases


def test_phases_add_up_to_the_wall_time_however_they_are_nested() -> None:
    now = [0.0]
    phases = Phases("load", clock=lambda: now[0])
    now[0] = 5.0
    phases.enter("train")
    now[0] = 7.0
    with phases("evaluate"):
        now[0] = 8.0
        with phases("save"):
            now[0] = 18.0
        now[0] = 19.0
    now[0] = 22.0
    assert phases.seconds() == {"load": 5.0, "train": 5.0, "evaluate": 2.0, "save": 10.0}
    now[0] = 23.0
    assert phases.seconds()["train"] == 6.0 and sum(phases.seconds().values()) == 23.0


def test_an_error_in_a_phase_gives_the_clock_back() -> None:
    now = [0.0]
    phases = Phases("train", clock=lambda: now[0])
    with pytest.raises(ValueError), phases("evaluate"):
        now[0] = 1.0
        raise ValueError
    now[0] = 4.0
    assert phases.seconds() == {"train": 3.0, "evaluate": 1.0}
