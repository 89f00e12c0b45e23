"""The outcome of a benchmark row: whether scores agree, its line in the table, and the page that keeps the lines."""

from __future__ import annotations

import datetime
import importlib.metadata
import os
import platform
import re
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

RELATIVE = 1e-5
"""Largest relative distance of two float32 log-likelihoods of the same tokens."""
_MIB = 1 << 20
_HEAD = (
    "row",
    "work",
    "model",
    "lm_eval wall (batch)",
    "ours wall",
    "wall",
    "CPU s",
    "whole process",
    "vLLM: CPU s, ratio, texts",
    "peak memory over model: lm_eval / ours",
    "tokens fed: lm_eval / ours (needed)",
    "of GEMM peak",
    "scores",
)


@dataclass(frozen=True)
class Agreement:
    """A comparison of two sides' scores."""

    count: int
    largest: float
    """Largest relative distance of log-likelihoods."""
    wrong: int
    """Questions with a different argmax, greedy mark or text, or with log-likelihoods too far apart."""
    others: int = 0
    """Questions with a different argmax or text."""

    @property
    def equal(self) -> bool:
        """Whether every score equals the peer's."""
        return not self.wrong


@dataclass
class Outcome:
    """The measured numbers of one row; empty for a side that did not run."""

    name: str
    model: str
    work: str
    ours: dict[str, Any] = field(default_factory=dict)
    peer: dict[str, Any] = field(default_factory=dict)
    agreement: Agreement | None = None
    vllm: dict[str, Any] = field(default_factory=dict)
    vllm_agreement: Agreement | None = None
    exact: bool = True
    """Whether equal scores are expected: in float32."""
    error: str = ""
    """Output of the process that failed."""

    @property
    def equal(self) -> bool:
        """Whether all peers that ran have our scores."""
        return all(found is None or found.equal for found in (self.agreement, self.vllm_agreement))

    def line(self) -> str:
        """The row in Markdown."""
        ours, peer = self.ours, self.peer
        if self.error:
            return f"{self.name} FAILED: {self.error}"
        if "wall" not in ours:
            cells = [f"`{self.name}`", self.work, self.model, "", _growth(ours)]
            return "| " + " | ".join(cells + [""] * (len(_HEAD) - len(cells))) + " |"
        cells = [
            f"`{self.name}`",
            self.work,
            self.model,
            f"{peer['wall']:.1f} s ({peer['batch']})" if peer else "not installed",
            f"{ours['wall']:.1f} s" + (f", {ours['planning']:.1f} before the first pass" if "planning" in ours else ""),
            _ratio(peer, ours, "wall"),
            _ratio(peer, ours, "cpu"),
            _ratio(peer, ours, "process"),
            self._vllm_cell(),
            " / ".join(f"{side['peak_bytes'] / _MIB:,.0f}" for side in (peer, ours) if side)
            + f" MiB, {_ratio(peer, ours, 'peak_bytes')}",
            _tokens(ours, peer),
            f"{ours['flop'] / ours['wall'] / ours['gemm']:.0%}" if "gemm" in ours and self.exact else "",
            _verdict(self.agreement, self.exact),
        ]
        notes = "; ".join(ours.get("notes", ()))
        return "| " + " | ".join(cells) + " |" + (f"\n\n{self.name}: {notes}\n" if notes else "")

    def _vllm_cell(self) -> str:
        side = self.vllm
        if not side:
            return ""
        verdict = _verdict(self.vllm_agreement, self.exact)
        return f"{side['cpu']:.1f}, {side['start_cpu']:.0f} to start, {_ratio(side, self.ours, 'cpu', 2)}, {verdict}"


