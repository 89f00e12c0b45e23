"""The document of a run (`run.json`), typed: `--format json` prints it, and every report is made from it.

Numbers are in SI units with the unit in the key; a number that could not be computed is `None`. The schema version rises
when a reader of an older document would misread a newer one.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

SCHEMA = 1

Verdict = Literal["better", "worse", "undecided"]
Tentative = Literal["better", "worse"]
Mark = Literal["better", "worse", "better?", "worse?", "undecided", "untestable"]
"""A verdict, refined by the reason for which it is undecided."""
Scaling = Literal["fraction", "percent", "points", "perplexity"]
Status = Literal["pending", "running", "done", "failed", "interrupted"]


def verdict_of(value: float, p: float, higher_is_better: bool, alpha: float = 0.05) -> Verdict:
    """Judges a difference by its p-value, which is Holm-adjusted if it is one of several.

    Example:
        >>> verdict_of(-0.7, 0.001, higher_is_better=False)
        'better'
    """
    if value == 0 or not p < alpha:
        return "undecided"
    return "better" if (value > 0) == higher_is_better else "worse"


class _Document(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)


class MetricInfo(_Document):
    """A metric of a task."""

    name: str
    higher_is_better: bool


class TaskInfo(_Document):
    """A task as this run scored it."""

    name: str
    """The spec as typed (`mmlu:anatomy`)."""
    n: int
    """Samples scored by every variant."""
    trained_on: bool
    """Whether the variants trained on this task's train split; other tasks measure forgetting."""
    headline: str
    """Name of the first metric, which verdicts, ranks and the main table use."""
    metrics: tuple[MetricInfo, ...]
    truncated: int = 0
    """Samples whose prompt was cut on the left to fit the model's context."""
    data: str | None = None
    """Source and version of the samples: `hub:openai/gsm8k:main:test@<commit>`, `file@sha256:…`."""
    smallest_difference: float | None = None
    """The smallest headline difference from the baseline that `n` samples detect with probability 0.8, in the metric's scale;
    at the level 0.05 / `Run.tests`, in documents without it at 0.05."""

    title: str | None = None
    """Short name for headings; the spec itself if it is None."""
    scale: Scaling | None = None
    """Scale of the headline: 0–1 (`fraction`), 0–100 (`percent`), a perplexity, or another number (`points`)."""
    decimals: int | None = Field(default=None, ge=0, le=9)
    """Decimals with which the headline is shown."""
    chance: float | None = None
    """Expected headline of a model that guesses, in the metric's scale; None if it is not known."""
    until_decided: bool = False
    """Whether scoring stopped where a difference from the baseline was decided: then variants have scores of fewer samples."""

    def higher_is_better(self, metric: str) -> bool:
        """Whether larger values of one of the task's metrics are better."""
        return next(info.higher_is_better for info in self.metrics if info.name == metric)


class Parameters(_Document):
    """Parameter counts of a variant's model."""

    total: int
    trainable: int


class TrainingData(_Document):
    """The training data of a variant."""

    name: str
    """As typed, or the tasks whose train split was used."""
    sha256: str
    """Digest of the examples as the model receives them: prompts, answers, template."""
    rows: int
    """Training rows, without the held-out rows."""
    duplicates: int
    """Rows that repeat an earlier row, whether they were removed or not."""
    cut: int
    """Rows truncated on the right to the maximum length."""
    dropped: int
    """Rows dropped because no answer token was left within the maximum length."""
    lost_tokens: int
    """Tokens lost to truncated and dropped rows."""
    validation_rows: int | None = None
    tasks: tuple[str, ...] | None = None
    """Tasks of the run whose train split this training run, or one that it continues, has seen; None in documents of earlier
    versions."""


class CurvePoint(_Document):
    """A point of the loss curve: one training step, or the mean of consecutive steps."""

    step: int
    """The last step of the point."""
    loss: float | None
    lr: float | None = None
    """Of the last step."""
    grad_norm: float | None = None
    tokens: int | None = None
    """Tokens trained on up to here."""
    seconds: float | None = None
    """Seconds of the steps up to here."""


