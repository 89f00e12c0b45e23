"""What `harness check` finds out about a task or method, without a real model.

A task must load, render, give a perfect model its best score, and give a guessing model less. A method must make a tiny
random Llama trainable. Checked on the first rows only; nothing is said about whether the data are right.

Example:
    >>> for verdict in check_file("capitals.py"):  # doctest: +SKIP
    ...     print(verdict)
    task capitals: 3 samples
      exact_match  oracle 1.00 ✓  chance 0.00
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from harness.api import Choose, Generate, Metric, Output, Sample, Task
from harness.errors import UserError
from harness.plugin import plugin_error
from harness.registry import Entry, find_all, load_method, load_task
from harness.render import Item, render

ROWS = 50
"""Samples that are scored."""
PROMPTS = 2
"""Samples whose prompt is shown."""


@dataclass(frozen=True)
class Verdict:
    """What was found out about one task or method."""

    title: str
    lines: tuple[str, ...]
    problems: tuple[str, ...] = ()

    def __str__(self) -> str:
        return "\n".join([self.title, *self.lines, *(f"  ✗ {problem}" for problem in self.problems)])


def check_file(source: str, *, run_unsafe_code: bool = False) -> Iterator[Verdict]:
    """Checks every task and method of a file (or the one after its `@`).

    Args:
        source: A path as `registry.find` takes it; a name works too.
        run_unsafe_code: Whether metrics that run code may do so.

    Raises:
        UserError: The file holds neither, or does not load.
    """
    entries: list[Entry] = []
    missing: list[UserError] = []
    for kind in ("task", "method"):
        try:
            entries += find_all(kind, source)
        except UserError as error:
            missing.append(error)
    if not entries:
        if "holds no" in missing[0].message:
            raise UserError(f"`{source}` holds neither a task nor a method", hint="`harness new task NAME` writes one")
        raise missing[0]
    for entry in entries:
        yield _check_task(entry, run_unsafe_code) if entry.kind == "task" else _check_method(entry)


def _check_task(entry: Entry, run_unsafe_code: bool) -> Verdict:
    task = load_task(entry, {})
    items = _rendered(entry, task)
    title = f"task {entry.name}: {len(items)} samples"
    lines = [f"  prompt {item.request.id}: {item.request.contexts[0]!r}" for item in items[:PROMPTS]]
    if task.executes_code and not run_unsafe_code:
        return Verdict(title, (*lines, "  not scored: it runs code (`--confirm-run-unsafe-code`)"))
    samples = [item.sample for item in items[:ROWS]]
    problems: list[str] = []
    for metric in task.metrics:
        try:
            oracle = _value(metric, samples, [[oracle_output(sample)] for sample in samples])
            chance = _value(metric, samples, [uniform_outputs(sample) for sample in samples])
        except Exception as error:  # a metric is the user's code
            raise plugin_error(entry.path, error, hint=f"metric `{metric.name}` failed on the first rows") from error
        problem = _problem(metric, oracle, chance)
        lines.append(f"  {metric.name}  oracle {oracle:.2f} {'✗' if problem else '✓'}  chance {chance:.2f}")
        problems += [problem] if problem else []
    return Verdict(title, tuple(lines), tuple(problems))


def _rendered(entry: Entry, task: Task) -> list[Item]:
    try:
        return render(entry.name, task)
    except UserError:
        raise
    except Exception as error:  # the task's `sample` is the user's code
        raise plugin_error(entry.path, error, hint="`sample` failed on one of the rows") from error


def oracle_output(sample: Sample) -> Output:
    """What a perfect model gives: the target, certainty about a right choice, probability one for a text."""
    if isinstance(sample, Generate):
        target = sample.target if isinstance(sample.target, str) else sample.target[0]
        return Output(texts=(target,) * sample.samples)
    if isinstance(sample, Choose):
        right = (sample.answer,) if isinstance(sample.answer, int) else tuple(sample.answer)
        return Output(
            loglikelihoods=tuple(0.0 if index in right else -1e4 for index in range(len(sample.choices))),
            is_greedy=tuple(index == right[0] for index in range(len(sample.choices))),
        )
    return Output(loglikelihoods=(0.0,), is_greedy=(True,), tokens=1)


def uniform_outputs(sample: Sample) -> list[Output]:
    """What a model that knows nothing gives, all outcomes being equally likely: nothing, any choice, any byte."""
    if isinstance(sample, Generate):
        return [Output(texts=("",) * sample.samples)]
    if isinstance(sample, Choose):
        count = len(sample.choices)
        return [
            Output(
                loglikelihoods=tuple(0.0 if index == winner else -1e4 for index in range(count)),
                is_greedy=tuple(index == winner for index in range(count)),
            )
            for winner in range(count)
        ]
    size = len(sample.text.encode())
    return [Output(loglikelihoods=(-size * math.log(256),), is_greedy=(False,), tokens=max(size, 1))]


def _value(metric: Metric, samples: Sequence[Sample], outputs: Sequence[Sequence[Output]]) -> float:
    """The metric over the samples, averaged over each sample's equally likely outputs."""
    per_sample = [
        _mean([metric.measure(output, sample) for output in given])
        for sample, given in zip(samples, outputs, strict=True)
    ]
    if metric.value is not None:
        return metric.value(tuple(math.fsum(column) for column in zip(*per_sample, strict=True)))
    return math.fsum(scores[0] for scores in per_sample) / len(per_sample)


def _mean(measured: Sequence[Any]) -> tuple[float, ...]:
    rows = [value if isinstance(value, tuple) else (value,) for value in measured]
    return tuple(math.fsum(column) / len(rows) for column in zip(*rows, strict=True))


def _problem(metric: Metric, oracle: float, chance: float) -> str | None:
    """What is wrong with a metric that has these values, if anything."""
    if not math.isfinite(oracle):
        return f"{metric.name}: a perfect model scores {oracle}"
    better = oracle > chance if metric.higher_is_better else oracle < chance
    if math.isfinite(chance) and not better:
        return f"{metric.name}: a perfect model ({oracle:.2f}) is not better than guessing ({chance:.2f})"
    if metric.score is not None and metric.higher_is_better and 0 <= oracle < 1:
        return f"{metric.name}: the target itself scores only {oracle:.2f}"
    return None


def _check_method(entry: Entry) -> Verdict:
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
    return Verdict(title, (), problems)


def _tiny_llama() -> Any:
    """A random Llama small enough to build in a blink."""
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
