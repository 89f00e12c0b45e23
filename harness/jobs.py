"""Jobs that the parent process gives to a child, and the events that come back: plain data, no torch.

A child loads one base and does one job: train a variant, score variants that share the base, or time one. A job contains
everything that the child needs, so it can be pickled, sent to another machine, and repeated.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from harness.api import Sample
from harness.settings import TrainingSettings

if TYPE_CHECKING:
    from harness.serving.capabilities import Capabilities

REVISIONS: Mapping[str, int] = {"trainer": 2, "engine": 2, "metrics": 2}
"""Revisions of our own code that decide results. Raise a number when a change gives other weights (`trainer`), other outputs of
the same model (`engine`) or other scores of the same outputs (`metrics`): earlier results are then not reused."""
PACKAGES = ("torch", "transformers", "peft", "bitsandbytes")
"""Libraries whose versions decide weights and outputs."""

Bits = Literal[4, 8] | None
Quant = Literal["nf4", "nf4_single", "fp4", "fp4_single", "int8"]
"""Formats of quantized weights: 4-bit with double quantization of the scales, or without (`_single`); LLM.int8."""
QUANT_OF_BITS: Mapping[Bits, Quant | None] = {None: None, 4: "nf4", 8: "int8"}
"""Formats of `@4bit` and `@8bit`."""
Reader = Literal["transformers", "llamacpp"]
"""Library that reads deployed weights; llama.cpp also rounds the inputs of its layers."""

HEAD_FILE = "reward_head.safetensors"
"""File in the artifact of a reward model, which judges answers instead of generating them."""
TRAINED_FILE = "trained.json"
"""File in an artifact's folder with its train key and the figures of its training run."""


SERVED_PREFIX = "endpoint:"
"""How the name of a served model begins."""


@dataclass(frozen=True)
class Served:
    """A model behind a server with an OpenAI-compatible API."""

    url: str
    """Address of the server, such as `http://127.0.0.1:8000/v1`."""
    name: str
    """Name by which the server knows the model."""


@dataclass(frozen=True)
class Vllm:
    """An installed vLLM, in this environment or another one."""

    python: Path
    """The interpreter of its environment."""
    version: str
    torch: str
    transformers: str
    device: Literal["cpu", "cuda"]
    """The kind of device that it was built for."""
    architectures: tuple[str, ...] = ()
    """The architectures that it knows as text generators, by the names in `config.json`."""

    def __str__(self) -> str:
        return f"vLLM {self.version} (torch {self.torch}, transformers {self.transformers})"


Writer = Literal["slots", "vllm"]
"""Who generates a text: our own engine, or vLLM."""


@dataclass(frozen=True)
class Base:
    """Weights and how they are loaded; variants with equal bases share one load."""

    folder: Path
    """A folder, or a GGUF file; of a served model, the folder of the tokenizer."""
    device: str
    dtype: str
    """`float32`, `bfloat16` or `float16`."""
    quant: Quant | None = None
    trust_remote_code: bool = False
    served: Served | None = None
    """The server that has the weights; None: they are in the folder."""
    reader: Reader = "transformers"
    """Library that loads and runs it."""


@dataclass(frozen=True)
class DeployedForm:
    """A form in which models are served: the tool that converts the weights, their type, and the library that reads them."""

    tool: str
    """`gguf`, `torchao`, `gptq` or `awq`."""
    type: str
    """The tool's name of the type, such as `Q4_K_M`."""
    reader: Reader = "transformers"

    @property
    def made(self) -> str:
        """The part that decides the converted weights: `gguf:Q4_K_M`."""
        return f"{self.tool}:{self.type}"

    @property
    def text(self) -> str:
        """The form as a transform is typed, without `@`.

        Example:
            >>> DeployedForm("gguf", "Q4_K_M", "llamacpp").text
            'gguf:Q4_K_M:llamacpp'
        """
        return self.made + (f":{self.reader}" if self.reader != "transformers" else "")


