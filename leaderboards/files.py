"""Writes runs to files: `report.md`, `.csv`, `.parquet`, `.json`, `.tex`, `.html`, `.svg` and `.png`.

Example:
    >>> export([run], ["md", "html"], Path("runs/qwen3-0.6b-20261120-2355"))  # doctest: +SKIP
    [PosixPath('runs/…/report.md'), PosixPath('runs/…/report.html')]
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from harness.errors import UserError, did_you_mean, printable
from harness.leaderboards import latex, markdown, page, parquet, pictures, rows
from harness.leaderboards.joined_runs import joined_runs
from harness.results import Run
from harness.storage import whole_file


def _csv(runs: Sequence[Run]) -> str:
    stream = io.StringIO(newline="")
    writer = csv.DictWriter(stream, rows.COLUMNS, lineterminator="\n")
    writer.writeheader()
    writer.writerows({name: _cell(value) for name, value in row.items()} for run in runs for row in rows.tidy(run))
    return stream.getvalue()


def _cell(value: Any) -> Any:
    """A value for a table; a text that a spreadsheet would run as a formula begins with an apostrophe."""
    if not isinstance(value, str):
        return value
    text = printable(value)
    return f"'{text}" if text.lstrip().startswith(_FORMULA) else text


_FORMULA = ("=", "+", "-", "@", "\uff1d", "\uff0b", "\uff0d", "\uff20")
"""First characters of a formula, also as full-width characters."""


def _json(runs: Sequence[Run]) -> str:
    documents = [json.loads(run.to_json()) for run in runs]
    text = json.dumps(documents[0] if len(documents) == 1 else documents, indent=1, ensure_ascii=False)
    return printable(text) + "\n"


FORMATS: dict[str, Callable[[Sequence[Run]], str | bytes]] = {
    "md": markdown.render,
    "csv": _csv,
    "parquet": parquet.render,
    "json": _json,
    "tex": latex.render,
    "html": page.render,
    "svg": pictures.svg,
    "png": pictures.png,
}
"""Report formats and their renderers."""
_JOINED = ("md", "tex", "html", "svg", "png")
"""Formats for readers, in which runs of one model are one table where that is possible."""


def export(runs: Sequence[Run], to: Sequence[str], out: Path) -> list[Path]:
    """Writes runs to `report.<format>` in a folder: one file for each format.

    Args:
        runs: At least one; all runs are in the same file (CSV: one table, JSON: a list).
        to: Names of `FORMATS`.
        out: The folder; it is created if necessary.

    Returns:
        The files, in the order of `to`.

    Raises:
        UserError: There is no run, a format is unknown (checked before anything is written), the folder is not
            writable, or a picture cannot be drawn.
    """
    if not runs:
        raise UserError("no run to report", hint="name one: `harness ls runs`")
    for name in to:
        if name not in FORMATS:
            raise UserError(f"unknown format `{name}` in `--to`", hint=did_you_mean(name, FORMATS))
    written, together = [], joined_runs(runs)
    for name in dict.fromkeys(to):
        path = out / f"report.{name}"
        content = FORMATS[name](together if name in _JOINED else runs)
        try:
            with whole_file(path) as file:
                file.write(content.encode() if isinstance(content, str) else content)
        except UserError as error:
            raise UserError(error.message, hint="choose another folder with `--out`") from error
        written.append(path)
    return written