class Evaluation(_Document):
    """The loss of held-out rows after a training step."""

    step: int
    validation_loss: float | None


class TuningTrial(_Document):
    """A learning rate that was tried, and the held-out loss after training with it (None: the training run failed)."""

    lr: float
    validation_loss: float | None


class Train(_Document):
    """The training run of a variant: its settings, its losses and its cost."""

    train_seconds: float
    """Wall seconds of the training steps, without loading, tokenizing and saving."""
    tokens: int
    """Tokens trained on, without padding."""
    tokens_per_second: float
    steps: int
    lr: float
    batch_size: int
    seed: int
    samples: int
    """Number of training rows."""
    data: TrainingData | None = None
    final_loss: float | None
    curve: str
    """One line that describes the loss curve: converged, still falling, oscillating, overfitting."""
    curve_points: tuple[CurvePoint, ...] = ()
    """The loss curve with at most 200 points; empty in documents of earlier versions."""
    evaluations: tuple[Evaluation, ...] = ()
    """Every evaluation on held-out rows."""
    validation_loss: float | None = None
    """Loss of the held-out rows with the weights that were kept."""
    tuning: tuple[TuningTrial, ...] = ()
    """Learning rates that were tried to find `lr`; empty if it was given or is the method's default."""
    step_seconds_p50: float | None = None
    peak_gpu_allocated_bytes: int | None = None
    peak_gpu_reserved_bytes: int | None = None
    peak_rss_bytes: int | None = None
    """Increase of resident memory since the process had imported its modules and before it loaded weights."""
    predicted_peak_bytes: int | None = None
    """Peak of all tensors as `harness plan` predicts it, for the rows of this training run."""
    predicted_seconds: float | None = None
    """Time of the training steps as `harness plan` predicts it on this machine, for the tokens of this training run; None for runs
    so short that a measurement of the machine's speed would be a noticeable part of them."""
    energy_joules: float | None = None
    cpu_seconds: float | None = None
    """CPU seconds of all threads during the steps."""
    waited_share: float | None = None
    """Share of the time in which threads wanted to run that they waited for a processor, because others used them."""
    precision: Literal["fp32", "bf16", "fp16"] | None = None
    """Precision of the matrix products; weights that are trained are held in float32, or in bfloat16 with `weights=bf16`. None in
    documents of earlier versions."""
    phase_seconds: dict[str, float] = {}
    """Wall seconds of the whole job by phase: load, tokenise, train, evaluate, generate, save."""
    block_seconds: tuple[float, ...] = ()
    """`train_seconds` as at most 32 sums of consecutive steps: their spread is that of the time."""
    reused: bool = False
    """Whether the artifact comes from an earlier training run, whose figures are given here."""


class Artifact(_Document):
    """The saved result of a training run."""

    path: str
    bytes: int
    parameters: int | None = None
    """Number of values in its weight files.

    There are fewer than trainable parameters if a network that computes a prompt was trained but only the prompt was saved,
    and more if frozen weights are saved too.
    """


class Throughput(_Document):
    """Generated tokens per second at one batch size."""

    batch_size: int
    tokens_per_second: float


class Ranged(_Document):
    """A figure over all repeats, with the lowest and highest of single repeats."""

    value: float
    low: float
    high: float


class LatencyPoint(_Document):
    """The latency at one prompt length and batch size (`harness bench`)."""

    prompt_tokens: int
    batch_size: int
    ttft_seconds: Ranged | None = None
    """Time to the first new token: the forward pass over the prompts. Median of the repeats."""
    decode_seconds_per_token_p50: Ranged | None = None
    """Percentiles of the time between two tokens, over all steps of all repeats; None for a reward model."""
    decode_seconds_per_token_p90: Ranged | None = None
    decode_seconds_per_token_p99: Ranged | None = None
    tokens_per_second: Ranged | None = None
    """Generated tokens of all rows per second of decoding. Median of the repeats."""
    raw_seconds: dict[str, list[float]] = {}
    """As in `Inference`."""
    error: str | None = None
    """Why it has no figures: `out of memory`."""