@dataclass(frozen=True)
class Method:
    """A method, by the file and function that a child imports."""

    name: str
    path: Path
    module: str | None
    hyperparameters: Mapping[str, Any] = field(hash=False)

    @property
    def source(self) -> str:
        """The source by which the registry finds it."""
        return self.name if self.module else f"{self.path.resolve()}@{self.name}"


@dataclass(frozen=True)
class Recipe:
    """Steps from a base to a variant's model."""

    base: Base
    adapter: Path | None = None
    """Folder of a PEFT adapter, or of `delta.safetensors` + `method.json`."""
    merged: bool = False
    bits_after_merge: Bits = None
    method: Method | None = None
    """The method that made the delta; None for PEFT adapters, which describe themselves."""


@dataclass(frozen=True)
class Monitor:
    """A task whose headline decides which checkpoint is best."""

    task: str
    """The source by which the registry finds it."""
    parameters: Mapping[str, Any]
    items: Sequence[Item]
    digest: str = ""
    """Digest of the task's file and rows: with the prompts, they decide which checkpoint is best."""


@dataclass(frozen=True)
class RewardFunction:
    """A user's function `(prompts, completions, references) -> list of rewards`."""

    path: Path
    name: str


@dataclass(frozen=True)
class EnvironmentJob:
    """Report the machine: device, resolved dtype, versions."""

    device: str
    dtype: str


@dataclass(frozen=True)
class DescribeJob:
    """Describe the tokenizer in a folder."""

    folder: Path
    trust_remote_code: bool = False


@dataclass(frozen=True)
class UnpackJob:
    """Unpack a GGUF file to a plain checkpoint, which other jobs load."""

    base: Base


@dataclass(frozen=True)
class RowLengthsJob:
    """Count the tokens of training rows with the tokenizer in a folder."""

    folder: Path
    examples: Sequence[Example]
    answered: bool
    """Whether the answers count: false for stages that generate them."""
    trust_remote_code: bool = False


@dataclass(frozen=True)
class SourcesJob:
    """Import user's files as a training run will, and report the local files that each of them loads: `{path: files}`."""

    paths: Sequence[Path]


@dataclass(frozen=True)
class TrainJob:
    """Train one variant and leave its artifact in `output`."""

    base: Base
    method: Method
    training: TrainingSettings
    examples: Sequence[Example]
    saves: Literal["delta", "checkpoint"]
    output: Path
    """Folder of the artifact; written completely or not at all."""
    log: Path
    """File with one line for each step."""
    state: Path
    """Folder of the state from which an interrupted training run continues."""
    train_key: str
    """Digest of everything that decides the artifact; later runs find the artifact by it."""
    validation: Sequence[Example] = ()
    """Held-out rows; without them and without a monitor, there are no evaluations during training."""
    monitor: Monitor | None = None
    """None: the loss on the held-out rows decides which checkpoint is best."""
    start: Path | None = None
    """Folder of an artifact of the same method, whose tensors training starts from."""
    reward: Recipe | RewardFunction | None = None
    """Judge of the answers, for the stages that learn from rewards."""
    report_to: Sequence[str] = ()
    """Trackers that receive the figures of every step: `tensorboard`, `wandb`, `mlflow`."""


@dataclass(frozen=True)
class CheckJob:
    """Find out without weights why a training run would fail; the result is a `UserError`, or None."""

    train: TrainJob
    start: TrainJob | None = None
    """The training run that it starts from, whose artifact does not exist yet."""


@dataclass(frozen=True)
class MergeJob:
    """Merge an adapter into its base and save the checkpoint in `output`."""

    recipe: Recipe
    output: Path
    """Written completely or not at all."""


@dataclass(frozen=True)
class DeployJob:
    """Convert a variant's model to a deployed form and save the result in `output`."""

    recipe: Recipe
    """With an adapter: merged."""
    form: DeployedForm
    output: Path
    """Folder; written completely or not at all."""
    calibration: Sequence[Example] = ()
    """Training rows on which the weights are rounded, for tools that need some."""
    seed: int = 0


