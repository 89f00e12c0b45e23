"""`harness eval`: score one variant."""

from __future__ import annotations

from harness.cli import options as o


def evaluate(
    variant: o.OneVariant,
    model: o.Model = None,
    tasks: o.Tasks = None,
    task_parameters: o.TaskParameters = None,
    file: o.File = None,
    train: o.Train = None,
    train_columns: o.TrainColumns = None,
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
    output_dir: o.OutputDir = None,
    form: o.Format = "human",
    fail_if: o.FailIf = None,
    fresh: o.Fresh = False,
    quiet: o.Quiet = False,
) -> None:
    """Score one variant: the base, an adapter, or a method (trained first, or taken from an earlier run)."""
    flags = dict(locals())
    for name in ("variant", "file", "form", "fresh", "quiet"):
        del flags[name]
    with o.progress(quiet=quiet) as shown:
        shown.start("Read", "what is asked")
        from harness.comparison import run as comparison
        from harness.config.parse import configure

        config = configure([variant], file=file, **o.settings(flags))
        run = comparison.run(config, progress=shown, fresh=fresh, command=o.command_line())
    o.print_result(run, config, form)