class Inference(_Document):
    """The cost of running a variant, measured with a plain forward pass and decode loop; raw times are kept."""

    load_seconds: float
    prompt_tokens: int
    new_tokens: int
    batch_size: int
    warmup: int
    repeats: int
    prefill_seconds_p50: float
    prefill_seconds_p90: float
    prefill_seconds_p99: float
    decode_seconds_per_token_p50: float | None
    """None for a reward model, which generates no text."""
    decode_seconds_per_token_p90: float | None
    decode_seconds_per_token_p99: float | None
    raw_seconds: dict[str, list[float]]
    """`prefill`, `decode` (one entry per token), and `base_prefill`, `base_decode` if the base was timed alternately."""
    raw_summary: dict[str, tuple[float, ...]] = {}
    """By key of `raw_seconds`: at most 100 quantiles at equal distances, the first and last are the extremes."""
    base_prefill_seconds_p50: float | None = None
    """Time of the bare base, timed alternately with this variant in one process, so that their ratio cancels drift."""
    base_decode_seconds_per_token_p50: float | None = None
    throughput: tuple[Throughput, ...] = ()
    points: tuple[LatencyPoint, ...] = ()
    """With `harness bench`: every prompt length and batch size. The other figures are those of the first one that was timed."""
    peak_gpu_allocated_bytes: int | None = None
    peak_gpu_reserved_bytes: int | None = None
    peak_rss_bytes: int | None = None
    probe_drift: float | None = None
    """Relative change in the time of a fixed matrix product between the start and the end of the timing."""
    stopped: Literal["repeats", "precise", "budget"] = "repeats"
    """Why the timing ended: all repeats were made, the ratio was known to ±5 %, or its time was over."""
    cpu_seconds: float | None = None
    """CPU seconds of all threads during the repeats."""
    waited_share: float | None = None
    """Share of the time in which threads wanted to run that they waited for a processor, because others used them."""


class Price(_Document):
    """The price of the machine."""

    per_hour: float
    currency: str


class Money(_Document):
    """The costs of a variant in the currency of `Run.price`, from measured seconds."""

    training: float | None
    """Of the training steps alone, as `Train.train_seconds`."""
    million_prompt_tokens: float | None
    """Of a million tokens of prompts, read `Inference.batch_size` at a time: one, but for `harness bench`."""
    million_generated_tokens: float | None
    """Of a million tokens generated by `batch_size` rows at once."""
    batch_size: int | None = None
    """The same for every variant; None if no text was generated."""


class ServedProtocol(_Document):
    """The server on which a variant was scored, and what the probe at the start has found."""

    url: str
    name: str
    """Name by which the server knows the model."""
    says: dict[str, Any] = {}
    """The server's own words on the model and on itself; nothing shows whether they are true."""
    way: Literal["ids", "text", "chat"]
    """How prompts are sent: as token ids, as text, or as messages to which the server applies its own chat template."""
    likelihoods: str | None = None
    """The field that gives the log-probabilities of a prompt, checked against those of tokens that the server has written."""
    answers_as: str = ""
    """The model's name in its answers."""
    notes: tuple[str, ...] = ()


