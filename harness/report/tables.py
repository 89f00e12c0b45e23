"""The tables of a run as cells of text, which every report format draws: quality, methods over training runs, cost, latency.

A table that is too wide is split into blocks of whole column groups, each with the variants' names, so that no cell is
ever truncated.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from rich.cells import cell_len

from harness.report import numbers
from harness.report.costs import Measure, latency_ratios, measures, timed_busy
from harness.report.scores import has_ranks, ranks, scale_of, titles
from harness.report.summary import failure
from harness.results import Delta, EarlyStop, LatencyPoint, Ranged, Replicated, Run, Score, TaskInfo, Variant, Verdict

if TYPE_CHECKING:
    from harness.stats.ratios import Ratio

GAP = 2
"""Spaces between two columns of a group; there is one more between groups."""


@dataclass(frozen=True)
class Column:
    """A column heading. Adjacent columns with the same `group` (a task) stay together under its name."""

    name: str
    group: str = ""
    higher_is_better: bool = False


@dataclass(frozen=True)
class Cell:
    """One cell of a table."""

    text: str = numbers.ABSENT
    verdict: Verdict | None = None
    value: float | None = None
    """Sort key of the cell."""
    title: str = ""
    """Text that the HTML page shows on hover."""


@dataclass(frozen=True)
class TableRow:
    """One table row: the cells of a variant, plus a note if it failed or is not finished."""

    name: str
    cells: tuple[Cell, ...]
    note: str = ""
    """For example `failed: out of memory`; shown instead of the cells if all are empty, else below them."""

    @property
    def is_empty(self) -> bool:
        """Whether all cells are empty."""
        return all(cell.text in ("", numbers.ABSENT) for cell in self.cells)


@dataclass(frozen=True)
class Table:
    """A table with a title, whose first column has the variants' names."""

    title: str
    columns: tuple[Column, ...]
    rows: tuple[TableRow, ...]

    @property
    def groups(self) -> list[tuple[str, list[int]]]:
        """Group names, each with the indices of its columns, which stay together; a column without a group is alone."""
        found: list[tuple[str, list[int]]] = []
        for index, column in enumerate(self.columns):
            if column.group and found and found[-1][0] == column.group:
                found[-1][1].append(index)
            else:
                found.append((column.group, [index]))
        return found

    def widths(self) -> list[int]:
        """Computes each column's width in terminal cells; a group's first column is widened to fit the group's name."""
        widths = [
            max(cell_len(text) for text in [column.name, *(row.cells[index].text for row in self.rows)])
            for index, column in enumerate(self.columns)
        ]
        for name, members in self.groups:
            spare = sum(widths[index] for index in members) + GAP * (len(members) - 1)
            widths[members[0]] += max(0, cell_len(name) - spare)
        return widths

    def blocks(self, width: int, name_width: int) -> list[Table]:
        """Splits the table into tables of at most `width` terminal cells, each with at least one group, filled evenly."""
        widths = self.widths()
        groups = [members for _, members in self.groups]
        sizes = [sum(widths[index] + GAP for index in members) + 1 for members in groups]

        def packed(limit: int) -> list[list[int]]:
            blocks: list[list[int]] = [[]]
            used = name_width
            for members, size in zip(groups, sizes, strict=True):
                if used + size > limit and blocks[-1]:
                    blocks.append([])
                    used = name_width
                blocks[-1] += members
                used += size
            return blocks

        fewest = len(packed(width))
        narrowest = next(limit for limit in range(width + 1) if limit == width or len(packed(limit)) == fewest)
        return [
            replace(
                self,
                columns=tuple(self.columns[index] for index in block),
                rows=tuple(replace(row, cells=tuple(row.cells[index] for index in block)) for row in self.rows),
            )
            for block in packed(narrowest)
        ]


def tables(run: Run) -> list[Table]:
    """Lists the tables of a run that are not empty, in reading order."""
    return [table for table in (quality(run), trainings(run), cost(run), latency(run)) if table.columns]


def quality(run: Run) -> Table:
    """Makes the table of headlines: value, paired difference from the baseline, and ranks with four or more variants.

    A run with one variant has the value's own 95 % interval instead of a difference.
    """
    alone, ranked = len(run.variants) == 1, has_ranks(run)
    against = _against(run)
    columns: list[Column] = []
    for task in run.tasks:
        higher = task.higher_is_better(task.headline)
        title = titles(run)[task.name]
        columns.append(Column(numbers.with_arrow(task.headline, higher), title, higher))
        columns.append(Column("95 %" if alone else against, title, higher))
        if ranked:
            columns.append(Column("rank", title))
    placed = {task.name: ranks(run, task) for task in run.tasks}

    def row(variant: Variant) -> TableRow:
        cells: list[Cell] = []
        for task in run.tasks:
            score = variant.headline(task)
            value, delta = _score_cells(run, task, score)
            cells += [value, _interval_cell(run, task, score) if alone else delta]
            if ranked:
                rank = placed[task.name].get(variant.name)
                cells.append(Cell() if rank is None else Cell(numbers.rank(*rank), value=sum(rank) / 2))
        return TableRow(variant.name, tuple(cells), note_of(variant))

    return Table("Quality", tuple(columns), tuple(row(variant) for variant in run.variants))