def agreement(ours: Sequence[Any], theirs: Sequence[Any]) -> Agreement:
    """Compares `[loglikelihoods, is_greedy, texts]` of every question.

    Raises:
        AssertionError: The numbers of questions or choices differ.
    """
    assert len(ours) == len(theirs), f"{len(ours)} questions against {len(theirs)}"
    largest, wrong, others = 0.0, 0, 0
    for (mine, greedy, texts), (other, peer_greedy, peer_texts) in zip(ours, theirs, strict=True):
        apart = max((abs(a - b) / max(abs(b), 1e-9) for a, b in zip(mine, other, strict=True)), default=0.0)
        largest = max(largest, apart)
        marks = not peer_greedy or list(greedy) == list(peer_greedy)  # lm_eval has none for rolling scores
        same = list(texts) == list(peer_texts) and (not mine or _argmax(mine) == _argmax(other))
        others += not same
        wrong += not (same and marks and apart <= RELATIVE)
    return Agreement(len(ours), largest, wrong, others)


def write_results(
    path: Path, outcomes: Sequence[Outcome], size: str, threads: int, peer_versions: dict[str, str]
) -> None:
    """Writes the table; lines of rows that did not run stay, if commit, machine, versions and size are the same."""
    peak = max((outcome.ours.get("gemm", 0.0) for outcome in outcomes), default=0.0)
    how = [
        commit_line(),
        *machine(threads),
        f"- Peers: {', '.join(f'{k} {v}' for k, v in peer_versions.items()) or 'not installed'}",
        f"- Size: {size}",
    ]
    old = path.read_text(encoding="utf-8") if path.is_file() else ""
    table, mark, behind = old.partition("\n## ")  # sections that other scripts write
    kept: dict[str, str] = {}
    if "\n".join(how) in table:
        kept = {match[1]: match[0] for match in re.finditer(r"^\| `([\w-]+)` \|.*$", table, re.MULTILINE)}
    outcomes = [outcome for outcome in outcomes if not outcome.error]
    lines = {outcome.name: outcome.line().split("\n")[0] for outcome in outcomes}
    notes = [line for outcome in outcomes for line in outcome.line().split("\n")[1:] if line]
    tries = [
        f"- {o.name}: CPU s of lm_eval a question by batch size: "
        + ", ".join(f"{batch} {seconds:.3f}" for batch, seconds in o.peer["tried"].items())
        for o in outcomes
        if o.peer.get("tried")
    ]
    today = datetime.datetime.now(datetime.UTC).date()
    text = [
        "# Beside lm-evaluation-harness",
        "",
        f"Written by `make bench` on {today}.",
        "",
        *how,
        f"- GEMM peak: {peak / 1e9:.0f} GFLOP/s, measured in the same processes" if peak else "",
        "",
        _EXPLAINED,
        "| " + " | ".join(_HEAD) + " |",
        "|" + " --- |" * len(_HEAD),
        *(kept | lines).values(),
        "",
        *tries,
        *(f"- {note}" for note in notes),
        "",
    ]
    path.write_text("\n".join(text) + mark + behind, encoding="utf-8")


_EXPLAINED = """Models are random (seed 0): s8k is 8 layers of 512, 8 heads of which 4 for keys, a body of 23.6 M; m128k is
SmolLM2-135M's shape with a vocabulary of 131,072; q151 is Qwen3's with 6 layers of 384 and its vocabulary of 151,936, tied; qwen3 and gpt2
are as large as s8k. Each side of a row is a fresh process; `wall` and
`CPU s` measure the scoring call, after the model was loaded and run once, with our self-check of the fast path; `whole process`
adds imports and loading. Ratios are lm_eval over ours, and vLLM over ours. lm_eval has the best of the batch sizes that are listed below,
each tried in a process of its own: where it scores, on an eighth of the rows, where it generates, on all. The size is in brackets.
vLLM runs in process, eagerly, with prefix caching; its time to start is apart. glibc keeps freed memory for all sides, as `harness` asks it
to for its own processes (MALLOC_MMAP_THRESHOLD_, MALLOC_TRIM_THRESHOLD_). Scores in bfloat16 differ between engines; those alike are counted.
Tokens fed are counted at the model's input on both sides, padding included; needed counts every distinct prefix once. The share
of the GEMM peak counts layers, head and attention to visible tokens, not masked ones. GSM8K: the shots are those that the task draws for each
question, as people run it, or the same for all (`--shared-shots`, another protocol). A random model never stops, so
a text ends with as many tokens as its true answer has (at most 256); ours then frees its slot, while lm_eval's batch runs until
its longest row ends, as usual. Memory of whole processes is that of the largest process, weights and code included.
"""