class Protocol(_Document):
    """All settings that determine a score."""

    version: int | str | None
    """As the task's author counts; other tools have texts. None, here and below: results of another tool that do not say."""
    shots: int | None
    shared_shots: bool = False
    """Whether all samples had the same solved examples, where the task draws others for each (`--shared-shots`)."""
    mode: Literal["loglikelihood", "generate", "unknown"]
    numerics: str
    engine: str
    dtype: str
    form: str | None = None
    """Deployed form of the weights, such as `gguf:Q4_K_M`; None: as trained."""
    reader: str | None = None
    """Library and version that read the deployed form."""
    chat_template: str | None
    system: str | None = None
    think: str | None = None
    """`default`, `on`, `off` or the tokens of a thought; None without a chat template that knows thoughts."""
    template_options: dict[str, bool | int | float | str] = {}
    """Variables of the chat template that the user set."""
    served: ServedProtocol | None = None
    """The server that has answered; None: the model was loaded here."""
    writer: str | None = None
    """Who generated the texts: `slots` or `plain` (our own engine), or vLLM with its versions; if several, each with its number
    of samples. None for log-likelihoods, served models, and in documents of earlier versions."""
    token_budget: int | None = None
    """Maximum tokens per pack (four times as many for generation). It decides the packs; in float32 it changes no score."""
    prompt_sha256: str | None = None
    """Digest of all prompts, choices and generation settings of the task, in order."""
    signatures: dict[str, str] = {}
    """By metric: sacrebleu's signature (settings and version), or the tokens of other scripts, to report with its scores."""


class EarlyStop(_Document):
    """The result of a sequential test (`--until-decided`), which may end before all samples are scored."""

    n: int
    """Samples on which both variants were compared."""
    total: int
    """Samples of the task."""
    outcome: Literal["shown", "within", "undecided"]
    """A difference was shown, one of `smallest` or more was excluded, or neither by the last sample."""
    smallest: float | None = None
    """The smallest difference that matters, in the metric's scale."""


class _Judged(_Document):
    """A paired difference with its test and verdict."""

    value: float
    low: float
    high: float
    """95 % interval, unadjusted."""
    p: float
    p_holm: float | None = None
    """p-value, Holm-adjusted over all pairs of variants on all headlines; over the differences from the baseline in documents
    without `Run.tests`. None for metrics that are not headlines."""
    verdict: Verdict | None
    tentative: Tentative | None = None
    """Direction of a difference that is undecided only because rare large losses, which these samples do not contain, could
    reverse it. Ranks, gates and exports count it as undecided."""
    untestable: str | None = None
    """Why no test of the difference is valid; then it is undecided."""
    win_rate: float | None = None
    """Share of samples with a better score than the other variant; ties count half. None if samples have no score of their
    own. The score of a sample by a corpus metric such as BLEU is the metric of that sample alone."""
    win_rate_low: float | None = None
    win_rate_high: float | None = None
    """95 % interval of the win rate, unadjusted."""
    early: EarlyStop | None = None
    """With `--until-decided`: then the interval inverts the sequential test, `p` is an upper limit, and `p_holm` is None."""

    @property
    def mark(self) -> Mark | None:
        """The verdict, refined by the reason for which it is undecided; None without a verdict."""
        if self.tentative == "better":
            return "better?"
        if self.tentative == "worse":
            return "worse?"
        return "untestable" if self.untestable else self.verdict


class Delta(_Judged):
    """The difference of a score from the baseline's, with its verdict."""

    verdict: Verdict | None
    """None for metrics that are not headlines: they have intervals only."""

    @model_validator(mode="after")
    def _drop_unadjusted_verdict(self) -> Self:
        """Drops a verdict that is not adjusted, as documents of earlier versions have it for metrics besides headlines."""
        if self.p_holm is None and self.early is None:
            object.__setattr__(self, "verdict", None)
        return self


class GroupDelta(_Document):
    """The paired difference from the baseline within one group, with its unadjusted 95 % interval and no verdict."""

    value: float
    low: float
    high: float


class GroupScore(_Document):
    """A score within one group."""

    name: str
    value: float | None
    n: int
    low: float | None = None
    high: float | None = None
    """95 % interval of the value."""
    delta: GroupDelta | None = None
    """Of the headline only."""


class Score(_Document):
    """One metric of one variant on one task."""

    task: str
    metric: str
    value: float | None
    low: float | None
    high: float | None
    n: int
    macro: float | None = None
    """Unweighted mean over groups."""
    groups: tuple[GroupScore, ...] = ()
    found: float | None = None
    """Share of samples in which the metric found an answer, right or wrong; None if it extracts no answer."""
    truncated: int = 0
    """Samples whose prompt was cut on the left to fit the model's context."""
    shortened: int = 0
    """Samples whose answer was cut short by the end of the model's context."""
    timed_out: int = 0
    """Generated programs that ran out of time, also when they ran alone; they count as wrong."""
    protocol: Protocol
    delta: Delta | None = None
    """None for the baseline itself."""


