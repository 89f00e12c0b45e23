"""`harness train`: train one variant, score nothing."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import typer

from harness.cli import options as o
from harness.errors import UserError

if TYPE_CHECKING:
    from harness.authoring.preview_training import TrainView
    from harness.config.config import Config


def train(
    variant: o.OneVariant,
    model: o.Model = None,
    tasks: o.Tasks = None,
    file: o.File = None,
    train: o.Train = None,
    train_columns: o.TrainColumns = None,
    train_samples: o.TrainSamples = None,
    steps: o.Steps = None,
    epochs: o.Epochs = None,
    lr: o.LearningRate = None,
    tune_lr: o.TuneLr = None,
    train_batch_size: o.TrainBatchSize = None,
    max_length: o.MaxLength = None,
    train_settings: o.TrainSettings = None,
    preview: o.Preview = None,
    merge: o.Merge = False,
    apply_chat_template: o.ChatTemplate = False,
    device: o.Device = None,
    dtype: o.Dtype = None,
    seed: o.Seed = None,
    trust_remote_code: o.TrustRemoteCode = False,
    report_to: o.ReportTo = None,
    output_dir: o.OutputDir = None,
    form: o.Format = "human",
    fresh: o.Fresh = False,
    quiet: o.Quiet = False,
) -> None:
    """Train one method, score nothing, and print the folder of what it made (then that of the merged checkpoint)."""
    flags = dict(locals())
    for name in ("variant", "file", "preview", "merge", "form", "fresh", "quiet"):
        del flags[name]
    with o.progress(quiet=quiet) as shown:
        shown.start("Read", "what is asked")
        from harness.comparison.training import train_only
        from harness.config.parse import configure

        config = configure([variant], file=file, tasks_needed=False, **o.settings(flags))
        if config.variants[0].kind != "method":
            raise UserError(f"`{variant}` is not trained", hint="name a method: `harness ls methods`")
        if preview is not None:
            rows = _first_rows(config, preview)
        else:
            left = train_only(config, progress=shown, fresh=fresh, command=o.command_line(), merge=merge)
    if preview is not None:
        _print_rows(rows, form)
        return
    folders = {"artifact": str(left.artifact)} | ({"merged": str(left.merged)} if left.merged else {})
    typer.echo(json.dumps(folders) if form == "json" else "\n".join(folders.values()))


def _first_rows(config: Config, count: int) -> TrainView:
    """The first rows of a training, as the model gets them."""
    from harness.authoring.preview_training import view_training
    from harness.prepare.prepare import prepare

    prepared = prepare(config.one_training())
    training = prepared.rows[0].training
    assert training is not None
    return view_training(training, prepared.model, count, trust_remote_code=config.trust_remote_code)


def _print_rows(rows: TrainView, form: str) -> None:
    if form == "json":
        typer.echo(json.dumps(rows.to_dict(), indent=1, ensure_ascii=False))
        return
    from rich.console import Console

    Console(highlight=False, soft_wrap=True).print(rows.styled())
