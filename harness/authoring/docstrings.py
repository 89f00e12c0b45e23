r"""Reads the docstrings of task files, without importing the files.

The docstring of a task file begins with `NAME: one sentence.` and has a line for each field that applies: `Dataset`,
`Paper`, `Protocol`, `Chance`, and an `Example` with one prompt and its answer. Metrics and shots are read from the call of
`Task`. Run as a program, this module prints the table of tasks/README.md, or writes it into the file given as argument.

Example:
    >>> doc = parse("GSM8K: sums in words.\n\nDataset: https://x.org/gsm8k (test 1,319 rows), MIT licence.\n\nExample:\n    6 * 7 = 42\n")
    >>> doc.name, doc.summary, doc.url, doc.licence, doc.example
    ('GSM8K', 'Sums in words.', 'https://x.org/gsm8k', 'MIT', '6 * 7 = 42')
"""

from __future__ import annotations

import ast
import functools
import inspect
import re
import sys
import tokenize
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness.registry.find import list_entries
from harness.registry.scan import Entry, scan
from harness.storage import write_whole

FIELDS = ("Dataset", "Paper", "Protocol", "Chance", "Example")
BEGIN, END = (
    "<!-- the table is written by `python -m harness.authoring.docstrings tasks/README.md` -->",
    "<!-- end of the table -->",
)
_FIELD = re.compile(rf"^({'|'.join(FIELDS)}):[ \t]*", re.MULTILINE)
_LICENCE = re.compile(r",\s+([^,()]+?)\s+licen[cs]e\b")
_URL = re.compile(r"https?://[^\s,)]+")
_NO_CODE = (tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT, tokenize.ENDMARKER)


@dataclass(frozen=True)
class TaskDoc:
    """The fields of a task file's docstring; a missing field is empty."""

    name: str = ""
    summary: str = ""
    dataset: str = ""
    paper: str = ""
    protocol: str = ""
    chance: str = ""
    example: str = ""
    """The lines as written, without their common indent."""

    @property
    def url(self) -> str:
        """The address of the dataset."""
        found = _URL.search(self.dataset)
        return found[0].rstrip(".") if found else ""

    @property
    def licence(self) -> str:
        """The licence of the dataset, such as `MIT`."""
        found = _LICENCE.search(self.dataset)
        return found[1] if found else ""

    @property
    def missing(self) -> tuple[str, ...]:
        """The fields that are missing, of those that every built-in task must have."""
        required = ("name", "summary", "dataset", "paper", "protocol", "example")
        return tuple(field for field in required if not getattr(self, field))


@dataclass(frozen=True)
class Design:
    """The arguments of `Task(…)` in a file, as far as the source text shows them."""

    metrics: tuple[str, ...] = ()
    """Names, the headline first; other expressions as written."""
    shots: str = "0"
    """A number, or an expression as written."""
    has_train: bool = False


def parse(docstring: str) -> TaskDoc:
    """Parses a docstring. A field ends at an empty line or the next field; `Example` ends with the docstring."""
    text = inspect.cleandoc(docstring)
    first, _, rest = text.partition("\n")
    name, colon, sentence = first.partition(": ")
    fields: dict[str, Any] = {}
    starts = list(_FIELD.finditer(rest))
    ends = [match.start() for match in starts[1:]] + [len(rest)]
    for match, end in zip(starts, ends, strict=False):
        value = rest[match.end() : end]
        if match[1] == "Example":
            fields["example"] = inspect.cleandoc(value)
        else:
            fields[match[1].lower()] = " ".join(value.partition("\n\n")[0].split())
    summary = " ".join((sentence if colon else first).split())
    return TaskDoc(name if colon else "", summary[:1].upper() + summary[1:], **fields)


def doc_of(entry: Entry) -> TaskDoc:
    """The docstring of the file that defines a task."""
    return parse(ast.get_docstring(_tree(entry.path)) or "")


def design_of(entry: Entry) -> Design:
    """Metrics, shots and training rows of a task, read from its `Task(…)`, which may be in a function that it calls."""
    functions = {node.name: node for node in _tree(entry.path).body if isinstance(node, ast.FunctionDef)}
    values: dict[str, Any] = {parameter.name: parameter.default for parameter in entry.parameters}
    known = {other.attribute: other.name for other in scan(entry.path) if other.kind == "metric"}
    function = functions.get(entry.attribute)
    while function is not None and not (task := next(_calls(function, "Task"), None)):
        helper = next((call for call in _calls(function) if ast.unparse(call.func) in functions), None)
        function = functions.pop(ast.unparse(helper.func)) if helper else None
        if helper and function:
            given = dict(zip([each.arg for each in function.args.args], helper.args, strict=False))
            given |= {str(keyword.arg): keyword.value for keyword in helper.keywords}
            defaults = zip(function.args.args[::-1], function.args.defaults[::-1], strict=False)
            left = {each.arg: default for each, default in defaults if each.arg not in given}
            values |= {name: default.value for name, default in left.items() if isinstance(default, ast.Constant)}
            known |= {name: _written(value, known, values) for name, value in given.items()}
    if function is None or task is None:
        return Design()
    options = {keyword.arg: keyword.value for keyword in task.keywords}
    metrics = options.get("metrics", task.args[2] if len(task.args) > 2 else None)
    local = {ast.unparse(node.targets[0]): node.value for node in ast.walk(function) if isinstance(node, ast.Assign)}
    return Design(
        metrics=_names(_by_default(metrics, local, values), known, values),
        shots=_written(options["shots"], known, values) if "shots" in options else "0",
        has_train="train" in options,
    )