@dataclass(frozen=True)
class Deployed:
    """Result of a `DeployJob`."""

    weights: Path
    """The file or folder that a reader loads."""
    bytes: int
    """Size of the weights on disk."""
    notes: tuple[str, ...] = ()
    """Notes for the report, such as tensors of another type."""


ExportFormat = Literal["merged", "gguf", "ollama", "vllm"]


@dataclass(frozen=True)
class ExportJob:
    """Write a trained variant in a form that a server loads, read it back, and measure how far its logits moved."""

    recipe: Recipe
    """As trained: an adapter is not merged."""
    to: ExportFormat
    output: Path
    """Folder; written completely or not at all."""
    name: str
    """Name for clients, and in files."""
    model: str
    """The base as the user wrote it, for a server that loads it itself."""
    kind: str
    """Type of a GGUF file."""
    requests: Sequence[Request]
    """Real requests, on whose texts logits are compared."""
    templated: bool
    """Whether the variant was scored with the model's chat template."""
    stops: Sequence[str] = ()
    """Texts that end an answer, besides the model's own tokens."""
    system: str | None = None
    title: str = ""


@dataclass(frozen=True)
class LogitDistance:
    """Distance between the next-token distributions of two models on the same texts."""

    largest: float
    """Largest difference of a logit, each row of logits shifted to a mean of 0."""
    mean_kl: float
    """Mean of KL(trained, exported) over the tokens, in nats."""
    same_argmax: float
    """Share of the tokens for which the likeliest next token is the same."""
    tokens: int
    prompts: int


@dataclass(frozen=True)
class Exported:
    """Result of an `ExportJob`."""

    output: Path
    bytes: int
    distance: LogitDistance
    command: str | None = None
    """How to start a server with it."""
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class TaskRequests:
    """The requests of one task for one variant; the results of some may be on disk already."""

    task: str
    requests: Sequence[Request]
    done: Sequence[int] = ()
    """Indices of the samples on disk, in the order of the samples file."""
    first: int = 0
    """Index of the first request among the samples of the task; all before it are on disk."""
    by_vllm: bool = False
    """Whether vLLM generated some of the samples on disk: then they are in no order of packs."""


@dataclass(frozen=True)
class ScoreVariant:
    """One variant of a scoring job."""

    name: str
    recipe: Recipe
    tasks: Sequence[TaskRequests]
    capabilities: Capabilities | None = None
    """Abilities of a served model; None: the model is loaded here."""


@dataclass(frozen=True)
class ScoreJob:
    """Score variants that share one base."""

    variants: Sequence[ScoreVariant]
    engine: Literal["auto", "plain"]
    numerics: Literal["fp32", "lm-eval"]
    token_budget: int
    max_rows: int | None
    seed: int
    allow_cut: bool = True
    """Whether more than a few prompts may be cut to fit the context; runs take it from `--allow-cut`."""
    more: bool = False
    """Whether further jobs of this base follow: the child keeps it in memory and waits for them."""
    vllm: Vllm | None = None
    """Generates the texts of the variants that it takes; None: our own engine generates all."""
    vllm_always: bool = False
    """Whether vLLM generates even where its start costs more than it saves."""


@dataclass(frozen=True)
class ProbeJob:
    """Find out what a served model can do; the result is a `Capabilities`."""

    base: Base
    tasks: Sequence[TaskRequests]
    """Everything that the run will ask."""
    numerics: Literal["fp32", "lm-eval"] = "fp32"
    context: int | None = None
    """Tokens of prompt and answer together, as the server says."""


@dataclass(frozen=True)
class PlanJob:
    """Predict memory and time of a training run; of the base's folder, only the configuration is read."""

    base: Base
    method: Method
    training: TrainingSettings
    length: int | None = None
    """Tokens of each row; None: the greatest length."""
    memory_bytes: int | None = None
    """Memory that is available; None: the number of rows that would fit is not asked for."""
    label_share: float = 1.0
    """Share of tokens that have a label."""
    measures_speed: bool = False
    """Whether to measure the machine in steps of a copy with one layer."""


