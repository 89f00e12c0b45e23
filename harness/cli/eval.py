"""`harness eval`: score one variant."""

from __future__ import annotations

from harness.cli.compare import run_or_plan
from harness.cli.options import Flags, OneVariant, takes


@takes(
    "model tokenizer tasks task_parameters allow_code file",
    "train train_columns",
    "num_fewshot shared_shots limit batch_size apply_chat_template template_options numerics engine writer allow_cut",
    "no_timing time_budget price_per_hour confirm_run_unsafe_code",
    "device dtype seed trust_remote_code",
    "output_dir format fail_if fail_unless fresh dry_run quiet",
)
def evaluate(flags: Flags, variant: OneVariant) -> None:
    """Score one variant: the base, an adapter, or a method (trained first, or reused from an earlier run)."""
    run_or_plan(flags, [variant])
