"""`harness bench`: latency and memory of one variant."""

from __future__ import annotations

from harness.cli import options as o


def bench(
    variant: o.OneVariant,
    model: o.Model = None,
    file: o.File = None,
    train: o.Train = None,
    train_columns: o.TrainColumns = None,
    batch_size: o.BatchSize = None,
    device: o.Device = None,
    dtype: o.Dtype = None,
    seed: o.Seed = None,
    trust_remote_code: o.TrustRemoteCode = False,
    output_dir: o.OutputDir = None,
    form: o.Format = "human",
    fresh: o.Fresh = False,
    quiet: o.Quiet = False,
) -> None:
    """Time prefill and decoding of one variant beside the bare base, and measure its memory."""
    flags = dict(locals())
    for name in ("variant", "file", "form", "fresh", "quiet"):
        del flags[name]
    with o.progress(quiet=quiet) as shown:
        shown.start("Read", "what is asked")
        from harness.comparison import run as comparison
        from harness.config.parse import configure

        config = configure([variant], file=file, tasks_needed=False, **o.settings(flags))
        run = comparison.time_only(config, progress=shown, fresh=fresh, command=o.command_line())
    o.print_result(run, config, form)