Stopped = Literal["repeats", "precise", "budget"]
"""Why a timing ended: all repeats were made, the intervals were narrow enough, or its time was over."""


@dataclass(frozen=True)
class ReachJob:
    """Compute the share of a base's weights that methods reach; of the base's folder, only the configuration is read."""

    base: Base
    methods: tuple[tuple[Method, Quant | None], ...]
    """Methods, each with the format in which it needs the base."""


@dataclass(frozen=True)
class BenchJob:
    """Time one variant; if it shares weights with the bare base, the two are timed alternately."""

    recipe: Recipe
    with_base: bool
    """Whether the bare base is the variant's own base, and timed alternately."""
    prompt_tokens: int = 512
    new_tokens: int = 32
    warmup: int = 1
    repeats: int = 10
    batch_sizes: Sequence[int] = (1, 8)
    grid: Sequence[tuple[int, int]] = ()
    """(prompt tokens, batch size) of the points that every repeat measures, for `harness bench`; empty: one row of
    `prompt_tokens`, and a single measurement of each batch size."""
    seed: int = 0
    budget_seconds: float | None = None
    """Seconds after which no further repeat begins, loading included; one repeat is always measured. None: no limit."""
    precision: float | None = None
    """Half the width of the intervals, as a share of the value, at which repeats end early. None: all repeats."""
    beside: Base | None = None
    """The bare base, to be loaded beside a variant that does not share its weights and timed alternately, if both fit."""


@dataclass(frozen=True)
class Raw:
    """The model's output for one request; `index` is the position of the sample in the task."""

    index: int
    prompt_tokens: int
    truncated: bool
    tokens: int
    texts: tuple[str, ...] = ()
    loglikelihoods: tuple[float, ...] = ()
    is_greedy: tuple[bool, ...] = ()
    shortened: bool = False
    """Whether the end of the context ended a text before its `limit`."""
    thought_tokens: int = 0
    """Tokens before the answers, among `tokens`."""


@dataclass(frozen=True)
class Packed:
    """The outputs of a finished pack, the unit of commit and resume."""

    variant: str
    task: str
    raws: tuple[Raw, ...]
    writer: Writer = "slots"


@dataclass(frozen=True)
class Resumed:
    """The first `kept` samples of the file are whole packs of the plan; samples after them are scored again."""

    variant: str
    task: str
    kept: int
    first: int = 0
    """Number of samples that earlier jobs of this run have scored."""


@dataclass(frozen=True)
class Advanced:
    """Progress of a stage."""

    done: int
    total: int
    note: str = ""
    share: float | None = None
    """Share of the work that is done, from 0 to 1, by tokens: samples and packs differ in length; None: as the units."""


@dataclass(frozen=True)
class VariantLoading:
    """A scoring child starts with a variant: later errors belong to that variant."""

    variant: str


@dataclass(frozen=True)
class VariantStarted:
    """The variant's model is loaded: its size in memory, and its number of parameters."""

    variant: str
    model_bytes: int
    parameters: int


@dataclass(frozen=True)
class Noted:
    """A note for the user about how a variant was run."""

    variant: str
    note: str


@dataclass(frozen=True)
class VariantFailed:
    """A variant could not be scored; the job continues with the others."""

    variant: str
    error: str


@dataclass(frozen=True)
class Done:
    """The job's result."""

    value: Any = None


@dataclass(frozen=True)
class Failed:
    """The job raised an error: a sentence for the user's table, and the traceback for a bug report."""

    error: str
    hint: str | None
    traceback: str
    is_users: bool
    """Whether the user can correct the error."""
    disk_full: bool = False
    """Whether the disk is full: this stops the run, since every later step would fail as well."""


