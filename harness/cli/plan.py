"""`harness plan`: what trainings would need in memory, before anything runs."""

from __future__ import annotations

from typing import Annotated

import typer
from typer import Option

from harness.cli import options as o


def plan(
    variants: o.Variants = None,
    model: o.Model = None,
    file: o.File = None,
    train_batch_size: o.TrainBatchSize = None,
    max_length: o.MaxLength = None,
    train_settings: o.TrainSettings = None,
    memory: Annotated[
        str | None, Option(help="Of the machine it is for, such as 24GB; default: this one's.", metavar="SIZE")
    ] = None,
    device: o.Device = None,
    dtype: o.Dtype = None,
    trust_remote_code: o.TrustRemoteCode = False,
    form: o.Format = "human",
    quiet: o.Quiet = False,
) -> None:
    """Predict the memory of each training from the model's configuration alone: no weights are fetched or loaded.

    Another machine's plan: `harness plan lora qlora -m meta-llama/Llama-3.1-8B --dtype bfloat16 --memory 24GB`.
    """
    flags = dict(locals())
    for name in ("variants", "file", "memory", "form", "quiet"):
        del flags[name]
    with o.progress(quiet=quiet) as shown:
        shown.start("Read", "what is asked")
        from harness.comparison import memory_plan
        from harness.config.parse import configure

        config = configure(variants or [], file=file, tasks_needed=False, **o.settings(flags))
        found = memory_plan.plan_memory(config, memory=memory, progress=shown)
    if form == "json":
        typer.echo(found.to_json())
    else:
        from harness.report.screen import print_plan

        print_plan(found)
    if any(row.error for row in found.rows):
        raise typer.Exit(1)