class ResultsSource(_Document):
    """The files of another tool that a variant's scores were read from."""

    tool: str
    """Name and version."""
    file: str
    """Name of the results file."""
    lacks: tuple[str, ...] = ()
    """Facts that the files lack."""


class Variant(_Document):
    """One row of the comparison."""

    name: str
    spec: str
    """Canonical spec with every default written out."""
    method: str | None
    """None for `base` and for adapters given by path."""
    status: Status
    error: str | None = None
    hyperparameters: dict[str, Any] = {}
    parameters: Parameters | None = None
    model_bytes: int | None = None
    """Size of the weights in memory during scoring, including quantization state; of a deployed form, on disk."""
    train: Train | None = None
    artifact: Artifact | None = None
    inference: Inference | None = None
    money: Money | None = None
    """None without `Run.price`."""
    source: ResultsSource | None = None
    """The files of another tool that the scores are read from; None for our own."""
    scores: tuple[Score, ...] = ()

    def score(self, task: str, metric: str) -> Score | None:
        """Returns the score on one metric of a task, or None."""
        return next((score for score in self.scores if (score.task, score.metric) == (task, metric)), None)

    def headline(self, task: TaskInfo) -> Score | None:
        """Returns the score on a task's headline, or None."""
        return self.score(task.name, task.headline)


class Comparison(_Judged):
    """The paired difference a − b of two variants on one task's metric, with its verdict."""

    task: str
    metric: str
    a: str
    b: str
    test: Literal[
        "mcnemar mid-p", "skewness-corrected t", "clustered t and sign flips", "ratio t", "paired jackknife", "delong",
        "alpha spending", "bets", "unpaired z", "mcnemar", "paired bootstrap", "clustered t",
    ]  # fmt: skip
    """`alpha spending` and `bets` are sequential tests; `unpaired z` is for results of other tools without samples. The last three are those of earlier versions: McNemar's exact test, and tests with a bootstrap's error."""
    verdict: Verdict = "undecided"
    """Whether `a` is better or worse than `b`. `Run` computes it for documents that were written without it."""

    @property
    def delta(self) -> Delta:
        """The same difference, as the score of `a` has it."""
        return Delta(**{name: getattr(self, name) for name in Delta.model_fields})

    def reversed(self) -> Comparison:
        """Returns the same comparison as b − a."""
        opposite: dict[Verdict, Verdict] = {"better": "worse", "worse": "better", "undecided": "undecided"}
        return self.model_copy(
            update={
                "a": self.b,
                "b": self.a,
                "value": -self.value,
                "low": -self.high,
                "high": -self.low,
                "win_rate": _complement(self.win_rate),
                "win_rate_low": _complement(self.win_rate_high),
                "win_rate_high": _complement(self.win_rate_low),
                "verdict": opposite[self.verdict],
                "tentative": self.tentative and opposite[self.tentative],
            }
        )


def _complement(share: float | None) -> float | None:
    return None if share is None else 1 - share


class Replicated(_Document):
    """One headline over several training runs of a variant: a statement about the method, not about one trained model."""

    variant: str
    """The variant as requested."""
    trainings: tuple[str, ...]
    """Names of its training runs: the variant itself and its replicas."""
    task: str
    """A task, or `held-out rows`; then the metric is the loss of the rows that a training run did not see."""
    metric: str
    value: float
    """Mean over the training runs."""
    deviation: float
    """Standard deviation over the training runs."""
    low: float | None
    high: float | None
    """95 % interval over samples and training runs."""
    delta: Delta | None = None
    """Difference from the baseline; Holm-adjusted over all entries of `Run.replicated`."""