def machine(threads: int) -> list[str]:
    """Lines that name the machine and our versions, on which the numbers depend."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / (1 << 30)
    names = ("torch", "transformers", "tokenizers", "peft")
    versions = ", ".join(f"{name} {importlib.metadata.version(name)}" for name in names)
    cores = f"{os.cpu_count()} logical cores, {memory:.0f} GiB; {threads} thread{'s' * (threads > 1)}"
    return [
        f"- Machine: {processor()}, {cores}; float32; rows that differ say so",
        f"- Ours: Python {platform.python_version()}, {versions}",
    ]


_CODE = (":/harness", ":/finetune", ":/tasks", ":/tests/perf", ":(top,exclude)tests/perf/*.md")
"""What decides a measurement; the pages themselves do not."""


def commit() -> str:
    """The last commit that changed what is measured, with a `+` if it was changed since."""

    def git(*arguments: str) -> str:
        done = subprocess.run(
            ["git", *arguments], cwd=Path(__file__).parent, capture_output=True, text=True, check=False
        )
        return done.stdout.strip()

    last = git("log", "-1", "--first-parent", "-m", "--format=%h", "--", *_CODE)
    return (last or "unknown") + "+" * bool(git("status", "--short", "--", *_CODE))


def commit_line() -> str:
    """The line of a page that names the commit of all its rows."""
    return f"- Commit: {commit()}, for all rows"


def refuse_a_mixture(page: str, whole: bool) -> None:
    """Ends the program if its rows would be of no commit, or of another one than the rows that stay.

    Args:
        page: The page, or the section of a page, as it is.
        whole: Whether all rows run, so that none stays.
    """
    if commit().endswith("+"):
        raise SystemExit("the code has changes that are not committed: commit them first, or write to `--results FILE`")
    if not whole and commit_line() not in page:
        raise SystemExit("the other rows are of another commit: run all rows, or write to `--results FILE`")


def processor() -> str:
    """Name of the processor."""
    cpuinfo = Path("/proc/cpuinfo")
    for line in cpuinfo.read_text().splitlines() if cpuinfo.is_file() else ():
        if line.startswith("model name"):
            return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()


def _argmax(values: Sequence[float]) -> int:
    return max(range(len(values)), key=values.__getitem__)


def _ratio(peer: dict[str, Any], ours: dict[str, Any], key: str, digits: int = 1) -> str:
    return f"×{peer[key] / max(ours[key], 1e-9):.{digits}f}" if peer else "–"


def _tokens(ours: dict[str, Any], peer: dict[str, Any]) -> str:
    if "fed" not in ours:
        return ""
    theirs = f"{peer['fed']:,} / " if peer else ""
    return f"{theirs}{ours['fed']:,} ({ours['needed']:,})"


def _verdict(found: Agreement | None, exact: bool) -> str:
    if found is None:
        return "–"
    if not exact:
        return f"{found.count - found.others} of {found.count} alike, {found.largest:.0e}"
    if found.wrong:
        return f"{found.wrong} of {found.count} DIFFER, {found.largest:.0e}"
    return f"{found.count} equal, {found.largest:.0e}"


def _growth(ours: dict[str, Any]) -> str:
    if "steps" in ours:
        return "; ".join(
            f"{count:,}: {encode + plan + run:.2f} s (encode {encode:.2f}, plan {plan:.2f}, run {run:.2f})"
            for count, encode, plan, run in ours["steps"]
        )
    return "; ".join(f"{number}: {seconds:.1f} s" for number, seconds in enumerate(ours["seconds"], 1))
