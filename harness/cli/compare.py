"""`harness compare`: train, score and compare variants."""

from __future__ import annotations

from collections.abc import Sequence

from harness.cli.options import Flags, Variants, command_line, print_plan, print_result, takes


@takes(
    "model tokenizer tasks task_parameters allow_code file baseline",
    "train train_columns train_samples min_row_tokens max_row_tokens drop_near_duplicates train_augment",
    "steps epochs lr tune_lr train_batch_size max_length train_settings seeds folds",
    "num_fewshot shared_shots limit until_decided smallest batch_size apply_chat_template template_options numerics engine writer allow_cut",
    "no_timing time_budget price_per_hour confirm_run_unsafe_code",
    "device dtype seed trust_remote_code",
    "report_to output_dir format fail_if fail_unless fresh dry_run quiet",
)
def compare(flags: Flags, variants: Variants = None) -> None:
    """Train variants, score them on the same samples, measure their costs and test which differences are significant.

    Without variants: `base lora qlora`. The same command continues an interrupted run.
    """
    run_or_plan(flags, variants)


def run_or_plan(flags: Flags, variants: Sequence[str] | None) -> None:
    """Runs a comparison and prints it, or prints its plan with `--dry-run`."""
    with flags.progress() as shown:
        from harness.comparison import dry_run
        from harness.comparison import run as comparison

        config = flags.configure(variants)
        if flags.dry_run:
            plan = dry_run.plan(config)
        else:
            run = comparison.run(config, progress=shown, fresh=flags.fresh, command=command_line())
    if flags.dry_run:
        print_plan(plan, config, flags.format)
    else:
        print_result(run, config, flags.format)
