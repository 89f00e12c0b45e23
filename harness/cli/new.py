"""`harness new`: create a file for a task or method."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer


def new(
    kind: Annotated[Literal["task", "method"], typer.Argument(help="What to write.")],
    name: Annotated[str, typer.Argument(help="Its name; the file is NAME.py in this folder.")],
    sample: Annotated[
        Literal["generate", "choose", "text"],
        typer.Option("--kind", help="A task's samples: what is written, which choice is likeliest, how likely a text."),
    ] = "generate",
) -> None:
    """Write a small task or method that works, to be changed. Never overwrites."""
    from harness.authoring.templates import write

    path = write(kind, name, Path(), sample)
    use = f"harness compare base lora --tasks ./{path}" if kind == "task" else f"harness compare base lora ./{path}"
    typer.echo(f"wrote {path}\n\ncheck it: harness check {path}\nuse it:   {use}")
