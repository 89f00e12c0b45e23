"""Programs that try to pass tests without solving the task: each fails, harms nothing, and learns nothing of its tests."""

import sys

import attacks
import pytest
from attacks import ATTACKS, GIVEN, LOOPS, RIGHT, TESTS
from sandbox_host import Host

from harness.api import Generate, Output
from harness.metrics.code import pass_at
from harness.sandbox.run import Limits, Outcome, run_program

SHORT = Limits(cpu_seconds=1, wall_seconds=0.4)
SECOND = Limits(cpu_seconds=1, wall_seconds=30, memory_bytes=256 << 20)
ENDS = {"great recursion", "a great number", "an endless generator", "a great answer"}
"""Attacks that may also end by the limit on processor time."""


def run(host: Host, body: str, limits: Limits = SECOND) -> Outcome:
    return run_program(GIVEN + host.fill(body), TESTS, limits, given=GIVEN)


@pytest.mark.parametrize("name", ATTACKS)
def test_an_attack_does_not_pass(host: Host, name: str) -> None:
    outcome = run(host, ATTACKS[name])
    assert not outcome.passed and outcome.fault
    assert outcome.detail
    assert (outcome.fault == "timeout") <= (name in ENDS)


@pytest.mark.parametrize("name", LOOPS)
def test_an_attack_without_an_end_is_ended(host: Host, name: str) -> None:
    outcome = run(host, LOOPS[name], SHORT)
    assert not outcome.passed
    assert outcome.fault == ("exception" if name == "loop in a comparison" else "timeout")


@pytest.mark.parametrize("name", RIGHT)
def test_a_right_program_passes(host: Host, name: str) -> None:
    assert run(host, RIGHT[name]) == Outcome(passed=True)


@pytest.mark.skipif(sys.platform != "linux", reason="guard: only Linux hides a process from others of its user")
@pytest.mark.parametrize("layers", [("seccomp",), ("namespaces",), ()], ids=lambda layers: "+".join(layers) or "none")
def test_the_tests_are_hidden_also_without_landlock(
    host: Host, layers: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("harness.sandbox.run.LAYERS", layers)
    body = """    import os
    refused = 0
    for name in ("mem", "maps", "environ", *(f"fd/{number}" for number in range(64))):
        try:
            open(f"/proc/{os.getppid()}/{name}", "rb").close()
        except OSError:
            refused += 1
    assert refused == 67
"""
    assert run(host, body + RIGHT["plain"]) == Outcome(passed=True)


def test_the_attacks_are_real(host: Host) -> None:
    """In one process with its tests, a program passes by most of what the second process prevents."""
    sample = Generate("", "", meta={"before": GIVEN, "after": TESTS, "together": True})
    names = (*attacks.READS, *attacks.SPOOFS)
    chosen = ["walk the frames", "equal to everything", "a number equal to everything", "patched AssertionError"]
    chosen += ["another math", "another helper", "a decorated check", "collected objects"]
    assert set(chosen) <= set(names)
    measure = pass_at(1).measure
    passed = {name for name in chosen if measure(Output(texts=(ATTACKS[name],)), sample) == 1.0}
    assert len(passed) >= 3, passed
