"""The one place from which commands print: results to stdout, notes and errors to stderr.

Names and texts come from models, data and files of others, so characters that a terminal would obey are written as escapes.
"""

from __future__ import annotations

import typer

from harness.errors import printable


def echo(text: object, *, err: bool = False, nl: bool = True) -> None:
    """Prints text; in a JSON document, an escape stands for its character.

    Args:
        text: The text, or anything that converts to it.
        err: Whether to print to stderr.
        nl: Whether to end the line.
    """
    typer.echo(printable(str(text)), err=err, nl=nl)