Event = Packed | Resumed | Advanced | VariantLoading | VariantStarted | Noted | VariantFailed | Done | Failed
Job = (
    EnvironmentJob
    | DescribeJob
    | RowLengthsJob
    | SourcesJob
    | CheckJob
    | UnpackJob
    | TrainJob
    | MergeJob
    | DeployJob
    | ExportJob
    | ScoreJob
    | ProbeJob
    | BenchJob
    | PlanJob
    | ReachJob
)


@dataclass(frozen=True)
class Trained:
    """Result of a `TrainJob`: figures for `run.json`."""

    train_seconds: float
    tokens: int
    steps: int
    samples: int
    final_loss: float | None
    losses: tuple[float, ...]
    step_seconds_p50: float
    parameters_total: int
    parameters_trainable: int
    truncated: int
    """Training rows cut on the right to `max_length`."""
    dropped: int
    """Training rows left out because no token to learn fits into `max_length`."""
    lost_tokens: int
    """Tokens that were cut off, and the tokens of the rows left out."""
    checkpointing: bool
    micro_batch_size: int
    longest_row: int = 0
    """Tokens of the longest row; 0 in records of earlier versions."""
    label_share: float = 1.0
    """Share of the rows' tokens that have a label."""
    peaks: Mapping[str, int | None] = field(default_factory=dict)
    energy_joules: float | None = None
    precision: Literal["fp32", "bf16", "fp16"] | None = None
    """Precision of the matrix products; None in records of earlier versions."""
    cpu_seconds: float | None = None
    """CPU seconds of all threads during the steps; unknown after an interruption."""
    waited_share: float | None = None
    """Share of the time in which threads wanted to run that they waited for a processor; None where it is not counted."""
    phase_seconds: Mapping[str, float] = field(default_factory=dict)
    """Wall seconds of the job by phase: load, tokenise, train, evaluate, generate, save."""
    block_seconds: tuple[float, ...] = ()
    """`train_seconds` as at most 32 sums of consecutive steps."""
    validation_loss: float | None = None
    """Loss on the held-out rows, with the weights that were kept."""
    validation: tuple[tuple[int, float], ...] = ()
    """Every evaluation: (steps done, loss or headline of the monitored task)."""
    curve_points: tuple[Mapping[str, float | None], ...] = ()
    """The log as at most 200 points of step, loss, lr, grad_norm, tokens and seconds; empty in records of earlier versions."""
    held_out_steps: tuple[int, ...] = ()
    """Steps done at each of `held_out_losses`."""
    rewards: tuple[float, ...] = ()
    """Mean reward of each step's answers, for stages that learn from rewards."""
    held_out_losses: tuple[float, ...] = ()
    """Loss on the held-out rows at each evaluation."""
    best_step: int | None = None
    """Step of the evaluation whose weights were kept."""
    notes: tuple[str, ...] = ()
    """Notes for the report: memory ran out, training stopped early."""


@dataclass(frozen=True)
class TimedPoint:
    """Measured seconds at one prompt length and batch size, in the order of the repeats."""

    prompt_tokens: int
    batch_size: int
    prefill_seconds: tuple[float, ...]
    decode_seconds: tuple[float, ...]
    base_prefill_seconds: tuple[float, ...] = ()
    base_decode_seconds: tuple[float, ...] = ()
    error: str | None = None
    """Why there are no seconds: `out of memory`."""


@dataclass(frozen=True)
class Benched:
    """Result of a `BenchJob`; all measured seconds, including outliers, in the order of the repeats."""

    load_seconds: float
    prompt_tokens: int
    new_tokens: int
    prefill_seconds: tuple[float, ...]
    decode_seconds: tuple[float, ...]
    """Empty for a reward model, which generates no text."""
    base_prefill_seconds: tuple[float, ...]
    base_decode_seconds: tuple[float, ...]
    throughput: tuple[tuple[int, float], ...]
    """(batch size, generated tokens per second); empty if the budget ended before."""
    probe_drift: float
    warmup: int
    repeats: int
    peaks: Mapping[str, int | None] = field(default_factory=dict)
    stopped: Stopped = "repeats"
    cpu_seconds: float | None = None
    """CPU seconds of all threads during the repeats."""
    waited_share: float | None = None
    """Share of the time in which threads wanted to run that they waited for a processor; None where it is not counted."""
    points: tuple[TimedPoint, ...] = ()
    """With a grid: its points. The figures above are those of the first one."""
    notes: tuple[str, ...] = ()
    """Notes for the report: prompts that do not fit into the context."""


