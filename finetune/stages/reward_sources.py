"""Sources of rewards for generated answers: a reward model, or a function of the user.

A function is the simplest source, here whether the answer contains the reference answer:

    def right(prompts, completions, references):
        return [float(reference.strip() in completion) for completion, reference in zip(completions, references)]

It is given as `reward=FILE.py@right`.
"""

from __future__ import annotations

import contextlib
import inspect
import math
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Protocol

import torch

from harness.data.model_files import find_files, find_model
from harness.errors import UserError, plugin_error
from harness.finetune.training.batches import Padding
from harness.jobs import Base, Example, Recipe, RewardFunction
from harness.metrics.model_process import answer_lines
from harness.models.load import Resident, context_length, method_function
from harness.models.reward_head import has_reward_head, last_token_values, made_on
from harness.registry.load import load_function
from harness.registry.recorded import recorded_method
from harness.tiny import MODEL
from harness.tokens.tokenizer import load_tokenizer
from harness.tokens.training_labels import answer_ids, labelled

_ROWS = 16
"""Answers that a reward model scores at once."""


class RewardSource(Protocol):
    """Maps prompts, answers, reference answers, and whether the policy ended each answer itself, to rewards."""

    def __call__(
        self, prompts: Sequence[str], completions: Sequence[str], references: Sequence[str], ended: Sequence[bool], /
    ) -> list[float]:
        """Returns one finite number per answer."""


def load_reward_source(reward: Recipe | RewardFunction | None) -> RewardSource:
    """Loads the reward model or function that a job names.

    Raises:
        UserError: The job names none, the model is not a reward model, or the function cannot be loaded.
    """
    if reward is None:
        raise UserError(
            "this stage needs a reward", hint="`reward=VARIANT`, `reward=FOLDER` or `reward=FILE.py@function`"
        )
    return FunctionReward(reward) if isinstance(reward, RewardFunction) else ModelReward(reward)


class FunctionReward:
    """Calls a user's function `(prompts, completions, references) -> list of rewards`.

    A completion is the whole text, with a thought before the answer, so that a reward can be about the form of the text. A
    function with a parameter `answers` also receives the texts after the thoughts, as metrics do.

    Args:
        reward: File and name of the function.

    Raises:
        UserError: The file cannot be loaded, or has no such function.
    """

    def __init__(self, reward: RewardFunction) -> None:
        self._where = reward
        self._function = load_function(reward.path, reward.name)
        self._takes_answers = False
        with contextlib.suppress(ValueError):  # functions written in C have no signature
            self._takes_answers = "answers" in inspect.signature(self._function).parameters

    def __call__(
        self,
        prompts: Sequence[str],
        completions: Sequence[str],
        references: Sequence[str],
        ended: Sequence[bool],
        answers: Sequence[str] | None = None,
    ) -> list[float]:
        """See `RewardSource`; the function does not receive `ended`.

        Args:
            prompts: The prompts.
            completions: A text to each.
            references: A reference answer to each.
            ended: Not used.
            answers: The completions without their thoughts; empty texts where a thought has no end. None: as `completions`.

        Raises:
            UserError: The function fails, or does not return one finite number per answer.
        """
        try:
            more = {"answers": list(answers or completions)} if self._takes_answers else {}
            given = self._function(list(prompts), list(completions), list(references), **more)
        except (Exception, SystemExit) as error:
            raise plugin_error(
                self._where.path, error, what=f"the reward function `{self._where.name}` failed in"
            ) from error
        where = f"reward function `{self._where.name}` of `{self._where.path.name}`"
        hint = "it takes (prompts, completions, references) and returns a list with one number for each completion"
        try:
            rewards = [float(value) for value in given]
        except (TypeError, ValueError) as error:
            raise UserError(
                f"the {where} returned {type(given).__name__}, not a list of numbers ({error})", hint
            ) from error
        if len(rewards) != len(completions):
            raise UserError(f"the {where} returned {len(rewards)} rewards for {len(completions)} answers", hint)
        for number, reward in enumerate(rewards):
            if not math.isfinite(reward):
                raise UserError(f"the {where} returned {reward} for the answer {completions[number][:80]!r}", hint)
        return rewards


