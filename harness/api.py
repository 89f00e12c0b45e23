"""What an author writes with: samples, tasks, metrics, methods.

A task is a function that returns a `Task`; a method is a function from a loaded model to a trainable one; a metric is
a pure function from outputs to numbers. Nothing here imports torch, and nothing here runs anything.

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

if TYPE_CHECKING:
    from torch.nn import Module

Row = Mapping[str, Any]
Message = Mapping[str, str]
Prompt = str | Sequence[Message]
"""A text, or chat messages (`{"role": "user", "content": "…"}`). A last message of the assistant's is continued."""

ShotsOrder = Literal["first", "seeded", "lm-eval", "lm-eval-spare"]
"""Which solved examples a sample gets: the pool's first; drawn for each sample by itself; or drawn as
lm-evaluation-harness draws them, one generator going through the rows in order (`-spare`: where its examples come from the
split that it scores, one more is drawn and the sample itself dropped)."""

QUANTIZATIONS = ("nf4", "nf4_single", "fp4", "fp4_single", "int8")
"""Formats a base can be held in: 4-bit with its scales quantized too, or not (`_single`); 8-bit."""
RESERVED_KEYS = (
    "lr",
    "steps",
    "epochs",
    "batch_size",
    "micro_batch_size",
    "max_length",
    "seed",
    "data",
    "samples",
    "dedupe",
    "turns",
    "packing",
    "schedule",
    "rates",
    "warmup",
    "weight_decay",
    "clip",
    "label_smoothing",
    "neftune",
    "layer_decay",
    "optimizer",
    "precision",
    "checkpointing",
    "validation",
    "evaluate_every",
    "patience",
    "monitor",
    "stage",
    "start",
    "reward",
    "beta",
    "generations",
    "max_tokens",
    "temperature",
    "shots",
    "system",
    "template",
)
"""Keys of a variant that mean the same for every method; a method may not declare them."""


@runtime_checkable
class Source(Protocol):
    """Where rows come from: what `hub()`, `packaged()` and local files are."""

    def load(self) -> Sequence[Row]:
        """All rows, in the order of the source."""
        ...

    def digest(self) -> str:
        """A hex digest that changes when the rows do."""
        ...


Data = Sequence[Row] | Source | str | Path
"""Rows, a source, `"hub:OWNER/NAME[:CONFIG[:SPLIT]]"`, or the path of a .jsonl, .json, .csv, .parquet or .txt file or of a
folder of such files."""


@dataclass(frozen=True)
class Generate:
    """A sample scored on what the model writes after the prompt (greedy unless `temperature` > 0)."""

    prompt: Prompt
    target: str | Sequence[str]
    stop: Sequence[str] = ()
    """Generation ends before the first of these strings, or at the end-of-sequence token."""
    max_tokens: int = 256
    samples: int = 1
    """How many texts to draw; needs `temperature` > 0 when more than one."""
    temperature: float = 0.0
    top_p: float = 1.0
    """Draws come from the likeliest tokens that hold this share of the probability."""
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
    """Index of the right choice, or of all right ones (mc2)."""
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
    """Tokens that the model sees at a time; None: its whole context."""
    stride: int | None = None
    """None: every token is scored once, the first after a prefix token and each window's first after one token
    (lm-evaluation-harness). A number: windows start so many tokens apart, each scores what no window before it did, and the
    first token of the text is not scored (what papers report)."""
    id: str | None = None
    meta: Mapping[str, Any] = field(default_factory=dict)
    """`original`: the text whose words and bytes are counted, where it is not the text scored."""


Sample = Generate | Choose | Text


@dataclass(frozen=True)
class Output:
    """What a model gave for one sample, before any metric."""

    texts: tuple[str, ...] = ()
    """Generate: one text for each of `samples`, cut at the stop string."""
    loglikelihoods: tuple[float, ...] = ()
    """Choose: one a choice, in nats; Text: one, of the whole text."""
    is_greedy: tuple[bool, ...] = ()
    """Choose: whether the choice is what greedy decoding would write."""
    tokens: int = 0
    """Tokens generated (Generate) or scored (Choose, Text)."""


Stats = tuple[float, ...]