class Change(_Document):
    """The mean difference from the baseline over tasks with one unit; a positive value is an improvement."""

    unit: str
    """`points` of 100, or the name of a metric that is not measured in points."""
    tasks: tuple[str, ...]
    value: float
    low: float | None
    high: float | None
    """95 % interval, unadjusted; None if no interval of one of the tasks is valid."""


class Changes(_Document):
    """The verdicts of a variant on some tasks, by task name, and its mean changes, `points` first."""

    better: tuple[str, ...] = ()
    undecided: tuple[str, ...] = ()
    worse: tuple[str, ...] = ()
    means: tuple[Change, ...] = ()

    def in_points(self) -> Change | None:
        """Returns the mean change in points; None if no task is measured in points."""
        return next((mean for mean in self.means if mean.unit == "points"), None)


class Gain(_Document):
    """The gains of a variant on tasks that it was trained for, and its losses on others: a point of a learns/forgets plot."""

    variant: str
    trained: Changes
    other: Changes
    """Tasks that it was not trained for; for a trained variant, `worse` is forgetting."""

    def learned(self) -> Change | None:
        """Returns the mean change in points on the tasks that the variant was trained for (y of the plot)."""
        return self.trained.in_points()

    def kept(self) -> Change | None:
        """Returns the mean change in points on the other tasks (x of the plot)."""
        return self.other.in_points()


class Recommendation(_Document):
    """The variants that a run shows to be as good as the best, within a margin, at the lowest cost."""

    choices: tuple[str, ...]
    """Several if their costs do not differ; empty if the run does not decide."""
    margin: float
    """Points by which a choice may be worse than the best."""
    tasks: tuple[str, ...]
    """The tasks over whose mean the variants were compared."""
    cost: str | None
    """The cost by which variants within the margin were compared; None if it was not needed, or not measured for all."""
    text: str
    """The recommendation as a sentence; if it is undecided, with what would decide it."""


class SharedSample(_Document):
    """A sample that shares an n-gram with a training row."""

    id: str
    train_row: int
    """Index of the row in the training data as used, from 0."""
    question_part: float
    """Share of the sample's question that is in the row: 0 to 1."""
    text: str
    """The longest shared n-gram, in lower case and without punctuation."""


class Overlap(_Document):
    """The overlap between the samples of a task and the training data."""

    task: str
    train: str
    """Name of the training data."""
    n: int
    """Samples compared."""
    words: int
    """Length of an n-gram in words; in scripts without spaces, each character counts as a word."""
    sharing: int
    """Samples that share an n-gram with a training row, including common phrases."""
    contained: int
    """Samples whose question is in a training row."""
    examples: tuple[SharedSample, ...]
    """The samples that share the most."""


class ShownPrompt(_Document):
    """A sample whose outputs are shown; long texts are cut in the middle."""

    id: str
    group: str | None = None
    prompt: str
    """The question without solved examples."""
    target: str | None
    output: str
    """Output of the baseline."""
    score: float


class ShownOutput(_Document):
    """The output of a variant for one of the shown samples."""

    id: str
    kind: Literal["won", "lost"]
    """Whether the variant has a better score than the baseline."""
    output: str
    score: float


class ShownVariant(_Document):
    """The samples of a task on which a variant and the baseline differ: all counted, some shown."""

    variant: str
    won: int
    lost: int
    tied: int
    outputs: tuple[ShownOutput, ...] = ()


class ShownSamples(_Document):
    """Samples of a task for reports that have nothing but this document; drawn at random with the run's seed."""

    task: str
    prompts: tuple[ShownPrompt, ...]
    variants: tuple[ShownVariant, ...]


class _Identity:
    """The comparisons of a run, as a key of a cache: equal only to themselves, so that no comparison is hashed."""

    def __init__(self, comparisons: tuple[Comparison, ...]) -> None:
        self.comparisons = comparisons

    def __hash__(self) -> int:
        return id(self.comparisons)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Identity) and self.comparisons is other.comparisons