class ModelReward:
    """Scores answers with a reward model, loaded beside the model in training.

    Args:
        recipe: Of the reward model.

    Raises:
        UserError: The model has no reward head.
    """

    def __init__(self, recipe: Recipe) -> None:
        base = recipe.base
        self._model = Resident(base, method_function).attach(recipe)
        if not has_reward_head(self._model):
            raise UserError(
                f"`{recipe.adapter or base.folder}` is not a reward model", hint="name one that `stage=reward` trained"
            )
        self._tokenizer = load_tokenizer(base.folder, trust_remote_code=base.trust_remote_code)
        self._max_length = context_length(self._model, self._tokenizer)
        self._padding = Padding(self._tokenizer.pad_token_id or 0)

    def __call__(
        self,
        prompts: Sequence[str],
        completions: Sequence[str],
        references: Sequence[str],
        ended: Sequence[bool],
        turn_ends: Sequence[str | None] | None = None,
    ) -> list[float]:
        """See `RewardSource`; an answer that was not ended is scored without an end. References are not used.

        Args:
            prompts: The prompts.
            completions: An answer to each.
            references: Not used.
            ended: Whether the policy ended each answer.
            turn_ends: As `Example.turn_end`; None: all prompts are plain text.
        """
        ends = turn_ends or [None] * len(prompts)
        rows = self._rows(
            [
                Example(prompt, text, append_eos=end, turn_end=turn and turn * end)
                for prompt, text, end, turn in zip(prompts, completions, ended, ends, strict=True)
            ]
        )
        order = sorted(range(len(rows)), key=lambda number: rows[number]["length"])
        rewards = [0.0] * len(rows)
        device = next(self._model.parameters()).device
        for start in range(0, len(order), _ROWS):
            chosen = order[start : start + _ROWS]
            batch = self._padding([rows[number] for number in chosen])
            # without the training run's mixed precision: the same rewards as when the reward model is scored
            with torch.inference_mode(), torch.autocast(device.type, enabled=False):
                values = last_token_values(
                    self._model, batch["input_ids"].to(device), batch["attention_mask"].to(device)
                )
            for number, value in zip(chosen, values.tolist(), strict=True):
                rewards[number] = value
        return rewards

    def _rows(self, examples: Sequence[Example]) -> list[dict[str, Any]]:
        """Tokenises prompts and answers; a prompt that leaves no room for its answer is truncated on the left."""
        rows = []
        for prompt, answer in answer_ids(examples, self._tokenizer):
            answer = answer[: self._max_length - 1]
            kept = prompt[max(0, len(prompt) + len(answer) - self._max_length) :]
            rows.append(
                labelled(kept, answer, self._max_length) or {"input_ids": kept, "labels": kept, "length": len(kept)}
            )
        return rows


def folder_recipe(folder: Path, *, base: str | None = None, code: Path | None = None, device: str = "cpu") -> Recipe:
    """Returns the recipe of the reward model in a folder.

    Args:
        folder: An adapter, a delta or a checkpoint with its reward head.
        base: The model that an adapter runs on: `tiny`, a folder or a Hub id; None: `tiny`, if the adapter was trained on it.
        code: The user's file with the method of a delta; None: a built-in or installed method.
        device: Where the model runs.

    Raises:
        UserError: The folder holds no reward model, or names a base or a file that the user did not name.
    """
    find_files(str(folder), "reward model")
    made = made_on(folder)
    if (folder / "config.json").is_file() and not (folder / "adapter_config.json").is_file():
        return Recipe(Base(folder, device, "float32", made.quant))
    if base is None and Path(made.base).resolve() == MODEL.resolve():
        base = "tiny"
    if base is None:
        raise UserError(
            f"the reward model `{folder}` is an adapter of `{made.base}`, and only a base that you name yourself is loaded",
            hint=f"name it: `-T reward_base={made.base}`",
        )
    named = [code] if code is not None else []
    try:
        method = recorded_method(folder, named)
    except UserError as error:
        raise UserError(error.message, error.hint and error.hint.replace("--allow-code ", "-T reward_code=")) from error
    return Recipe(Base(find_model(base).folder, device, "float32", made.quant), folder, method=method)


def main(folder: str, base: str = "", code: str = "") -> None:
    """Runs the process of the metric `reward`: receives prompts, answers and whether they ended, and returns rewards.

    Args:
        folder: As for `folder_recipe`.
        base: As for `folder_recipe`; empty: None.
        code: As for `folder_recipe`; empty: None.
    """

    def load() -> Callable[[Any], list[float]]:
        reward = ModelReward(folder_recipe(Path(folder), base=base or None, code=Path(code) if code else None))
        return lambda asked: reward(asked[0], asked[1], asked[1], asked[2])

    answer_lines(load)


if __name__ == "__main__":
    main(*sys.argv[1:])
