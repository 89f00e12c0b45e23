"""The cost tables of a page: one for each machine, because costs of different machines cannot be compared."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from harness.leaderboards.sections import RunRows
from harness.report.header import device_name
from harness.report.numbers import counted, dtype, one_line
from harness.report.tables import Cell, Column, Table, TableRow, cost, latency, trainings
from harness.results import Run


@dataclass(frozen=True)
class JoinedTable:
    """Tables of several runs with common columns."""

    caption: str
    columns: tuple[Column, ...]
    groups: tuple[tuple[str, tuple[TableRow, ...]], ...]
    """Label of a run and its rows."""
    machine: str = ""
    latency: JoinedTable | None = None


def cost_tables(runs: Sequence[RunRows]) -> list[JoinedTable]:
    """Joins the cost tables of runs that were measured on the same machine."""
    by_machine: dict[str, list[RunRows]] = {}
    for rows in runs:
        by_machine.setdefault(machine_of(rows.run), []).append(rows)
    found = []
    for machine, members in by_machine.items():
        table = joined([(rows.label, cost(rows.run)) for rows in members])
        if table is not None:
            timed = joined([(rows.label, latency(rows.run)) for rows in members])
            found.append(JoinedTable("Cost", table.columns, table.groups, machine, timed))
    return found


def seeds_table(runs: Sequence[RunRows]) -> JoinedTable | None:
    """Joins the tables of means over training runs; None without such."""
    return joined([(rows.label, trainings(rows.run)) for rows in runs])


def machine_of(run: Run) -> str:
    """Describes the machine that costs depend on: device, number of processor threads on a CPU, and dtype."""
    environment = run.environment
    on_cpu = str(environment.get("device") or "cpu").startswith("cpu")
    threads = environment.get("threads")
    parts = [device_name(run) or "an unknown machine", counted(threads, "thread") if on_cpu and isinstance(threads, int) else "",
             dtype(str(environment.get("dtype") or ""))]  # fmt: skip
    return one_line(", ".join(filter(None, parts)))


def joined(tables: Sequence[tuple[str, Table]]) -> JoinedTable | None:
    """Aligns tables by the names of their columns; None if none has columns. Cells that a table lacks are empty."""
    known = [(label, table) for label, table in tables if table.columns]
    if not known:
        return None
    places = list(dict.fromkeys(place for _, table in known for place in _places(table)))
    columns = {place: column for _, table in reversed(known) for place, column in _places(table).items()}
    groups = []
    for label, table in known:
        index = {place: number for number, place in enumerate(_places(table))}
        rows = tuple(
            TableRow(
                row.name, tuple(row.cells[index[place]] if place in index else Cell() for place in places), row.note
            )
            for row in table.rows
        )
        groups.append((label, rows))
    return JoinedTable(known[0][1].title, tuple(columns[place] for place in places), tuple(groups))


def _places(table: Table) -> dict[tuple[str, str, int], Column]:
    """Columns by group, name and how often both came before."""
    found: dict[tuple[str, str, int], Column] = {}
    for column in table.columns:
        number = 0
        while (column.group, column.name, number) in found:
            number += 1
        found[column.group, column.name, number] = column
    return found
