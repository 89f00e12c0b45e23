"""`harness compare`: the product."""

from __future__ import annotations

from harness.cli import options as o


def compare(
    variants: o.Variants = None,
    model: o.Model = None,
    tasks: o.Tasks = None,
    task_parameters: o.TaskParameters = None,
    file: o.File = None,
    baseline: o.Baseline = None,
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
    seeds: o.Seeds = None,
    folds: o.Folds = None,
    num_fewshot: o.NumFewshot = None,
    limit: o.Limit = None,
    batch_size: o.BatchSize = None,
    apply_chat_template: o.ChatTemplate = False,
    numerics: o.Numerics = None,
    engine: o.Engine = None,
    confirm_run_unsafe_code: o.UnsafeCode = False,
    device: o.Device = None,
    dtype: o.Dtype = None,
    seed: o.Seed = None,
    trust_remote_code: o.TrustRemoteCode = False,
    report_to: o.ReportTo = None,
    output_dir: o.OutputDir = None,
    form: o.Format = "human",
    fail_if: o.FailIf = None,
    fresh: o.Fresh = False,
    dry_run: o.DryRun = False,
    quiet: o.Quiet = False,
) -> None:
    """Train variants, score them on the same samples, measure their costs, say which differences are real.

    Without variants: `base lora qlora`. The same command continues a run that was interrupted.
    """
    flags = dict(locals())
    for name in ("variants", "file", "form", "fresh", "dry_run", "quiet"):
        del flags[name]
    with o.progress(quiet=quiet) as shown:
        shown.start("Read", "what is asked")
        from harness.comparison import dry_run as plans
        from harness.comparison import run as comparison
        from harness.config.parse import configure

        config = configure(variants or [], file=file, **o.settings(flags))
        if dry_run:
            plan = str(plans.plan(config))
        else:
            run = comparison.run(config, progress=shown, fresh=fresh, command=o.command_line())
    if dry_run:
        o.print_plan(plan, config, form)
    else:
        o.print_result(run, config, form)
