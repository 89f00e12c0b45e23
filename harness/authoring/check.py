"""Checks a task or method without a real model, for `harness check`.

A task must load, render, give a perfect model the best score, and give a guessing model the score of a random guess. A
method must make a tiny random Llama trainable. All samples are checked and the first `ROWS` are scored; whether the data
are correct is not checked.

Example:
    >>> for result in check_file("capitals.py"):  # doctest: +SKIP
    ...     print(result)
    task capitals: 3 samples
      exact_match  oracle 1.00 ✓  chance 0.00
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from harness.api import Choose, Metric, Task
from harness.authoring.lint import lint
from harness.errors import UserError, plugin_error
from harness.jobs import Item
from harness.metrics.oracle import best, guesses, has_answer, measured, oracles, value_of
from harness.prompts.render import render
from harness.prompts.samples import answer_text
from harness.registry.find import NoEntry, find_all
from harness.registry.load import load_method, load_task, task_metrics
from harness.registry.scan import Entry
from harness.registry.task_spec import parse_task

ROWS = 50
"""Number of samples that are scored."""
PROMPTS = 2
"""Number of samples whose prompt is shown."""
GOOD_ENOUGH = 0.95
"""Lowest score of the target itself by a graded headline metric (METEOR gives 0.99 to a perfect match)."""


@dataclass(frozen=True)
class CheckResult:
    """The result of checking one task or method."""

    title: str
    lines: tuple[str, ...]
    problems: tuple[str, ...] = ()
    """Findings that fail the check."""
    warnings: tuple[str, ...] = ()
    """Findings that may be harmless; they do not fail the check."""

    def __str__(self) -> str:
        notes = [*(f"  ✗ {problem}" for problem in self.problems), *(f"  ! {warning}" for warning in self.warnings)]
        return "\n".join([self.title, *self.lines, *notes])


def check_file(
    source: str, *, run_unsafe_code: bool = False, parameters: Mapping[str, Any] | None = None
) -> Iterator[CheckResult]:
    """Checks every task and method of a file (or the one named after `@`).

    Args:
        source: A path or a name, as `registry.find` takes it.
        run_unsafe_code: Whether metrics may run generated code.
        parameters: Parameters of the tasks, as texts or already converted.

    Yields:
        One result for each task and method.

    Raises:
        UserError: The file has no task or method, cannot be loaded, or its rows or samples cannot be used.
    """
    entries: list[Entry] = []
    problems: list[UserError] = []
    for kind in ("task", "method"):
        try:
            entries += find_all(kind, source)
        except UserError as error:
            problems.append(error)
    if not entries:
        if isinstance(problems[0], NoEntry):
            raise UserError(
                f"`{source}` has neither a task nor a method", hint="create a task file with `harness new task NAME`"
            )
        raise problems[0]
    for entry in entries:
        yield _check_task(entry, run_unsafe_code, parameters or {}) if entry.kind == "task" else _check_method(entry)


def _check_task(entry: Entry, run_unsafe_code: bool, parameters: Mapping[str, Any]) -> CheckResult:
    spec = f"{entry.path}@{entry.name}" if entry.module is None else entry.name
    task = load_task(entry, parse_task(spec, parameters).parameters)
    metrics = task_metrics(task, entry.path.parent)
    items = _rendered(entry, task)
    found = lint(items, delimiter=task.delimiter, judges_code=task.executes_code and run_unsafe_code)
    problems = [finding.message for finding in found if finding.is_serious]
    warnings = [finding.message for finding in found if not finding.is_serious]
    title = f"task {entry.name}: {len(items):,} samples"
    lines = [f"  {_shown(item)}" for item in items[:PROMPTS]]
    if task.executes_code and not run_unsafe_code:
        lines.append("  not scored: its metrics run generated code (allow it with `--confirm-run-unsafe-code`)")
        return CheckResult(title, tuple(lines), tuple(problems), tuple(warnings))
    for metric in metrics:
        try:
            trial = _try(metric, items[:ROWS], is_headline=metric is metrics[0])
        except UserError:
            raise
        except Exception as error:  # a metric is code of the user
            raise plugin_error(entry.path, error, hint=f"metric `{metric.name}` failed on the first rows") from error
        lines.append(f"  {metric.name}  {trial}")
        problems += [trial.problem] if trial.problem else []
        warnings += [trial.warning] if trial.warning else []
    return CheckResult(title, tuple(lines), tuple(problems), tuple(warnings))


def _shown(item: Item) -> str:
    """The prompt of a sample, or the first 500 characters of a text, on one line."""
    if item.request.mode == "text":
        return f"text {item.request.id}: {item.request.continuations[0][:500]!r}"
    return f"prompt {item.request.id}: {item.request.contexts[0]!r}"


def _rendered(entry: Entry, task: Task) -> list[Item]:
    try:
        return render(entry.name, task)
    except UserError:
        raise
    except Exception as error:  # the task's `sample` is code of the user
        raise plugin_error(entry.path, error, hint="`sample` failed on one of the rows") from error


@dataclass(frozen=True)
class _Trial:
    """The values of a metric for a perfect model and for a guessing model."""

    oracle: float | None
    """The value for a perfect model; None: the samples have no target."""
    chance: float
    """The expected value for a guessing model."""
    problem: str | None = None
    warning: str | None = None

    def __str__(self) -> str:
        chance = f"chance {self.chance:.2f}" if math.isfinite(self.chance) else "chance undefined"
        if self.oracle is None:
            return f"oracle -  {chance} (the samples have no target)"
        return f"oracle {self.oracle + 0.0:.2f} {'✗' if self.problem else '✓'}  {chance}"


def _try(metric: Metric, items: Sequence[Item], *, is_headline: bool) -> _Trial:
    samples = [item.sample for item in items]
    guessed = measured(metric, samples, guesses)
    chance = value_of(metric, guessed)
    if not any(map(has_answer, samples)):
        return _Trial(None, chance)
    perfect = measured(metric, samples, oracles)
    perfect = [best(metric, given) for given in perfect]
    oracle = value_of(metric, perfect)
    fault, is_certain = _fault(metric, items, perfect, guessed, oracle, chance)
    if fault is None:
        return _Trial(oracle, chance)
    fault = f"{metric.name}: {fault}"
    return _Trial(oracle, chance, fault) if is_certain or is_headline else _Trial(oracle, chance, warning=fault)


def _fault(
    metric: Metric,
    items: Sequence[Item],
    perfect: Sequence[Sequence[Any]],
    guessed: Sequence[Sequence[Any]],
    oracle: float,
    chance: float,
) -> tuple[str | None, bool]:
    """The fault of a metric that has these values, or None, and whether it is certain to be a fault.

    A secondary metric may measure something other than closeness to the target (diversity, length), so some values are
    faults only of a headline metric.
    """
    if not math.isfinite(oracle):
        return f"a perfect model scores {oracle}", False
    better = oracle > chance if metric.higher_is_better else oracle < chance
    if math.isfinite(chance) and not better:
        return f"a perfect model ({oracle:.2f}) is not better than guessing ({chance:.2f})", False
    if metric.score is None or not metric.higher_is_better:
        return None, False
    is_exact = all(score in (0.0, 1.0) for scores in (*perfect, *guessed) for score in scores)
    if 0 <= oracle < (1 if is_exact else GOOD_ENOUGH):
        item = next(
            item for item, (score,) in zip(items, perfect, strict=True) if score < (1 if is_exact else oracle + 1)
        )
        answer = f"; sample {item.request.id}: {answer_text(item.sample)!r}"
        return f"the target itself scores only {oracle:.2f}{answer}", is_exact
    shares = [_right_share(item.sample) for item in items if isinstance(item.sample, Choose)]
    if is_exact and len(shares) == len(items) and abs(chance - math.fsum(shares) / len(shares)) > 1e-6:
        expected = math.fsum(shares) / len(shares)
        return f"guessing scores {chance:.2f}, but a guess is right with probability {expected:.2f}", True
    return None, False


def _right_share(sample: Choose) -> float:
    """The probability that a random guess is right."""
    right = 1 if isinstance(sample.answer, int) else len(set(sample.answer))
    return right / len(sample.choices)


def _check_method(entry: Entry) -> CheckResult:
    method: Callable[..., Any] = load_method(entry)
    model = _tiny_llama()
    try:
        made = method(model, **{parameter.name: parameter.default for parameter in entry.parameters})
        counts = [(parameter.numel(), parameter.requires_grad) for parameter in made.parameters()]
    except Exception as error:
        raise plugin_error(entry.path, error, hint="the method failed on a tiny random Llama") from error
    trainable = sum(size for size, trained in counts if trained)
    total = sum(size for size, _ in counts)
    title = f"method {entry.name}: {trainable:,} of {total:,} parameters of a tiny random Llama are trained"
    problems = () if trainable else ("no parameter requires a gradient: nothing would be trained",)
    return CheckResult(title, (), problems)


def _tiny_llama() -> Any:
    """A random Llama with two layers and 32 hidden dimensions, built in milliseconds."""
    from transformers import LlamaConfig, LlamaForCausalLM

    return LlamaForCausalLM(
        LlamaConfig(
            vocab_size=64,
            hidden_size=32,
            intermediate_size=64,
            num_hidden_layers=2,
            num_attention_heads=4,
            num_key_value_heads=2,
        )
    )
