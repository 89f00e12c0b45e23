"""Flags of the commands: each is declared once, as a field of `Flags`, and `takes` gives flags to a command."""

# ruff: noqa: RUF009 -- the defaults that `_flag` makes are fields of a dataclass

from __future__ import annotations

import contextlib
import functools
import inspect
import shlex
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, get_type_hints

from typer import Argument, Exit, Option

from harness.cli import completion
from harness.cli.output import echo
from harness.errors import UserError

if TYPE_CHECKING:
    from harness.comparison.dry_run import Plan
    from harness.config.config import Config
    from harness.report.progress import Progress
    from harness.results import Price, Run

_WHAT, _TRAIN, _SCORE, _MACHINE, _OUTPUT = "What to compare", "Training", "Scoring", "Machine", "Output"
SPEC = "`[name=]source[:key=value,…][@merged|@4bit|@8bit|@gguf:TYPE …]`, such as `base`, `lora:rank=8`, `owner/adapter@4bit`, `endpoint:URL#NAME`."

RUN = f"Folder or name of a run, or `{completion.LATEST}`."
RESULTS = f"Folders or names of runs, `{completion.LATEST}`, or results of other tools."

Variants = Annotated[
    list[str] | None, Argument(metavar="VARIANT…", help=SPEC, show_default=False, autocompletion=completion.variants)
]
OneVariant = Annotated[str, Argument(metavar="VARIANT", help=SPEC, autocompletion=completion.variants)]


def _flag(panel: str, *names: str, sets: str = "", default: Any = None, **more: Any) -> Any:
    """Declares a flag as a field of `Flags`.

    Args:
        panel: Group of the flag in `--help`.
        *names: Names on the command line, such as `--limit` and `-n`; by default the name of the field.
        sets: Field of `Config` that the flag sets, or of its `train` (`train.steps`); empty: the command reads the flag.
        default: Value when the flag is not given.
        **more: Further arguments of `typer.Option`.
    """
    option = Option(*names, rich_help_panel=panel, **more)
    return field(default=default, metadata={"option": option, "sets": sets})