@dataclass(frozen=True)
class Metric:
    """A number computed from outputs, in one of three forms.

    - `score`: one number a sample, averaged.
    - `stats` and `value`: numbers that are summed over samples and then turned into one (BLEU, perplexity). This is what
      lets a corpus metric be resampled in milliseconds.
    - `gather` and `whole`: whatever is wanted of each sample, and a number of all of that together, where sums do not
      tell (AUC, diversity). Its interval comes from leaving out parts of the set.

    Args:
        name: As shown in tables.
        score: `(output, sample) -> float`; or, with the parameter names `(prediction, target)`, the first text and
            the sample's target (the best of several targets counts).
        stats: `(output, sample) -> tuple of floats`.
        value: `(sum of stats) -> float`.
        gather: `(output, sample) -> anything that JSON can hold`.
        whole: `(list of what was gathered) -> float`.
        higher_is_better: Direction of the arrow in tables.
        bounds: Ends of its scale, which no interval of a score goes beyond.

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
                hint="score: one number a sample; stats + value: sums, such as BLEU; gather + whole: all at once, such as AUC",
            )

    def measure(self, output: Output, sample: Sample) -> Any:
        """This metric of one sample: a number, the stats of a corpus metric, or what is gathered for the whole."""
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
                hint="write it as `score=(output, sample) -> float`",
            )
        targets = [sample.target] if isinstance(sample.target, str) else sample.target
        return max(float(self.score(output.texts[0], target)) for target in targets)

    @property
    def _short_form(self) -> bool:
        assert self.score is not None
        try:
            return list(inspect.signature(self.score).parameters)[:2] == ["prediction", "target"]
        except (TypeError, ValueError):  # a builtin without a signature
            return False


@dataclass(frozen=True)
class Task:
    """A dataset, how a row becomes a sample, and its metrics.

    Args:
        data: The rows to score.
        sample: Row to sample.
        metrics: Metrics, or names of metrics. The first one is the headline.
        shots: Solved examples before each prompt, unless the command line says otherwise.
        shots_from: Where the solved examples come from; with `group`, those of the same group.
        shots_order: Which of them a sample gets.
        description: Text before everything, or a function from row to text. It brings its own line ends.
        delimiter: Between a prompt and its answer.
        shot_separator: Between solved examples.
        group: Column that names a row's stratum (an MMLU subject): macro averages, stratified resampling.
        cluster: Column that names what rows share (a passage): clustered errors.
        train: Rows to train on, rendered with the same `sample`.
        version: Part of the protocol: raise it when a change moves scores.
        executes_code: Whether a metric runs what the model wrote; needs `--confirm-run-unsafe-code`.
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
            raise UserError(f"two metrics of a task have the same name: {', '.join(names)}", hint="rename one of them")
        if not callable(self.sample):
            raise UserError("the `sample` of a task must be a function", hint="for example `lambda row: Generate(…)`")
        if self.shots < 0:
            raise UserError(f"a task cannot have {self.shots} shots", hint="`shots` is 0 or more")
        if self.shots_order not in get_args(ShotsOrder):
            raise UserError(
                f"unknown order of shots `{self.shots_order}`",
                hint=did_you_mean(self.shots_order, get_args(ShotsOrder)),
            )


@dataclass(frozen=True)
class TaskFunction:
    """A function decorated with `@task`: call it with its parameters to get the `Task`."""

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
    """A function decorated with `@method`: call it with a model and hyperparameters to get a trainable model."""

    name: str
    function: Callable[..., Module]
    file: str
    line: int
    lr: float = 1e-4
    """Learning rate when neither the variant nor `--lr` names one."""
    load: str | None = None
    """Quantization of the base before training: one of `QUANTIZATIONS`, or the hyperparameter that says which."""
    mergeable: bool = True
    """Whether the adapter can be folded into the weights (`@merged`)."""
    checkpointing: bool = True
    """Whether gradient checkpointing works with it."""
    padding: Literal["any", "right"] = "any"
    """Which side batches may be padded on without changing a score."""
    saves: Literal["delta", "checkpoint"] = "delta"
    """`delta`: the trained tensors alone (a PeftModel saves itself); `checkpoint`: the whole model."""
    parameters: str = ""
    """How many parameters are trained, as a formula: `rank * (in + out) for each linear layer`."""

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
    """Makes a function a task. Its keyword-only parameters are the task's parameters (`-T key=value`).

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
    """Makes a function from loaded model to trainable model a method. Keyword-only parameters are hyperparameters.

    Raises:
        UserError: The function does not take the model first, or a hyperparameter is not keyword-only, has no default,
            or bears a reserved name (`RESERVED_KEYS`).

    Example:
        >>> @method(lr=2e-4)
        ... def everything(model, *, dropout: float = 0.0):
        ...     return model
        >>> everything.name, everything.lr
        ('everything', 0.0002)
    """

    def wrap(function: Callable[..., Module]) -> MethodFunction:
        taken = list(inspect.signature(function).parameters.values())
        if not taken or taken[0].kind is inspect.Parameter.KEYWORD_ONLY:
            raise UserError(
                f"method `{function.__name__}` does not take the model",
                hint=f"write `def {function.__name__}(model, *, …)`",
            )
        for parameter in taken[1:]:
            if parameter.kind is parameter.VAR_KEYWORD:  # `**options`: any further key is handed on
                continue
            if parameter.kind is not parameter.KEYWORD_ONLY or parameter.default is parameter.empty:
                raise UserError(
                    f"hyperparameter `{parameter.name}` of method `{function.__name__}` must be keyword-only and have"
                    " a default",
                    hint=f"write `def {function.__name__}(model, *, {parameter.name}=…)`",
                )
            if parameter.name in RESERVED_KEYS:
                raise UserError(
                    f"method `{function.__name__}` declares `{parameter.name}`, which every variant has already",
                    hint="reserved: " + ", ".join(RESERVED_KEYS),
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
