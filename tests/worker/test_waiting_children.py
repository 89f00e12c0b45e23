"""A child that keeps its base between scoring jobs, as a real process: one load, the same outputs, and how its end is noticed."""

import os
import signal
import time
from collections.abc import Iterator
from dataclasses import replace
from multiprocessing.connection import Pipe
from pathlib import Path
from typing import Any

import pytest
import tiny_models as tiny

from harness.errors import UserError
from harness.jobs import Done, EnvironmentJob, Packed, Raw, Recipe, ScoreJob, ScoreVariant, VariantFailed
from harness.worker.children import Children
from harness.worker.server import Server

QUESTIONS = [tiny.choose(text, [" world", " two"], id=str(number)) for number, text in enumerate(("hello", "a", "two"))]


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with Server() as server:
        server.run(EnvironmentJob("cpu", "auto"))
        yield server


def job_of(recipes: dict[str, Recipe], number: int, *, more: bool) -> ScoreJob:
    task = replace(tiny.task(QUESTIONS[number]), first=number)
    variants = [ScoreVariant(name, recipe, (task,)) for name, recipe in recipes.items()]
    return ScoreJob(variants, "auto", "fp32", 64, None, 0, more=more)


def scored(server: Server, job: ScoreJob) -> dict[str, tuple[Raw, ...]]:
    events: list[Any] = []
    server.run(job, events.append)
    assert not [event for event in events if isinstance(event, VariantFailed)]
    return {event.variant: event.raws for event in events if isinstance(event, Packed)}


def children(server: Server) -> list[int]:
    process = server._process.pid
    return [int(each) for each in Path(f"/proc/{process}/task/{process}/children").read_text().split()]


def test_jobs_of_one_base_share_a_child_and_give_the_outputs_of_children_of_their_own(
    server: Server, adapted: Recipe
) -> None:
    recipes = {"base": Recipe(adapted.base), "lora": adapted}
    alone = [scored(server, job_of(recipes, number, more=False)) for number in range(3)]
    assert children(server) == []
    first = scored(server, job_of({"base": recipes["base"]}, 0, more=True))
    [child] = children(server)
    second = scored(server, job_of(recipes, 1, more=True))
    assert children(server) == [child]
    third = scored(server, job_of(recipes, 2, more=False))
    assert children(server) == []
    assert [first["base"], second, third] == [alone[0]["base"], alone[1], alone[2]]
    assert second["base"][0].loglikelihoods != second["lora"][0].loglikelihoods


def test_another_base_has_a_child_of_its_own_and_another_kind_of_job_ends_both(server: Server, adapted: Recipe) -> None:
    rounded = Recipe(replace(adapted.base, dtype="bfloat16"))
    exact = Recipe(adapted.base)
    before = [scored(server, job_of({"base": recipe}, 0, more=True)) for recipe in (exact, rounded)]
    both = children(server)
    assert [scored(server, job_of({"base": recipe}, 0, more=True)) for recipe in (exact, rounded)] == before
    assert before[0] != before[1] and sorted(children(server)) == sorted(both) and len(both) == 2
    server.run(EnvironmentJob("cpu", "auto"))
    assert children(server) == []


def test_a_child_that_dies_while_it_waits_is_replaced(server: Server, adapted: Recipe) -> None:
    job = job_of({"lora": adapted}, 0, more=True)
    before = scored(server, job)
    [child] = children(server)
    os.kill(child, signal.SIGKILL)
    while "State:\tZ" not in Path(f"/proc/{child}/status").read_text():
        time.sleep(0.01)
    assert scored(server, job) == before
    [another] = children(server)
    assert another != child
    server.run(EnvironmentJob("cpu", "auto"))


def test_an_error_in_a_later_job_ends_the_child(server: Server, adapted: Recipe) -> None:
    scored(server, job_of({"base": Recipe(adapted.base)}, 0, more=True))
    long = tiny.choose(tiny.words(3000), [" world", " two"])
    refused = replace(
        job_of({}, 0, more=True),
        variants=[ScoreVariant("base", Recipe(adapted.base), (tiny.task(long),))],
        allow_cut=False,
    )
    with pytest.raises(UserError, match="do not fit into the context"):
        server.run(refused)
    assert children(server) == []
    assert scored(server, job_of({"base": Recipe(adapted.base)}, 0, more=False))


def test_a_waiting_child_ends_without_a_word_when_its_server_does(
    adapted: Recipe, capfd: pytest.CaptureFixture[str]
) -> None:
    job = job_of({"base": Recipe(adapted.base)}, 0, more=True)
    ours, theirs = Pipe()
    children = Children(theirs, 60.0, lambda job, send, further: Done(further()))
    assert children.run(job).code == 0
    [waiting] = children._waiting.values()
    waiting.jobs.close()  # as the kernel does first when the server ends
    assert os.waitstatus_to_exitcode(os.waitpid(waiting.process, 0)[1]) == 0
    assert capfd.readouterr().err == ""
    ours.close()