@dataclass(frozen=True)
class Flags:
    """Values of the flags of a command, in the order in which `--help` lists them.

    Flags that the command does not take keep their defaults.
    """

    model: str | None = _flag(
        _WHAT,
        "--model",
        "-m",
        sets="model",
        help="Hub id, folder, GGUF file, or `endpoint:http://HOST:PORT/v1#NAME`; default: `tiny`, the embedded model.",
    )
    tokenizer: str | None = _flag(
        _WHAT,
        "--tokenizer",
        sets="tokenizer",
        help="Hub id or folder of the tokenizer of a served model; default: none, prompts are sent as text.",
    )
    tasks: str | None = _flag(
        _WHAT,
        "--tasks",
        "-t",
        sets="tasks",
        autocompletion=completion.tasks,
        help="NAME[:GROUP+GROUP] or FILE.py[@NAME], comma-separated; default: the embedded `mini_…` tasks.",
    )
    task_parameters: list[str] | None = _flag(
        _WHAT, "-T", metavar="KEY=VALUE", help="Parameter for the tasks that have it; repeatable."
    )
    allow_code: list[Path] | None = _flag(
        _WHAT,
        "--allow-code",
        sets="allow_code",
        metavar="FILE.py",
        help="Python file that a compare.yaml or an adapter's method.json may name; repeatable.",
    )
    file: Path | None = _flag(_WHAT, "--config", "-c", help="Settings file (compare.yaml); flags override it.")
    baseline: str | None = _flag(_WHAT, sets="baseline", help="Variant to compare the others with; default: the first.")

    train: str | None = _flag(
        _TRAIN,
        "--train",
        sets="train.data",
        help="Task, file or hub:owner/name[:config[:split]]; default: the tasks' train splits.",
    )
    train_columns: str | None = _flag(
        _TRAIN,
        sets="train.columns",
        metavar="OURS=THEIRS,…",
        help="Columns of the training data, such as prompt=question,completion=answer; default: found by their names.",
    )
    train_samples: int | None = _flag(
        _TRAIN, sets="train.samples", help="Number of training rows to use; default: all."
    )
    min_row_tokens: int | None = _flag(
        _TRAIN, sets="train.min_row_tokens", help="Leave out training rows with fewer tokens; default: none."
    )
    max_row_tokens: int | None = _flag(
        _TRAIN,
        sets="train.max_row_tokens",
        help="Leave out training rows with more tokens, instead of cutting them; default: none.",
    )
    drop_near_duplicates: bool = _flag(
        _TRAIN,
        "--drop-near-duplicates",
        sets="train.drop_near_duplicates",
        default=False,
        help="Leave out training rows that repeat or nearly repeat an earlier row.",
    )
    train_augment: str | None = _flag(
        _TRAIN,
        sets="train.augment",
        metavar="FILE.py@FUNCTION",
        help="Function that makes a list of rows from a training row; held-out rows stay as they are; default: none.",
    )
    steps: int | None = _flag(
        _TRAIN,
        sets="train.steps",
        help="Number of optimizer steps; default: one epoch, or 150 steps for the embedded model.",
    )
    epochs: float | None = _flag(
        _TRAIN, sets="train.epochs", help="Number of passes over the training data; default: 1."
    )
    lr: float | None = _flag(_TRAIN, "--lr", sets="train.lr", help="Learning rate; default: each method's own.")
    tune_lr: int | None = _flag(
        _TRAIN,
        "--tune-lr",
        sets="tune_lr",
        metavar="TRIALS",
        help="Number of learning rates to try per method without a given one; held-out rows decide; default: none.",
    )
    train_batch_size: int | None = _flag(
        _TRAIN, sets="train.batch_size", help="Samples per optimizer step; default: 16."
    )
    max_length: int | None = _flag(
        _TRAIN, sets="train.max_length", help="Maximum number of tokens in a training sample; default: 1024."
    )
    train_settings: list[str] | None = _flag(
        _TRAIN, "-S", metavar="KEY=VALUE", help="Any training setting: schedule=wsd, warmup=0.1 …; repeatable."
    )
    seeds: int | None = _flag(
        _TRAIN, sets="seeds", help="Number of seeds to train each method with; rows `lora`, `lora.seed1` …; default: 1."
    )
    folds: int | None = _flag(
        _TRAIN,
        sets="folds",
        help="Number of cross-validation folds; each method is trained once per fold, rows `lora.fold1` …; default: none.",
    )
    preview: int | None = _flag(
        _TRAIN, "--preview", min=1, help="Print this many training rows as the model receives them, and exit."
    )
    inspect: bool = _flag(
        _TRAIN,
        "--inspect",
        default=False,
        help="Describe the training data (lengths, what is cut, copies, odd rows, languages), and exit.",
    )
    merge: bool = _flag(
        _TRAIN, "--merge", default=False, help="Also save a checkpoint of the base with the adapter merged."
    )

    num_fewshot: int | None = _flag(
        _SCORE,
        "--num-fewshot",
        "-f",
        sets="num_fewshot",
        help="Number of solved examples before each prompt; default: the task's own.",
    )
    shared_shots: bool = _flag(
        _SCORE,
        "--shared-shots",
        sets="shared_shots",
        default=False,
        help="Same solved examples before all samples of a task, not drawn for each: other scores, and cheaper.",
    )
    limit: int | None = _flag(
        _SCORE, "--limit", "-n", sets="limit", help="Samples per task, spread over its groups; default: all."
    )
    until_decided: bool = _flag(
        _SCORE,
        "--until-decided",
        sets="until_decided",
        default=False,
        help="Score samples in random order, and stop where a difference from the baseline is decided.",
    )
    smallest: str | None = _flag(
        _SCORE,
        "--smallest",
        sets="smallest",
        metavar="POINTS",
        help="With --until-decided: also stop where differences of this size are excluded, such as 5pts; default: none.",
    )
    batch_size: int | None = _flag(
        _SCORE,
        "--batch-size",
        "-b",
        sets="batch_size",
        help="Evaluation batch size; does not change scores; default: as many samples as fit.",
    )
    apply_chat_template: bool = _flag(
        _SCORE,
        "--apply-chat-template",
        sets="apply_chat_template",
        default=False,
        help="Format prompts with the model's chat template.",
    )
    template_options: list[str] | None = _flag(
        _SCORE,
        "--template-option",
        metavar="KEY=VALUE",
        help="Variable of the chat template, such as reasoning_effort=high; repeatable.",
    )
    numerics: Literal["fp32", "lm-eval"] | None = _flag(
        _SCORE, sets="numerics", help="Softmax in float32, or as in lm-eval; default: fp32."
    )
    engine: Literal["auto", "plain"] | None = _flag(
        _SCORE,
        sets="engine",
        help="The fast engine, or the plain one that it is tested against; default: auto, the fast one.",
    )
    writer: Literal["auto", "slots", "vllm"] | None = _flag(
        _SCORE,
        sets="writer",
        help="Who generates texts: our engine (slots), or vLLM, of this environment or HARNESS_VLLM; default: auto, by cost.",
    )
    allow_cut: bool = _flag(
        _SCORE,
        "--allow-cut",
        sets="allow_cut",
        default=False,
        help="Allow more than 5 % of a task's prompts to be cut on the left to fit the model's context.",
    )
    confirm_run_unsafe_code: bool = _flag(
        _SCORE,
        "--confirm-run-unsafe-code",
        sets="confirm_run_unsafe_code",
        default=False,
        help="Allow tasks that run code written by a model.",
    )

    no_timing: bool = _flag(
        _MACHINE, "--no-timing", sets="no_timing", default=False, help="Measure no latency after scoring."
    )
    time_budget: float | None = _flag(
        _MACHINE,
        sets="time_budget",
        metavar="SECONDS",
        help="Time for measuring latency, of all variants together; default: a tenth of the run.",
    )
    price_per_hour: str | None = _flag(
        _MACHINE,
        sets="price_per_hour",
        metavar="PRICE",
        help="Price of the machine, such as 2.5 or `2.5 EUR`: shows costs in money as well; default: none, and currency $.",
    )
    device: str | None = _flag(
        _MACHINE, sets="device", help="Device: auto, cpu, cuda, cuda:1 …; default: auto, a GPU if there is one."
    )
    dtype: Literal["auto", "float32", "bfloat16", "float16"] | None = _flag(
        _MACHINE, sets="dtype", help="Precision of the weights; default: auto, bfloat16 on a GPU and float32 elsewhere."
    )
    seed: int | None = _flag(_MACHINE, sets="seed", help="Seed of training and sampling; default: 0.")
    trust_remote_code: bool = _flag(
        _MACHINE,
        "--trust-remote-code",
        sets="trust_remote_code",
        default=False,
        help="Run code that comes with the model.",
    )

    report_to: str | None = _flag(
        _OUTPUT,
        "--report-to",
        sets="report_to",
        metavar="NAME{,NAME}",
        help="Trackers: tensorboard, wandb, mlflow; default: none.",
    )
    output_dir: Path | None = _flag(
        _OUTPUT, "--output-dir", "-o", sets="output_dir", help="Folder for runs; default: `runs`."
    )
    format: Literal["human", "json"] = _flag(
        _OUTPUT, "--format", default="human", help="json prints one document on stdout."
    )
    fail_if: list[str] | None = _flag(
        _OUTPUT,
        sets="fail_if",
        metavar="GATE",
        help='Exit with 1 if this is shown (95 %): "lora.gsm8k < base.gsm8k - 0.01", values as in run.json; repeatable.',
    )
    fail_unless: list[str] | None = _flag(
        _OUTPUT,
        sets="fail_unless",
        metavar="GATE",
        help='Exit with 1 unless this is shown (95 %): "lora.gsm8k > base.gsm8k - 0.01"; repeatable.',
    )
    fresh: bool = _flag(_OUTPUT, "--fresh", default=False, help="Start again instead of continuing an interrupted run.")
    dry_run: bool = _flag(_OUTPUT, "--dry-run", default=False, help="Print the plan and the resolved YAML, and exit.")
    quiet: bool = _flag(_OUTPUT, "--quiet", "-q", default=False, help="Print no progress on stderr.")

    def settings(self) -> dict[str, Any]:
        """Returns the settings that were given, as `configure` takes them: those of training under `train`.

        Example:
            >>> Flags(limit=5, steps=10, train_settings=["warmup=0.1"]).settings()
            {'limit': 5, 'train': {'steps': 10, 'warmup': '0.1'}}
        """
        given: dict[str, Any] = {}
        train: dict[str, Any] = {}
        for each in fields(self):
            value = getattr(self, each.name)
            if each.metadata["sets"] and value is not None and value is not False and value != []:
                group, _, key = each.metadata["sets"].rpartition(".")
                (train if group else given)[key] = value
        train |= _pairs(self.train_settings, "-S", "warmup=0.1")
        given |= {"task_parameters": self.parameters(), "template_options": self.variables(), "train": train}
        return {name: value for name, value in given.items() if value != {}}

    def parameters(self) -> dict[str, str]:
        """Returns the parameters of tasks given with `-T key=value`."""
        return _pairs(self.task_parameters, "-T", "year=2024")

    def variables(self) -> dict[str, str]:
        """Returns the variables of the chat template given with `--template-option key=value`."""
        from harness.registry.values import unquote

        given = _pairs(self.template_options, "--template-option", "reasoning_effort=high")
        return {name: unquote(value) for name, value in given.items()}

    def price(self) -> Price | None:
        """Returns the price of the machine, for commands that show finished runs."""
        from harness.report.price import read_price

        try:
            return None if self.price_per_hour is None else read_price(self.price_per_hour)
        except ValueError as error:
            raise UserError(f"`--price-per-hour {self.price_per_hour}`: {error}") from error

    def configure(self, variants: Sequence[str] | None, *, tasks_needed: bool = True) -> Config:
        """Returns the configuration of these variants and flags."""
        from harness.config.parse import configure

        return configure(variants or [], file=self.file, tasks_needed=tasks_needed, **self.settings())

    @contextlib.contextmanager
    def progress(self) -> Iterator[Progress]:
        """Opens the progress display on stderr, or a silent one with `--quiet`, and starts the first stage."""
        from harness.report.progress import Progress, TerminalProgress

        with contextlib.nullcontext(Progress()) if self.quiet else TerminalProgress() as shown:
            shown.start("Read", "configuration")
            yield shown


