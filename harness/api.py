"""The public names with which users write tasks, metrics and methods.

A task is a function that returns a `Task`; a method is a function from a loaded model to a trainable model; a metric is
a pure function from outputs to numbers. This module imports no torch and runs nothing.

Example:
    >>> @task
    ... def capitals() -> Task:
    ...     return Task(
    ...         data=[{"country": "France", "city": "Paris"}],
    ...         sample=lambda row: Generate(f"The capital of {row['country']} is", row["city"]),
    ...         metrics=[Metric("exact_match", score=lambda prediction, target: float(prediction.strip() == target))],
    ...     )
    >>> capitals().data[0]["city"]
    'Paris'
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol, get_args, overload, runtime_checkable

from harness.errors import UserError, did_you_mean
from harness.user_code import calling

if TYPE_CHECKING:
    from torch.nn import Module

Row = Mapping[str, Any]
Message = Mapping[str, str]
Prompt = str | Sequence[Message]
"""A text, or chat messages (`{"role": "user", "content": "…"}`). The model continues a last message of the assistant."""

ShotsOrder = Literal["first", "seeded", "lm-eval", "lm-eval-spare"]
"""How the solved examples of a sample are chosen.

- `first`: the first ones.
- `seeded`: a random draw that depends only on the sample.
- `lm-eval`: as lm-evaluation-harness draws them, with one random generator over all rows in order.
- `lm-eval-spare`: the same for examples from the scored split: one more is drawn, and the sample itself is dropped."""

QUANTIZATIONS = ("nf4", "nf4_single", "fp4", "fp4_single", "int8")
"""Quantizations of a base: 4-bit with quantized scales, 4-bit with plain scales (`_single`), and 8-bit."""


@runtime_checkable
class Source(Protocol):
    """A source of rows, such as `hub()`, `packaged()` or a local file."""

    def load(self) -> Sequence[Row]:
        """All rows, in the order of the source."""
        ...

    def digest(self) -> str:
        """A hex digest that changes when the rows do."""
        ...


Data = Sequence[Row] | Source | str | Path
"""Rows, a source, `"hub:OWNER/NAME[:CONFIG[:SPLIT]]"`, or the path of a .jsonl, .json, .csv, .tsv, .parquet, .arrow or .txt
file, of a folder of such files, or of a folder written by `Dataset.save_to_disk`."""


@dataclass(frozen=True)
class Generate:
    """A sample scored on the text that the model generates after the prompt (greedy unless `temperature` > 0)."""

    prompt: Prompt
    target: str | Sequence[str]
    """The right answer, or several right answers."""
    stop: Sequence[str] = ()
    """Generation ends before the first of these strings, or at the end-of-sequence token."""
    max_tokens: int = 256
    samples: int = 1
    """Number of texts to generate; more than one needs `temperature` > 0."""
    temperature: float = 0.0
    top_p: float = 1.0
    """Nucleus sampling: tokens are drawn from the most likely ones that together have this probability."""
    id: str | None = None
    meta: Mapping[str, Any] = field(default_factory=dict)
    """Row data that a metric needs."""


@dataclass(frozen=True)
class Choose:
    """A sample scored by the log-likelihood of each choice after the prompt."""

    prompt: Prompt | Sequence[str]
    """One context, or one context for each choice (winogrande)."""
    choices: Sequence[str]
    answer: int | Sequence[int]
    """Index of the right choice, or of all right choices (mc2)."""
    id: str | None = None
    meta: Mapping[str, Any] = field(default_factory=dict)

    @property
    def per_choice_contexts(self) -> bool:
        """Whether `prompt` is one context for each choice."""
        return not isinstance(self.prompt, str) and bool(self.prompt) and isinstance(self.prompt[0], str)


@dataclass(frozen=True)
class Text:
    """A text scored by its log-likelihood (perplexity)."""

    text: str
    window: int | None = None
    """Tokens per window; None: the context length of the model."""
    stride: int | None = None
    """Tokens between the starts of two windows; each window scores only tokens that no earlier window scored.

    With a number, the first token of the text is not scored (as papers report perplexity). None: as in
    lm-evaluation-harness, every token is scored: the first token of the text after a prefix token, and the first token of
    each later window after one token of context."""
    id: str | None = None
    meta: Mapping[str, Any] = field(default_factory=dict)
    """`original`: the text whose words and bytes are counted, if it differs from the scored text."""


Sample = Generate | Choose | Text


@dataclass(frozen=True)
class Output:
    """The output of a model for one sample, before any metric."""

    texts: tuple[str, ...] = ()
    """Generate: one text for each of `samples`, cut at the stop string, without a thought before the answer."""
    loglikelihoods: tuple[float, ...] = ()
    """Choose: one per choice, in nats; Text: one, of the whole text."""
    is_greedy: tuple[bool, ...] = ()
    """Choose: whether greedy decoding would generate the choice."""
    tokens: int = 0
    """Tokens generated, without a thought before the answer (Generate), or scored (Choose, Text)."""


Stats = tuple[float, ...]


@dataclass(frozen=True)
class Metric:
    """A number computed from outputs, in one of three forms.

    - `score`: one number per sample; the metric is their mean.
    - `stats` and `value`: numbers that are summed over samples, and a function of the sums (BLEU, perplexity). In this form
      the error of a corpus metric takes milliseconds.
    - `gather` and `whole`: any data from each sample, and a function of the list of all of them, for metrics that are not
      a function of sums (AUC, diversity). The confidence interval is computed by leaving out parts of the list.

    Args:
        name: The name in tables.
        score: `(output, sample) -> float`; or, with the parameter names `(prediction, target)`, a function of the first
            text and the sample's target (of several targets, the best score counts).
        stats: `(output, sample) -> tuple of floats`.
        value: `(sums of the stats) -> float`.
        gather: `(output, sample) -> any JSON value`.
        whole: `(list of gathered values) -> float`.
        higher_is_better: Direction of the arrow in tables.
        bounds: Ends of the scale, such as (0, 1). Intervals stay within them, and a test of scores with known ends holds for
            any shape; without them, skewed differences of few samples cannot be tested.

    Raises:
        UserError: None of the forms is given, or more than one.
    """

    name: str
    score: Callable[[Any, Any], float] | None = None
    stats: Callable[[Output, Any], Stats] | None = None
    value: Callable[[Stats], float] | None = None
    gather: Callable[[Output, Any], Any] | None = None
    whole: Callable[[Sequence[Any]], float] | None = None
    higher_is_better: bool = True
    bounds: tuple[float, float] | None = None

    def __post_init__(self) -> None:
        given = [part is not None for part in (self.score, self.stats, self.value, self.gather, self.whole)]
        if given not in ([1, 0, 0, 0, 0], [0, 1, 1, 0, 0], [0, 0, 0, 1, 1]):
            raise UserError(
                f"metric `{self.name}` needs either `score`, or `stats` and `value`, or `gather` and `whole`",
                hint="`score`: one number per sample; `stats` and `value`: a function of sums, such as BLEU;"
                " `gather` and `whole`: a function of all samples, such as AUC",
            )

    def measure(self, output: Output, sample: Sample) -> Any:
        """Applies the metric to one sample: returns its score, the stats of a corpus metric, or the gathered value.

        Raises:
            UserError: The metric takes `(prediction, target)`, and the sample has no target.
        """
        with calling(self.score or self.stats or self.gather, f"metric `{self.name}`"):
            return self._measured(output, sample)

    def _measured(self, output: Output, sample: Sample) -> Any:
        if self.gather is not None:
            return self.gather(output, sample)
        if self.stats is not None:
            return tuple(float(x) for x in self.stats(output, sample))
        assert self.score is not None
        if not self._short_form:
            return float(self.score(output, sample))
        if not isinstance(sample, Generate):
            raise UserError(
                f"metric `{self.name}` takes (prediction, target), which a {type(sample).__name__} sample does not have",
                hint="let `score` take `(output, sample)` instead",
            )
        targets = [sample.target] if isinstance(sample.target, str) else sample.target
        return max(float(self.score(output.texts[0], target)) for target in targets)

    def found(self, output: Output, sample: Sample) -> bool | None:
        """Whether the metric finds an answer in the output, right or wrong; None if it extracts no answer.

        A metric extracts an answer if its function (`score`, `stats` or `gather`) has a method
        `found(output, sample) -> bool | None`, as the functions of `matching` have.
        """
        finder = getattr(self.score or self.stats or self.gather, "found", None)
        with calling(finder, f"`found` of metric `{self.name}`"):
            found = None if finder is None else finder(output, sample)
        return None if found is None else bool(found)

    @property
    def _short_form(self) -> bool:
        assert self.score is not None
        try:
            return list(inspect.signature(self.score).parameters)[:2] == ["prediction", "target"]
        except (TypeError, ValueError):  # a builtin without a signature
            return False


@dataclass(frozen=True)
class Task:
    """A dataset, a function from row to sample, and metrics.

    Args:
        data: The rows to score.
        sample: Function from row to sample.
        metrics: Metrics, or names of metrics. The first one is the headline.
        shots: Number of solved examples before each prompt; the command line can override it.
        shots_from: Source of the solved examples; with `group`, a sample gets examples of its own group.
        shots_order: How the examples of a sample are chosen.
        description: Text before the examples and the prompt, or a function from row to such a text. No line break is added.
        delimiter: Text between a prompt and its answer.
        shot_separator: Text between solved examples.
        group: Column of a row's stratum, such as an MMLU subject, for macro averages and stratified errors.
        cluster: Column of what rows share, such as a passage, for clustered standard errors.
        train: Rows to train on, rendered with the same `sample`.
        version: Part of the protocol; increase it when a change affects scores.
        executes_code: Whether a metric runs generated code, which needs `--confirm-run-unsafe-code`.

    Raises:
        UserError: An argument is malformed.
    """

    data: Data
    sample: Callable[[Row], Sample]
    metrics: Sequence[Metric | str]
    shots: int = field(default=0, kw_only=True)
    shots_from: Data | None = field(default=None, kw_only=True)
    shots_order: ShotsOrder = field(default="first", kw_only=True)
    description: str | Callable[[Row], str] = field(default="", kw_only=True)
    delimiter: str = field(default=" ", kw_only=True)
    shot_separator: str = field(default="\n\n", kw_only=True)
    group: str | None = field(default=None, kw_only=True)
    cluster: str | None = field(default=None, kw_only=True)
    train: Data | None = field(default=None, kw_only=True)
    version: int = field(default=1, kw_only=True)
    executes_code: bool = field(default=False, kw_only=True)

    def __post_init__(self) -> None:
        hint = "for example `metrics=[exact_match]`"
        if isinstance(self.metrics, Metric | str) or not all(isinstance(each, Metric | str) for each in self.metrics):
            raise UserError("the `metrics` of a task must be a list of metrics", hint)
        if not self.metrics:
            raise UserError("a task needs at least one metric", hint)
        names = [metric if isinstance(metric, str) else metric.name for metric in self.metrics]
        if len(set(names)) < len(names):
            raise UserError(
                f"two metrics of a task have the same name: {', '.join(names)}", hint="rename one of the two metrics"
            )
        if not callable(self.sample):
            raise UserError("the `sample` of a task must be a function", hint="for example `lambda row: Generate(…)`")
        if self.shots < 0:
            raise UserError(f"a task cannot have {self.shots} shots", hint="`shots` is 0 or more")
        if self.shots_order not in get_args(ShotsOrder):
            raise UserError(
                f"unknown `shots_order`: `{self.shots_order}`",
                hint=did_you_mean(self.shots_order, get_args(ShotsOrder)),
            )


@dataclass(frozen=True)
class TaskFunction:
    """A function decorated with `@task`; calling it with its parameters gives the `Task`."""

    name: str
    function: Callable[..., Task]
    file: str
    line: int

    def __call__(self, **parameters: Any) -> Task:
        return self.function(**parameters)

    @property
    def __doc__(self) -> str | None:  # type: ignore[override]
        return self.function.__doc__


@dataclass(frozen=True)
class MethodFunction:
    """A function decorated with `@method`; calling it with a model and hyperparameters gives a trainable model."""

    name: str
    function: Callable[..., Module]
    file: str
    line: int
    lr: float = 1e-4
    """Learning rate if neither the variant nor `--lr` gives one."""
    load: str | None = None
    """Quantization of the base before training: one of `QUANTIZATIONS`, or the name of a hyperparameter that has one."""
    mergeable: bool = True
    """Whether the adapter can be merged into the weights (`@merged`)."""
    checkpointing: bool = True
    """Whether the method works with gradient checkpointing."""
    padding: Literal["any", "right"] = "any"
    """The side on which batches may be padded without changing a score."""
    saves: Literal["delta", "checkpoint"] = "delta"
    """`delta`: only the trained tensors are saved (for a PeftModel, its adapter); `checkpoint`: the whole model."""
    parameters: str = ""
    """Number of trained parameters as a formula: `rank * (in + out) for each linear layer`."""

    def __call__(self, model: Module, **hyperparameters: Any) -> Module:
        return self.function(model, **hyperparameters)

    @property
    def __doc__(self) -> str | None:  # type: ignore[override]
        return self.function.__doc__


@overload
def task(function: Callable[..., Task], /) -> TaskFunction: ...
@overload
def task(*, name: str | None = None) -> Callable[[Callable[..., Task]], TaskFunction]: ...
def task(
    function: Callable[..., Task] | None = None, /, *, name: str | None = None
) -> TaskFunction | Callable[[Callable[..., Task]], TaskFunction]:
    """Turns a function into a task. Its keyword-only parameters are the task's parameters (`-T key=value`).

    Args:
        function: The function that returns the `Task`.
        name: Name of the task; None: the function's.

    Raises:
        UserError: A parameter is not keyword-only, or has no default.
    """

    def wrap(function: Callable[..., Task]) -> TaskFunction:
        for parameter in inspect.signature(function).parameters.values():
            if parameter.kind is not parameter.KEYWORD_ONLY or parameter.default is parameter.empty:
                raise UserError(
                    f"parameter `{parameter.name}` of task `{function.__name__}` must be keyword-only and have a default",
                    hint=f"write `def {function.__name__}(*, {parameter.name}=…)`",
                )
        code = function.__code__
        return TaskFunction(name or function.__name__, function, code.co_filename, code.co_firstlineno)

    return wrap(function) if function is not None else wrap


@overload
def method(function: Callable[..., Module], /) -> MethodFunction: ...
@overload
def method(
    *,
    name: str | None = None,
    lr: float = 1e-4,
    load: str | None = None,
    mergeable: bool = True,
    checkpointing: bool = True,
    padding: Literal["any", "right"] = "any",
    saves: Literal["delta", "checkpoint"] = "delta",
    parameters: str = "",
) -> Callable[[Callable[..., Module]], MethodFunction]: ...
def method(
    function: Callable[..., Module] | None = None,
    /,
    *,
    name: str | None = None,
    lr: float = 1e-4,
    load: str | None = None,
    mergeable: bool = True,
    checkpointing: bool = True,
    padding: Literal["any", "right"] = "any",
    saves: Literal["delta", "checkpoint"] = "delta",
    parameters: str = "",
) -> MethodFunction | Callable[[Callable[..., Module]], MethodFunction]:
    """Turns a function from loaded model to trainable model into a method. Keyword-only parameters are hyperparameters.

    Args:
        function: The function; its first parameter is the model.
        name: Name of the method; None: the function's.
        lr: See `MethodFunction`, as for all options below.
        load: Quantization of the base before training.
        mergeable: Whether the adapter can be merged into the weights.
        checkpointing: Whether gradient checkpointing works.
        padding: The side on which batches may be padded.
        saves: Whether the trained tensors or the whole model are saved.
        parameters: Number of trained parameters as a formula.

    Raises:
        UserError: The model is not the first parameter, or a hyperparameter is not keyword-only, has no default, or has
            a reserved name (`harness.settings.RESERVED_KEYS`).

    Example:
        >>> @method(lr=2e-4)
        ... def everything(model, *, dropout: float = 0.0):
        ...     return model
        >>> everything.name, everything.lr
        ('everything', 0.0002)
    """
    # imported here, since it imports pydantic, which takes 0.1 s that a file of tasks need not wait for
    from harness.settings import RESERVED_KEYS

    def wrap(function: Callable[..., Module]) -> MethodFunction:
        taken = list(inspect.signature(function).parameters.values())
        if not taken or taken[0].kind is inspect.Parameter.KEYWORD_ONLY:
            raise UserError(
                f"method `{function.__name__}` does not take the model as its first parameter",
                hint=f"write `def {function.__name__}(model, *, …)`",
            )
        for parameter in taken[1:]:
            if parameter.kind is parameter.VAR_KEYWORD:  # `**options`: further keys are passed on
                continue
            if parameter.kind is not parameter.KEYWORD_ONLY or parameter.default is parameter.empty:
                raise UserError(
                    f"hyperparameter `{parameter.name}` of method `{function.__name__}` must be keyword-only and have"
                    " a default",
                    hint=f"write `def {function.__name__}(model, *, {parameter.name}=…)`",
                )
            if parameter.name in RESERVED_KEYS:
                raise UserError(
                    f"method `{function.__name__}` declares `{parameter.name}`, which is a key of every variant",
                    hint="rename it; reserved names: " + ", ".join(RESERVED_KEYS),
                )
        code = function.__code__
        return MethodFunction(
            name or function.__name__,
            function,
            code.co_filename,
            code.co_firstlineno,
            lr=lr,
            load=load,
            mergeable=mergeable,
            checkpointing=checkpointing,
            padding=padding,
            saves=saves,
            parameters=parameters,
        )

    return wrap(function) if function is not None else wrap
