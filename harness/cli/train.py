"""`harness train`: train one variant, score nothing."""

from __future__ import annotations

import json

import typer

from harness.cli import options as o
from harness.errors import UserError


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
    train_batch_size: o.TrainBatchSize = None,
    max_length: o.MaxLength = None,
    apply_chat_template: o.ChatTemplate = False,
    device: o.Device = None,
    dtype: o.Dtype = None,
    seed: o.Seed = None,
    trust_remote_code: o.TrustRemoteCode = False,
    output_dir: o.OutputDir = None,
    form: o.Format = "human",
    fresh: o.Fresh = False,
    quiet: o.Quiet = False,
) -> None:
    """Train one method, score nothing, and print the folder of what it made."""
    flags = dict(locals())
    for name in ("variant", "file", "form", "fresh", "quiet"):
        del flags[name]
    with o.progress(quiet=quiet) as shown:
        shown.start("Read", "what is asked")
        from harness import comparison
        from harness.spec import configure

        config = configure([variant], file=file, tasks_needed=False, **o.settings(flags))
        if config.variants[0].kind != "method":
            raise UserError(f"`{variant}` is not trained", hint="name a method: `harness ls methods`")
        folder = comparison.train_only(config, progress=shown, fresh=fresh, command=o.command_line())
    typer.echo(json.dumps({"artifact": str(folder)}) if form == "json" else folder)
