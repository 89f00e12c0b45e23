"""Makes a static site of many models and runs: an index, and a page for each model, task and method.

All files are in one folder, beside each other, and request nothing from elsewhere: the site works from a disk, as GitHub Pages
and as a static Space. Names of pages are slugs of what they show, so that links stay when runs are added.

Example:
    >>> write_board(board_pages(runs, title="Our models"), Path("site"))  # doctest: +SKIP
"""

from __future__ import annotations

import json
import os
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from harness.errors import UserError, printable
from harness.leaderboards import drawing
from harness.leaderboards.board_models import BoardModel, BoardRun, board_models
from harness.leaderboards.board_rows import gain_rows, order_rows, task_rows, tests_of
from harness.leaderboards.cost_tables import cost_tables
from harness.leaderboards.lead import lead
from harness.leaderboards.page import DENSE_ABOVE, template_environment
from harness.leaderboards.protocols import differences
from harness.leaderboards.sections import PageColumn
from harness.report.numbers import a_few, counted
from harness.results import Run, Score
from harness.stats.task_order import FEWEST_TASKS
from harness.storage import slug, writing

MANIFEST = "board.json"
"""Lists the files of a board, so that the next build can delete those that are gone, and touches no other file."""
CONTENTS = (("index.html", "All"), ("models.html", "Models"), ("tasks.html", "Tasks"), ("methods.html", "Methods"))
_FOLDER = Path(__file__).parent
_INDEX_ROWS = 600
_PART_ROWS = 800
_INDEX_TASKS = 6
_MODEL_TASKS = 12
_PART_TABLES = 20
_MOST_HISTORY = 300
_RANKS = (
    "Rank (UB): 1 + the number of variants shown to be better, so variants that are not shown to differ can share it; beside it, all"
    " ranks that are not excluded."
)
_OVER_TASKS = (
    f"Over tasks, a variant is shown to be better by a sign-flip test of win rates over tasks (p < .05, not adjusted); with fewer than {FEWEST_TASKS}"
    " tasks that is impossible. Win rate: share of the other variants with a worse score, mean over tasks; Borda: points for each of"
    f" them. Equal scores count half. Their 95 % intervals resample the tasks: they are coarse under 10 tasks, and left out under {FEWEST_TASKS}."
)
_COSTS = "Costs can be compared within a table only, where they are of one machine."
_STRIPS = (
    "Variants that share a strip are not shown to differ (Holm-adjusted p < .05 over all pairs and tasks of the run); without a common"
    " strip they are shown to differ. That is not “equal”, and strips overlap. Variants are compared within a run."
)
_TYPES = {
    ".html": "text/html; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
}

_OF_MODELS = ("other prompts", "another chat template")
"""Differences of protocol that every two models have."""

Group = dict[str, Any]
TaskKey = tuple[str, str]
"""A task and its headline."""


def content_type(name: str) -> str:
    """The media type of a file of a board."""
    return _TYPES.get(Path(name).suffix, "text/plain; charset=utf-8")


def board_pages(runs: Sequence[Run], *, title: str = "harness board", left_out: int = 0) -> Iterator[tuple[str, bytes]]:
    """Generates the files of a board: name and content.

    Args:
        runs: The runs, newest first.
        title: Heading of the index.
        left_out: Number of runs that could not be read; the pages say it.
    """
    site = _Site(board_models(runs), title, len(runs), left_out)
    for name, text in site.files():
        yield name, text.encode()


def write_board(pages: Iterator[tuple[str, bytes]], out: Path) -> int:
    """Writes a board, in place of an earlier one in the same folder.

    Returns:
        The number of files.

    Raises:
        UserError: The folder has other files, or cannot be written.
    """
    hint = "choose another folder with `--out`"
    if out.exists() and not out.is_dir():
        raise UserError(f"`{out}` is not a folder", hint=hint)
    before = _manifest(out)
    if before is None and out.is_dir() and any(not path.name.startswith(".") for path in out.iterdir()):
        raise UserError(f"`{out}` has files that are not of a board", hint="choose an empty or new folder with `--out`")
    names = []
    with writing(out, hint=hint):
        out.mkdir(parents=True, exist_ok=True)
        for name, content in pages:
            _replace(out / name, content)
            names.append(name)
        for name in set(before or ()) - {*names, MANIFEST}:
            (out / name).unlink(missing_ok=True)
        _replace(out / MANIFEST, (json.dumps({"board": 1, "files": sorted(names)}, indent=1) + "\n").encode())
    return len(names)