def trainings(run: Run) -> Table:
    """Makes the table over seeds or folds: each headline's mean and standard deviation, and its difference.

    It has no columns if every variant was trained once.
    """
    names = list(dict.fromkeys(each.variant for each in run.replicated))
    places = list(dict.fromkeys((each.task, each.metric) for each in run.replicated))
    found = {(each.variant, each.task, each.metric): each for each in run.replicated}
    tasks = {info.name: info for info in run.tasks}
    most = max((len(each.trainings) for each in run.replicated), default=0)
    columns: list[Column] = []
    for task, metric in places:
        higher = task in tasks and tasks[task].higher_is_better(metric)
        title = titles(run).get(task, task)
        columns.append(Column(numbers.with_arrow(metric, higher), title, higher))
        if task in tasks:  # the baseline has no loss of held-out rows
            columns.append(Column(_against(run), title, higher))
    rows = []
    for name in names:
        cells: list[Cell] = []
        for task, metric in places:
            value, delta = _training_cells(run, found.get((name, task, metric)))
            cells += [value, delta] if task in tasks else [value]
        rows.append(TableRow(name, tuple(cells)))
    return Table(f"Over {most} {'folds' if run.config.get('folds') else 'seeds'}", tuple(columns), tuple(rows))


def _training_cells(run: Run, found: Replicated | None) -> tuple[Cell, Cell]:
    if found is None:
        return Cell(), Cell("")
    scale = numbers.Scale.of(found.metric, [found.value, *_values(run, found)])
    title = f"{len(found.trainings)} training runs · 95 % {scale.interval(found.low, found.high)}"
    value = Cell(scale.spread(found.value, found.deviation), value=found.value, title=title)
    return value, Cell("") if found.delta is None else difference_cell(scale, found.delta)


def _values(run: Run, found: Replicated) -> list[float | None]:
    scores = (variant.score(found.task, found.metric) for variant in run.variants)
    return [score.value for score in scores if score is not None]


def _against(run: Run) -> str:
    return f"vs {run.baseline}" if cell_len(run.baseline) <= 9 else "difference"


def cost(run: Run) -> Table:
    """Makes the cost table: each variant's learning rate, then every measure of `costs.measures`."""
    shown = measures(run)
    trained = any(variant.train for variant in run.variants)
    columns = (*([Column("lr")] if trained else []), *(Column(measure.name) for measure in shown))

    def row(variant: Variant) -> TableRow:
        lr = [_learning_rate_cell(variant)] if trained else []
        return TableRow(variant.name, (*lr, *(_cost_cell(measure, variant) for measure in shown)), note_of(variant))

    return Table("Cost", columns, tuple(row(variant) for variant in run.variants))


def latency(run: Run) -> Table:
    """Makes the table of `harness bench`: a row for each variant, prompt length and batch size; without columns elsewhere.

    Every figure has the range of the repeats. `vs base` is the ratio to the bare base, timed in turn with the variant.
    """
    found = [(variant, point) for variant in run.variants if variant.inference for point in variant.inference.points]
    in_turn = any(point.raw_seconds.get("base_prefill") for _, point in found)
    versus = ("vs base",) if in_turn else ()
    names = ("first token", *versus, "next p50", *versus, "next p90", "next p99", "tokens/s")

    def row(variant: Variant, point: LatencyPoint) -> TableRow:
        busy, name = timed_busy(variant), f"{variant.name} {point.prompt_tokens:,}×{point.batch_size}"
        if point.error is not None:
            return TableRow(name, (Cell(point.error), *(Cell() for _ in names[1:])))
        first, following = ([_ratio_cell(each, busy)] if in_turn else [] for each in latency_ratios(variant, point))
        cells = (
            _ranged_cell(point.ttft_seconds, busy),
            *first,
            _ranged_cell(point.decode_seconds_per_token_p50, busy),
            *following,
            _ranged_cell(point.decode_seconds_per_token_p90, busy),
            _ranged_cell(point.decode_seconds_per_token_p99, busy),
            _ranged_cell(point.tokens_per_second, busy, numbers.between),
        )
        return TableRow(name, cells)

    return Table("Latency", tuple(map(Column, names)) if found else (), tuple(row(*each) for each in found))