def facts(entry: Entry) -> dict[str, Any]:
    """All facts about a task that need no import, in the form that `harness ls tasks --format json` prints."""
    doc, design = doc_of(entry), design_of(entry)
    return {
        "name": entry.name,
        "summary": entry.summary or doc.summary,
        "file": str(entry.path),
        "distribution": entry.distribution,
        "title": doc.name,
        "dataset": doc.dataset,
        "url": doc.url,
        "licence": doc.licence,
        "paper": doc.paper,
        "protocol": doc.protocol,
        "chance": doc.chance,
        "example": doc.example,
        "metrics": list(design.metrics),
        "shots": int(design.shots) if design.shots.isdigit() else design.shots,
        "trains": design.has_train,
        "parameters": {parameter.name: parameter.default for parameter in entry.parameters},
        "lines": lines_of_code(entry.path),
    }


def lines_of_code(path: Path) -> int:
    """Number of lines with code, not counting blank lines, comments and docstrings."""
    docstrings = {
        line
        for node in ast.walk(_tree(path))
        if isinstance(node, ast.Module | ast.FunctionDef | ast.ClassDef) and ast.get_docstring(node, clean=False)
        for line in range(node.body[0].lineno, (node.body[0].end_lineno or 0) + 1)
    }
    with path.open("rb") as file:
        code = {
            line
            for token in tokenize.tokenize(file.readline)
            if token.type not in (*_NO_CODE, tokenize.ENCODING)
            for line in range(token.start[0], token.end[0] + 1)
        }
    return len(code - docstrings)


def table(entries: Sequence[Entry]) -> str:
    """The tasks as a Markdown table, with the `mini_*` tasks last."""
    lines = ["| task | what it measures | data | shots | metrics, headline first | lines |", "| --- " * 6 + "|"]
    for entry in sorted(entries, key=lambda entry: (entry.name.startswith("mini_"), entry.name)):
        known = facts(entry)
        data = f"[{_short(known['url'])}]({known['url']})" if known["url"] else "made up" if _made(entry) else "yours"
        licence = f", {known['licence']}" if known["licence"] else ""
        metrics = ", ".join(f"`{name}`" for name in known["metrics"])
        cells = (f"`{entry.name}`", known["summary"], data + licence, known["shots"], metrics, known["lines"])
        lines.append("| " + " | ".join(str(cell).replace("|", "\\|") for cell in cells) + " |")
    return "\n".join(lines)


def with_table(readme: str, entries: Sequence[Entry]) -> str:
    """Replaces the table between the two markers of a README.

    Raises:
        ValueError: The README does not have the markers.
    """
    head, begin, rest = readme.partition(BEGIN)
    _, end, tail = rest.partition(END)
    if not begin or not end:
        raise ValueError(f"the README lacks the lines `{BEGIN}` and `{END}`, between which the table is written")
    return f"{head}{BEGIN}\n{table(entries)}\n{END}{tail}"


def _made(entry: Entry) -> bool:
    return entry.name.startswith("mini_") or doc_of(entry).dataset.lower().startswith("generated")


def _short(url: str) -> str:
    return url.removeprefix("https://").removeprefix("huggingface.co/").removeprefix("datasets/").rstrip("/")


@functools.lru_cache(maxsize=512)
def _tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


def _calls(tree: ast.AST, name: str = "") -> Iterator[ast.Call]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and (not name or ast.unparse(node.func).rpartition(".")[2] == name):
            yield node


def _by_default(node: ast.expr | None, local: Mapping[str, ast.expr], values: Mapping[str, Any]) -> ast.expr | None:
    """Resolves an expression with every parameter at its default: `[a] if given else [b]`, or a local name for one."""
    match node:
        case ast.IfExp(test=ast.Name(id=name), body=given, orelse=other) if name in values:
            return _by_default(given if values[name] else other, local, values)
        case ast.Name(id=name) if name in local:
            return _by_default(local[name], {other: local[other] for other in local if other != name}, values)
    return node


def _names(node: ast.expr | None, known: Mapping[str, str], values: Mapping[str, Any]) -> tuple[str, ...]:
    """The metrics of a task; for `[f"pass@{each}" for each in k]`, from the default of `k`."""
    match node:
        case None:
            return ()
        case ast.List(elts=each) | ast.Tuple(elts=each):
            return tuple(_written(metric, known, values) for metric in each)
        case ast.ListComp(
            elt=ast.JoinedStr(values=[ast.Constant(value=str(head)), ast.FormattedValue(value=ast.Name(id=used))]),
            generators=[ast.comprehension(target=ast.Name(id=each), iter=ast.Name(id=source))],
        ) if used == each and isinstance(values.get(source), list | tuple):
            return tuple(f"{head}{value}" for value in values[source])
    return (_written(node, known, values),)


def _written(node: ast.expr, known: Mapping[str, str], values: Mapping[str, Any]) -> str:
    """The text shown for a metric or a number; a call, which cannot be resolved without running it, becomes `name(…)`."""
    match node:
        case ast.Constant(value=value):
            return str(value)
        case ast.Name(id=name):
            return known.get(name) or str(values.get(name, name))
        case ast.Call(func=ast.Name(id="Metric"), args=[ast.Constant(value=name), *_]):
            return str(name)
        case ast.Call(func=function):
            return f"{ast.unparse(function)}(…)"
        case ast.Starred(value=value):
            return _written(value, known, values)
    return ast.unparse(node)


def main(arguments: Sequence[str]) -> None:
    """Prints the table of the built-in tasks, or writes it into the README given as argument."""
    entries = [entry for entry in list_entries("task") if entry.distribution is None]
    if arguments:
        readme = Path(arguments[0])
        write_whole(readme, with_table(readme.read_text(encoding="utf-8"), entries))
    else:
        sys.stdout.write(table(entries) + "\n")


if __name__ == "__main__":
    main(sys.argv[1:])