@dataclass(frozen=True)
class Planned:
    """Result of a `PlanJob`: bytes, for a micro-batch of the longest rows."""

    rows: int
    """Rows that pass through the model at once."""
    length: int
    """Tokens of each."""
    parameters_total: int
    parameters_trainable: int
    weights_bytes: int
    gradient_bytes: int
    optimizer_bytes: int
    activation_bytes: int
    peak_bytes: int
    reserved_bytes: int | None
    """Reserved by a GPU's allocator, with the unused parts of its segments; None on a CPU."""
    artifact_bytes: int
    largest_micro_batch: int | None
    """Number of rows of the greatest length that fit; 0: not even one fits. None if it was not asked for."""
    parameters_active: int
    """Weights that a token passes in matrix products: of a mixture, only those of the chosen experts."""
    expert_share: float
    """Share of the experts that a token passes; 1 for a dense model."""
    flops_per_row: float
    """Floating-point operations of training on a row of the greatest length."""
    flops_per_second: float | None = None
    """Measured on this machine, if that was asked for."""
    notes: tuple[str, ...] = ()
    """Notes for the user, such as the share of the weights that the method reaches."""


@dataclass(frozen=True)
class Request:
    """One sample as the model receives it: text only."""

    id: str
    mode: Literal["generate", "choose", "text"]
    contexts: tuple[str, ...]
    """One prompt, or one for each choice; for `text`, the empty string."""
    continuations: tuple[str, ...] = ()
    """Texts whose log-likelihood is scored after the context: the choices with their delimiter, or the text."""
    stop: tuple[str, ...] = ()
    max_tokens: int = 0
    samples: int = 1
    temperature: float = 0.0
    top_p: float = 1.0
    window: int | None = None
    stride: int | None = None
    templated: bool = False
    """Whether a chat template rendered the contexts: it writes all special tokens itself."""
    thought: tuple[str, str] = ("<think>", "</think>")
    """Marks around a thought that the model may generate before its answer."""
    in_thought: bool = False
    """Whether the context ends inside a thought."""
    thought_tokens: int = 0
    """Tokens of a thought, in addition to `max_tokens` of the answer."""

    @property
    def limit(self) -> int:
        """Most tokens that are generated."""
        return self.max_tokens + self.thought_tokens

    @property
    def sha256(self) -> str:
        """Digest of the request, without its id and without later fields that have their defaults."""
        content = {**vars(self), "id": None}
        for name in ("templated", "thought", "in_thought", "thought_tokens"):
            if content[name] == type(self).__dataclass_fields__[name].default:
                del content[name]
        return hashlib.sha256(json.dumps(content, sort_keys=True, ensure_ascii=False).encode()).hexdigest()


@dataclass(frozen=True)
class Item:
    """A sample of a task with its request, group and cluster."""

    request: Request
    sample: Sample
    group: str | None
    cluster: str | None


@dataclass(frozen=True)
class Example:
    """One training example; the loss is on `completion` only."""

    prompt: str
    completion: str
    """For stages that learn from rewards: the reference answer, which the reward function receives."""
    append_eos: bool = True
    rejected: str | None = None
    """The worse answer of a preference pair; `completion` is the better one."""
    turn_end: str | None = None
    """With a chat template: the special token that ends the turn, learned after the completion. Empty if the template has
    none: the end-of-sequence token is learned, as after plain text. None: the prompt is plain text."""
    desirable: bool | None = None
    """For KTO: whether the answer is marked good or bad; None: it is not marked."""
