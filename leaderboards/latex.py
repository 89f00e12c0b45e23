r"""Renders runs as LaTeX tables with booktabs rules; the document needs `booktabs` and `amssymb`.

Example:
    >>> print(render([run]))  # doctest: +SKIP
    \begin{table}
      \centering
      \begin{tabular}{lrr}
        \toprule
        Quality & \multicolumn{2}{c}{gsm8k} \\
    …
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from harness.errors import printable
from harness.report.header import header
from harness.report.tables import Table, tables
from harness.results import Run

WIDTH = 90
"""Maximum width of a table in terminal cells, about the text width of a page in `\\small`; wider ones become blocks."""

_ESCAPES = str.maketrans(
    {
        "\\": r"\textbackslash{}",
        "~": r"\textasciitilde{}",
        "^": r"\textasciicircum{}",
        **{character: f"\\{character}" for character in "&%$#_{}"},
        "▲": r"$\blacktriangle$",
        "▼": r"$\blacktriangledown$",
        "△": r"$\triangle$",
        "▽": r"$\triangledown$",
        "≈": r"$\approx$",
        "±": r"$\pm$",
        "×": r"$\times$",
        "↑": r"$\uparrow$",
        "↓": r"$\downarrow$",
        "–": "--",
        "·": r"$\cdot$",
    }
)


def render(runs: Sequence[Run]) -> str:
    """Renders the tables of all runs as one LaTeX text."""
    return "\n".join(["% needs \\usepackage{booktabs, amssymb}", *(line for run in runs for line in _tables(run)), ""])


def _tables(run: Run) -> Iterator[str]:
    for table in tables(run):
        yield from (r"\begin{table}", r"  \centering\small", f"  \\caption{{{escaped(header(run))}}}")
        for block in table.blocks(WIDTH, name_width=12):
            yield from (f"  {line}" for line in _tabular(block))
        yield r"\end{table}"


def _tabular(table: Table) -> Iterator[str]:
    yield f"\\begin{{tabular}}{{l{'r' * len(table.columns)}}}"
    yield r"  \toprule"
    names = [escaped(column.name) for column in table.columns]
    if any(column.group for column in table.columns):
        groups = [f"\\multicolumn{{{len(members)}}}{{c}}{{{escaped(group)}}}" for group, members in table.groups]
        yield f"  {' & '.join([table.title, *groups])} \\\\"
        yield f"  {' & '.join(['', *names])} \\\\"
    else:
        yield f"  {' & '.join([table.title, *names])} \\\\"
    yield r"  \midrule"
    for row in table.rows:
        name = escaped(row.name)
        if not (row.note and row.is_empty):
            yield f"  {' & '.join([name, *(escaped(cell.text) for cell in row.cells)])} \\\\"
            name = ""
        if row.note:
            yield f"  {name} & \\multicolumn{{{len(table.columns)}}}{{l}}{{{escaped(row.note)}}} \\\\"
    yield from (r"  \bottomrule", r"\end{tabular}\par\medskip")


def escaped(text: str) -> str:
    """Escapes text for LaTeX."""
    return printable(" ".join(text.split())).translate(_ESCAPES)