@functools.lru_cache(maxsize=16)
def _by_metric(key: _Identity) -> Mapping[tuple[str, str], Mapping[tuple[str, str], Comparison]]:
    """Indexes comparisons by task and metric, then by a and b: 60 variants on 60 tasks have 106,200."""
    index: dict[tuple[str, str], dict[tuple[str, str], Comparison]] = {}
    for found in key.comparisons:
        index.setdefault((found.task, found.metric), {})[found.a, found.b] = found
    return index


class Run(_Document):
    """One execution of `compare`: the content of `run.json`."""

    schema_version: int = Field(default=SCHEMA, alias="schema")
    harness: str
    created: str
    command: str
    config: dict[str, Any]
    config_sha256: str
    environment: dict[str, Any]
    """`device`, `device_name`, `cpu`, `threads`, `dtype`, `packages` {torch: …}, `model` {name, digest, parameters} …"""
    baseline: str
    seed: int | None
    """None for results that were read from other tools."""
    notes: tuple[str, ...] = ()
    """Facts that a reader must know: fairness, samples left out, few clusters. Shown under the tables."""
    tasks: tuple[TaskInfo, ...]
    variants: tuple[Variant, ...]
    comparisons: tuple[Comparison, ...] = ()
    tests: int | None = None
    """Number of tests over which the p-values of headlines are adjusted: one family for marks, ranks and exports. None in
    documents of earlier versions, whose marks and ranks have families of their own."""
    replicated: tuple[Replicated, ...] = ()
    """With `--seeds` or `--folds`: each variant's headlines over its training runs."""
    gains: tuple[Gain, ...] = ()
    """For each scored variant besides the baseline: gains on tasks that it was trained for, losses on others."""
    recommendation: Recommendation | None = None
    """None if nothing was trained, or if there is nothing to compare it with."""
    overlaps: tuple[Overlap, ...] = ()
    samples_shown: tuple[ShownSamples, ...] = ()
    """By task: samples that variants have won and lost against the baseline."""
    config_resolved: dict[str, Any] = {}
    """`config` with every default, and the settings of every variant; for reading: `config` is what can be run again."""
    price: Price | None = None
    """Price of the machine (`--price-per-hour`)."""
    seconds: dict[str, float] = {}
    """Wall seconds by stage (`start`, `train lora`, `score base`, …)."""

    model_config = ConfigDict(frozen=True, extra="forbid", populate_by_name=True, serialize_by_alias=True)

    @model_validator(mode="after")
    def _judge_comparisons(self) -> Self:
        """Computes verdicts that a document of an earlier version does not have."""
        better = {(task.name, info.name): info.higher_is_better for task in self.tasks for info in task.metrics}

        def judged(found: Comparison) -> Comparison:
            higher = better.get((found.task, found.metric))
            if "verdict" in found.model_fields_set or higher is None:
                return found
            p = found.p if found.p_holm is None else found.p_holm
            return found.model_copy(update={"verdict": verdict_of(found.value, p, higher)})

        object.__setattr__(self, "comparisons", tuple(map(judged, self.comparisons)))
        return self

    def to_json(self) -> str:
        """Returns the document as JSON text; non-finite numbers become null."""
        return self.model_dump_json(by_alias=True, indent=1)

    def variant(self, name: str) -> Variant:
        """Returns the variant called `name`.

        Raises:
            KeyError: There is no such variant.
        """
        for variant in self.variants:
            if variant.name == name:
                return variant
        raise KeyError(name)

    def comparison(self, task: TaskInfo, a: str, b: str) -> Comparison | None:
        """Returns the comparison a − b on a task's headline, whichever order the document has; None without one."""
        of_task = self.headline_comparisons(task)
        if (a, b) in of_task:
            return of_task[a, b]
        return of_task[b, a].reversed() if (b, a) in of_task else None

    def headline_comparisons(self, task: TaskInfo) -> Mapping[tuple[str, str], Comparison]:
        """Returns the comparisons a − b on a task's headline by a and b, in the order that the document has."""
        return _by_metric(_Identity(self.comparisons)).get((task.name, task.headline), {})
