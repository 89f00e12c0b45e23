"""Served models in a run: the probe before anything starts, the tasks that a server cannot score, and the protocol."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from harness.comparison import recipes
from harness.comparison.state import Session
from harness.errors import UserError, together
from harness.jobs import Job, ProbeJob, TaskRequests
from harness.prepare.prepare import PreparedVariant
from harness.results import ServedProtocol
from harness.serving.capabilities import Capabilities
from harness.serving.model import ServedModel


def probe_served(session: Session, model: ServedModel, run: Callable[[Job], Any]) -> Capabilities:
    """Finds out what a served model can do, and checks that every task of its variants can be scored.

    Args:
        session: The run; keeps what was found.
        model: The served model.
        run: Runs a job in a child process.

    Raises:
        UserError: The server cannot be used, or not for one of the tasks.
    """
    variants = [
        variant for variant in session.prepared.variants if variant.served and variant.served.served == model.served
    ]
    asked = [
        TaskRequests(task, [item.request for item in items])
        for variant in variants
        for task, items in variant.items.items()
    ]
    found: Capabilities = run(
        ProbeJob(
            recipes.served_base(session, model),
            asked,
            session.config.numerics,
            model.context,
        )
    )
    if problems := [problem for variant in variants for problem in _problems(variant, model, found)]:
        raise together(problems)
    session.capabilities[model.served] = found
    for variant in variants:
        session.states[variant.spec.name].notes += [f"{model.name}: {note}" for note in found.notes]
    return found


def served_protocol(session: Session, model: ServedModel) -> ServedProtocol | None:
    """The server and the findings that decide the scores of a served model; None before the probe."""
    found = session.capabilities.get(model.served)
    if found is None:
        return None
    return ServedProtocol(
        url=model.served.url,
        name=model.served.name,
        says=dict(model.says),
        way=found.way,
        likelihoods=found.likelihoods,
        answers_as=found.answers_as,
        notes=found.notes,
    )


def _problems(variant: PreparedVariant, model: ServedModel, found: Capabilities) -> list[UserError]:
    """The tasks that a served model cannot score, with the reasons."""
    problems = []
    for task, items in variant.items.items():
        requests = [item.request for item in items]
        if any(request.mode != "generate" for request in requests) and found.likelihoods is None:
            hint = (
                "leave it out, or take a task that generates its answers; the README of harness/serving lists servers"
            )
            if model.tokenizer is None:
                hint = "name the tokenizer of the served model with `--tokenizer`, or leave the task out"
            problems.append(
                UserError(f"`{model.name}` cannot score `{task}` by log-likelihoods: {found.no_likelihoods}", hint)
            )
        elif any(request.temperature > 0 for request in requests) and found.no_samples:
            problems.append(
                UserError(
                    f"`{model.name}` cannot draw the samples of `{task}`: {found.no_samples}", "leave the task out"
                )
            )
    return problems
