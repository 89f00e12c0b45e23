"""`harness plan`: predict memory and time of training runs."""

from __future__ import annotations

from typing import Annotated

import typer
from typer import Option

from harness.cli.options import Flags, Variants, takes
from harness.cli.output import echo


@takes(
    "model allow_code file steps train_batch_size max_length train_settings device dtype trust_remote_code format quiet"
)
def plan(
    flags: Flags,
    variants: Variants = None,
    memory: Annotated[
        str | None, Option(help="Memory of the target machine, such as 24GB; default: this machine's.", metavar="SIZE")
    ] = None,
    gpu: Annotated[
        str | None, Option("--gpu", help="GPU of the target machine, such as H100 or RTX-4090; it need not be here.")
    ] = None,
) -> None:
    """Predict memory and time of each training run from the model's configuration: no weights are downloaded or loaded.

    For another machine: `harness plan lora qlora -m meta-llama/Llama-3.1-8B --gpu H100`, or `--device cuda --memory 24GB`.
    """
    with flags.progress() as shown:
        from harness.comparison import memory_plan

        config = flags.configure(variants, tasks_needed=False)
        found = memory_plan.plan_memory(config, memory=memory, gpu=gpu, progress=shown)
    if flags.format == "json":
        echo(found.to_json())
    else:
        from harness.report.screen import print_plan

        print_plan(found)
    if any(row.error for row in found.rows):
        raise typer.Exit(1)
