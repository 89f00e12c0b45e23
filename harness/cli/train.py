"""`harness train`: train one variant without scoring it."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import typer

from harness.cli.options import Flags, OneVariant, command_line, takes
from harness.errors import UserError

if TYPE_CHECKING:
    from harness.authoring.preview_training import TrainView
    from harness.config.config import Config


@takes(
    "model tasks file",
    "train train_columns train_samples steps epochs lr tune_lr train_batch_size max_length train_settings preview merge",
    "apply_chat_template",
    "device dtype seed trust_remote_code",
    "report_to output_dir format fresh quiet",
)
def train(flags: Flags, variant: OneVariant) -> None:
    """Train one method without scoring it; print the folder of the artifact, then that of the merged checkpoint."""
    with flags.progress() as shown:
        from harness.comparison.training import train_only

        config = flags.configure([variant], tasks_needed=False)
        if config.variants[0].kind != "method":
            raise UserError(f"`{variant}` is not trained", hint="choose a method: `harness ls methods`")
        if flags.preview is not None:
            rows = _first_rows(config, flags.preview)
            for note in rows.notes:
                shown.say("Note", note)
        else:
            left = train_only(config, progress=shown, fresh=flags.fresh, command=command_line(), merge=flags.merge)
    if flags.preview is not None:
        _print_rows(rows, flags.format)
        return
    folders = {"artifact": str(left.artifact)} | ({"merged": str(left.merged)} if left.merged else {})
    typer.echo(json.dumps(folders) if flags.format == "json" else "\n".join(folders.values()))


def _first_rows(config: Config, count: int) -> TrainView:
    """Renders the first rows of the training data as the model receives them."""
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
