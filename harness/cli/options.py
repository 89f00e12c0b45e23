"""Flags that several commands share, and how they become settings of a `Config`."""

from __future__ import annotations

import contextlib
import shlex
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from typer import Argument, Exit, Option, echo

from harness.errors import UserError

if TYPE_CHECKING:
    from harness.config.config import Config
    from harness.report.progress import Progress
    from harness.results import Run

_WHAT, _TRAIN, _SCORE, _MACHINE, _OUTPUT = "What to compare", "Training", "Scoring", "Machine", "Output"
_SPEC = "`[name=]source[:key=value,…][@merged|@4bit|@8bit]`, such as `base`, `lora:rank=8`, `owner/adapter@4bit`."

Variants = Annotated[list[str] | None, Argument(metavar="VARIANT…", help=_SPEC, show_default=False)]
OneVariant = Annotated[str, Argument(metavar="VARIANT", help=_SPEC)]

Model = Annotated[
    str | None,
    Option("--model", "-m", help="Hub id or folder; default `tiny`, the embedded one.", rich_help_panel=_WHAT),
]
Tasks = Annotated[
    str | None,
    Option("--tasks", "-t", help="NAME[:GROUP+GROUP] or FILE.py[@NAME], comma-separated.", rich_help_panel=_WHAT),
]
TaskParameters = Annotated[
    list[str] | None,
    Option("-T", metavar="KEY=VALUE", help="Parameter of the tasks that have it; repeatable.", rich_help_panel=_WHAT),
]
File = Annotated[Path | None, Option("--config", "-c", help="compare.yaml; flags win over it.", rich_help_panel=_WHAT)]
Baseline = Annotated[
    str | None, Option(help="Variant that the others are compared with; default the first.", rich_help_panel=_WHAT)
]

Train = Annotated[
    str | None,
    Option(
        "--train",
        help="Task, file or hub:owner/name[:config[:split]]; default: the tasks' train splits.",
        rich_help_panel=_TRAIN,
    ),
]
TrainColumns = Annotated[
    str | None,
    Option(metavar="OURS=THEIRS,…", help="Such as prompt=question,completion=answer.", rich_help_panel=_TRAIN),
]
TrainSamples = Annotated[int | None, Option(help="Rows of the training data to use.", rich_help_panel=_TRAIN)]
Steps = Annotated[int | None, Option(help="Optimizer steps.", rich_help_panel=_TRAIN)]
Epochs = Annotated[float | None, Option(help="Passes over the training data.", rich_help_panel=_TRAIN)]
LearningRate = Annotated[
    float | None, Option("--lr", help="Learning rate; default: each method's own.", rich_help_panel=_TRAIN)
]
TrainBatchSize = Annotated[int | None, Option(help="Samples an optimizer step.", rich_help_panel=_TRAIN)]
MaxLength = Annotated[int | None, Option(help="Tokens of a training sample at most.", rich_help_panel=_TRAIN)]
TrainSettings = Annotated[
    list[str] | None,
    Option(
        "-S",
        metavar="KEY=VALUE",
        help="Any setting of training: schedule=wsd, warmup=0.1 …; repeatable.",
        rich_help_panel=_TRAIN,
    ),
]
Seeds = Annotated[
    int | None,
    Option(help="Train each method with this many seeds; rows `lora`, `lora.seed1` ….", rich_help_panel=_TRAIN),
]
TuneLr = Annotated[
    int | None,
    Option(
        "--tune-lr",
        metavar="TRIALS",
        help="Try so many learning rates for each method on held-out rows, where none is given.",
        rich_help_panel=_TRAIN,
    ),
]
Folds = Annotated[
    int | None,
    Option(
        help="Cross-validate: train each method without each of so many parts of the data; rows `lora.fold1` ….",
        rich_help_panel=_TRAIN,
    ),
]

Preview = Annotated[
    int | None,
    Option("--preview", min=1, help="Show so many rows as the model gets them, and stop.", rich_help_panel=_TRAIN),
]

Merge = Annotated[
    bool,
    Option(
        "--merge", help="Leave the base with the adapter in its weights, too: a checkpoint.", rich_help_panel=_TRAIN
    ),
]

NumFewshot = Annotated[
    int | None,
    Option("--num-fewshot", "-f", help="Solved examples before each prompt.", rich_help_panel=_SCORE),
]
Limit = Annotated[
    int | None, Option("--limit", "-n", help="Samples a task, spread over its groups.", rich_help_panel=_SCORE)
]
BatchSize = Annotated[
    int | None,
    Option("--batch-size", "-b", help="Samples at once; changes no score.", rich_help_panel=_SCORE),
]
ChatTemplate = Annotated[
    bool, Option("--apply-chat-template", help="Prompts as turns of a conversation.", rich_help_panel=_SCORE)
]
Numerics = Annotated[
    Literal["fp32", "lm-eval"] | None,
    Option(help="Softmax in float32 (default), or as lm-eval does it.", rich_help_panel=_SCORE),
]
Engine = Annotated[
    Literal["auto", "plain"] | None,
    Option(help="The fast path (default), or the plain one it is tested against.", rich_help_panel=_SCORE),
]
UnsafeCode = Annotated[
    bool,
    Option("--confirm-run-unsafe-code", help="Allow tasks that run what a model wrote.", rich_help_panel=_SCORE),
]