def _ranged_cell(
    figure: Ranged | None, busy: bool, write: Callable[[float, float, float], str] = numbers.seconds_between
) -> Cell:
    if figure is None:
        return Cell()
    text = write(figure.value, figure.low, figure.high)
    return Cell(f"~{text}" if busy else text, value=figure.value, title="measured on a busy machine" if busy else "")


def _ratio_cell(ratio: Ratio | None, busy: bool) -> Cell:
    return Cell() if ratio is None or busy else Cell(numbers.ratio(ratio), value=ratio.value)


def _learning_rate_cell(variant: Variant) -> Cell:
    return Cell() if variant.train is None else Cell(f"{variant.train.lr:g}", value=variant.train.lr)


def _score_cells(run: Run, task: TaskInfo, score: Score | None) -> tuple[Cell, Cell]:
    if score is None or score.value is None:
        return Cell(), Cell("")
    scale = scale_of(run, score.task, score.metric)
    protocol = score.protocol
    version, shots = protocol.version, protocol.shots
    facts = [f"n {score.n}", f"95 % {scale.interval(score.low, score.high)}", "" if version is None else f"task version {version}",
             "" if shots is None else f"{shots} {'shared ' * protocol.shared_shots}shots", protocol.mode, protocol.numerics,
             protocol.dtype]  # fmt: skip
    facts += [f"{protocol.form} read by {protocol.reader}"] if protocol.form else []
    facts += [f"texts by {protocol.writer}"] if protocol.writer else []
    cut = cut_words(score)
    text = scale.value(score.value) + (f" ({', '.join(cut)})" if cut else "")
    value = Cell(text, value=score.value, title=" · ".join(filter(None, facts)))
    return value, Cell("") if score.delta is None else difference_cell(scale, score.delta)


def cut_words(score: Score) -> list[str]:
    """Lists how many samples were cut, shortened or timed out: `['3 cut', '2 short']`."""
    counts = ((score.truncated, "cut"), (score.shortened, "short"), (score.timed_out, "timed out"))
    return [f"{count} {what}" for count, what in counts if count]


def difference_cell(scale: numbers.Scale, delta: Delta) -> Cell:
    """Formats a paired difference with its mark; the title has its interval, p-values and win rate."""
    title = (
        f"paired difference {scale.signed(delta.value)}, 95 % {scale.signed(delta.low)} to {scale.signed(delta.high)}"
        f" · p {numbers.probability(delta.p)} · Holm p {numbers.probability(delta.p_holm)} "
    )
    if delta.mark is not None:
        title += f" · {delta.untestable or numbers.MARK_WORDS[delta.mark]}"
    if delta.win_rate is not None:
        title += f" · better on {100 * delta.win_rate:.1f} % of the samples, ties count half"
    text = scale.difference(delta.value, delta.low, delta.high)
    if delta.early is not None:
        return Cell(f"{text} {_early_mark(scale, delta, delta.early)}", delta.verdict, delta.value, title)
    return Cell(
        text if delta.mark is None else f"{text} {numbers.MARKS[delta.mark]}", delta.verdict, delta.value, title
    )


def _early_mark(scale: numbers.Scale, delta: Delta, early: EarlyStop) -> str:
    """The mark of a difference that may have stopped early, and where it stopped."""
    if delta.untestable:
        return f"? at {early.n}"
    if early.outcome == "within" and early.smallest is not None:
        return f"≈ within ±{early.smallest * scale.factor:g} at {early.n}"
    if early.outcome == "undecided" or delta.verdict is None:
        return f"undecided at {early.n}"
    return f"{numbers.MARKS[delta.verdict]} at {early.n} of {early.total}"


def _interval_cell(run: Run, task: TaskInfo, score: Score | None) -> Cell:
    if score is None:
        return Cell("")
    return Cell(scale_of(run, task.name, score.metric).interval(score.low, score.high), value=score.value)


def _cost_cell(measure: Measure, variant: Variant) -> Cell:
    value, ratio, busy = measure.read(variant), measure.ratio(variant), measure.busy(variant)
    text, title = measure.write(value), ""
    if busy and value is not None:
        text, title = f"~{text}", "measured on a busy machine"
    if ratio is not None and ratio.low is not None and ratio.high is not None:
        text += f" ({numbers.ratio(ratio)})"
        title = f"{ratio.value:.2f} times the baseline's, 95 % {ratio.low:.2f}–{ratio.high:.2f}"
    return Cell(text, value=value, title=title)


def note_of(variant: Variant) -> str:
    """Says why a variant has no scores, or not all of them; empty for a finished one."""
    if variant.status == "failed":
        return failure(variant)
    return {"pending": "not run yet", "done": ""}.get(variant.status, variant.status)
