"""The document a run leaves behind (`run.json`), typed: what `--format json` prints and every report is made from.

SI units, the unit in the key; a number that could not be computed is `None`. The schema's number rises when a reader of
an older document would misread a newer one.
"""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

SCHEMA = 1

Verdict = Literal["better", "worse", "undecided"]
Status = Literal["pending", "running", "done", "failed"]


def verdict_of(value: float, p: float, higher_is_better: bool, alpha: float = 0.05) -> Verdict:
    """Judges a difference by its p-value, adjusted where it is one of several.

    Example:
        >>> verdict_of(-0.7, 0.001, higher_is_better=False)
        'better'
    """
    if value == 0 or not p < alpha:
        return "undecided"
    return "better" if (value > 0) == higher_is_better else "worse"


class _Document(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


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
    """Whether the variants trained on this task's train split; the others are the forgetting columns."""
    headline: str
    """Name of the first metric: verdicts, ranks and the main table are about it."""
    metrics: tuple[MetricInfo, ...]
    truncated: int = 0
    """Samples whose prompt was cut on the left to fit the model's context."""
    data: str | None = None
    """Where the samples come from and which content they had: `hub:openai/gsm8k:main:test@<commit>`, `file@sha256:…`."""
    smallest_difference: float | None = None
    """The smallest headline difference from the baseline that this `n` shows with probability 0.8, in the metric's own scale."""


class Parameters(_Document):
    """Parameter counts of a variant's model."""

    total: int
    trainable: int


class TrainingData(_Document):
    """What a variant was trained on."""

    name: str
    """As typed, or the tasks whose train split it is."""
    sha256: str
    """Of the examples as the model gets them: prompts, answers, template."""
    rows: int
    """Those held out are not among them."""
    duplicates: int
    """Rows that stood in the data before, whether they were left out or not."""
    cut: int
    """Rows cut on the right to the longest length allowed."""
    dropped: int
    """Rows of which no answer was left within that length."""
    lost_tokens: int
    """Tokens cut off, and those of the rows dropped."""
    validation_rows: int | None = None


class TuningTrial(_Document):
    """A learning rate that was tried, and the loss that it left of the held-out rows (None: the training failed)."""

    lr: float
    validation_loss: float | None


class Train(_Document):
    """What training a variant cost."""

    train_seconds: float
    """Wall seconds of the steps alone: no loading, tokenising, saving."""
    tokens: int
    """Real tokens seen; padding is not counted."""
    tokens_per_second: float
    steps: int
    lr: float
    batch_size: int
    seed: int
    samples: int
    """Training samples at hand (rows, not steps)."""
    data: TrainingData | None = None
    final_loss: float | None
    curve: str
    """One line that reads the loss curve: converged, still falling, oscillating, overfitting."""
    validation_loss: float | None = None
    """Of the held-out rows, with the weights that were kept."""
    tuning: tuple[TuningTrial, ...] = ()
    """Rates that were tried to find `lr`; none: it was given, or is the method's own."""
    step_seconds_p50: float | None = None
    peak_gpu_allocated_bytes: int | None = None
    peak_gpu_reserved_bytes: int | None = None
    peak_rss_bytes: int | None = None
    """Rise of resident memory over the process after imports and before weights."""
    energy_joules: float | None = None
    reused: bool = False
    """Whether the artifact was there already, of another run or of a rate that was tried (its figures are that training's)."""


class Artifact(_Document):
    """What training left on disk."""

    path: str
    bytes: int
    parameters: int | None = None
    """Numbers in its weight files: fewer than were trained where a network writes a prompt, more where frozen ones go along."""


class Throughput(_Document):
    """Decoded tokens a second at one batch size."""

    batch_size: int
    tokens_per_second: float


class Inference(_Document):
    """What running a variant costs: plain forward and decode loop, raw times kept."""

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
    """None for a reward model, which writes nothing."""
    decode_seconds_per_token_p90: float | None
    decode_seconds_per_token_p99: float | None
    raw_seconds: dict[str, list[float]]
    """`prefill`, `decode` (one entry a token), and `base_prefill`, `base_decode` where the base was timed in turn."""
    base_prefill_seconds_p50: float | None = None
    """The bare base, timed in turn with this variant in the same process; the ratio to it cancels drift."""
    base_decode_seconds_per_token_p50: float | None = None
    throughput: tuple[Throughput, ...] = ()
    peak_gpu_allocated_bytes: int | None = None
    peak_gpu_reserved_bytes: int | None = None
    peak_rss_bytes: int | None = None
    probe_drift: float | None = None
    """Relative change of a fixed matrix product between start and end of the timing."""


class Protocol(_Document):
    """Everything that decides a number."""

    version: int
    shots: int
    mode: Literal["loglikelihood", "generate"]
    numerics: str
    engine: str
    dtype: str
    chat_template: str | None
    system: str | None = None
    token_budget: int
    """Tokens a pack may hold (four times as many when generating); part of the plan, not of the score (float32)."""
    prompt_sha256: str
    """Digest of all prompts, choices and generation settings of the task, in order."""
    signatures: dict[str, str] = {}
    """By metric, the settings and version that sacrebleu asks to be stated beside its scores."""


class Delta(_Document):
    """A score's paired difference from the baseline variant's."""

    value: float
    low: float
    high: float
    p: float
    p_holm: float | None
    """Holm-adjusted over the headline differences shown; None for metrics that are not headlines."""
    verdict: Verdict
    win_rate: float | None = None
    """Share of the samples where it scored better than the baseline; ties count half. None where samples have no score of their own."""


class GroupScore(_Document):
    """A score within one group."""

    name: str
    value: float | None
    n: int


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
    protocol: Protocol
    delta: Delta | None = None
    """None for the baseline itself."""


class Variant(_Document):
    """One row of the comparison."""

    name: str
    spec: str
    """Canonical, with every default written out."""
    method: str | None
    """None for `base` and for adapters given by path."""
    status: Status
    error: str | None = None
    hyperparameters: dict[str, Any] = {}
    parameters: Parameters | None = None
    model_bytes: int | None = None
    """Weights in memory as scored, quantization state included."""
    train: Train | None = None
    artifact: Artifact | None = None
    inference: Inference | None = None
    scores: tuple[Score, ...] = ()


class Comparison(_Document):
    """The paired difference a − b of two variants on one task's metric."""

    task: str
    metric: str
    a: str
    b: str
    test: Literal["mcnemar", "paired bootstrap", "clustered t", "paired jackknife"]
    value: float
    low: float
    high: float
    p: float
    p_holm: float | None = None
    win_rate: float | None = None
    """Share of the samples where `a` scored better than `b`; ties count half. None where samples have no score of their own."""


class Replicated(_Document):
    """Several trainings of one variant on one headline: what is said of the method, not of one trained model."""

    variant: str
    """The row that was asked for; `trainings` are it and its replicas."""
    trainings: tuple[str, ...]
    task: str
    """Or `held-out rows`, whose metric is the loss of the rows that a training did not see."""
    metric: str
    value: float
    """Mean over the trainings."""
    deviation: float
    """Standard deviation over the trainings."""
    low: float | None
    high: float | None
    """95 % interval: other samples and other trainings."""
    delta: Delta | None = None
    """Difference from the baseline; Holm-adjusted over all of this list."""


class SharedSample(_Document):
    """A sample that shares words with a row that was trained on."""

    id: str
    train_row: int
    """Place of the row in the training data as used, from 0."""
    question_part: float
    """How much of the sample's question stands in that row: 0 to 1."""
    text: str
    """The longest run of words shared, lower case, punctuation left out."""


class Overlap(_Document):
    """What the samples of a task share with training data."""

    task: str
    train: str
    """Name of the training data."""
    n: int
    """Samples compared."""
    words: int
    """Length of a run of words; characters of scripts without spaces count as words."""
    sharing: int
    """Samples that share such a run with a training row: set phrases of a genre among them."""
    contained: int
    """Samples whose question stands in a training row."""
    examples: tuple[SharedSample, ...]
    """The samples with the largest part shared."""


class Run(_Document):
    """One execution of `compare`: the whole of `run.json`."""

    schema_version: int = Field(default=SCHEMA, alias="schema")
    harness: str
    created: str
    command: str
    config: dict[str, Any]
    config_sha256: str
    environment: dict[str, Any]
    """`device`, `device_name`, `cpu`, `threads`, `dtype`, `packages` {torch: …}, `model` {name, digest, parameters} …"""
    baseline: str
    seed: int
    notes: tuple[str, ...] = ()
    """Facts a reader must know: fairness, samples left out, few clusters. Shown under the tables."""
    tasks: tuple[TaskInfo, ...]
    variants: tuple[Variant, ...]
    comparisons: tuple[Comparison, ...] = ()
    replicated: tuple[Replicated, ...] = ()
    """With `--seeds` or `--folds`: each variant's headlines over its trainings."""
    overlaps: tuple[Overlap, ...] = ()
    seconds: dict[str, float] = {}
    """Ledger of wall seconds by stage (`start`, `train lora`, `score base`, …)."""

    model_config = ConfigDict(frozen=True, extra="forbid", populate_by_name=True, serialize_by_alias=True)

    def to_json(self) -> str:
        """The document as JSON text, keys as in the schema; non-finite numbers become null."""
        return self.model_dump_json(by_alias=True, indent=1)

    def variant(self, name: str) -> Variant:
        """The variant called `name`.

        Raises:
            KeyError: There is none.
        """
        for variant in self.variants:
            if variant.name == name:
                return variant
        raise KeyError(name)