Device = Annotated[str | None, Option(help="auto, cpu, cuda, cuda:1 ….", rich_help_panel=_MACHINE)]
Dtype = Annotated[
    Literal["auto", "float32", "bfloat16", "float16"] | None,
    Option(help="Precision of the weights.", rich_help_panel=_MACHINE),
]
Seed = Annotated[int | None, Option(help="Of training and sampling; default 0.", rich_help_panel=_MACHINE)]
TrustRemoteCode = Annotated[
    bool, Option("--trust-remote-code", help="Run code that comes with the model.", rich_help_panel=_MACHINE)
]

ReportTo = Annotated[
    str | None,
    Option("--report-to", metavar="NAME{,NAME}", help="tensorboard, wandb, mlflow.", rich_help_panel=_OUTPUT),
]
OutputDir = Annotated[Path | None, Option("--output-dir", "-o", help="Default `runs`.", rich_help_panel=_OUTPUT)]
Format = Annotated[
    Literal["human", "json"], Option("--format", help="json: one document on stdout.", rich_help_panel=_OUTPUT)
]
FailIf = Annotated[
    list[str] | None,
    Option(
        metavar="GATE",
        help='Exit 1 when it holds: "lora.gsm8k < base.gsm8k - 0.01", values as in run.json; repeatable.',
        rich_help_panel=_OUTPUT,
    ),
]
Fresh = Annotated[bool, Option("--fresh", help="Start anew instead of continuing.", rich_help_panel=_OUTPUT)]
DryRun = Annotated[
    bool, Option("--dry-run", help="Print the plan and the resolved YAML, and stop.", rich_help_panel=_OUTPUT)
]
Quiet = Annotated[bool, Option("--quiet", "-q", help="No progress on stderr.", rich_help_panel=_OUTPUT)]

_TRAIN_SETTINGS = {
    "train": "data",
    "train_columns": "columns",
    "train_samples": "samples",
    "train_batch_size": "batch_size",
    "steps": "steps",
    "epochs": "epochs",
    "lr": "lr",
    "max_length": "max_length",
}


def settings(flags: Mapping[str, Any]) -> dict[str, Any]:
    """Flags as settings for `configure`: training flags under `train`, flags not given left out.

    Example:
        >>> settings({"limit": 5, "steps": 10, "trust_remote_code": False, "model": None})
        {'limit': 5, 'train': {'steps': 10}}
    """
    given = {name: value for name, value in flags.items() if value is not None and value is not False and value != []}
    train = {_TRAIN_SETTINGS[name]: given.pop(name) for name in list(given) if name in _TRAIN_SETTINGS}
    train |= dict(_pair(text, "-S", "warmup=0.1") for text in given.pop("train_settings", ()))
    if parameters := given.pop("task_parameters", None):
        given["task_parameters"] = dict(_pair(text, "-T", "year=2024") for text in parameters)
    return given | ({"train": train} if train else {})


def progress(*, quiet: bool) -> contextlib.AbstractContextManager[Progress]:
    """What draws the progress of a run on stderr, or nothing."""
    from harness.report.progress import Progress, TerminalProgress

    return contextlib.nullcontext(Progress()) if quiet else TerminalProgress()


def command_line() -> str:
    """The command as it could be typed again."""
    return shlex.join(["harness", *sys.argv[1:]])


def run_folder(name: str | Path, output_dir: Path | None) -> Path:
    """The folder of a run given by path, or by its name in the output folder."""
    path = Path(name)
    within = (output_dir or Path("runs")) / name
    return path if path.exists() or not within.exists() else within


def print_result(run: Run, config: Config, form: Literal["human", "json"]) -> None:
    """Prints a finished run, then leaves with 1 when a variant failed or a gate holds."""
    if form == "json":
        echo(run.to_json())
    else:
        from harness.report.screen import print_run
        from harness.runs.folder import list_runs

        folder = next((path for path, each in list_runs(config.output_dir) if each.created == run.created), None)
        print_run(run, folder=folder)
    from harness.config.gates import failed_gates

    held = failed_gates(run, config.gates)
    for text in held:
        echo(f"failed: {text}", err=True)
    if held or any(variant.status == "failed" for variant in run.variants):
        raise Exit(1)


def print_plan(plan: str, config: Config, form: Literal["human", "json"]) -> None:
    """Prints what would be done: the plan as comments above the resolved YAML, so that the whole is a compare.yaml."""
    if form == "json":
        import json

        echo(json.dumps(config.to_dict(), indent=1, ensure_ascii=False))
        return
    echo("".join(f"# {line}".rstrip() + "\n" for line in plan.splitlines()) + "\n" + config.to_yaml(), nl=False)


def _pair(text: str, flag: str, example: str) -> tuple[str, str]:
    key, equals, value = text.partition("=")
    if not key or not equals:
        raise UserError(f"`{flag} {text}` is not key=value", hint=f"for example `{flag} {example}`")
    return key.replace("-", "_"), value
