"""The page with the results of the tests on real models: README.md, one section for each kind of test."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any


class Page:
    """Sections of README.md by title; each test that fills one replaces it, and leaves the others as they are."""

    def __init__(self, file: Path) -> None:
        self.file = file

    def write(self, title: str, lines: list[str]) -> None:
        """Replaces the text below a heading."""
        head, heading, rest = self.file.read_text(encoding="utf-8").partition(f"\n## {title}\n")
        assert heading, f"{self.file} has no section {title}"
        _, following, after = rest.partition("\n## ")
        self.file.write_text(
            head + heading + "\n" + "\n".join(lines).strip() + "\n" + following + after, encoding="utf-8"
        )


class Previews:
    """Compares token ids of previews with transformers' own, and counts the equal ones by template and kind."""

    def __init__(self) -> None:
        self.counts: dict[tuple[str, str], list[int]] = defaultdict(list)

    def check(self, template: str, kind: str, ours: Sequence[int], theirs: Any) -> None:
        """Asserts that two sequences of ids are equal; transformers wraps its own in a mapping."""
        theirs = theirs["input_ids"] if hasattr(theirs, "keys") else theirs
        assert list(ours) == list(theirs)
        self.counts[template, kind].append(len(ours))

    def table(self) -> list[str]:
        """The counts."""
        kinds = dict.fromkeys(kind for _, kind in self.counts)
        lines = ["Equal sequences, and their token ids:", "", f"| template | {' | '.join(kinds)} |"]
        lines.append("| --- |" + " --: |" * len(kinds))
        for template in dict.fromkeys(name for name, _ in self.counts):
            lengths = [self.counts[template, kind] for kind in kinds]
            lines.append(f"| {template} | " + " | ".join(f"{len(each)}, {sum(each)}" for each in lengths) + " |")
        return lines