def _replace(path: Path, content: bytes) -> None:
    """Writes a file that can be made again: whole or not, but not synced; 1,000 runs have thousands."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        temporary.write_bytes(content)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def _manifest(out: Path) -> list[str] | None:
    """The files of the board in a folder; None if there is none."""
    try:
        found = json.loads((out / MANIFEST).read_text(encoding="utf-8"))
        names = found["files"] if found["board"] == 1 else None
    except (OSError, ValueError, LookupError, TypeError):
        return None
    if not isinstance(names, list):
        return None
    return [name for name in names if isinstance(name, str) and re.fullmatch(r"\.?[A-Za-z0-9][A-Za-z0-9._-]*", name)]


def _first_score(table: BoardRun, key: TaskKey) -> Score | None:
    return next((score for variant in table.run.variants if (score := variant.score(*key))), None)


def _details(table: BoardRun) -> dict[str, Any]:
    """Scores and costs of a run, for the page of its model."""
    return {
        "rows": table.rows, "columns": table.columns, "about": f"{table.machine}, {table.run.created[:10]}",
        "lead": lead(table.rows), "costs": cost_tables([table.rows]), "tests": tests_of(table),
        "dense": len(table.rows.rows) > DENSE_ABOVE,
    }  # fmt: skip


@dataclass
class _Site:
    """The pages of a board, which link to each other."""

    models: list[BoardModel]
    title: str
    runs: int
    left_out: int
    taken: set[str] = field(default_factory=set)

    def _page(self, kind: str, text: str) -> str:
        """A name for a page that no other page has, also where upper and lower case are the same."""
        stem = re.sub(r"\.+", ".", f"{kind}-{slug(text).lower()}")
        return self._free(stem, f"{stem}.html")

    def _free(self, stem: str, name: str) -> str:
        number = 2
        while name in self.taken:
            name, number = f"{stem}.{number}.html", number + 1
        self.taken.add(name)
        return name

    def _links(self, page: str, parts: int) -> list[tuple[str, str]]:
        """The names of a page's parts, with their numbers."""
        stem = page.removesuffix(".html")
        more = (self._free(f"{stem}-{number}", f"{stem}-{number}.html") for number in range(2, parts + 1))
        return [(name, str(number)) for number, name in enumerate((page, *more), 1)]

    @cached_property
    def model_pages(self) -> list[str]:
        return [self._page("model", model.name) for model in self.models]

    @cached_property
    def tables(self) -> list[tuple[str, BoardModel, BoardRun]]:
        return [
            (page, model, t) for page, model in zip(self.model_pages, self.models, strict=True) for t in model.tables
        ]

    @cached_property
    def task_tables(self) -> dict[TaskKey, list[tuple[str, BoardModel, BoardRun, PageColumn]]]:
        found: dict[TaskKey, list[tuple[str, BoardModel, BoardRun, PageColumn]]] = {}
        for page, model, table in self.tables:
            for column in table.columns:
                found.setdefault((column.task, column.metric), []).append((page, model, table, column))
        return found

    @cached_property
    def task_titles(self) -> dict[TaskKey, str]:
        """Names for readers, each once."""
        first = {key: found[0][3].title for key, found in self.task_tables.items()}
        times = Counter(first.values())
        named = {key: title if times[title] == 1 else f"{title} ({key[1]})" for key, title in first.items()}
        seen: Counter[str] = Counter()
        for key, title in named.items():
            seen[title] += 1
            if seen[title] > 1:
                named[key] = f"{title}, {seen[title]}"
        return named

    @cached_property
    def task_pages(self) -> dict[TaskKey, str]:
        return {key: self._page("task", f"{key[0]} {key[1]}") for key in self.task_tables}

    @cached_property
    def methods(self) -> dict[str, str]:
        """The page of each method."""
        names = {row.variant.method for _, _, table in self.tables for row in table.rows.rows}
        return {name: self._page("method", name) for name in sorted(filter(None, names))}

    def files(self) -> Iterator[tuple[str, str]]:
        yield "board.css", self._style()
        yield "board.js", (_FOLDER / "board.js").read_text(encoding="utf-8")
        yield "names.js", f"window.boardNames = {drawing.script_json(self._names())};\n"
        yield ".nojekyll", ""
        yield "README.md", self._card()
        yield self._index()
        yield from self._lists()
        for page, model in zip(self.model_pages, self.models, strict=True):
            yield from self._model(page, model)
        for key in self.task_tables:
            yield from self._task(key)
        for method, page in self.methods.items():
            yield from self._method(method, page)

    def _style(self) -> str:
        variables = self._environment.get_template("head.html").module.variables(drawing.TOKENS)
        parts = [(_FOLDER / name).read_text(encoding="utf-8") for name in ("page.css", "board.css")]
        return "\n".join([str(variables), *parts])

    def _card(self) -> str:
        """The card of a static Space; GitHub shows it as the folder's page."""
        title = json.dumps(printable(self.title)[:100], ensure_ascii=False)
        return (
            f"---\ntitle: {title}\nsdk: static\napp_file: index.html\npinned: false\n---\n\n"
            f"Open `index.html`. Made by `harness board` from {counted(self.runs, 'run')} of {counted(len(self.models), 'model')}.\n"
        )

    def _names(self) -> list[list[str]]:
        found = []
        for page, model in zip(self.model_pages, self.models, strict=True):
            words = dict.fromkeys(variant.name for run in model.current for variant in run.variants)
            found.append(["model", model.name, " ".join(words)[:1000], page])
        found += [["task", title, "", self.task_pages[key]] for key, title in self.task_titles.items()]
        return found + [["method", name, "", page] for name, page in self.methods.items()]

    @cached_property
    def _environment(self) -> Any:
        return template_environment()

    @cached_property
    def _template(self) -> Any:
        return self._environment.get_template("board.html")

    def _render(self, name: str, kind: str, heading: str, words: str, **given: Any) -> tuple[str, str]:
        none_read = self.left_out and f"; {counted(self.left_out, 'further run')} could not be read"
        context = {
            "name": name, "kind": kind, "heading": heading, "lead": words, "board": self.title, "contents": CONTENTS,
            "current": name, "kicker": "Board", "notes": (), "groups": (), "columns": (), "parts": (), "legend": (),
            "footer": f"Made by harness board from {counted(self.runs, 'run')}{none_read or ''}.",
        } | given  # fmt: skip
        return name, self._template.render(context)

    def _column(self, key: TaskKey) -> dict[str, str]:
        return {"page": self.task_pages[key], "title": self.task_titles[key]}

    def _group(self, page: str, model: BoardModel, table: BoardRun, rows: Sequence[Any], **more: Any) -> Group:
        about = f"{table.machine}, {table.run.created[:10]}"
        return {"label": model.name, "page": page, "about": about, "rows": rows, "more": "", **more}

    def _index(self) -> tuple[str, str]:
        times = Counter((column.task, column.metric) for _, _, table in self.tables for column in table.columns)
        shown = [key for key, _ in times.most_common(_INDEX_TASKS)]
        most = max(2, _INDEX_ROWS // max(1, len(self.tables)))
        groups = []
        for page, model, table in self.tables:
            rows = order_rows(table, shown, places_of=most)
            left = len(table.rows.rows) - len(rows)
            more = f"and {counted(left, 'more variant')} of this model" if left else ""
            groups.append(self._group(page, model, table, rows, more=more))
        variants = sum(len(table.rows.rows) for _, _, table in self.tables)
        left = len(times) - len(shown)
        words = (
            f"{counted(variants, 'variant')} of {counted(len(self.models), 'model')} on {counted(len(times), 'task')}. A row is a way of"
            " fine-tuning; variants are compared within a run, on the same samples."
        )
        notes = [f"Of {len(times)} tasks, the {len(shown)} that most models have are columns here."] if left else []
        columns = [self._column(key) for key in shown]
        return self._render("index.html", "index", self.title, words, groups=groups, columns=columns, notes=notes,
                            legend=(_RANKS, _OVER_TASKS, _COSTS))  # fmt: skip

    def _lists(self) -> Iterator[tuple[str, str]]:
        rows: list[tuple[str, str, tuple[Any, ...]]] = []
        for page, model in zip(self.model_pages, self.models, strict=True):
            variants = sum(len(table.rows.rows) for table in model.tables)
            taken = dict.fromkeys(name for table in model.tables for name in lead(table.rows).choices)
            rows.append((page, model.name, (len(model.runs), variants, len({c.task for c in model.columns}),
                                            a_few(list(taken), 3) or "-", model.runs[0].created[:10])))  # fmt: skip
        heads: tuple[str, ...] = ("model", "runs", "variants", "tasks", "take", "newest run")
        yield self._render("models.html", "list", "Models", "Each model with its runs.", heads=heads, rows=rows)
        tasks = [
            (self.task_pages[key], self.task_titles[key],
             (found[0][3].heading, len({page for page, *_ in found}), sum(len(t.rows.rows) for _, _, t, _ in found)))
            for key, found in sorted(self.task_tables.items(), key=lambda each: self.task_titles[each[0]])
        ]  # fmt: skip
        heads = ("task", "metric", "models", "variants")
        yield self._render("tasks.html", "list", "Tasks", "Each task by its headline metric.", heads=heads, rows=tasks)
        methods = [
            (page, name, (len({p for p, _, t in self.tables if any(r.variant.method == name for r in t.rows.rows)}),))
            for name, page in self.methods.items()
        ]
        words = "What each method gained, model by model."
        yield self._render("methods.html", "list", "Methods", words, heads=("method", "models"), rows=methods)

    def _model(self, page: str, model: BoardModel) -> Iterator[tuple[str, str]]:
        keys = list(dict.fromkeys((column.task, column.metric) for table in model.tables for column in table.columns))
        shown = keys[:_MODEL_TASKS]
        history, left = model.history[:_MOST_HISTORY], len(model.history) - _MOST_HISTORY
        variants = sum(len(table.rows.rows) for table in model.tables)
        words = (
            f"{counted(variants, 'variant')} on {counted(len(keys), 'task')}, from {counted(len(model.runs), 'run')}."
        )
        notes = [f"Ranks are shown for the first {len(shown)} of {len(keys)} tasks."] if len(shown) < len(keys) else []
        starts = range(0, max(1, len(model.tables)), _PART_TABLES)
        links = self._links(page, len(starts))
        for (name, _), start in zip(links, starts, strict=True):
            part = model.tables[start : start + _PART_TABLES]
            yield self._render(
                name, "model", model.name, words, kicker="Model", notes=notes, tables=list(map(_details, part)),
                parts=links if len(links) > 1 else (), history=() if start else history,
                history_left=f"{left} more are left out." if left > 0 else "",
                groups=[self._group("", model, table, order_rows(table, shown)) for table in part],
                columns=[self._column(key) for key in shown], legend=(_RANKS, _OVER_TASKS, _COSTS),
            )  # fmt: skip

    def _task(self, key: TaskKey) -> Iterator[tuple[str, str]]:
        found = self.task_tables[key]
        groups = []
        reference = _first_score(found[0][2], key)
        for page, model, table, column in found:
            mine = _first_score(table, key)
            unlike = differences(mine, reference) if mine and reference else []
            words = ", ".join(each for each in unlike if each not in _OF_MODELS)
            groups.append(self._group(page, model, table, task_rows(table, column), unlike=words))
        first = found[0][3]
        words = f"{first.heading}, {first.about}. {counted(len({page for page, *_ in found}), 'model')}."
        yield from self._parts(self.task_pages[key], "task", self.task_titles[key], words, groups, kicker="Task",
                               legend=(_STRIPS, _RANKS))  # fmt: skip

    def _method(self, method: str, page: str) -> Iterator[tuple[str, str]]:
        groups, gained = [], []
        for model_page, model, table in self.tables:
            if rows := order_rows(table, (), method=method):
                groups.append(self._group(model_page, model, table, rows))
                gained += [(model_page, model.name, tuple(gain)) for gain in gain_rows(table, method)]
        words = "Mean differences from the baseline of each run in points, on tasks that were trained for and on others, with 95 % intervals."
        heads = ("model", "variant", "trained tasks", "other tasks")
        legend = (_RANKS, _OVER_TASKS, _COSTS)
        yield from self._parts(
            page, "gains", method, words, groups, kicker="Method", heads=heads, rows=gained, legend=legend
        )

    def _parts(
        self, page: str, kind: str, heading: str, words: str, groups: Sequence[Group], **given: Any
    ) -> Iterator[tuple[str, str]]:
        """One page, or several if there are many rows."""
        parts: list[list[Group]] = [[]]
        count = 0
        for group in groups:
            if count and count + len(group["rows"]) > _PART_ROWS:
                parts.append([])
                count = 0
            parts[-1].append(group)
            count += len(group["rows"])
        links = self._links(page, len(parts))
        for (name, _), part in zip(links, parts, strict=True):
            more: Mapping[str, Any] = given
            if "rows" in given:
                here = {group["page"] for group in part}
                more = {**given, "rows": [row for row in given["rows"] if row[0] in here]}
            yield self._render(name, kind, heading, words, groups=part, parts=links if len(links) > 1 else (), **more)