_TYPES = get_type_hints(Flags)
_PARAMETERS = {
    each.name: inspect.Parameter(
        each.name,
        inspect.Parameter.KEYWORD_ONLY,
        default=each.default,
        annotation=Annotated[_TYPES[each.name], each.metadata["option"]],
    )
    for each in fields(Flags)
}
"""Flags as typer reads them from a signature."""


def takes(*names: str) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Gives a command the named flags, after the parameters of its own.

    The signature that typer reads has one parameter for each flag; the command receives them as its first argument.

    Args:
        *names: Fields of `Flags`, separated by blanks; `--help` lists them in the order of `Flags`.

    Example:
        >>> @takes("model limit")
        ... def show(flags: Flags, what: str) -> None:
        ...     print(what, flags.model, flags.limit)
        >>> list(inspect.signature(show).parameters)
        ['what', 'model', 'limit']
        >>> show(what="mmlu", model="tiny", limit=5)
        mmlu tiny 5
    """
    taken = {name for text in names for name in text.split()}
    if unknown := taken - _PARAMETERS.keys():
        raise TypeError(f"no such flags: {sorted(unknown)}")
    shared = [parameter for name, parameter in _PARAMETERS.items() if name in taken]

    def decorate(command: Callable[..., None]) -> Callable[..., None]:
        own = list(inspect.signature(command, eval_str=True).parameters.values())[1:]

        @functools.wraps(command)
        def run(**given: Any) -> None:
            flags = Flags(**{name: given.pop(name) for name in taken & given.keys()})
            command(flags, **given)

        run.__signature__ = inspect.Signature([*own, *shared])  # type: ignore[attr-defined]
        return run

    return decorate


def command_line() -> str:
    """Returns the command as it can be typed again."""
    return shlex.join(["harness", *sys.argv[1:]])


def run_folder(name: str | Path, output_dir: Path | None) -> Path:
    """Returns the folder of a run that is given by path, by its name in the output folder, or as `latest`.

    Raises:
        UserError: The output folder has no run that could be the latest.
    """
    output = output_dir or Path("runs")
    path, within = Path(name), output / name
    if within.exists() and not path.exists():
        return within
    if path.exists() or str(name) != completion.LATEST:
        return path
    from harness.runs.folder import list_runs

    runs = list_runs(output)
    if not runs:
        raise UserError(f"`{output}` has no run", hint="name the folder of a run, or its parent with `--output-dir`")
    return runs[0][0]


def print_result(run: Run, config: Config, form: Literal["human", "json", "md"]) -> None:
    """Prints a finished run, and exits with 1 if a variant or a gate failed."""
    if form == "json":
        echo(run.to_json())
    elif form == "md":
        from harness.leaderboards.markdown import render

        echo(render([run]))
    else:
        from harness.report.screen import print_run
        from harness.runs.folder import list_runs

        folder = next((path for path, each in list_runs(config.output_dir) if each.created == run.created), None)
        print_run(run, folder=folder)
    judged = [gate.judge(run) for gate in config.gates]
    for each in judged:
        echo(str(each), err=True)
    if any(each.fails for each in judged) or any(variant.status == "failed" for variant in run.variants):
        raise Exit(1)


def print_plan(plan: Plan, config: Config, form: Literal["human", "json"]) -> None:
    """Prints a dry run, and exits with 1 if a variant would fail.

    For people, the plan is comments above the resolved YAML, so that the output is a compare.yaml.
    """
    if form == "json":
        import json

        echo(json.dumps({"plan": plan.to_dict(), "config": config.to_dict()}, indent=1, ensure_ascii=False))
    else:
        lines = str(plan).splitlines()
        echo("".join(f"# {line}".rstrip() + "\n" for line in lines) + "\n" + config.to_yaml(), nl=False)
    if plan.fails:
        raise Exit(1)


def _pairs(texts: Sequence[str] | None, flag: str, example: str) -> dict[str, str]:
    """Parses the `key=value` texts of a repeatable flag."""
    pairs = {}
    for text in texts or ():
        key, equals, value = text.partition("=")
        if not key or not equals:
            raise UserError(f"`{flag} {text}` is not key=value", hint=f"for example `{flag} {example}`")
        pairs[key.replace("-", "_")] = value
    return pairs
