"""`harness export`: write a trained variant in a form that a server loads."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Literal

import typer

from harness.cli import completion
from harness.cli.options import RUN, Flags, run_folder, takes
from harness.cli.output import echo


@takes("model allow_code", "device dtype trust_remote_code", "output_dir format quiet")
def export(
    flags: Flags,
    run: Annotated[str, typer.Argument(metavar="RUN", autocompletion=completion.runs, help=RUN)],
    variant: Annotated[str, typer.Argument(metavar="VARIANT", help="Name of a variant of the run.")],
    to: Annotated[
        Literal["merged", "gguf", "ollama", "vllm"],
        typer.Option("--to", help="A checkpoint, a GGUF file, that with a Modelfile, or what `vllm serve` takes."),
    ],
    quant: Annotated[
        str | None,
        typer.Option("--quant", metavar="TYPE", help="Type of the GGUF file, such as Q4_K_M; default: Q8_0."),
    ] = None,
    out: Annotated[
        Path | None, typer.Option("--out", metavar="DIR", help="Target folder; default: in the run's folder.")
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace an earlier export in the target folder.")] = False,
) -> None:
    """Write a variant for a server, read it back, and print the folder and how far its logits moved."""
    from harness.comparison.exporting import ExportRequest, export_variant
    from harness.report.numbers import counted, file_size
    from harness.runs.folder import load_shown

    folder = run_folder(run, flags.output_dir)
    wanted = ExportRequest(
        to=to,
        output=out,
        kind=quant,
        model=flags.model,
        code=tuple(flags.allow_code or ()),
        dtype=flags.dtype,
        device=flags.device or "auto",
        trust_remote_code=flags.trust_remote_code,
        force=force,
    )
    with flags.progress() as shown:
        made = export_variant(load_shown(folder), folder, variant, wanted, progress=shown)
    if flags.format == "json":
        echo(json.dumps(asdict(made), indent=1, default=str))
        return
    distance = made.distance
    echo(f"{made.output}  {file_size(made.bytes)}")
    echo(
        f"logits against the trained model, {distance.tokens} tokens of {counted(distance.prompts, 'text')}:"
        f" largest difference {distance.largest:.2g}, mean KL {distance.mean_kl:.2g},"
        f" same likeliest token {100 * distance.same_argmax:.1f} %"
    )
    for note in made.notes:
        echo(f"note: {note}")
    if made.command:
        echo(f"in that folder: {made.command}")
