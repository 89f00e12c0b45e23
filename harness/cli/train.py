"""`harness train`: train one variant without scoring it."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from harness.cli.options import Flags, OneVariant, command_line, takes
from harness.cli.output import echo
from harness.errors import UserError

if TYPE_CHECKING:
    from harness.authoring.inspect_training import Inspection
    from harness.authoring.preview_training import TrainView
    from harness.config.config import Config
    from harness.data.model_files import Snapshot
    from harness.prepare.trainings import Training


@takes(
    "model tasks allow_code file",
    "train train_columns train_samples min_row_tokens max_row_tokens drop_near_duplicates train_augment",
    "steps epochs lr tune_lr train_batch_size max_length train_settings preview inspect merge",
    "apply_chat_template template_options",
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
        seen: TrainView | Inspection | None = _inspected(config) if flags.inspect else None
        if seen is None and flags.preview is not None:
            seen = _first_rows(config, flags.preview)
        if seen is None:
            left = train_only(config, progress=shown, fresh=flags.fresh, command=command_line(), merge=flags.merge)
        for note in seen.notes if seen else ():
            shown.say("Note", note)
    if seen is not None:
        _print(seen, flags.format)
        return
    folders = {"artifact": str(left.artifact)} | ({"merged": str(left.merged)} if left.merged else {})
    echo(json.dumps(folders) if flags.format == "json" else "\n".join(folders.values()))


def _first_rows(config: Config, count: int) -> TrainView:
    """Renders the first rows of the training data as the model receives them."""
    from harness.authoring.preview_training import view_training

    training, model = _prepared(config)
    return view_training(training, model, count, trust_remote_code=config.trust_remote_code)


def _inspected(config: Config) -> Inspection:
    """Describes the training data."""
    from harness.authoring.inspect_training import inspect_training

    training, model = _prepared(config)
    return inspect_training(training, model, trust_remote_code=config.trust_remote_code)


def _prepared(config: Config) -> tuple[Training, Snapshot]:
    from harness.prepare.prepare import prepare

    prepared = prepare(config.one_training(), scores=False)
    training = prepared.variants[0].training
    assert training is not None
    return training, prepared.model


def _print(seen: TrainView | Inspection, form: str) -> None:
    if form == "json":
        echo(json.dumps(seen.to_dict(), indent=1, ensure_ascii=False))
        return
    from rich.console import Console

    from harness.report.screen import safe

    Console(highlight=False, soft_wrap=True).print(safe(seen.styled()))
