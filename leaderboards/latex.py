r"""Renders runs as LaTeX tables with booktabs rules; the document needs `amssymb`, `booktabs`, `longtable` and `siunitx`.

Tables break over pages, repeat their heads, and have a label. Scores that no variant is shown to be better than are bold; variants
that share a letter are not shown to differ.

Example:
    >>> print(render([run]))  # doctest: +SKIP
    \begin{longtable}{lrr}
      \caption{Qwen/Qwen3-0.6B …} \label{tab:qwen-qwen3-0-6b-quality-1} \\
      \toprule
      Quality & \multicolumn{2}{c}{gsm8k} \\
    …
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence

from harness.errors import printable
from harness.leaderboards.sections import Standings, standings
from harness.report.header import header, model_name
from harness.report.scores import titles
from harness.report.tables import Column, Table, tables
from harness.results import Run
from harness.stats.ties import letters

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
    needs = "% needs \\usepackage{amssymb, booktabs, longtable, siunitx}"
    lines = [
        line for number, run in enumerate(runs) for line in _tables(run, f"-{number + 1}" if len(runs) > 1 else "")
    ]
    return "\n".join([needs, *lines, ""])


def _tables(run: Run, suffix: str) -> Iterator[str]:
    place = re.sub(r"[^a-z0-9]+", "-", model_name(run).lower()).strip("-") or "run"
    names = titles(run)
    by_title = {names[task.name]: standings(run, task) for task in run.tasks}
    for table in tables(run):
        is_quality = table.title == "Quality"
        for number, block in enumerate(table.blocks(WIDTH, name_width=12), 1):
            label = f"tab:{place}{suffix}-{re.sub('[^a-z]+', '-', table.title.lower())}-{number}"
            yield from _longtable(block, _caption(run, is_quality), label, by_title if is_quality else {})


def _caption(run: Run, is_quality: bool) -> str:
    told = " Bold: no variant is shown to be better. Variants with a common letter are not shown to differ."
    return escaped(header(run)) + ("." + told if is_quality else ".")


def _longtable(table: Table, caption: str, label: str, order: Mapping[str, Standings]) -> Iterator[str]:
    yield f"\\begin{{longtable}}{{l{'r' * len(table.columns)}}}"
    yield f"  \\caption{{{caption}}} \\label{{{label}}} \\\\"
    head = [f"  {line}" for line in _head(table)]
    yield from (r"  \toprule", *head, r"  \midrule", r"  \endfirsthead")
    yield from (r"  \toprule", *head, r"  \midrule", r"  \endhead")
    yield from (r"  \bottomrule", r"  \endlastfoot")
    for row in table.rows:
        name = escaped(row.name)
        if not (row.note and row.is_empty):
            cells = (
                _score(cell.text, row.name, order[column.group])
                if _is_score(table, index, order)
                else escaped(cell.text)
                for index, (column, cell) in enumerate(zip(table.columns, row.cells, strict=True))
            )
            yield f"  {' & '.join([name, *cells])} \\\\"
            name = ""
        if row.note:
            yield f"  {name} & \\multicolumn{{{len(table.columns)}}}{{l}}{{{escaped(row.note)}}} \\\\"
    yield r"\end{longtable}"


def _head(table: Table) -> Iterator[str]:
    names = [escaped(column.name) for column in table.columns]
    if not any(column.group for column in table.columns):
        yield f"{' & '.join([table.title, *names])} \\\\"
        return
    groups = [f"\\multicolumn{{{len(members)}}}{{c}}{{{escaped(group)}}}" for group, members in table.groups]
    yield f"{' & '.join([table.title, *groups])} \\\\"
    yield f"{' & '.join(['', *names])} \\\\"


def _is_score(table: Table, index: int, order: Mapping[str, Standings]) -> bool:
    """Whether a column is the first of a task, which has its scores."""
    column: Column = table.columns[index]
    return column.group in order and (index == 0 or table.columns[index - 1].group != column.group)


def _score(text: str, name: str, order: Standings) -> str:
    """A score with its tie groups; bold if no variant is shown to be better, unless that holds for all."""
    number, _, rest = text.partition(" ")
    if not re.fullmatch(r"-?\d+(\.\d+)?", number):
        return escaped(text)
    rank, groups = order.ranks.get(name), order.groups.get(name, ())
    is_best = rank is not None and rank.best == 1 < max(each.best for each in order.ranks.values())
    # siunitx sets numbers in its own weight unless it is told otherwise, in a way that differs between its versions
    shown = f"\\textbf{{{number.replace('-', '$-$')}}}" if is_best else f"\\num{{{number}}}"
    tied = f"\\textsuperscript{{{escaped(letters(groups))}}}" if groups and len(order.ranks) > 1 else ""
    return shown + tied + (f" {escaped(rest)}" if rest else "")


def escaped(text: str) -> str:
    """Escapes text for LaTeX."""
    return printable(" ".join(text.split())).translate(_ESCAPES)
