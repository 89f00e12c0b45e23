"""`harness new`: create a file for a task or method."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from harness.cli.output import echo


def new(
    kind: Annotated[Literal["task", "method"], typer.Argument(help="What to create.")],
    name: Annotated[str, typer.Argument(help="Its name; creates NAME.py in this folder.")],
    sample: Annotated[
        Literal["generate", "choose", "text"],
        typer.Option(
            "--kind", help="Samples of the task: generated text, the likeliest choice, or the likelihood of a text."
        ),
    ] = "generate",
) -> None:
    """Create a small working task or method to edit. Never overwrites a file."""
    from harness.authoring.templates import write

    path = write(kind, name, Path(), sample)
    use = f"harness compare base lora --tasks ./{path}" if kind == "task" else f"harness compare base lora ./{path}"
    echo(f"wrote {path}\n\ncheck it: harness check {path}\nuse it:   {use}")
