"""The configuration of a run with every value, defaults included: what a reader needs to know what was run."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from harness.comparison.state import State
from harness.config.config import Config


def resolved_config(config: Config, states: Iterable[State]) -> dict[str, Any]:
    """Returns every setting of the run and of each variant as plain data.

    `config.to_dict()` is the short form, which can be run again; this one is for reading.
    """
    found = config.model_dump(mode="json", exclude={"variants", "allow_code", "train"})
    found["train"] = config.train.model_dump(mode="json")
    found["variants"] = {state.name: _variant(state) for state in states}
    return found


def _variant(state: State) -> dict[str, Any]:
    spec, training, prompting = state.variant.spec, state.variant.training, state.variant.prompting
    return {
        "spec": spec.canonical,
        "hyperparameters": dict(spec.hyperparameters),
        "shots": prompting.shots,
        "system": prompting.system,
        "think": prompting.think,
        "chat_template": prompting.template is not None,
        "train": training.settings.model_dump(mode="json") if training else None,
    }
