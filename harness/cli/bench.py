"""`harness bench`: latency and memory of one variant."""

from __future__ import annotations

from harness.cli.options import Flags, OneVariant, command_line, print_result, takes


@takes(
    "model allow_code file train train_columns batch_size device dtype seed trust_remote_code output_dir format fresh quiet"
)
def bench(flags: Flags, variant: OneVariant) -> None:
    """Measure latency (prefill, decoding) and memory of one variant, next to the base model."""
    with flags.progress() as shown:
        from harness.comparison import run as comparison

        config = flags.configure([variant], tasks_needed=False)
        run = comparison.time_only(config, progress=shown, fresh=flags.fresh, command=command_line())
    print_result(run, config, flags.format)
